"""Detectron2 in a notebook: built once for a kind of machine, kept whole, taken from there."""

import sys
import zipfile

import pytest
from machines import Machine, copy_package

from d2pd.engine_state import EngineState
from d2pd.errors import EngineError, InstallError
from d2pd.notebook import detectron2_wheel
from d2pd.notebook.detectron2_wheel import build_tag, cached_wheel, install_detectron2

PYTHON = f"py{sys.version_info.major}{sys.version_info.minor}"
TORCH = """
__version__ = "2.8.0+cu126"
class cuda:
    device_count = staticmethod(lambda: 0)
class version:
    cuda = "12.6"
class backends:
    class mps:
        is_available = staticmethod(lambda: False)
"""
ABSENT, PRESENT = EngineState("absent"), EngineState("present", "0.6", "/there")


def torch_is(monkeypatch, **facts):
    monkeypatch.setattr(detectron2_wheel, "probe", lambda _: facts)


@pytest.mark.parametrize(
    ("cuda", "gpus", "architectures", "tag"),
    [
        ("12.8", ["T4"], ["75"], "torch2.11.0-cu128-sm75"),
        ("12.8", ["T4", "A100"], ["75", "80"], "torch2.11.0-cu128-sm75-sm80"),
        ("12.8", [], [], "torch2.11.0-cpu"),
        (None, [], [], "torch2.11.0-cpu"),
    ],
)
def test_the_tag_names_all_that_a_wheel_fits(monkeypatch, cuda, gpus, architectures, tag):
    torch_is(monkeypatch, version="2.11.0+x", cuda=cuda, gpus=gpus, architectures=architectures)
    assert build_tag() == f"{PYTHON}-{tag}"


def make_wheel(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("detectron2/__init__.py", "x = 1\n" * 100)
    return path


def test_half_a_wheel_is_not_taken_for_whole(tmp_path, capsys):
    whole = make_wheel(tmp_path / "detectron2-0.6-py3-none-any.whl")
    half = tmp_path / "detectron2-0.7-py3-none-any.whl"
    half.write_bytes(whole.read_bytes()[:100])
    assert cached_wheel(tmp_path) == whole
    assert "0.7-py3-none-any.whl is damaged and left aside" in capsys.readouterr().out
    whole.unlink()
    assert cached_wheel(tmp_path) is None
    assert cached_wheel(tmp_path / "absent") is None


@pytest.fixture
def pip(monkeypatch):
    """Stand-ins for pip: ``asked`` has what was built and installed."""
    asked, states = [], [ABSENT, PRESENT]

    def run_pip(words, purpose):
        asked.append(words[0])
        make_wheel(detectron2_wheel.Path(words[words.index("--wheel-dir") + 1]) / "d-1-any.whl")

    monkeypatch.setattr(detectron2_wheel, "find_detectron2", lambda: states.pop(0))
    monkeypatch.setattr(detectron2_wheel, "run_pip", run_pip)
    monkeypatch.setattr(detectron2_wheel, "installed_versions", lambda: {"setuptools": "75.2.0"})
    monkeypatch.setattr(
        detectron2_wheel, "add_packages", lambda words, *_: asked.append(words[-1]) or {}
    )
    torch_is(monkeypatch, version="2.8.0", cuda=None, gpus=[], architectures=[])
    asked_and_states = type("Pip", (), {"asked": asked, "states": states})
    return asked_and_states


def test_a_wheel_that_cannot_be_kept_is_installed_all_the_same(tmp_path, pip, capsys):
    (tmp_path / "wheels").write_text("a file where the folder should be")
    install_detectron2(tmp_path / "wheels")
    assert pip.asked[0] == "wheel"
    assert pip.asked[1].endswith("d-1-any.whl")
    assert "cannot be kept" in capsys.readouterr().out


def test_the_second_session_builds_nothing(tmp_path, pip, capsys):
    install_detectron2(tmp_path / "my wheels")
    pip.states += [ABSENT, PRESENT]
    install_detectron2(tmp_path / "my wheels")
    kept = str(tmp_path / "my wheels" / f"{PYTHON}-torch2.8.0-cpu" / "d-1-any.whl")
    assert pip.asked == ["wheel", kept, kept]
    assert "built in an earlier session" in capsys.readouterr().out


def test_where_detectron2_is_there_nothing_is_done_and_a_shadow_is_told(tmp_path, pip, capsys):
    pip.states[:] = [PRESENT, EngineState("shadowed", detail="/here/detectron2 is a folder")]
    install_detectron2(tmp_path)
    assert "0.6 is there already" in capsys.readouterr().out
    with pytest.raises(EngineError, match="shadowed: /here/detectron2"):
        install_detectron2(tmp_path)
    assert pip.asked == []


@pytest.mark.parametrize("version", ["81.0.0", None])
def test_setuptools_that_cannot_build_it_is_told_with_both_ways_out(
    tmp_path, pip, monkeypatch, version
):
    installed = {"setuptools": version} if version else {}
    monkeypatch.setattr(detectron2_wheel, "installed_versions", lambda: installed)
    with pytest.raises(InstallError, match=r"pip install 'setuptools<81'`.*runs without"):
        install_detectron2(tmp_path)
    assert pip.asked == []


@pytest.mark.slow  # pip builds and installs: half a minute
def test_a_source_is_built_kept_and_installed_and_nothing_else_changes(tmp_path):
    machine = Machine(tmp_path / "machine")
    copy_package(machine.packages, "setuptools", "setuptools", "pkg_resources", "_distutils_hack")
    machine.add("torch", "2.8.0+cu126", TORCH)
    machine.add("numpy", "2.0.0")
    machine.add_wheel("numpy", "99.0")
    machine.add_wheel("iopath", "0.1.9")
    source = tmp_path / "source"
    (source / "detectron2").mkdir(parents=True)
    (source / "detectron2/__init__.py").touch()
    (source / "detectron2/engine.py").touch()
    (source / "setup.py").write_text(
        "import pkg_resources, setuptools, torch\n"
        "setuptools.setup(name='detectron2', version='0.6', packages=['detectron2'],\n"
        "                 install_requires=['numpy', 'iopath'])\n"
    )
    before = machine.versions()
    code = "from d2pd.notebook.detectron2_wheel import *; install_detectron2({!r}, {!r})"

    done = machine.run(code.format(str(tmp_path / "my wheels"), str(source)))

    assert done.returncode == 0, done.stdout + done.stderr
    assert machine.versions() == {**before, "detectron2": "0.6", "iopath": "0.1.9"}
    assert "Building wheel" in done.stdout
    assert done.stdout.endswith("Detectron2 0.6 is installed.\n")
    [wheel] = (tmp_path / "my wheels" / f"{PYTHON}-torch2.8.0-cpu").iterdir()

    machine.run("import subprocess, sys; subprocess.run([sys.executable, '-m', 'pip', 'uninstall',"
                " '-y', 'detectron2'])")  # fmt: skip
    again = machine.run(code.format(str(tmp_path / "my wheels"), "/nowhere"))
    assert f"Taken from {wheel}" in again.stdout, again.stdout + again.stderr
    assert machine.versions()["detectron2"] == "0.6"


@pytest.mark.slow
def test_a_build_that_fails_is_one_line_and_leaves_no_wheel(tmp_path):
    machine = Machine(tmp_path / "machine")
    copy_package(machine.packages, "setuptools", "setuptools", "pkg_resources", "_distutils_hack")
    machine.add("torch", "2.8.0", TORCH)
    source = tmp_path / "source"
    source.mkdir()
    (source / "setup.py").write_text("raise SystemExit('no compiler')")
    code = "from d2pd.notebook.detectron2_wheel import *; install_detectron2({!r}, {!r})"
    done = machine.run(code.format(str(tmp_path / "wheels"), str(source)))
    message = done.stderr.splitlines()[-1]
    assert "Detectron2 (d2pd runs without Detectron2 too: leave this cell out;" in message
    assert "cannot be installed:" in message
    assert not list(tmp_path.glob("wheels/**/*.whl"))
