"""Drive: mounted on Colab alone, and in words what to do where something is not found."""

import sys
import types

import pytest

from d2pd.errors import MissingFileError, UserError
from d2pd.notebook import drive
from d2pd.notebook.drive import find_on_drive, mount_drive


@pytest.fixture
def colab(monkeypatch, tmp_path):
    """A Colab whose Drive appears when it is mounted; ``calls`` tells how."""
    module = types.ModuleType("google.colab.drive")
    module.calls, module.error = [], None

    def mount(place, force_remount=False):
        module.calls.append((place, force_remount))
        if module.error is not None:
            raise module.error
        (tmp_path / "MyDrive").mkdir(exist_ok=True)

    module.mount = mount
    for name in ("google", "google.colab"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "google.colab.drive", module)
    monkeypatch.setattr(drive, "MOUNT", tmp_path)
    monkeypatch.setattr(drive, "MY_DRIVE", tmp_path / "MyDrive")
    return module


def test_nothing_is_mounted_where_this_is_not_colab(capsys):
    assert mount_drive() is None
    assert "Not Colab" in capsys.readouterr().out


def test_on_colab_drive_is_mounted_and_anew_where_asked_for(colab, tmp_path):
    assert mount_drive() == tmp_path / "MyDrive"
    mount_drive(force_remount=True)
    assert colab.calls == [(str(tmp_path), False), (str(tmp_path), True)]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("mount failed\nlong text"),
        ValueError("Mountpoint must not already contain files"),
        OSError(107, "Transport endpoint is not connected"),
    ],
)
def test_a_drive_that_cannot_be_mounted_ends_in_one_line(colab, error):
    colab.error = error
    with pytest.raises(UserError, match=r"Drive cannot be mounted \(.*personal Google acc") as told:
        mount_drive()
    assert "mount_drive(force_remount=True)" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_path_on_drive_is_found_spaces_or_not(tmp_path):
    (tmp_path / "my data").mkdir()
    assert find_on_drive("my data", tmp_path) == tmp_path / "my data"
    assert find_on_drive(tmp_path / "my data", tmp_path) == tmp_path / "my data"


def test_a_path_that_is_not_found_tells_of_shortcut_remount_and_account(tmp_path):
    for number in range(10):
        (tmp_path / f"folder{number}").mkdir()
    with pytest.raises(MissingFileError) as told:
        find_on_drive("kaist/kaist.zip", tmp_path)
    message = str(told.value)
    assert f"{tmp_path / 'kaist/kaist.zip'} is not on Drive" in message
    assert f"{tmp_path} holds folder0, folder1," in message
    assert "folder9" not in message
    assert "Add shortcut > My Drive" in message
    assert "mount_drive(force_remount=True)" in message
    assert "personal Google account" in message


def test_a_drive_that_is_not_mounted_or_has_gone_is_said_to_be(tmp_path, monkeypatch):
    with pytest.raises(MissingFileError, match=r"not mounted; run mount_drive\(\)"):
        find_on_drive("kaist.zip", tmp_path / "MyDrive")

    def gone(path):
        raise OSError(107, "Transport endpoint is not connected")

    monkeypatch.setattr(type(tmp_path), "is_dir", gone)
    with pytest.raises(MissingFileError, match="does not answer.*force_remount=True"):
        find_on_drive("kaist.zip", tmp_path)
