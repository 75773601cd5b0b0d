"""One trained model through evaluator, predictor, command and every export: the same detections."""

import json

import numpy as np

from d2pd import cli
from d2pd.config import load_config
from d2pd.d2 import ENGINE
from d2pd.data.records import load_records
from d2pd.data.registration import register_from_config
from d2pd.inference.export.command import FORMATS
from d2pd.inference.predictor import load


def assert_same_detections_every_way(output, tmp_path, capsys):
    """Compare on the test data of a finished run.

    Args:
        output: Its OUTPUT_DIR, with the predictions of its last evaluation.
        tmp_path: For what is written.
        capsys: Pytest's.
    """
    predictor = load(output, device="cpu")
    cfg = load_config(output / "config.yaml")
    register_from_config(cfg)
    name = cfg.DATASETS.TEST[0]
    evaluated = json.loads((output / "inference" / name / "predictions.json").read_text())
    assert_same_rows(predictor.predict_records(load_records(name)), evaluated["predictions"])

    root = cfg.DATASETS.ROOT
    entry = cfg.DATASETS.REGISTER[name]
    words = ["predict", "--weights", output / "model_final.pth", "--threshold", 0, "--no-pictures"]
    words += ["--annotations", f"{root}/{entry.ANNOTATIONS}", "--images", f"{root}/{entry.IMAGES}"]
    assert cli.main([*map(str, words), "--output", str(tmp_path / "predicted")]) == 0
    predicted = json.loads((tmp_path / "predicted/detections.json").read_text())
    assert_same_rows(predicted["predictions"], evaluated["predictions"])

    for kind, how in FORMATS.items():
        path = tmp_path / f"model{how.suffix}"
        words = ["export", "--weights", output, "--format", kind, "--output", path]
        assert cli.main([str(word) for word in words]) == 0, capsys.readouterr().err
        assert "the same" in capsys.readouterr().out  # within .01 px and 1e-4, or it is refused


def assert_same_rows(ours, theirs):
    """Compare COCO results to the bit; within rounding where Detectron2 has evaluated."""
    assert len(ours) > 100
    if ENGINE == "embedded":
        assert ours == theirs
        return
    assert len(ours) == len(theirs)
    for row, other in zip(ours, theirs, strict=True):
        assert row["image_id"] == other["image_id"]
        np.testing.assert_allclose(row["bbox"], other["bbox"], atol=0.01)
        assert abs(row["score"] - other["score"]) < 1e-4
