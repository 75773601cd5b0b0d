"""pip as notebooks run it: constraints, its reasons, and that it shows life."""

import sys

import pytest

from d2pd.errors import InstallError
from d2pd.notebook import pip_process
from d2pd.notebook.pip_process import _reason, constraint_lines, installed_versions, run_pip


def test_everything_that_is_installed_is_pinned_to_its_version():
    installed = {
        "torch": "2.11.0+cu128",
        "numpy": "2.0.2",
        "a-b": "1!2.0.post1.dev3",
        "c": "1.0rc1",
    }
    assert constraint_lines(installed) == [
        "a-b==1!2.0.post1.dev3",
        "c==1.0rc1",
        "numpy==2.0.2",
        "torch==2.11.0+cu128",
    ]


@pytest.mark.parametrize("version", ["unknown", "1.0-ubuntu~3", "", "2.0 beta", "1.0\nevil==2"])
def test_what_is_no_version_is_not_pinned_as_pip_would_refuse_the_whole_file(version):
    assert constraint_lines({"odd": version, "numpy": "2.0.2"}) == ["numpy==2.0.2"]


def test_versions_are_those_that_are_imported(monkeypatch, tmp_path):
    found = installed_versions()
    import numpy

    assert found["numpy"] == numpy.__version__
    assert "faster-coco-eval" in found  # one spelling, whatever the package's own
    (tmp_path / "numpy-99.0.dist-info").mkdir()
    (tmp_path / "numpy-99.0.dist-info/METADATA").write_text("Name: numpy\nVersion: 99.0\n")
    (tmp_path / "left-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_versions() == found | {"numpy": "99.0"}


def stand_in(monkeypatch, tmp_path, script):
    path = tmp_path / "pip.py"
    path.write_text(script)
    monkeypatch.setattr(pip_process, "PIP", (sys.executable, str(path)))


def test_lines_that_matter_are_shown_as_they_come(monkeypatch, tmp_path, capsys):
    lines = ["Requirement already satisfied: numpy", "Collecting a", "  Building wheel: started"]
    lines += ["  Building wheel for a (setup.py): still running...", "Successfully installed a-1"]
    stand_in(monkeypatch, tmp_path, f"print({chr(10).join(lines)!r})")
    run_pip(["install", "a"], "a")
    assert capsys.readouterr().out.splitlines() == [f"  {line.strip()}" for line in lines[1:]]


def test_a_conflict_names_what_stays_and_what_wants_another():
    said = [
        "ERROR: Cannot install a because these package versions have conflicting dependencies.",
        "",
        "The conflict is caused by:",
        "    fvcore 0.1.5 depends on numpy>=2.1",
        "    The user requested (constraint) numpy==2.0.2",
        "",
        "To fix this you could try to:",
    ]
    wanted = "fvcore 0.1.5 depends on numpy>=2.1; numpy 2.0.2 is installed and stays"
    assert _reason(said) == wanted


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("print('ERROR: No matching distribution found for a'); exit(1)", "No matching distrib"),
        ("print('Killed'); exit(137)", "Killed"),
        ("print('ERROR: Exception:'); print('  line 1'); print('Bad: x'); exit(2)", "Bad: x$"),
        ("exit(1)", "pip says nothing"),
    ],
)
def test_a_failure_is_one_line_with_pips_reason(monkeypatch, tmp_path, script, reason):
    stand_in(monkeypatch, tmp_path, script)
    with pytest.raises(InstallError, match=f"a cannot be installed: {reason}") as told:
        run_pip(["install", "a"], "a")
    assert "\n" not in str(told.value)


def test_a_python_without_pip_is_told(monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path, "import sys; sys.exit('No module named pip')")
    with pytest.raises(InstallError, match="a cannot be installed: No module named pip"):
        run_pip(["install", "a"], "a")
