"""Requirements on a machine that has most of them: nothing that is there is replaced."""

import pytest
from machines import VERSIONS, Machine

from d2pd.errors import InstallError, MissingFileError
from d2pd.notebook import install
from d2pd.notebook.install import install_requirements

INSTALL = "from d2pd.notebook.install import install_requirements; install_requirements()"


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / "machine with spaces")


def test_older_versions_stay_and_only_what_is_missing_is_installed(machine):
    machine.add_requirements(without="easydict", versions=VERSIONS)
    machine.add("odd", "unknown-version")
    for name in ("numpy", "torch", "opencv_python"):
        machine.add_wheel(name, "99.0")  # newer ones are at hand
    machine.add_wheel("easydict", "1.13")
    before = machine.versions()

    done = machine.run(INSTALL)

    assert done.returncode == 0, done.stdout + done.stderr
    assert machine.versions() == {**before, "easydict": "1.13"}
    assert "OpenCV 4 is there and stays" in done.stdout
    assert "Installed: easydict 1.13. What was there," in done.stdout
    assert "Successfully installed easydict-1.13" in done.stdout  # it shows that it lives
    assert machine.run("import easydict; print(easydict.VERSION)").stdout == "1.13\n"

    again = machine.run(INSTALL)
    assert again.stdout.endswith("Everything that d2pd needs is there already.\n")


def test_a_version_that_is_too_old_is_named_with_both_ways_out(machine):
    machine.add_requirements(without="easydict", versions=VERSIONS | {"numpy": "1.26.4"})
    machine.add_wheel("numpy", "2.0.0")
    machine.add_wheel("easydict", "1.13")
    before = machine.versions()

    done = machine.run(INSTALL)

    message = done.stderr.splitlines()[-1]
    assert "numpy 1.26.4 is installed, d2pd needs numpy>=2.0" in message
    assert "Runtime > Disconnect and delete runtime" in message
    assert "pip install 'numpy>=2.0'" in message
    assert machine.versions() == before


def test_a_missing_package_that_wants_another_version_of_one_that_stays(machine):
    machine.add_requirements(without="easydict", versions=VERSIONS)
    machine.add_wheel("numpy", "2.5")
    machine.add_wheel("easydict", "1.13", requires="numpy>=2.4")
    before = machine.versions()

    done = machine.run(INSTALL)

    message = done.stderr.splitlines()[-1]
    assert "requirements.txt cannot be installed: easydict 1.13 depends on numpy>=2.4" in message
    assert "numpy 2.0.0 is installed and stays" in message
    assert machine.versions() == before


def test_opencv_that_does_not_load_is_installed_where_it_is_missing(monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setitem(install.probe.__globals__["PROBES"], "cv2", "raise ImportError('libGL')")
    monkeypatch.setattr(install, "installed_versions", lambda: {"numpy": "2.0.0"})
    monkeypatch.setattr(install, "add_packages", lambda words, *_: asked.append(words) or {})
    file = tmp_path / "requirements.txt"
    file.write_text("# a comment\nnumpy>=2.0\n\nopencv-python>=4.10\n")
    install_requirements(file)
    assert asked == [["opencv-python>=4.10"]]
    assert "there and stays" not in capsys.readouterr().out


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(MissingFileError, match="no such file; name the requirements.txt"):
        install_requirements(tmp_path / "requirements.txt")


def test_several_versions_that_are_too_old_are_told_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(install, "installed_versions", lambda: {"numpy": "1.2", "torch": "2.0"})
    file = tmp_path / "requirements.txt"
    file.write_text("numpy>=2.0\ntorch>=2.8\n")
    with pytest.raises(InstallError, match=r"numpy 1.2 is.*; torch 2.0 is.*'numpy>=2.0' 'torch>"):
        install_requirements(file)
