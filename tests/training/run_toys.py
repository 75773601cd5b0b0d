"""Whole runs in this process: a detector that trains in a second, and how two runs are compared."""

import contextlib
import json
import shutil
from pathlib import Path

import torch
from torch import nn

from d2pd.config import train_parser
from d2pd.d2 import BACKBONE_REGISTRY, Backbone
from d2pd.training.run import main
from d2pd.training.step import Step
from d2pd.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
QUICK = str(ROOT / "configs/quick/faster_rcnn_synthetic.yaml")
CLOCKS = {"time", "data_time", "eta_seconds"}

THIN = [
    *("MODEL.RESNETS.DEPTH", "50", "MODEL.RESNETS.STEM_OUT_CHANNELS", "8"),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", "16", "MODEL.RESNETS.WIDTH_PER_GROUP", "4"),
    *("MODEL.FPN.OUT_CHANNELS", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "32"),
]
"""The quick detector with narrow layers: checkpoints of 2 MB, not of 148."""

TINY = [
    *("MODEL.BACKBONE.NAME", "build_tiny_backbone", "MODEL.RPN.IN_FEATURES", "['stride8']"),
    *("MODEL.ROI_HEADS.IN_FEATURES", "['stride8']", "MODEL.ROI_BOX_HEAD.FC_DIM", "32"),
    *("MODEL.ANCHOR_GENERATOR.SIZES", "[[12, 24, 48]]"),
]
"""Faster R-CNN on two layers of convolutions, with batch norm."""


class TinyBackbone(Backbone):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 8, 5, stride=4, padding=2), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        )
        self._out_features = ["stride8"]
        self._out_feature_channels = {"stride8": 16}
        self._out_feature_strides = {"stride8": 8}

    def forward(self, images):
        return {"stride8": self.layers(images)}


@BACKBONE_REGISTRY.register()
def build_tiny_backbone(cfg, input_shape):
    return TinyBackbone()


def run_main(output, opts, *flags):
    words = ["--config-file", QUICK, *flags, *opts, "OUTPUT_DIR", str(output)]
    return main(train_parser().parse_args(words))


def read(path):
    return torch.load(path, map_location="cpu", weights_only=True)


def all_rows(output):
    lines = (output / "metrics.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


def rows(output):
    """Return the rows of ``metrics.json`` without their clock fields."""
    return [{k: v for k, v in row.items() if k not in CLOCKS} for row in all_rows(output)]


def log_of(output):
    return (output / "log.txt").read_text()


def checkpoints(output):
    return sorted(path.name for path in output.glob("model_*.pth"))


def times(output):
    """Return when each file was last written, folders too."""
    return {path: path.stat().st_mtime_ns for path in (output, *output.rglob("*"))}


def assert_equal(ours, theirs, where):
    """Compare trees of plain data to the bit; NaN equals NaN."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert list(ours) == list(theirs), where
        for key in ours:
            if key not in CLOCKS:
                assert_equal(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(one, other, f"{where}[{index}]")
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif ours != ours:
        assert theirs != theirs, where
    else:
        assert ours == theirs, where


def assert_same_files(one, other, *names):
    """Compare checkpoints to the bit, but for the folder that a run names in them."""
    for name in names:
        ours, theirs = read(one / name), read(other / name)
        for content in (ours, theirs):
            content.pop("run", None), content.pop("config", None)
        assert_equal(ours, theirs, name)


def assert_same_weights(one, other, name="model_final.pth"):
    assert_equal(read(one / name)["model"], read(other / name)["model"], name)


def assert_same_run(one, other):
    """Compare weights, optimizer, states, best model, metric rows and results."""
    assert_same_files(one, other, "model_final.pth", "model_best.pth")
    assert_equal(rows(one), rows(other), "metrics.json")
    results = [json.loads((folder / "results.json").read_text()) for folder in (one, other)]
    assert_equal(*results, "results.json")


class Killed(BaseException):
    """Ends a run as no handler of faults expects it."""


@contextlib.contextmanager
def at_step(monkeypatch, act):
    """Call ``act(iteration)`` before each step."""
    run_step = Step.run_step

    def act_first(step):
        act(step.iter)
        run_step(step)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "run_step", act_first)
        yield


@contextlib.contextmanager
def copied_before_steps(monkeypatch, output, target, also=()):
    """Copy the folder of a run before each step: what a kill there would leave.

    The copy before step 3 is ``target/"3"/"run"``; other folders in ``also`` lie beside it.
    """

    def copy(iteration):
        for folder in (output, *also):
            shutil.copytree(folder, target / str(iteration) / folder.name)

    with at_step(monkeypatch, copy):
        yield


def script(monkeypatch, values):
    """Let evaluations give hand-written APs, by their iteration."""

    def evaluate(trainer):
        trainer._last_eval_results = {"bbox": {"AP": values[trainer.iter]}}
        return trainer._last_eval_results

    monkeypatch.setattr(Trainer, "evaluate", evaluate)
