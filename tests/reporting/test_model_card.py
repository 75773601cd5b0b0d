"""Model cards of whole runs: each section against numbers known by hand."""

import re

import pytest
import torch
from card_toys import (
    CLASSES,
    begin,
    card_of,
    finish,
    hand_made_config,
    kaist_run,
    measured_precision,
    rows,
    save,
    section,
)
from report_toys import (
    QUICK,
    near_labels,
    write_config,
    write_metrics,
    write_predictions,
)

from d2pd.config import load_config
from d2pd.d2 import ENGINE
from d2pd.data.records import load_records
from d2pd.reporting.model_card.write import write_model_card
from d2pd.training.results import write_results


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
    assert f"engine `{ENGINE}`" in model
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
