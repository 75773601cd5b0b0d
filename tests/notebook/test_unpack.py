"""A zip of Drive on the local disk: once, checked, and never outside of the folder."""

import zipfile

import pytest

from d2pd.errors import MissingFileError, UserError
from d2pd.notebook import unpack as module
from d2pd.notebook.unpack import unpack

FILES = {"kaist/a.json": b"{}", "kaist/images/one two.jpg": b"picture" * 1000}


def make_zip(path, files=FILES):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def files_in(folder):
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".unpacked")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_every_file_is_unpacked_and_told(tmp_path, capsys):
    target = tmp_path / "my data"
    assert unpack(make_zip(tmp_path / "k.zip"), target) == target
    assert files_in(target) == FILES
    assert "Unpacked k.zip into" in capsys.readouterr().out


def test_a_second_call_does_nothing_and_another_zip_is_unpacked_again(tmp_path, capsys):
    source = make_zip(tmp_path / "k.zip")
    unpack(source, tmp_path / "data")
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    unpack(source, tmp_path / "data")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times
    assert "unpacked in" in capsys.readouterr().out
    make_zip(source, FILES | {"kaist/b.json": b"[]"})
    unpack(source, tmp_path / "data")
    assert files_in(tmp_path / "data") == FILES | {"kaist/b.json": b"[]"}


def test_what_an_interruption_left_is_gone_on_with(tmp_path):
    target = tmp_path / "data"
    (target / "kaist/images").mkdir(parents=True)
    (target / "kaist/a.json").write_bytes(b"{}")
    (target / "kaist/images/.one two.jpg.part").write_bytes(b"pict")
    (target / "mine.txt").write_bytes(b"mine")
    unpack(make_zip(tmp_path / "k.zip"), target)
    assert files_in(target) == FILES | {"mine.txt": b"mine"}


def test_another_file_of_the_name_is_not_replaced(tmp_path):
    target = tmp_path / "data"
    (target / "kaist").mkdir(parents=True)
    (target / "kaist/a.json").write_bytes(b"[]")
    with pytest.raises(UserError, match=r"a\.json is there already and not the same"):
        unpack(make_zip(tmp_path / "k.zip"), target)
    assert (target / "kaist/a.json").read_bytes() == b"[]"


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "C:/evil"])
def test_names_that_lead_outside_are_refused_before_anything_is_written(tmp_path, name):
    source = make_zip(tmp_path / "k.zip", {"good": b"1", name: b"2"})
    with pytest.raises(UserError, match="outside of the folder; nothing was unpacked"):
        unpack(source, tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("damage", ["cut", "flipped", "text"])
def test_a_damaged_zip_ends_in_one_line_and_no_half_file_has_its_name(tmp_path, damage):
    source = make_zip(tmp_path / "k.zip", {"a": bytes(range(256)) * 64})
    content = bytearray(source.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "text":
        content = bytearray(b"<html>Google Drive - Quota exceeded</html>")
    else:
        content[60] ^= 0xFF
    source.write_bytes(content)
    with pytest.raises(UserError, match="no whole zip file.*upload it again"):
        unpack(source, tmp_path / "data")
    assert not (tmp_path / "data/a").exists()


def test_a_zip_that_is_missing_or_does_not_fit_is_told(tmp_path, monkeypatch):
    with pytest.raises(MissingFileError, match="no such zip file"):
        unpack(tmp_path / "k.zip", tmp_path / "data")
    monkeypatch.setattr(module, "RESERVE", 1 << 60)
    with pytest.raises(UserError, match="GiB are free; nothing was unpacked"):
        unpack(make_zip(tmp_path / "k.zip"), tmp_path / "data")


def test_a_password_is_told(tmp_path):
    source = make_zip(tmp_path / "k.zip", {"a": b"1"})
    content = bytearray(source.read_bytes())
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):
        content[content.index(mark) + (6 if mark == b"PK\x03\x04" else 8)] |= 1
    source.write_bytes(content)
    with pytest.raises(UserError, match="encrypted.*pack it anew"):
        unpack(source, tmp_path / "data")
