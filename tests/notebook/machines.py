"""A machine as Colab is: a virtual environment with packages that are written by hand."""

import base64
import hashlib
import os
import shutil
import subprocess
import venv
import zipfile
from importlib import metadata
from pathlib import Path

from d2pd.doctor.packages import is_satisfied, requirement_lines

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = {
    "torch": "2.8.0+cu126",
    "torchvision": "0.23.0+cu126",
    "numpy": "2.0.0",
    "opencv-python-headless": "4.10.0.84",
}


class Machine:
    """Its packages are empty, but for what their metadata say, and a ``cv2`` of one line."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=True)
        self.folder = folder
        self.python = str(folder / "bin" / "python")
        self.packages = next(folder.glob("lib/python*/site-packages"))
        copy_package(self.packages, "pip", "pip")
        self.wheels = folder / "wheels"
        self.wheels.mkdir()

    def add(self, name: str, version: str, code: str = "") -> None:
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        module = {"opencv-python-headless": "cv2"}.get(name, name.replace("-", "_"))
        info = self.packages / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (self.packages / f"{module}.py").write_text(code)
        (info / "METADATA").write_text(about)
        (info / "INSTALLER").write_text("pip\n")
        files = [f"{module}.py", f"{info.name}/METADATA", f"{info.name}/RECORD"]
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))

    def add_requirements(self, *, without: str, versions: dict[str, str]) -> None:
        """Add what ``requirements.txt`` asks for at the lowest versions, OpenCV without windows."""
        for line in requirement_lines():
            name, _, lowest = line.split(",")[0].partition(">=")
            if name != without and name != "opencv-python":
                version = versions.get(name, lowest)
                assert name == "numpy" or is_satisfied(version, line)
                self.add(name, version)
        self.add("opencv-python-headless", versions["opencv-python-headless"], "__version__ = '4'")

    def add_wheel(self, name: str, version: str, requires: str = "") -> None:
        """Lay a wheel where pip looks for packages instead of an index."""
        info = f"{name}-{version}.dist-info"
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        files = {
            f"{name}.py": f"VERSION = {version!r}\n",
            f"{info}/METADATA": about + (f"Requires-Dist: {requires}\n" if requires else ""),
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        rows = [f"{path},{_digest(text)},{len(text)}" for path, text in files.items()]
        files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
        path = self.wheels / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for member, text in files.items():
                wheel.writestr(member, text)

    def run(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run code with d2pd and without any network; nothing of this process' pip reaches it."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
        own = {"PYTHONPATH": str(ROOT), "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}
        return subprocess.run(
            [self.python, "-c", code],
            env={**kept, **own, "PIP_FIND_LINKS": self.wheels.as_uri()},
            cwd=self.folder,
            capture_output=True,
            text=True,
        )

    def versions(self) -> dict[str, str]:
        code = "from d2pd.notebook.pip_process import *; print(installed_versions())"
        return eval(self.run(code).stdout)


def _digest(text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    return f"sha256={digest.rstrip(b'=').decode()}"


def copy_package(packages: Path, name: str, *folders: str) -> None:
    """Copy a package of this Python into the folder of another's: quicker than installing it."""
    found = metadata.distribution(name)
    for folder in (*folders, f"{name}-{found.version}.dist-info"):
        shutil.copytree(str(found.locate_file(folder)), packages / folder)
