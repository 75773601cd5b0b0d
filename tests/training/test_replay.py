"""A recorded step runs again, and its file runs nothing."""

import os
import pickle

import pytest
import torch
from step_toys import NAN, Asserting, Crowd, Toy, sample
from torch import nn

from d2pd.config_keys import default_config
from d2pd.d2 import EventStorage
from d2pd.errors import ConfigError, MissingFileError, UserError, WeightsError
from d2pd.training.culprits.evidence import Evidence
from d2pd.training.culprits.non_finite import Guard
from d2pd.training.culprits.replay import model_of_config, replay
from d2pd.training.precision import Precision
from d2pd.training.step import Step


def record(folder, model, batch, config_text="", **kwargs):
    """Let a step go wrong; return the file that is left."""
    guard = Guard(Evidence(folder, config_text=config_text))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = Step(model, [batch], optimizer, num_classes=1, seed=3, guard=guard, **kwargs)
    step.iter = 41
    with EventStorage(41), pytest.raises(UserError):
        step.run_step()
    (path,) = folder.glob("*.pt")
    return path


class Drawing(Toy):
    """Batch norm and noise: the losses depend on seed, precision and buffers."""

    def __init__(self):
        super().__init__(noise=1.0)
        self.norm = nn.BatchNorm1d(3)
        self.linear = nn.Linear(3, 3)

    def forward(self, batch):
        rows = torch.rand(4, 3) + torch.tensor([s["value"] for s in batch]).mean()
        spread = self.norm(self.linear(rows)).square().mean()
        return {**super().forward(batch), "loss_c": spread, "loss_d": spread / (len(batch) < 2)}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_losses_are_those_of_the_run_to_the_bit(tmp_path, precision):
    path = record(tmp_path, Drawing(), [sample(1.0), sample(0.3)], precision=Precision(precision))
    again = replay(path, lambda _text: Drawing())
    assert again.losses == again.recorded
    assert (again.iteration, again.rank, again.refusal) == (41, 0, "")
    assert again.losses["loss_d"] == float("inf")


def test_parts_of_a_batch_get_their_own_seeds(tmp_path):
    class RootOfNoise(Toy):
        def forward(self, batch):
            losses = super().forward(batch)
            return {**losses, "loss_c": (self.weight * 0).sqrt()}

    batch = [sample(value) for value in (1.0, 2.0, 3.0, 4.0)]
    path = record(tmp_path, RootOfNoise(noise=1.0), batch, accumulate=2)
    again = replay(path, lambda _text: RootOfNoise(noise=1.0))
    assert again.losses == again.recorded


def test_report_compares_now_with_then(tmp_path):
    path = record(tmp_path, Crowd(), [sample(1.0), sample(2.0)])
    lines = replay(path, lambda _text: Crowd()).report().splitlines()
    assert lines[0].startswith("iteration 41, rank 0: the loss is not finite (loss_a=inf")
    assert lines[1] == "loss_a = inf (in the run: inf)"
    assert lines[3].startswith("norm of the gradients = ")
    assert lines[5].startswith("a.png by itself: loss_a = 4, loss_b = 0, norm of the gradients = ")
    assert len(lines) == 6


def test_model_that_refuses_again_and_faults_are_reported(tmp_path):
    refused = replay(record(tmp_path, Asserting(), [sample(-2.0)]), lambda _text: Asserting())
    assert refused.refusal.startswith("a value of -2 (step_toys.py:")
    assert refused.report().splitlines()[-2].startswith("the model stopped: a value of -2")
    assert refused.report().splitlines()[-1].startswith("a.png by itself: a value of -2")
    path = record(tmp_path / "faults", Toy(), [sample(NAN, boxes=((5, 5, 5, 9),), row=9)])
    found = replay(path, lambda _text: Toy())
    assert (found.losses, found.gradient_norm, found.is_finite) == ({}, None, False)
    assert [(fault.row, fault.rule) for fault in found.faults] == [(9, "box_without_area")]
    assert "a.png (row 9): target box 0" in found.report()


def test_model_is_built_from_the_recorded_configuration(tmp_path):
    cfg = default_config()
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 4
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    cfg.MODEL.DEVICE = "cuda"
    cfg.MODEL.WEIGHTS = "/nowhere.pth"
    model = model_of_config(cfg.dump())
    assert model.roi_heads.num_classes == 4
    assert model.device.type == "cpu"


def test_configuration_that_would_run_code_is_refused(tmp_path):
    text = f"SEED: !!python/object/apply:os.mkdir ['{tmp_path / 'ran'}']"
    no_backbone = "MODEL: {META_ARCHITECTURE: GeneralizedRCNN, DEVICE: cpu, WEIGHTS: ''}"
    for unusable in (text, "just words", "[1, 2]", "SEED: 1", no_backbone):
        with pytest.raises(ConfigError, match="the recorded configuration cannot be used"):
            model_of_config(unusable)
    assert not (tmp_path / "ran").exists()


def test_step_without_configuration_asks_for_the_model(tmp_path):
    path = record(tmp_path, Toy(), [sample(NAN)])
    with pytest.raises(ConfigError, match="no configuration"):
        replay(path)


def test_another_model_is_refused(tmp_path):
    path = record(tmp_path, Toy(), [sample(NAN)])
    with pytest.raises(WeightsError, match=r"iter_0000041_rank0\.pt is of another model"):
        replay(path, lambda _text: nn.Linear(2, 2))


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_file_that_asks_for_code_damaged_or_of_another_kind_is_refused(tmp_path):
    hostile, cut, pickled = (tmp_path / name for name in ("hostile.pt", "cut.pt", "pickle.pt"))
    torch.save({"format": "d2pd step 1", "x": Hostile(str(tmp_path / "ran"))}, hostile)
    cut.write_bytes(hostile.read_bytes()[:100])
    with pytest.raises(WeightsError, match="asks for posix.mkdir, .* so nothing was loaded"):
        replay(hostile)
    with pytest.raises(WeightsError, match="is cut off or damaged"):
        replay(cut)
    pickled.write_bytes(pickle.dumps(Hostile(str(tmp_path / "ran"))))
    with pytest.raises(WeightsError):
        replay(pickled)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(MissingFileError, match="OUTPUT_DIR/non_finite"):
        replay(tmp_path / "none.pt")
    with pytest.raises(WeightsError, match="is not a file"):
        replay(tmp_path)


def test_flipped_byte_is_noticed(tmp_path):
    path = record(tmp_path, Toy(), [sample(NAN)])
    content = bytearray(path.read_bytes())
    content[content.index(b"d2pd step 1")] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="is damaged"):
        replay(path)


@pytest.mark.parametrize("other", [{"model": {}}, {"format": torch.zeros(3)}, {1: 2}])
def test_file_of_another_kind_is_refused(tmp_path, other):
    torch.save(other, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="is not a recorded step"):
        replay(tmp_path / "other.pt")


BATCH = ("batch", 0)


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        (("iteration",), None, "it has no 'iteration'"),
        (("batch",), None, "it has no 'batch'"),
        (("config",), None, "it has no 'config'"),
        ((*BATCH, "seed"), None, "it has no 'seed'"),
        ((*BATCH, "sample", "image"), None, "it has no 'image'"),
        ((*BATCH, "instances", "gt_classes"), None, "it has no 'gt_classes'"),
        (("iteration",), -1, "iteration -1 is not"),
        (("rank",), True, "rank is not"),
        (("text",), 5, "text is not"),
        (("precision",), "fp8", "precision 'fp8' is not"),
        (("losses",), {"loss_a": "nan"}, "loss 'loss_a' is not"),
        (("model",), {"weight": 2.0}, "weight 'weight' is not"),
        (("batch",), {"0": 1}, "batch is not"),
        (("batch",), ["a"], r"batch\[0\] is not"),
        ((*BATCH, "seed"), -1, r"batch\[0\].seed is not"),
        ((*BATCH, "image_size"), [20], r"batch\[0\].image_size is not"),
        ((*BATCH, "sample", "image"), torch.zeros(3), r"batch\[0\].image is not"),
        ((*BATCH, "sample", "row"), "9", r"batch\[0\].row is not"),
        ((*BATCH, "instances", "gt_boxes"), torch.zeros(1, 5), r"batch\[0\].gt_boxes is not"),
        ((*BATCH, "instances", "gt_classes"), torch.zeros(1), r"batch\[0\].gt_classes is not"),
        ((*BATCH, "instances", "more"), torch.zeros(2), r"batch\[0\].'more' is not"),
        ((*BATCH, "instances", "more"), 1, r"batch\[0\].'more' is not"),
    ],
)
def test_entry_that_is_missing_or_of_another_kind_is_named(tmp_path, place, value, what):
    path = record(tmp_path, Toy(), [sample(NAN)])
    content = torch.load(path, weights_only=True)
    entry = content
    for key in place[:-1]:
        entry = entry[key]
    if value is None:
        del entry[place[-1]]
    else:
        entry[place[-1]] = value
    torch.save(content, path)
    with pytest.raises(WeightsError, match=rf"is not a recorded step .*\({what}"):
        replay(path, lambda _text: Toy())


def test_file_nested_without_end_is_refused(tmp_path):
    path = record(tmp_path, Toy(), [sample(NAN)])
    content = torch.load(path, weights_only=True)
    content["more"] = endless = []
    endless.append(endless)
    torch.save(content, path)
    with pytest.raises(WeightsError, match="it is nested without end"):
        replay(path, lambda _text: Toy())
