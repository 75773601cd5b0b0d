import hashlib
import random
import zipfile

import pytest
import torch
from checkpoint_toys import Run, flip

from d2pd.errors import WeightsError
from d2pd.training.checkpoints.archive import check_archive, read_seal, seal_archive


def archive(path, content=None):
    with path.open("w+b") as file:
        torch.save(content or {"a": torch.arange(100.0), "b": [1, "x"]}, file)
        seal_archive(file)
    return path


def test_a_sealed_archive_reads_as_before(tmp_path):
    path = archive(tmp_path / "a.pth")
    check_archive(path)
    for options in ({}, {"mmap": True}):
        content = torch.load(path, weights_only=True, **options)
        assert torch.equal(content["a"], torch.arange(100.0))
    assert zipfile.ZipFile(path).testzip() is None


def test_the_seal_is_the_digest_of_all_before_it(tmp_path):
    whole = archive(tmp_path / "a.pth").read_bytes()
    assert whole.endswith(hashlib.sha256(whole[:-64]).hexdigest().encode())
    assert read_seal(tmp_path / "a.pth") == whole[-64:]


def test_every_flipped_byte_is_found(tmp_path):
    # Checksums alone do not see padding, dates and half of the headers.
    path = Run(tmp_path).train(1).save()
    whole = path.read_bytes()
    everywhere = range(len(whole))
    ends = [*everywhere[:200], *everywhere[-1500:]]  # headers; directory, end record, seal
    for at in {*random.Random(0).sample(everywhere, 500), *ends}:
        path.write_bytes(whole)
        flip(path, at)
        with pytest.raises(WeightsError, match="is (cut off or )?damaged"):
            Run(tmp_path).checkpointer.resume()
    path.write_bytes(whole)
    Run(tmp_path).checkpointer.resume()


@pytest.mark.parametrize("byte", [0, 255])
def test_every_changed_byte_of_the_end_is_found(tmp_path, byte):
    path = archive(tmp_path / "a.pth")
    whole = path.read_bytes()
    for at in range(len(whole) - 98, len(whole)):
        if whole[at] != byte:
            path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
            with pytest.raises(WeightsError, match="damaged"):
                check_archive(path)


def test_every_cut_is_found(tmp_path):
    path = archive(tmp_path / "a.pth")
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError, match="cut off or damaged"):
            check_archive(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(WeightsError, match="damaged"):
        check_archive(path)


def test_an_archive_of_torch_without_a_seal_is_accepted_and_its_content_checked(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.arange(100.0)}, path)
    check_archive(path)
    assert read_seal(path) is None
    flip(path, path.read_bytes().index(torch.arange(100.0).numpy().tobytes()) + 5)
    with pytest.raises(WeightsError, match=r"checksum of data/0 differs"):
        check_archive(path)


def test_a_compressed_archive_is_refused_unread(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(10_000_000))
    with pytest.raises(WeightsError, match="compressed archive"):
        check_archive(path)


def test_entries_that_share_their_bytes_are_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", bytes(10_000))
        file.filelist *= 100  # a hundred entries, one content
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda self: pytest.fail("was read"))
    with pytest.raises(WeightsError, match="which torch.save does not write"):
        check_archive(path)


def test_only_an_unsealed_archive_can_be_sealed(tmp_path):
    with (tmp_path / "a").open("w+b") as file:
        file.write(bytes(100))
        with pytest.raises(ValueError, match="not an archive"):
            seal_archive(file)
    with archive(tmp_path / "b").open("r+b") as file, pytest.raises(ValueError, match="not an"):
        seal_archive(file)
