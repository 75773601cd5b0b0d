"""Model cards of what is left where parts are missing, changed or hostile."""

import re
import shutil

import pytest
import torch
from card_toys import (
    AP,
    CLASSES,
    TRAIN,
    card_of,
    finish,
    hand_made_config,
    measured_precision,
    rows,
    save,
    section,
    write_run_config,
)
from report_toys import (
    HOSTILE,
    near_labels,
    write_config,
    write_predictions,
)

from d2pd.data.records import load_records
from d2pd.errors import ConfigError, MissingFileError, UserError
from d2pd.reporting.model_card.write import write_model_card
from d2pd.training.results import write_results


def test_a_killed_run_tells_of_its_newest_checkpoint(run, cfg):
    (run / "model_final.pth").unlink()
    save(run / "model_0000019.pth", cfg, iteration=19)
    save(run / "model_0000039.pth", cfg, iteration=39)
    (run / "model_0000059.pth").write_bytes(b"PK half of a file")

    card = card_of(run)

    assert "`model_0000039.pth`" in section(card, "Model")
    assert "Not among the weights: model_0000059.pth" in section(card, "Model")
    assert "not come to its end of 100 iterations; the newest weights are after iteration 39" in (
        section(card, "Limits")
    )
    assert "40 of 100 iterations of 2 images" in section(card, "Trained on")


def test_detections_that_are_gone_leave_the_numbers_that_were_written_down(run):
    shutil.rmtree(run / "inference")
    rates = {"reasonable/all": 33.5, "reasonable/day": float("nan")}
    write_results(run, 99, {"bbox": AP, "MR": rates, "final": {"bbox": {"AP": 5.0}}})

    card = card_of(run)
    valid, final = section(card, "Metrics").split("### On `mine_final`")

    assert measured_precision(valid) == AP
    assert measured_precision(final) == {"AP": 5.0}
    assert ["`reasonable`", "33.50", "–"] in rows(valid)
    assert "As `results.json` has it." in valid
    assert "its detections are not stored in this folder" in valid
    assert "The numbers are of `model_final.pth` (after iteration 99)." in valid
    assert "Not measured: that takes labels" in section(card, "Threshold")


def test_evaluations_during_training_are_the_last_resort(run):
    shutil.rmtree(run / "inference")

    valid, final = section(card_of(run), "Metrics").split("### On `mine_final`")

    assert measured_precision(valid) == {"AP": 12.0}
    assert "As `metrics.json` has it." in valid
    assert "after iteration 80, which are not among the files above" in valid
    assert "Not measured: no evaluation of this run has left a number." in final


def test_without_any_evaluation_nothing_is_claimed(run):
    shutil.rmtree(run / "inference")
    (run / "metrics.json").unlink()

    card = card_of(run)

    assert section(card, "Metrics").count("Not measured") == 2
    assert "**It was not evaluated:**" in section(card, "Limits")
    assert "threshold=" not in section(card, "Use")


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"results": 3}', '{"iteration": "x"}', "[" * 99999]
)
def test_results_that_no_run_writes_are_no_results(run, content):
    (run / "results.json").write_text(content)
    assert "Rests on 2 images" in card_of(run)


def test_results_of_several_tests_are_told_apart(tmp_path):
    more = ["DATASETS.TEST", ("mine_valid", "mine_final"), "DATASETS.FINAL_TEST", ()]
    run = finish(hand_made_config(tmp_path / "data", CLASSES, more))
    shutil.rmtree(run / "inference")
    write_results(run, 99, {"mine_valid": {"bbox": AP}, "mine_final": {"bbox": {"AP": 7.0}}})

    valid, final = section(card_of(run), "Metrics").split("### On `mine_final`")

    assert measured_precision(valid) == AP
    assert measured_precision(final) == {"AP": 7.0}


def test_labels_that_are_gone_are_told_of_as_the_checkpoint_has_them(run, tmp_path):
    for name in ("train", "valid", "final"):
        (tmp_path / f"data/{name}.csv").unlink()

    card = card_of(run)
    trained = section(card, "Trained on")

    assert rows(trained)[1][2:] == ["not here"] * 3
    assert "The labels of `mine_train` are no longer here" in trained
    assert re.search(
        r"what they have learnt from: 2 images, labels of digest `[0-9a-f]{12}`", trained
    )
    assert "It has learnt from 2 images alone." in section(card, "Limits")
    assert section(card, "Metrics").count("Not measured") == 1  # metrics.json knows the other


def test_labels_that_have_changed_are_not_passed_off_as_those_of_the_training(run, tmp_path):
    (tmp_path / "data/train.csv").write_text(TRAIN.replace("40,70", "44,70"))

    assert "**The labels here are not those of the training**" in card_of(run)


def test_pictures_that_are_gone_change_no_number_that_needs_none(tmp_path, quick_opts, drawn_root):
    root = tmp_path / "moved"
    shutil.copytree(drawn_root, root)
    folder = tmp_path / "run"
    write_config(folder, [*quick_opts, "DATASETS.ROOT", str(root)])
    write_predictions(folder, near_labels(load_records("synthetic_val", cleaned=False)))
    before = card_of(folder)
    shutil.rmtree(root / "synthetic/images")

    after = card_of(folder)

    assert rows(section(after, "Metrics")) == rows(section(before, "Metrics"))
    assert rows(section(after, "Trained on")) == rows(section(before, "Trained on"))


def test_configuration_of_a_later_evaluation_is_not_that_of_the_training(run, cfg):
    cfg.MODEL.WEIGHTS, cfg.DATASETS.TEST = "output/other.pth", ("mine_final",)
    write_run_config(cfg)

    card = card_of(run)

    assert "Starting weights: random, from scratch." in card
    assert "### On `mine_valid`" in card
    assert "is of another command than the training" in section(card, "Configuration")
    assert "`MODEL.WEIGHTS`, `DATASETS.TEST`" in section(card, "Configuration")
    assert "train_net.py" not in section(card, "Configuration")


def test_files_of_detectron2_say_less_and_are_told_of_all_the_same(run):
    save(run / "model_final.pth", iteration=99)

    card = card_of(run)

    assert "not told by the weights" in section(card, "Model")
    assert "`person`, `cyclist`" in section(card, "Model")
    assert "The weights do not say which labels they have learnt from" in card


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04 cut"])
def test_weights_that_cannot_be_read_are_told_of(run, content):
    (run / "model_final.pth").write_bytes(content)

    card = card_of(run)

    assert "- Not among the weights: " in section(card, "Model")
    assert "There are no weights to use." in section(card, "Use")


def test_a_folder_that_holds_no_run_is_one_line(tmp_path):
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(MissingFileError, match="so it holds no run; give the OUTPUT_DIR"):
            write_model_card(folder)
    (tmp_path / "config.yaml").write_text("NO_SUCH_KEY: 1\n")
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        write_model_card(tmp_path)


def test_a_card_that_cannot_be_written_is_one_line_and_leaves_the_old_one(run, monkeypatch):
    old = card_of(run)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(UserError, match=r"cannot write .*model_card.md \(full\)"):
        write_model_card(run)
    assert (run / "model_card.md").read_text() == old


BARS = "a|b`c\n# d | --- ` <img src=x> [x](http://evil) **bold** \\"


def test_names_of_files_stay_names(tmp_path):
    """No name ends its cell, its line or its code."""
    names = [BARS, HOSTILE]
    cfg = hand_made_config(tmp_path / "data", names, ["MODEL.WEIGHTS", BARS])
    for name in ("train", "valid", "final"):
        path = tmp_path / f"data/{name}.csv"
        quoted = ['"' + text.replace('"', '""') + '"' for text in names]
        lines = path.read_text().replace("person", quoted[0]).replace("cyclist", quoted[1])
        path.write_text(lines)
    run = finish(cfg)
    save(run / "model_best.pth", cfg, iteration=4, metric={"name": BARS, "value": 1.0})
    save(run / "model_best_`x`.pth", cfg, iteration=4)
    weights = torch.load(run / "model_final.pth", weights_only=True)
    weights["run"] |= {"engine": BARS, "device": HOSTILE, "versions": {BARS: HOSTILE}}
    torch.save(weights, run / "model_final.pth")

    card = card_of(run)

    outside = re.sub(r"`[^`\n]*`", "", re.sub(r"(?ms)^```.*?^```$", "", card))
    assert "`" not in outside
    assert not set("<[\\") & set(re.sub(r"\[\d+\.\d\d to \d+\.\d\d\]", "", outside))
    assert "evil" not in outside
    assert card.count("\n# ") == 0
    for block in re.findall(r"(?m)(?:^\|.*\n)+", card):
        assert len({line.count("|") for line in block.splitlines()}) == 1
    assert "model_best_" not in card


def test_a_great_many_classes_leave_a_card_that_can_be_read(tmp_path):
    names = ["person", "cyclist", *(f"kind {number}" for number in range(200))]
    run = finish(hand_made_config(tmp_path / "data", names, ["MODEL.ROI_HEADS.NUM_CLASSES", 202]))

    card = card_of(run)

    assert "182 more" in section(card, "Model")
    assert "The first 60 of 208 rows are shown." in card
    assert "The 10 classes with the most labels are shown." in card
    assert len(card.splitlines()) < 350
