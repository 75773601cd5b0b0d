"""The requirements of d2pd in a running notebook: what is missing is added, the rest stays."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from d2pd.doctor.packages import (
    OPENCV_PACKAGES,
    REQUIREMENTS,
    ProbeError,
    is_satisfied,
    probe,
    requirement_lines,
)
from d2pd.errors import InstallError, MissingFileError
from d2pd.notebook.pip_process import add_packages, canonical, installed_versions

FRESH = (
    "start with a fresh machine of the latest version (Colab: Runtime > Disconnect and delete "
    "runtime; the version is under Runtime > Change runtime type)"
)
MOST_NAMES = 12


def install_requirements(requirements_file: str | Path = REQUIREMENTS) -> dict[str, str]:
    """Install the lines of a requirements file that are not there, and nothing else.

    No package that is there is replaced, so that the kernel goes on without a restart. OpenCV's
    line is left out where any OpenCV loads.

    Args:
        requirements_file: Lines such as ``torch>=2.8``.

    Returns:
        What is new, name -> version.

    Raises:
        MissingFileError: If there is no such file.
        InstallError: If a version that is there is not one that is required, or pip fails.
    """
    path = Path(requirements_file)
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; name the requirements.txt of d2pd")
    installed = installed_versions()
    lines = [line for line in requirement_lines(path) if not _is_opencv_that_loads(line)]
    _check_versions(lines, installed)
    missing = [line for line in lines if _name(line) not in installed]
    if not missing:
        print("Everything that d2pd needs is there already.")
        return {}
    print(f"To install: {', '.join(missing)}", flush=True)
    new = add_packages(missing, installed, path.name)
    names = [f"{name} {version}" for name, version in sorted(new.items())]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    print(
        f"Installed: {', '.join(names[:MOST_NAMES])}{more}. What was there, {len(installed)} "
        "packages, has stayed as it was: no restart is needed."
    )
    return new


def _is_opencv_that_loads(line: str) -> bool:
    if _name(line) not in OPENCV_PACKAGES:
        return False
    try:
        print(f"OpenCV {probe('cv2')['version']} is there and stays.")
    except ProbeError:
        return False
    return True


def _check_versions(lines: list[str], installed: Mapping[str, str]) -> None:
    """See that what is there already is new enough.

    Raises:
        InstallError: Naming each package that is not, with both ways out.
    """
    wrong = [
        line
        for line in lines
        if _name(line) in installed and not is_satisfied(installed[_name(line)], line)
    ]
    if wrong:
        found = "; ".join(
            f"{_name(line)} {installed[_name(line)]} is installed, d2pd needs {line}"
            for line in wrong
        )
        words = " ".join(shlex.quote(line) for line in wrong)
        raise InstallError(
            f"{found}. Nothing that is installed is replaced, as a running kernel would break: "
            f"{FRESH}; or replace it yourself, `pip install {words}`, restart the session, and run "
            "all cells again"
        )


def _name(line: str) -> str:
    return canonical(re.split(r"[^A-Za-z0-9_.-]", line)[0])
