"""Model cards of folders as runs leave them, and of some that none does."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from report_toys import (
    HOSTILE,
    QUICK,
    near_labels,
    write_config,
    write_metrics,
    write_predictions,
)

from d2pd.config import load_config
from d2pd.data.records import load_records, load_train_records
from d2pd.data.registration import register_from_config
from d2pd.errors import ConfigError, MissingFileError, UserError
from d2pd.reporting.model_card.markdown import code, counted, rounded_down, sentence
from d2pd.reporting.model_card.write import write_model_card
from d2pd.training.checkpoints.run_identity import describe_run
from d2pd.training.results import write_results

AP = {"AP": 61.25, "AP50": 75.0}
CLASSES = ["person", "cyclist"]
TRAIN = """a.png,10,10,40,70,person
a.png,5,5,5,20,person
b.png,50,10,80,70,cyclist
c.png,,,,,
"""
VALID = """a.png,10,10,40,70,person
a.png,60,10,90,70,person
d.png,10,10,40,70,person
d.png,60,10,90,70,person
"""
FINAL = "e.png,10,10,40,70,person\n"
# By hand: three of four found, two of five wrong. F1 at .8 is 2/3, at .4 it is .75, at .2 .667.
FOUND = [
    ("a.png", 10, 0.9),
    ("a.png", 60, 0.8),
    ("a.png", 120, 0.6),
    ("d.png", 10, 0.4),
    ("d.png", 120, 0.2),
]


def hand_made_config(folder, class_names, more=()):
    """Two classes in six pictures, three label files; the run is ``folder/run``."""
    (folder / "images").mkdir(parents=True)
    for name in "abcde":
        cv2.imwrite(str(folder / f"images/{name}.png"), np.full((120, 160, 3), 90, np.uint8))
    (folder / "train.csv").write_text(TRAIN)
    (folder / "valid.csv").write_text(VALID)
    (folder / "final.csv").write_text(FINAL)
    cfg = load_config(QUICK, ["MODEL.DEVICE", "cpu"])
    entry = cfg.DATASETS.REGISTER.synthetic_val.clone()
    cfg.DATASETS.REGISTER.clear()
    entry.FORMAT, entry.IMAGES, entry.CLASSES = "csv", "images", list(class_names)
    for name in ("train", "valid", "final"):
        cfg.DATASETS.REGISTER[f"mine_{name}"] = entry.clone()
        cfg.DATASETS.REGISTER[f"mine_{name}"].ANNOTATIONS = f"{name}.csv"
    cfg.DATASETS.ROOT, cfg.OUTPUT_DIR = str(folder), str(folder / "run")
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("mine_train",), ("mine_valid",)
    cfg.DATASETS.FINAL_TEST = ("mine_final",)
    cfg.INPUT.MODALITY, cfg.MODEL.ROI_HEADS.NUM_CLASSES = "visible", 2
    cfg.SOLVER.MAX_ITER = 100
    cfg.merge_from_list(list(more))
    return cfg


def detections(dataset, rows):
    """Rows of detections of persons 30 px wide and 60 high: picture, left edge, score."""
    ids = {record["file_name"][-5:]: record["image_id"] for record in load_records(dataset)}
    return [
        {"image_id": ids[name], "category_id": 0, "bbox": [x, 10, 30, 60], "score": score}
        for name, x, score in rows
    ]


def save(path, cfg=None, **facts):
    """A checkpoint; with a configuration, of its run."""
    if cfg is not None:
        facts["run"] = describe_run(cfg, load_train_records(cfg, quiet=True))
    torch.save({"model": {"weight": torch.zeros(3)}, **facts}, path)


@pytest.fixture
def cfg(tmp_path):
    return hand_made_config(tmp_path / "data", CLASSES)


@pytest.fixture
def run(cfg):
    """A finished run with both tests evaluated."""
    return finish(cfg)


def finish(cfg):
    folder = begin(cfg)
    write_metrics(folder)
    write_predictions(folder, detections("mine_valid", FOUND), "mine_valid")
    final = detections("mine_final", [("e.png", 10, 0.5), ("e.png", 120, 0.3)])
    write_predictions(folder, final, "mine_final")
    save(folder / "model_final.pth", cfg, iteration=99)
    (folder / "run.log").write_text(
        "11-30 02:17  === started, 2026-11-30 02:17:36 ===\n"
        "12-01 02:19  === all 100 iterations are done, 2026-12-01 02:19:51 ===\n"
    )
    return folder


def begin(cfg):
    """Write what a run writes first; register its datasets."""
    folder = write_run_config(cfg)
    register_from_config(cfg)
    return folder


def write_run_config(cfg):
    folder = Path(cfg.OUTPUT_DIR)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(cfg.dump())
    return folder


def card_of(folder):
    return write_model_card(folder).read_text(encoding="utf-8")


def section(card, title):
    return card.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text):
    """Return the cells of all table rows, heads too."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def measured_precision(card):
    """Return AP as a card tells it."""
    return {row[0].strip("`"): float(row[1]) for row in rows(card) if row[0] in ("`AP`", "`AP50`")}


def test_a_card_says_what_the_weights_are(run):
    model = section(card_of(run), "Model")

    assert "Faster R-CNN, ResNet-18 with FPN" in model
    assert "`person`, `cyclist`" in model
    assert "visible pictures; short side 256 px for the network" in model
    assert re.search(
        r"`model_final.pth`, [\d,]+ bytes, sha256 `[0-9a-f]{12}`..., after iteration 99", model
    )
    assert "Trained to the end, 100 iterations (2026-11-30 to 2026-12-01)" in model
    assert f"`torch {torch.__version__}`" in model
    assert "engine `embedded`" in model
    assert "`cpu: " in model


def test_a_card_says_what_was_learnt_and_what_was_left_out(run):
    trained = section(card_of(run), "Trained on")

    assert rows(trained)[1] == [
        "`mine_train`", "`train.csv` (csv)", "2 of 3", "1 `person`, 1 `cyclist`", "0",
    ]  # fmt: skip
    assert "1 label left out (the box has no area; its regression target is log(0))" in trained
    assert "1 image left out (the image holds no object to learn from)" in trained
    assert "These are the labels that the weights say they have learnt from" in trained
    assert "Starting weights: random, from scratch." in trained
    assert "resized to a short side of 256 px, a long one of 320 at most" in trained
    assert "100 iterations of 2 images, 100.0 epochs; `AdamW`, rate 0.0005" in trained


def test_thresholds_are_chosen_on_the_test_and_tried_on_the_final_one(run):
    threshold = section(card_of(run), "Threshold")

    assert rows(threshold)[1:4] == [
        ["`person`", "best F1", "0.4", "`mine_valid`", "0.750", "0.750", "0.750", "0.500"],
        ["`person`", "the same", "0.4", "`mine_final`", "1.000", "1.000", "1.000", "0.000"],
        ["`person`", "FPPI 0.1", "0.8", "`mine_valid`", "1.000", "0.500", "0.667", "0.000"],
    ]
    assert rows(threshold)[4] == ["`cyclist`", "best F1", "–", "`mine_valid`", *["–"] * 4]
    assert "Under a score of 0.001 (`MODEL.ROI_HEADS.SCORE_THRESH_TEST`)" in threshold


def test_use_takes_the_threshold_and_the_file(run):
    use = section(card_of(run), "Use")

    assert "predict --weights model_final.pth --threshold 0.4 " in use
    assert 'd2pd.load("model_final.pth")' in use
    assert "threshold=0.4)" in use


def test_metrics_say_what_they_rest_on(run):
    valid, final = section(card_of(run), "Metrics").split("### On `mine_final`")

    assert "Rests on 2 images with 4 `person`, 0 `cyclist` to find and 0 regions" in valid
    assert "on 5 detections" in valid
    assert ["`AP-cyclist`", "–", "the labels hold no cyclist"] in rows(valid)
    # Recall .75 at IoU .5: 51 of 101 points at precision 1, 25 at .75, none beyond.
    assert measured_precision(valid)["AP50"] == pytest.approx((51 + 25 * 0.75) / 1.01, abs=0.01)
    assert "Rests on 1 image with 1 `person`" in final
    assert "Nothing was chosen by this set in this run, and it was evaluated once" in final


def test_numbers_are_tied_to_the_file_that_they_are_of(run):
    assert "Of which weights the numbers are is not known" in section(card_of(run), "Metrics")
    precision = (51 + 25 * 0.75) / 1.01  # at every IoU: the boxes are exact
    write_results(run, 99, {"bbox": {"AP": precision}, "final": {"bbox": {"AP50": 100.0}}})

    valid, final = section(card_of(run), "Metrics").split("### On `mine_final`")

    words = "The numbers are of `model_final.pth` (after iteration 99)."
    assert words in valid
    assert words in final
    write_results(run, 99, {"bbox": {"AP": precision + 1}, "final": {"bbox": {"AP50": 100.0}}})
    valid, final = section(card_of(run), "Metrics").split("### On `mine_final`")
    assert words not in valid
    assert words in final


def test_a_best_model_is_called_optimistic_on_the_set_that_chose_it(run, cfg):
    metric = {"name": "bbox/AP", "value": 12.0, "mode": "max"}
    save(run / "model_best.pth", cfg, iteration=40, metric=metric)

    card = card_of(run)
    valid, final = section(card, "Metrics").split("### On `mine_final`")

    words = (
        "`model_best.pth` was chosen by `bbox/AP` on this very set (12, after iteration 40): its "
        "value there is optimistic."
    )
    assert words in valid
    assert "optimistic" not in final
    assert "after iteration 40 (counted from 0), the best by `bbox/AP`" in section(card, "Model")


def test_a_training_that_its_test_has_stopped_is_optimistic_throughout(tmp_path):
    cfg = hand_made_config(tmp_path / "data", CLASSES, ["EARLY_STOPPING.METRIC", "bbox/AP"])
    run = finish(cfg)
    write_metrics(run, stopped="AP stands still")

    valid, final = section(card_of(run), "Metrics").split("### On `mine_final`")

    assert "When to stop was chosen by `bbox/AP` on this very set" in valid
    assert "optimistic" not in final


def test_limits_come_from_the_facts(run):
    limits = section(card_of(run), "Limits")

    assert "It has learnt from 2 images alone." in limits
    assert "few labels of `person` (1), `cyclist` (1)" in limits
    assert "`mine_valid` is a small test, of 4 labels: each is worth 25.0 points" in limits
    assert (
        "**Tested on what it has learnt:** 1 of 2 images of `mine_valid` were trained on"
    ) in limits
    assert "1 of 1 images of `mine_final`" not in limits
    assert "Missed on `mine_valid` at score 0.4, the worst first: height 55 to 115 px 1 of 4" in (
        limits
    )
    assert "It knows visible pictures alone" in limits
    assert "The licence of `mine_train` is not known to d2pd." in limits
    assert "no safety component" in limits
    assert "Drawn" not in limits
    assert "KAIST" not in limits


def test_configuration_lists_what_differs_from_the_defaults(run):
    text = section(card_of(run), "Configuration")

    assert ["`SOLVER.MAX_ITER`", "`100`", "`40000`"] in rows(text)
    assert "--config-file PATH_OF_THIS_FOLDER/config.yaml" in text
    assert "DATASETS.REGISTER" not in text
    assert len(rows(text)) < 80


def test_the_same_folder_gives_the_same_card_and_leaves_nothing_else(run):
    first = write_model_card(run).read_bytes()
    names = sorted(path.name for path in run.iterdir())

    assert write_model_card(str(run)).read_bytes() == first
    assert sorted(path.name for path in run.iterdir()) == names


def test_drawn_pictures_are_no_photos(tmp_path, quick_opts):
    folder = tmp_path / "run"
    write_config(folder, quick_opts)
    write_predictions(folder, near_labels(load_records("synthetic_val", cleaned=False)))

    card = card_of(folder)

    assert "trained and tested on pictures that a program has drawn (`synthetic_train`" in card
    assert "licence" not in section(card, "Limits").lower()
    rates = [row for row in rows(section(card, "Metrics")) if row[0] == "`reasonable`"]
    assert re.fullmatch(r"\d+\.\d\d \[\d+\.\d\d to \d+\.\d\d\] \(\d+\)", rates[0][1])
    assert "all, 4 images" in section(card, "Metrics")
    assert "There are no weights to use." in section(card, "Use")
    assert "no model_final.pth and no checkpoint is in this folder" in section(card, "Model")


def kaist_run(folder, sets):
    """A run on frames of KAIST's sets, without weights."""
    images = [
        {"id": n, "im_name": f"{name}/V000/I0000{n}", "height": 512, "width": 640}
        for n, name in enumerate(sets)
    ]
    boxes = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [100, 100, 40, 100], "ignore": 0}
        for n in range(len(sets))
    ]
    (folder / "kaist.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    for image in images:
        path = folder / f"images/{image['im_name']}".replace("V000", "V000/lwir")
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(f"{path}.png", np.full((512, 640), 90, np.uint8))
    cfg = hand_made_config(folder / "data", CLASSES)
    entry = cfg.DATASETS.REGISTER.mine_train
    entry.FORMAT, entry.CLASSES = "kaist", ["person"]
    entry.ANNOTATIONS, entry.IMAGES = "../kaist.json", "../images"
    cfg.INPUT.MODALITY, cfg.MODEL.ROI_HEADS.NUM_CLASSES = "lwir", 1
    cfg.DATASETS.TEST = cfg.DATASETS.FINAL_TEST = ()
    return begin(cfg)


def test_kaist_by_day_alone_with_its_licence(tmp_path):
    card = card_of(kaist_run(tmp_path, ["set00", "set02"]))

    assert "It was trained by day alone, as KAIST's sets tell: by night it is unproven." in card
    assert "CC BY-NC-SA 4.0" in card
    assert "is not known to d2pd" not in card
    assert "It knows thermal (lwir) pictures alone" in card
    assert "- Images of `mine_train`: 2 by day." in card
    assert "**It was not evaluated:**" in card
    assert "the configuration names no dataset to test on" in card


def test_kaist_whose_labels_are_gone_keeps_its_licence(tmp_path):
    folder = kaist_run(tmp_path, ["set00"])
    (tmp_path / "kaist.json").unlink()

    assert "Licence: `mine_train` may be KAIST's; its labels are not here." in card_of(folder)


def test_pictures_that_d2pd_synth_has_drawn_are_no_photos_whatever_their_format(run, tmp_path):
    (tmp_path / "data/synthetic.json").write_text("{}")

    limits = section(card_of(run), "Limits")

    assert "**Drawn pictures:** it was trained and tested on pictures" in limits
    assert "`mine_train`, `mine_valid`, `mine_final`" in limits


def test_kaist_by_day_and_night_is_no_limit(tmp_path):
    card = card_of(kaist_run(tmp_path, ["set00", "set03"]))

    assert "1 by day, 1 by night" in card
    assert "unproven" not in card


def test_lowest_anchors_of_ssd_are_a_limit(tmp_path, quick_opts):
    cfg = load_config(QUICK.with_name("ssd_seg_synthetic.yaml"), quick_opts[:6])
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ANCHOR_GENERATOR.SIZES[0] = [20.0]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS[0] = [4.0]  # 40 px high, 10 wide
    cfg.MODEL.SSD.IOU_THRESHOLD = 0.5
    folder = begin(cfg)

    limits = section(card_of(folder), "Limits")

    assert "Its lowest anchors are 40 px high and 10 wide in the network's input" in limits
    assert "what is under 20 px there overlaps none of them" in limits


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


@given(st.floats(min_value=5e-324, max_value=1e300))
def test_a_threshold_in_three_digits_lets_in_what_has_its_score(score):
    shown = float(rounded_down(score))

    assert shown <= score
    assert shown > 0.989 * score or score < 1e-300  # where floats have few digits themselves


@pytest.mark.parametrize(
    ("score", "shown"), [(0.9, "0.9"), (0.57, "0.57"), (0.18079, "0.18"), (1.0, "1"), (0.0, "0")]
)
def test_thresholds_are_as_short_as_they_can_be(score, shown):
    assert rounded_down(score) == shown


def test_text_of_files_is_one_line_without_markup():
    assert code("a`b|c\nd") == "`a'b/c d`"
    assert code("") == "–"
    assert code("x" * 500) == f"`{'x' * 119}…`"
    assert sentence("<b>_a_ and snake_case|*") == r"\<b\>\_a\_ and snake_case/\*"
    assert sentence("https://x www.y a@b") == r"https:\//x www\.y a\@b"
    assert counted(1, "image") == "1 image"
    assert counted(2000, "image") == "2,000 images"
