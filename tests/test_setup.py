"""What a new user meets first: requirements, Makefile, README."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from d2pd.config import load_config

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGE_OF_MODULE = {
    "cv2": "opencv-python",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def requirements(name: str) -> list[Requirement]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def imported_packages() -> set[str]:
    """Top-level names that d2pd imports, less Python's own and its own."""
    names = set()
    for path in (ROOT / "d2pd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module or "")
    tops = {name.split(".")[0] for name in names}
    return tops - set(sys.stdlib_module_names) - {"d2pd", "detectron2"}


# Requirements


def test_what_d2pd_imports_is_required():
    required = {requirement.name for requirement in requirements("requirements.txt")}
    comes_along = {"packaging", "pip"}  # of matplotlib; the doctor does without it, by pip's own
    for_export = {"onnxruntime", "onnxscript"}  # `d2pd export` names the line that installs them

    imported = {PACKAGE_OF_MODULE.get(n, n.replace("_", "-")) for n in imported_packages()}

    assert imported - comes_along - for_export <= required
    assert for_export <= {each.name for each in requirements("requirements-dev.txt")}


COLAB = {
    "torch": "2.8.0+cu126",
    "torchvision": "0.23.0+cu126",
    "opencv-python": "4.12.0.88",
    "numpy": "2.0.2",
    "pillow": "11.3.0",
    "pandas": "2.2.2",
    "pyyaml": "6.0.3",
    "easydict": "1.13",
    "matplotlib": "3.10.0",
    "jinja2": "3.1.6",
    "tensorboard": "2.19.0",
    "tqdm": "4.67.1",
    "scikit-learn": "1.6.1",
    "termcolor": "3.1.0",
    "pytest": "8.4.2",
    "nbclient": "0.10.2",
    "nbformat": "5.10.4",
    "ipykernel": "6.17.1",
}
"""Of its runtime 2025.10, as googlecolab/backend-info has it; what is missing there is added."""


def test_nothing_that_colab_has_needs_to_be_replaced():
    wanted = {one.name: one.specifier for one in requirements("requirements.txt")}

    for name, version in COLAB.items():
        assert wanted[name].contains(version), name


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_tested_at_a_version_within_its_range(name):
    pins = {pin.name.lower(): str(pin.specifier) for pin in requirements("constraints.txt")}

    for requirement in requirements(name):
        pin = pins[requirement.name.lower()]
        assert pin.startswith("==")
        assert requirement.specifier.contains(pin.removeprefix("=="), prereleases=True), requirement


def test_the_tested_versions_suit_detectron2_too():
    pins = {pin.name: pin.specifier for pin in requirements("constraints.txt")}
    accepted = {"setuptools": "<81", "iopath": "<0.1.10,>=0.1.7", "fvcore": "<0.1.6,>=0.1.5"}

    for name, wanted in accepted.items():
        version = str(pins[name]).removeprefix("==")
        assert Requirement(name + wanted).specifier.contains(version, prereleases=True), name


# Makefile


def make(*words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    return subprocess.run(["make", *words], cwd=ROOT, capture_output=True, text=True)


def fake_python(folder: Path, version: str) -> Path:
    """A command that answers as a Python of that version would, as far as make asks."""
    path = folder / "python"
    numbers = version.replace(".", ", ")
    path.write_text(
        f"#!/bin/sh\n[ \"$1\" = -V ] && echo 'Python {version}' && exit\n"
        f'exec {sys.executable} -c "import sys; sys.version_info = ({numbers}); $2"\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("version", ["3.9.18", "3.10.13", "3.14.0"])
def test_a_python_too_old_or_too_new_is_refused_with_the_way_out(tmp_path, version):
    python = fake_python(tmp_path, version)

    done = make(str(tmp_path / ".installed"), f"PYTHON={python}")

    assert done.returncode != 0
    assert f"d2pd needs Python 3.11, 3.12 or 3.13 and {python} is Python {version}" in done.stderr
    assert "make PYTHON=python3.12" in done.stderr


def test_a_python_that_is_not_there_is_told(tmp_path):
    done = make(str(tmp_path / ".installed"), "PYTHON=python-of-nowhere")

    assert done.returncode != 0
    assert "no command python-of-nowhere" in done.stderr


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("demo", "train_net.py --config-file configs/quick/faster_rcnn_synthetic.yaml"),
        ("test", "pytest -n auto --dist worksteal"),
        ("test-all", "pytest -n auto --dist worksteal -m ''"),
        ("lint", "ruff check ."),
        ("record-contract", "tests/engine_contract/record.py"),
    ],
)
def test_each_target_installs_and_then_runs(target, command):
    printed = make("--dry-run", "--always-make", target).stdout

    assert "pip install -q -r requirements-dev.txt -c constraints.txt" in printed
    assert printed.index("-c constraints.txt") < printed.index(command)


def test_ci_calls_the_test_command_of_the_readme():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()

    assert lines[-2:] == ["make test", "make test-all"]
    assert re.search(r"^make test\b", README, re.MULTILINE)


# README


def test_every_make_target_of_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    for target in re.findall(r"\bmake ([a-z][a-z-]*)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_file_of_the_project_that_the_readme_names_is_there():
    named = set(re.findall(r"\b(?:configs|notebooks|docs|d2pd|tests)/[\w./-]*\w", README))

    named.remove("configs/mine.yaml")  # the reader's own
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_config_of_one_s_own_labels_in_the_readme_loads(tmp_path):
    (snippet,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    path = tmp_path / "mine.yaml"
    path.write_text(snippet.replace("_BASE_: ", f"_BASE_: {ROOT / 'configs'}/"))

    cfg = load_config(path)

    assert cfg.DATASETS.REGISTER.mine_train.CLASSES == ["person", "cyclist"]
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
