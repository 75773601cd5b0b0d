import os
from pathlib import Path

import pytest
import torch
from checkpoint_toys import Model, Run, cut, flip, stock_content

from d2pd.errors import MissingFileError, UserError, WeightsError
from d2pd.training.checkpoints.archive import check_archive
from d2pd.training.checkpoints.checkpoint_choice import choose_checkpoint, restore


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "out").train(1)


def saved(folder, iteration, pending=False, final=False):
    """Write one checkpoint of an iteration."""
    run = Run(folder)
    run.iter = iteration
    return run.save_final() if final else run.save(pending)


@pytest.mark.parametrize(
    ("local", "mirror", "expected"),
    [
        # name of a file: (iteration, pending, is final); the one that is taken, in which place
        ([(9, False, False), (19, False, False)], [], ("out", "model_0000019.pth")),
        ([(9, False, False)], [(19, False, False)], ("mirror", "model_0000019.pth")),
        ([(19, False, False)], [(19, False, False)], ("out", "model_0000019.pth")),
        ([(19, True, False)], [(19, False, False)], ("mirror", "model_0000019.pth")),
        ([(19, True, False)], [(19, True, False)], ("out", "model_0000019.pth")),
        ([(19, True, False)], [(9, False, False)], ("out", "model_0000019.pth")),
        ([(19, False, False), (9, False, True)], [], ("out", "model_0000019.pth")),
        ([(19, False, False), (29, False, True)], [], ("out", "model_final.pth")),
        ([(19, True, False), (19, False, True)], [], ("out", "model_final.pth")),
        ([(19, False, False)], [(19, False, True)], ("out", "model_0000019.pth")),
        ([(19, False, False)], [(29, False, True)], ("mirror", "model_final.pth")),
        ([], [(9, False, False)], ("mirror", "model_0000009.pth")),
        ([(9999999, False, False), (10000000, False, False)], [], ("out", "model_10000000.pth")),
    ],
)
def test_the_newest_is_taken_then_the_decided_then_the_local(tmp_path, local, mirror, expected):
    for place, files in (("out", local), ("mirror", mirror)):
        for iteration, pending, final in files:
            saved(tmp_path / place, iteration, pending, final)
    choice = choose_checkpoint(tmp_path / "out", tmp_path / "mirror")
    place, name = expected
    assert choice.path == tmp_path / place / name
    assert choice.is_in_mirror == (place == "mirror")
    written = torch.load(choice.path, weights_only=True)
    assert (choice.iteration, choice.is_pending) == (written["iteration"], written["pending"])
    assert choice.passed_over == ()


def test_the_choice_says_what_it_is(tmp_path):
    saved(tmp_path / "out", 9, pending=True)
    saved(tmp_path / "m", 19)
    assert str(choose_checkpoint(tmp_path / "out")) == (
        "going on from model_0000009.pth, iteration 9, whose evaluation is still to be done"
    )
    assert str(choose_checkpoint(tmp_path / "out", tmp_path / "m")) == (
        f"going on from model_0000019.pth in the mirror {tmp_path / 'm'}, iteration 19"
    )


def test_only_as_many_files_are_read_as_it_takes(tmp_path):
    for iteration in (9, 19, 29):
        saved(tmp_path, iteration)
    cut(tmp_path / "model_0000009.pth")
    assert choose_checkpoint(tmp_path).passed_over == ()


def cuts(whole):
    """A cut in each class of position: header, pickle, data, directory, end record, seal."""
    directory = whole.rindex(b"PK\x05\x06")
    first = whole.index(b"PK\x01\x02")
    return [
        *(0, 1, 3, 29, 64, 700, first // 2, first - 1, first, first + 1, directory - 1, directory),
        *(directory + 21, directory + 22, directory + 23, len(whole) - 64, len(whole) - 1),
        *range(100, len(whole), 397),
    ]


def test_a_newest_checkpoint_cut_anywhere_is_passed_over(tmp_path):
    saved(tmp_path, 9)
    newest = saved(tmp_path, 19)
    whole = newest.read_bytes()
    for size in cuts(whole):
        newest.write_bytes(whole[:size])
        choice = choose_checkpoint(tmp_path)
        assert choice.iteration == 9
        assert len(choice.passed_over) == 1
        assert choice.passed_over[0].startswith("model_0000019.pth is ")
        assert "\n" not in str(choice)


def test_a_newest_checkpoint_with_one_byte_flipped_anywhere_is_passed_over(tmp_path):
    saved(tmp_path, 9)
    newest = saved(tmp_path, 19)
    whole = newest.read_bytes()
    for at in {*range(0, len(whole), 41), *range(len(whole) - 120, len(whole))}:
        newest.write_bytes(whole)
        flip(newest, at)
        assert choose_checkpoint(tmp_path).iteration == 9


def test_the_same_file_whole_in_the_mirror_is_taken_before_an_older_one(tmp_path):
    saved(tmp_path / "out", 9)
    cut(saved(tmp_path / "out", 19))
    saved(tmp_path / "m", 19)
    choice = choose_checkpoint(tmp_path / "out", tmp_path / "m")
    assert (choice.iteration, choice.is_in_mirror) == (19, True)
    assert "model_0000019.pth is cut off" in str(choice)
    cut(tmp_path / "m/model_0000019.pth")
    choice = choose_checkpoint(tmp_path / "out", tmp_path / "m")
    assert (choice.iteration, choice.is_in_mirror) == (9, False)
    assert "the mirror's model_0000019.pth is cut off" in str(choice)


def test_a_final_model_written_by_detectron2_counts_by_the_iteration_inside(tmp_path, run):
    run.train(4)
    torch.save(stock_content(run), tmp_path / "model_final.pth")
    choice = choose_checkpoint(tmp_path)
    assert (choice.path.name, choice.iteration, choice.run) == ("model_final.pth", 4, None)
    assert choice.is_pending is False


def test_what_the_run_was_is_returned(tmp_path):
    Run(tmp_path, run={"engine": "toy", "config": {"A": "1"}}).train(1).save()
    assert choose_checkpoint(tmp_path).run == {"engine": "toy", "config": {"A": "1"}}


def test_nothing_in_either_place_says_where_it_looked_and_the_way_out(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(MissingFileError) as caught:
        choose_checkpoint(tmp_path / "out", tmp_path / "gone")
    assert str(caught.value) == (
        f"cannot resume: no model_<iteration>.pth or model_final.pth in OUTPUT_DIR "
        f"{tmp_path / 'out'} or CHECKPOINT.MIRROR_DIR {tmp_path / 'gone'} ({tmp_path / 'gone'}: no "
        "such folder): set OUTPUT_DIR to the folder of the run, or start one without --resume"
    )
    with pytest.raises(MissingFileError):
        choose_checkpoint("")


def test_all_damaged_lists_each(tmp_path):
    cut(saved(tmp_path, 9))
    flip(saved(tmp_path, 19), 300)
    (tmp_path / "model_final.pth").write_bytes(b"")
    with pytest.raises(WeightsError) as caught:
        choose_checkpoint(tmp_path)
    text = str(caught.value)
    assert "\n" not in text
    assert "model_final.pth is empty; model_0000019.pth is damaged (checksum of " in text
    assert "; model_0000009.pth is cut off or damaged (" in text
    assert text.endswith("Put a whole checkpoint there, or start a new run in another OUTPUT_DIR")


def test_weights_alone_say_how_to_start_from_them(tmp_path):
    path = tmp_path / "model_final.pth"
    torch.save({"model": Model().state_dict(), "iteration": 9}, path)
    with pytest.raises(WeightsError, match="without the state of a training") as caught:
        choose_checkpoint(tmp_path)
    assert f"to start a run from them, MODEL.WEIGHTS {path} without --resume" in str(caught.value)
    assert choose_checkpoint(tmp_path, needs=()).iteration == 9
    torch.save(Model().state_dict(), path)
    assert choose_checkpoint(tmp_path, needs=()).iteration == -1


@pytest.mark.parametrize(
    "name",
    [
        *("model_.pth", "model_12.pth.bak", "model_²7.pth", "model_best.pth", "model_-3.pth"),
        *("mymodel_3.pth", ".model_0000003.pth.part", "MODEL_3.pth"),
    ],
)
def test_other_names_are_no_checkpoints(tmp_path, name):
    os.rename(saved(tmp_path, 9), tmp_path / name)
    with pytest.raises(MissingFileError):
        choose_checkpoint(tmp_path)


def test_what_is_not_a_file_is_passed_over_and_never_read(tmp_path):
    saved(tmp_path, 9)
    os.mkfifo(tmp_path / "model_0000019.pth")
    (tmp_path / "model_final.pth").symlink_to("/dev/zero")
    (tmp_path / "model_0000029.pth").mkdir()
    (tmp_path / "model_0000039.pth").symlink_to(tmp_path / "nowhere")
    choice = choose_checkpoint(tmp_path)
    assert choice.iteration == 9
    assert [text.partition(":")[0] for text in choice.passed_over] == [
        "model_final.pth is not a file",
        "model_0000039.pth is not there",
        "model_0000029.pth is not a file",
        "model_0000019.pth is not a file",
    ]


def test_a_mirror_that_cannot_be_read_is_passed_over(tmp_path, monkeypatch):
    saved(tmp_path / "out", 9)
    saved(tmp_path / "m", 19)
    glob = Path.glob

    def fail(self, pattern):
        if self.name == "m":
            raise OSError(107, "Transport endpoint is not connected")
        return glob(self, pattern)

    monkeypatch.setattr(Path, "glob", fail)
    choice = choose_checkpoint(tmp_path / "out", tmp_path / "m")
    assert choice.iteration == 9
    assert "Transport endpoint is not connected" in str(choice)
    with pytest.raises(WeightsError, match="Transport endpoint"):
        choose_checkpoint(tmp_path / "none", tmp_path / "m")


def test_a_checkpoint_that_may_not_be_read_is_passed_over(tmp_path, monkeypatch):
    saved(tmp_path, 9)
    newest = saved(tmp_path, 19)
    opened = Path.open

    def refuse(self, *args, **kwargs):
        if self == newest:
            raise PermissionError(13, "Permission denied")
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    choice = choose_checkpoint(tmp_path)
    assert choice.iteration == 9
    assert choice.passed_over == ("model_0000019.pth cannot be read (Permission denied)",)


def test_restoring_brings_the_checkpoint_and_what_is_gone(tmp_path):
    mirror, out = tmp_path / "m", tmp_path / "new/out"
    path = saved(mirror, 19)
    Run(mirror).train(1).save_best("model_best_a")
    Run(mirror).train(2).save_best("model_best_b")
    (mirror / "metrics.json").write_text("rows")
    (mirror / "run.log").write_text("lines")  # the mirror's will be replaced by what grows here
    (mirror / "curves.png").write_text("picture")
    restored = restore(choose_checkpoint(out, mirror), out)
    assert restored == out / "model_0000019.pth"
    assert restored.read_bytes() == path.read_bytes()
    check_archive(restored)
    assert sorted(os.listdir(out)) == [
        *("last_checkpoint", "metrics.json", "model_0000019.pth"),
        *("model_best_a.pth", "model_best_b.pth", "run.log"),
    ]
    assert (out / "last_checkpoint").read_text() == "model_0000019.pth"


def test_restoring_replaces_the_damaged_file_and_nothing_else(tmp_path):
    mirror, out = tmp_path / "m", tmp_path / "out"
    path = saved(mirror, 19)
    cut(saved(out, 19))
    for folder in (mirror, out):
        (folder / "metrics.json").write_text(f"rows of {folder.name}")
    restore(choose_checkpoint(out, mirror), out)
    assert (out / "model_0000019.pth").read_bytes() == path.read_bytes()
    assert (out / "metrics.json").read_text() == "rows of out"


def test_a_folder_that_cannot_take_the_checkpoint_is_one_line(tmp_path):
    saved(tmp_path / "m", 19)
    (tmp_path / "out").write_text("a file")
    choice = choose_checkpoint(tmp_path / "out", tmp_path / "m")
    with pytest.raises(UserError, match=r"cannot copy .*0000019\.pth back to OUTPUT_DIR") as caught:
        restore(choice, tmp_path / "out")
    assert "\n" not in str(caught.value)
