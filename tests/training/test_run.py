"""Whole runs on drawn pictures: what they leave behind, and what survives a kill."""

import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch

from d2pd.config import train_parser
from d2pd.config_keys import default_config
from d2pd.d2 import TrainerBase
from d2pd.errors import UserError
from d2pd.training.interruption import Interruption
from d2pd.training.pictures import write_pictures
from d2pd.training.run import is_short, main
from d2pd.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
QUICK = str(ROOT / "configs/quick/faster_rcnn_synthetic.yaml")


def run_main(opts, *flags):
    return main(train_parser().parse_args(["--config-file", QUICK, *flags, *opts]))


def weights_of(path):
    return torch.load(path, map_location="cpu", weights_only=True)["model"]


def assert_same_weights(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0, msg=name)


@pytest.fixture(scope="module")
def finished(quick_opts, tmp_path_factory):
    """The output folder of a run of 20 steps, evaluated twice, and its results."""
    output = tmp_path_factory.mktemp("run") / "output"
    opts = [*quick_opts, "SOLVER.MAX_ITER", "20", "TEST.EVAL_PERIOD", "10"]
    results = run_main([*opts, "SOLVER.CHECKPOINT_PERIOD", "10", "OUTPUT_DIR", str(output)])
    return output, results


def test_twenty_steps_of_cascade_rcnn_lower_the_losses_of_every_stage(quick_opts, tmp_path):
    config = str(ROOT / "configs/quick/cascade_rcnn_synthetic.yaml")
    opts = [*quick_opts, "SOLVER.MAX_ITER", "20", "TEST.EVAL_PERIOD", "10"]
    opts += ["OUTPUT_DIR", str(tmp_path)]
    results = main(train_parser().parse_args(["--config-file", config, *opts]))
    assert "AP50" in results["bbox"]
    names = {f"roi_heads.box_predictor.{k}.cls_score.weight" for k in range(3)}
    assert names <= set(weights_of(tmp_path / "model_final.pth"))
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    losses = [row for row in rows if "loss_cls_stage2" in row]
    for stage in range(3):
        assert losses[-1][f"loss_cls_stage{stage}"] < losses[0][f"loss_cls_stage{stage}"]
        assert f"val/loss_cls_stage{stage}" in rows[-1]


def test_twenty_steps_leave_weights_curves_and_pictures(finished):
    output, results = finished
    assert set(results["bbox"]) >= {"AP", "AP50", "AP75", "APs", "APm", "APl"}
    assert (output / "last_checkpoint").read_text() == "model_final.pth"
    for name in ("model_0000009.pth", "model_0000019.pth", "config.yaml", "log.txt"):
        assert (output / name).is_file()
    for name in ("train_batch.png", "curves.png", "detections_synthetic_val.png"):
        picture = cv2.imread(str(output / name))
        assert picture.std() > 10, f"{name} is blank"
    assert list(output.glob("events.out.tfevents.*"))


def test_a_card_beside_the_weights_says_what_they_are(finished):
    output, results = finished
    card = (output / "model_card.md").read_text(encoding="utf-8")
    assert "The numbers are of `model_final.pth` (after iteration 19)." in card
    assert "These are the labels that the weights say they have learnt from" in card
    assert re.search(rf"`AP50` +\| {results['bbox']['AP50']:.2f} ", card)
    assert "**Drawn pictures:**" in card


def test_metrics_hold_losses_rate_and_both_evaluations(finished):
    output, results = finished
    lines = (output / "metrics.json").read_text().splitlines()
    rows = {row["iteration"]: row for row in map(json.loads, lines)}
    assert len(lines) == len(rows) == 2
    names = {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"}
    assert names | {"total_loss", "lr", "grad_norm", "data_time"} <= set(rows[19])
    for row in rows.values():
        assert {"bbox/AP50", "val/total_loss", "val/loss_cls", "best/bbox/AP"} <= set(row)
    assert rows[19]["bbox/AP50"] == pytest.approx(results["bbox"]["AP50"], nan_ok=True)


def test_training_moves_every_part_of_the_model(finished):
    output, _ = finished
    before = weights_of(output / "model_0000009.pth")
    after = weights_of(output / "model_final.pth")
    still = [
        name
        for name, tensor in after.items()
        if tensor.is_floating_point() and "pixel" not in name and "anchor" not in name
        if torch.equal(tensor, before[name])
    ]
    assert still == []


def test_evaluation_alone_gives_the_result_of_the_run(finished, quick_opts, tmp_path):
    output, results = finished
    weights = ["MODEL.WEIGHTS", str(output / "model_final.pth"), "OUTPUT_DIR", str(tmp_path)]
    again = run_main([*quick_opts, *weights], "--eval-only")
    assert again["bbox"] == pytest.approx(results["bbox"], nan_ok=True)


@pytest.mark.slow
def test_final_test_is_evaluated_once_after_training_and_apart(quick_opts, tmp_path):
    opts = [*quick_opts, "DATASETS.FINAL_TEST", "('synthetic_train',)", "SOLVER.MAX_ITER", "3"]
    results = run_main([*opts, "OUTPUT_DIR", str(tmp_path / "out")])
    assert set(results["final"]["bbox"]) == set(results["bbox"])
    predictions = tmp_path / "out/inference/synthetic_train/predictions.json"
    assert json.loads(predictions.read_text())["dataset"] == "synthetic_train"


def test_without_resume_a_finished_run_is_not_written_over(finished, quick_opts):
    output, _ = finished
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    with pytest.raises(UserError, match="already holds a run"):
        run_main([*quick_opts, "OUTPUT_DIR", str(output)])
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


def test_mistake_during_training_leaves_no_traceback_and_a_fault_of_ours_does(caplog):
    class Failing(Trainer):
        def __init__(self, error):
            TrainerBase.__init__(self)
            self.start_iter, self.max_iter, self._error = 0, 1, error
            self.stop_request, self.is_pending = None, False
            self._trainer, self._interruption = SimpleNamespace(close=list), Interruption()

        def run_step(self):
            raise self._error

    for error, is_logged in ((UserError("a bad picture"), False), (KeyError("bug"), True)):
        caplog.clear()
        with pytest.raises(type(error)):
            Failing(error).train()
        assert any(record.exc_info for record in caplog.records) is is_logged


def test_terminal_is_spared_long_messages_but_not_warnings():
    def record(level, lines):
        return logging.LogRecord("d2pd", level, "", 0, "line\n" * lines, None, None)

    assert is_short(record(logging.INFO, 5))
    assert not is_short(record(logging.INFO, 300))
    assert is_short(record(logging.WARNING, 300))


def test_output_without_a_row_of_metrics_gives_no_curves_and_no_error(tmp_path, caplog):
    (tmp_path / "metrics.json").write_text("")
    cfg = default_config()
    cfg.OUTPUT_DIR = str(tmp_path)
    assert write_pictures(cfg) == {}
    assert "curves cannot be drawn: " in caplog.text


def test_pictures_that_cannot_be_written_are_warnings(finished, tmp_path, caplog):
    output, _ = finished
    cfg = default_config()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.DATASETS.TEST = ("no_such_dataset",)
    (tmp_path / "metrics.json").write_bytes((output / "metrics.json").read_bytes())
    found = tmp_path / "inference/no_such_dataset/predictions.json"
    found.parent.mkdir(parents=True)
    found.write_text("{}")
    (tmp_path / "curves.png").mkdir()
    assert "curves" not in write_pictures(cfg)
    assert "curves cannot be drawn: IsADirectoryError: " in caplog.text
    assert "detections cannot be drawn: KeyError: " in caplog.text
