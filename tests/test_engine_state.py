import subprocess
import sys
from pathlib import Path

import pytest

from d2pd import engine_state
from d2pd.engine_state import EngineState, choose_engine, install_command, way_out
from d2pd.errors import EngineError

ROOT = Path(__file__).resolve().parent.parent
LOOK = """
import sys
sys.path.insert(0, {root!r})
{before}
from d2pd.engine_state import detect_detectron2
found = detect_detectron2()
print(found.state, found.version, found.location, found.detail, "torch" in sys.modules, sep="|")
"""
HIDE = """
import os, sys
sys.path = [p for p in sys.path if not os.path.isdir(os.path.join(p, "detectron2"))]
"""


def look(cwd: Path, *paths: Path) -> list[str]:
    """What a new Python with ``paths`` first on its path finds; a real Detectron2 is hidden."""
    before = HIDE + "".join(f"sys.path.insert(0, {str(path)!r})\n" for path in reversed(paths))
    code = LOOK.format(root=str(ROOT), before=before)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True
    )
    return result.stdout.strip().splitlines()[-1].split("|")


def package(folder: Path, code: str = "", version: str | None = None) -> Path:
    """A fake installation in ``folder``; without a version it is bare source code."""
    (folder / "detectron2").mkdir(parents=True)
    (folder / "detectron2" / "__init__.py").write_text("")
    (folder / "detectron2" / "engine.py").write_text(code)
    if version:
        info = folder / f"detectron2-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: detectron2\nVersion: {version}\n")
    return folder


def test_absent_is_found_without_importing_torch(tmp_path):
    assert look(tmp_path) == ["absent", "None", "None", "", "False"]


def test_present(tmp_path):
    site = package(tmp_path / "site", "", "0.6")
    assert look(tmp_path, site)[:4] == ["present", "0.6", str(site / "detectron2"), ""]


def test_broken_gives_the_reason_in_one_line(tmp_path):
    site = package(tmp_path / "site", "raise ImportError('_C.so: undefined\\n symbol')", "0.6")
    state, version, location, detail, _ = look(tmp_path, site)
    assert (state, version, location) == ("broken", "0.6", str(site / "detectron2"))
    assert detail == "ImportError: _C.so: undefined symbol"


def test_a_folder_without_a_package_shadows(tmp_path):
    clone = tmp_path / "detectron2" / "detectron2"
    clone.mkdir(parents=True)
    state, version, location, detail, _ = look(tmp_path, tmp_path)
    assert (state, version, location) == ("shadowed", "None", str(tmp_path / "detectron2"))
    assert "holds no package" in detail


def test_source_that_cannot_be_imported_shadows(tmp_path):
    source = package(tmp_path / "clone", "raise ImportError('no _C')")
    state, version, location, detail, _ = look(tmp_path, source)
    assert (state, version, location) == ("shadowed", "None", str(source / "detectron2"))
    assert "is source code, not an installed package (ImportError: no _C)" in detail


def test_source_that_hides_an_installation_shadows(tmp_path):
    source = package(tmp_path / "clone", "raise ImportError('no _C')")
    site = package(tmp_path / "site", "", "0.6")
    state, version, _, detail, _ = look(tmp_path, source, site)
    assert (state, version) == ("shadowed", "0.6")
    assert f"hides the one installed at {site / 'detectron2'}" in detail


@pytest.mark.parametrize(
    ("wish", "state", "engine"),
    [
        ("auto", "absent", "embedded"),
        ("auto", "present", "detectron2"),
        ("detectron2", "present", "detectron2"),
        ("embedded", "present", "embedded"),
        ("embedded", "broken", "embedded"),
        ("embedded", "shadowed", "embedded"),
    ],
)
def test_engine_by_wish_and_state(monkeypatch, wish, state, engine):
    monkeypatch.setattr(engine_state, "detect_detectron2", lambda: EngineState(state))
    assert choose_engine(wish) == engine


@pytest.mark.parametrize(
    ("wish", "found", "words"),
    [
        ("detectron2", EngineState("absent"), "not installed: install it with"),
        (
            "auto",
            EngineState("broken", "0.6", "/x", "ImportError: y"),
            "/x is installed but cannot",
        ),
        ("detectron2", EngineState("broken", "0.6", "/x", "z"), "--force-reinstall --no-deps"),
        ("auto", EngineState("shadowed", None, "/x", "/x is a folder"), "shadowed: /x is a folder"),
    ],
)
def test_no_engine_says_why_and_both_ways_out(monkeypatch, wish, found, words):
    monkeypatch.setattr(engine_state, "detect_detectron2", lambda: found)
    with pytest.raises(EngineError, match="D2PD_ENGINE=embedded") as caught:
        choose_engine(wish)
    message = str(caught.value)
    assert words in message
    assert "--no-build-isolation" in message
    assert "\n" not in message
    assert message == way_out(found)


def test_a_wish_that_is_no_engine():
    with pytest.raises(EngineError, match="'mmdet': allowed are auto, detectron2, embedded"):
        choose_engine("mmdet")


def test_install_command_is_for_this_python():
    assert install_command().startswith(sys.executable)
    assert "setuptools<81" in install_command()
