import errno
import logging
import os
import shutil

import pytest
import torch
from checkpoint_toys import Run, cut, resumed

from d2pd import atomic_file
from d2pd.errors import ConfigError
from d2pd.training.checkpoints.archive import check_archive
from d2pd.training.checkpoints.checkpoint_choice import choose_checkpoint
from d2pd.training.checkpoints.mirror import Mirror, check_mirror


@pytest.fixture
def folders(tmp_path):
    return tmp_path / "out", tmp_path / "mirror"


@pytest.fixture
def run(folders):
    out, mirror = folders
    return Run(out, keep=2, mirror_dir=str(mirror)).train(1)


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def assert_whole(mirror):
    """Every file under a final name is whole, and nothing lies about."""
    assert not list(mirror.glob(".*"))
    for path in mirror.glob("*.pth"):
        check_archive(path)


def test_the_mirror_gets_the_checkpoint_the_tag_and_the_small_files(run, folders):
    out, mirror = folders
    out.mkdir()
    (out / "metrics.json").write_text("rows")
    (out / "config.yaml").write_text("A: 1")
    (out / "log.txt").write_text("long")
    path = run.save()
    assert sorted(os.listdir(mirror)) == [
        *("config.yaml", "last_checkpoint", "metrics.json", "model_0000000.pth")
    ]
    assert (mirror / path.name).read_bytes() == path.read_bytes()
    assert (mirror / "last_checkpoint").read_text() == path.name
    (out / "metrics.json").write_text("rows more")
    run.train(1).save()
    assert (mirror / "metrics.json").read_text() == "rows more"


def test_files_that_change_after_the_last_checkpoint_are_brought_on_request(run, folders):
    out, mirror = folders
    run.save_final()
    (out / "results.json").write_text("figures")
    run.checkpointer.update_mirror()
    assert (mirror / "results.json").read_text() == "figures"
    assert (mirror / "last_checkpoint").read_text() == "model_final.pth"
    Run(out).checkpointer.update_mirror()  # without a mirror: nothing to do


def test_run_that_ends_without_its_mirror_says_what_to_do(run, folders, caplog):
    out, mirror = folders
    run.save_final()
    shutil.rmtree(mirror)
    mirror.write_text("a file now")
    run.checkpointer.update_mirror()
    assert f"The run is over, and the mirror {mirror} lacks what came last" in caplog.text
    assert f"it is whole in {out}, copy it by hand" in caplog.text


def test_the_mirror_is_pruned_as_the_folder_is(run, folders):
    out, mirror = folders
    for _ in range(4):
        run.train(1).save()
    run.save_best()
    run.save_final()
    assert sorted(os.listdir(mirror)) == sorted(os.listdir(out))
    assert len(list(mirror.glob("model_0*.pth"))) == 2


def test_the_best_model_is_mirrored_and_the_tag_stays(run, folders):
    _, mirror = folders
    run.save()
    run.train(1).save_best()
    assert (mirror / "last_checkpoint").read_text() == "model_0000000.pth"
    assert torch.load(mirror / "model_best.pth", weights_only=True)["iteration"] == 1
    run.train(1).save_best()
    assert torch.load(mirror / "model_best.pth", weights_only=True)["iteration"] == 2


def test_a_file_is_copied_once_and_again_when_it_is_another_one(run, folders, monkeypatch):
    copied = []
    copy = atomic_file.copy_file
    monkeypatch.setattr(
        "d2pd.training.checkpoints.mirror.copy_file",
        lambda s, t: (copied.append(s.name), copy(s, t)),
    )
    run.save_best()
    run.save(pending=True)
    run.save()
    run.train(1).save_best()
    assert copied == ["model_best.pth", *["model_0000000.pth"] * 2, "model_best.pth"]
    assert torch.load(folders[1] / "model_0000000.pth", weights_only=True)["pending"] is False


def vanish(mirror):
    shutil.rmtree(mirror)


def become_a_file(mirror):
    shutil.rmtree(mirror)
    mirror.write_text("not a folder")


@pytest.mark.parametrize("harm", [vanish, become_a_file])
def test_a_mirror_that_goes_and_comes_back(run, folders, caplog, harm):
    out, mirror = folders
    run.save()
    harm(mirror)
    run.train(1).save_best()
    run.train(1).save()
    run.train(1)  # goes on
    assert warnings(caplog) == [  # one for two saves of two files
        f"The mirror {mirror} is not up to date (there is no such folder): training goes on, and "
        "each save tries again"
    ]
    assert not mirror.is_dir()  # a folder made where a drive was would not be that drive
    caplog.clear()
    mirror.unlink(missing_ok=True)
    mirror.mkdir()
    with caplog.at_level(logging.INFO):
        run.train(1).save()
    assert not warnings(caplog)
    assert f"The mirror {mirror} is up to date again" in caplog.text
    assert sorted(p.name for p in mirror.glob("model*")) == ["model_0000004.pth", "model_best.pth"]
    assert_whole(mirror)
    shutil.rmtree(out)
    assert resumed(out, mirror_dir=str(mirror)).iter == 4


def test_a_mirror_that_is_a_file_from_the_beginning(run, folders, caplog):
    out, mirror = folders
    mirror.write_text("x")
    run.save()
    assert warnings(caplog) == [
        f"The mirror {mirror} is not up to date (it is not a folder): training goes on, and each "
        "save tries again"
    ]
    assert resumed(out).iter == 0
    mirror.unlink()
    run.train(1).save()
    assert_whole(mirror)
    assert (mirror / "model_0000001.pth").exists()


def test_a_mirror_below_a_folder_that_is_not_there_is_not_made(tmp_path, caplog):
    mirror = tmp_path / "drive/MyDrive/run"
    run = Run(tmp_path / "out", mirror_dir=str(mirror)).train(1)
    run.save()
    assert "No such file or directory" in warnings(caplog)[0]
    assert not (tmp_path / "drive").exists()


def test_a_drive_that_was_unmounted_is_not_written_to(run, folders, caplog, monkeypatch):
    _, mirror = folders
    mounted = [mirror]
    is_mount = os.path.ismount
    monkeypatch.setattr(os.path, "ismount", lambda p: p in mounted or is_mount(p))
    run.save()
    mounted.clear()
    run.train(1).save()
    assert f"{mirror} is not mounted" in warnings(caplog)[0]
    assert not (mirror / "model_0000001.pth").exists()
    mounted.append(mirror)
    run.train(1).save()
    assert (mirror / "model_0000002.pth").exists()


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied"),
        OSError(30, "Read-only file system"),
        OSError(28, "No space left on device"),
        OSError(107, "Transport endpoint is not connected"),
    ],
)
@pytest.mark.parametrize("after", [0, 3])
def test_a_mirror_that_cannot_be_written_is_one_warning(
    run, folders, caplog, monkeypatch, error, after
):
    _, mirror = folders
    run.save()
    before = (mirror / "model_0000000.pth").read_bytes()
    calls = []
    sync = os.fsync

    def fail(handle):
        path = os.readlink(f"/proc/self/fd/{handle}")
        if path.startswith(f"{mirror}/"):
            calls.append(path)
            if len(calls) > after:
                raise error
        sync(handle)

    run.save_best()
    with monkeypatch.context() as patch:
        patch.setattr("d2pd.atomic_file.os.fsync", fail)
        (run.train(1), run.save_best(), run.save())
    assert calls
    assert all(error.strerror in text and str(mirror) in text for text in warnings(caplog))
    assert 1 <= len(warnings(caplog)) <= 2  # of two saves
    assert (mirror / "model_0000000.pth").read_bytes() == before
    assert_whole(mirror)
    run.train(1).save()
    assert (mirror / "model_0000002.pth").exists()
    assert torch.load(mirror / "model_best.pth", weights_only=True)["iteration"] == 1


def test_a_mirror_that_gives_back_something_else_gets_no_name(run, folders, caplog, monkeypatch):
    _, mirror = folders
    run.save()
    sync = os.fsync

    def spoil(handle):
        sync(handle)
        if f"{mirror}/" in os.readlink(f"/proc/self/fd/{handle}"):
            os.truncate(handle, 100)

    with monkeypatch.context() as patch:
        patch.setattr("d2pd.atomic_file.os.fsync", spoil)
        run.train(1).save()
    assert "gives back of model_0000001.pth is not what it got" in warnings(caplog)[0]
    assert (mirror / "last_checkpoint").read_text() == "model_0000000.pth"
    assert sorted(p.name for p in mirror.glob("*.pth")) == ["model_0000000.pth"]
    assert_whole(mirror)


def test_what_a_kill_left_in_the_mirror_is_cleared_away(run, folders):
    _, mirror = folders
    mirror.mkdir()
    (mirror / ".model_0000007.pth.part").write_text("half")
    run.save()
    assert_whole(mirror)


def test_a_best_model_damaged_here_does_not_replace_the_one_there(run, folders, caplog):
    out, mirror = folders
    run.save()
    whole = run.save_best().read_bytes()
    cut(out / "model_best.pth")
    for _ in range(2):
        run.train(1).save()
    assert (mirror / "model_best.pth").read_bytes() == whole
    assert len(warnings(caplog)) == 1
    assert "Not copied to the mirror: " in caplog.text
    assert "model_best.pth is cut off or damaged" in caplog.text
    assert (mirror / "model_0000002.pth").exists()


def test_another_reason_is_told_and_the_same_one_of_another_file_is_not(run, caplog, monkeypatch):
    def fail(number):
        def copy(source, target):
            raise OSError(number, os.strerror(number), str(target))

        monkeypatch.setattr("d2pd.training.checkpoints.mirror.copy_file", copy)

    for number in (errno.ENOSPC, errno.ENOSPC, errno.EIO, errno.ENOSPC):
        fail(number)
        run.train(1).save()
    told = [text.partition("(")[2].partition(":")[0] for text in warnings(caplog)]
    assert told == [
        *("[Errno 28] No space left on device", "[Errno 5] Input/output error"),
        "[Errno 28] No space left on device",
    ]


def test_a_resume_takes_the_newer_from_the_mirror_and_goes_on_mirroring(run, folders, caplog):
    out, mirror = folders
    (run.save(), run.save_best())
    (out / "metrics.json").write_text("rows")
    run.train(5).save()
    shutil.rmtree(out)
    with caplog.at_level(logging.INFO):
        again = resumed(out, keep=2, mirror_dir=str(mirror))
    assert again.iter == 5
    assert f"going on from model_0000005.pth in the mirror {mirror}, iteration 5" in caplog.text
    assert "Copied back from the mirror" in caplog.text
    assert {"metrics.json", "model_best.pth", "model_0000005.pth"} <= set(os.listdir(out))
    again.train(3).save()
    assert choose_checkpoint(out, mirror).iteration == 8
    assert (mirror / "last_checkpoint").read_text() == "model_0000008.pth"


def test_following_says_whether_it_worked(tmp_path):
    (tmp_path / "out").mkdir()
    assert Mirror(tmp_path / "m", tmp_path / "out", 0).follow()
    assert not Mirror(tmp_path / "no/m", tmp_path / "out", 0).follow()


def test_a_mirror_is_checked_before_a_run(tmp_path):
    out, file = tmp_path / "out", tmp_path / "file"
    file.write_text("x")
    check_mirror(tmp_path / "m", out)
    (tmp_path / "m").mkdir()
    check_mirror(tmp_path / "m", out)
    (tmp_path / "link").symlink_to(out)
    for mirror, text in (
        (out, "is OUTPUT_DIR itself"),
        (tmp_path / "link", "is OUTPUT_DIR itself"),
        (file, "is not a folder"),
        (tmp_path / "drive/run", f"there is no folder {tmp_path / 'drive'}; mount the drive"),
    ):
        with pytest.raises(ConfigError, match=f"CHECKPOINT.MIRROR_DIR .*{text}"):
            check_mirror(mirror, out)
    assert not (tmp_path / "drive").exists()


@pytest.mark.parametrize("target", ["mirror", "unmounted"])
def test_a_mirror_that_is_a_link_to_itself_or_to_nowhere_is_refused(tmp_path, target):
    (tmp_path / "mirror").symlink_to(target)
    with pytest.raises(ConfigError, match="mirror is not a folder: name another one"):
        check_mirror(tmp_path / "mirror", tmp_path / "out")
