"""A step that is not finite, with a real detector: who is named, and what is left to look at."""

import json
import logging
import math

import cv2
import pytest
import torch
from torch import nn

from d2pd.config_keys import default_config
from d2pd.d2 import Boxes, EventStorage, Instances
from d2pd.errors import UserError
from d2pd.training.culprits.evidence import Evidence
from d2pd.training.culprits.non_finite import DivergedError, Guard, build_guard
from d2pd.training.culprits.replay import replay
from d2pd.training.culprits.sample_faults import TargetError
from d2pd.training.step import Step

HEIGHT, WIDTH = 64, 96


def picture(row, boxes=((10, 10, 40, 50), (50, 20, 90, 60)), image=None):
    generator = torch.Generator().manual_seed(row)
    size = (3, HEIGHT, WIDTH)
    if image is None:
        image = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
    instances = Instances((HEIGHT, WIDTH))
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
    instances.gt_classes = torch.arange(len(boxes)) % 2
    sample = {"image": image, "instances": instances, "height": HEIGHT, "width": WIDTH}
    return {**sample, "file_name": f"set00/{row}.png", "row": row, "k": row, "image_id": row}


def rotated(box, degrees):
    """The upright box around a box turned about the centre of the picture."""
    angle = math.radians(degrees)
    x1, y1, x2, y2 = box
    corners = [(x - WIDTH / 2, y - HEIGHT / 2) for x in (x1, x2) for y in (y1, y2)]
    xs = [x * math.cos(angle) - y * math.sin(angle) + WIDTH / 2 for x, y in corners]
    ys = [x * math.sin(angle) + y * math.cos(angle) + HEIGHT / 2 for x, y in corners]
    return min(xs), min(ys), max(xs), max(ys)


def train(model, batches, folder, lr=1e-4, **policy):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    guard = Guard(Evidence(folder, ("person", "cyclist")), **policy)
    step = Step(model.train(), batches, optimizer, num_classes=2, seed=1, guard=guard)
    with EventStorage(0) as storage:
        for step.iter in range(len(batches)):
            step.run_step()
            storage.step()
    return step


def culprit_of(model, batches, folder, error, **kwargs):
    """Train until it stops; return the message and the JSON, after a look at the other files."""
    with pytest.raises(error) as caught:
        train(model, batches, folder, **kwargs)
    assert isinstance(caught.value, UserError)
    text = str(caught.value)
    assert "\n" not in text
    (path,) = folder.glob("*.json")
    assert text.endswith(f"see {path}")
    assert sorted(p.name for p in folder.iterdir()) == [
        path.stem + s for s in (".json", ".png", ".pt")
    ]

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    told = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert text.startswith(f"iteration {told['iteration']}: ")
    assert cv2.imread(str(path.with_suffix(".png"))).shape[2] == 3
    return text, told


def in_words(told):
    return told["iteration"], told["verdict"], [i["row"] for i in told["images"] if i["is_blamed"]]


SOUND = [picture(0), picture(1)]


def test_degenerate_box_smuggled_past_cleaning(build_detector, tmp_path):
    bad = picture(1009, boxes=((10, 10, 40, 50), (50, 20, 50, 60)))
    text, told = culprit_of(build_detector(), [SOUND, [picture(3), bad]], tmp_path, TargetError)
    assert in_words(told) == (1, "data", [1009])
    assert "set00/1009.png (row 1009): target box 1 [50.0, 20.0, 50.0, 60.0]" in text
    (fault,) = told["faults"]
    assert (fault["index"], fault["row"], fault["box"]) == (1, 1009, 1)
    assert fault["rule"] == "box_without_area"
    picture_of_it = cv2.imread(str(next(tmp_path.glob("*.png")))).astype(int)
    assert (abs(picture_of_it - [75, 75, 255]).sum(axis=2) < 30).sum() > 20  # the red ring


def test_centre_outside_after_rotation(build_detector, tmp_path):
    box = rotated((2, 2, 20, 20), 45)
    bad = picture(7, boxes=(box, (50, 20, 90, 60)))
    text, told = culprit_of(build_detector(), [[bad, picture(3)]], tmp_path, TargetError)
    assert in_words(told) == (0, "data", [7])
    assert "has its centre outside its image of 96x64 pixels" in text
    assert [(f["rule"], f["box"]) for f in told["faults"]] == [("box_outside_image", 0)]


def test_nan_in_a_float_image(build_detector, tmp_path):
    pixels = torch.rand(3, HEIGHT, WIDTH) * 255
    pixels[0, 30:40, 50] = float("nan")
    text, told = culprit_of(
        build_detector(), [[picture(3), picture(8, image=pixels)]], tmp_path, TargetError
    )
    assert in_words(told) == (0, "data", [8])
    assert "(row 8): 10 of 18432 pixel values are infinite or not a number" in text


@pytest.mark.parametrize("batch_size", [1, 2])
def test_exploding_rate(build_detector, tmp_path, batch_size):
    batches = [[picture(2 * n + k) for k in range(batch_size)] for n in range(6)]
    text, told = culprit_of(build_detector(norm="BN"), batches, tmp_path, DivergedError, lr=1e3)
    iteration, verdict, _ = in_words(told)
    assert 0 < iteration < 5
    assert verdict == "divergence"
    assert float(told["largest_weight"]["value"]) > 10
    assert "a lower SOLVER.BASE_LR" in text
    assert all(row["alone"] for row in told["images"])


def test_assert_inside_the_model_for_one_image(build_detector, tmp_path):
    """Pixels that are finite, but whose features are not: the RPN refuses them."""
    wild = torch.full((3, HEIGHT, WIDTH), 3e38)
    wild[:, ::2] = -3e38
    batches = [SOUND, [picture(3), picture(9, image=wild)]]
    text, told = culprit_of(build_detector(), batches, tmp_path, DivergedError)
    assert in_words(told) == (1, "image", [9])
    assert told["seen_in"] in ("model check", "loss")
    assert "image: set00/9.png (row 9): not finite by itself, unlike other images" in text
    assert told["images"][0]["alone"]["error"] == ""
    assert set(told["images"][0]["alone"]["losses"]) == {
        "loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"
    }  # fmt: skip


class WithBadGradient(nn.Module):
    """A detector with a loss whose gradient is not a number for one image, though it is 0."""

    def __init__(self, detector, row):
        super().__init__()
        self.detector = detector
        self.row = row

    def forward(self, batch):
        losses = self.detector(batch)
        if any(sample["row"] == self.row for sample in batch):
            losses["loss_cls"] = losses["loss_cls"] + (losses["loss_rpn_loc"] * 0).sqrt()
        return losses


def test_nan_gradient_with_a_finite_loss_and_its_replay(build_detector, tmp_path):
    model = WithBadGradient(build_detector(), row=5)
    text, told = culprit_of(model, [SOUND, [picture(5), picture(6)]], tmp_path, DivergedError)
    assert in_words(told) == (1, "image", [5])
    assert "the loss is finite, the gradient is not (" in text
    assert told["images"][0]["alone"]["gradient_norm"] == "nan"
    assert 0 < told["images"][1]["alone"]["gradient_norm"] < 1e6
    again = replay(
        next(tmp_path.glob("*.pt")), lambda _: WithBadGradient(build_detector(seed=3), row=5)
    )
    assert again.losses == again.recorded == told["losses"]
    assert math.isnan(again.gradient_norm)
    assert (again.iteration, again.rank, again.faults) == (1, 0, [])


def test_skipping_a_batch_leaves_a_detector_as_if_it_had_not_come(build_detector, tmp_path, caplog):
    bad = picture(7, boxes=((50, 20, 50, 60),))
    model = build_detector(norm="BN")
    step = train(model, [SOUND, [picture(3), bad]], tmp_path, policy="skip", budget=1)
    expected = build_detector(norm="BN")
    train(expected, [SOUND], tmp_path)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert step.guard.skipped == 1
    (warning,) = (r for r in caplog.records if r.levelno == logging.WARNING)
    assert "(row 7)" in warning.getMessage()


def test_guard_reads_the_configuration(tmp_path):
    cfg = default_config()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.INPUT.FORMAT = "RGB"
    cfg.NON_FINITE.POLICY, cfg.NON_FINITE.BUDGET = "skip", 3
    guard = build_guard(cfg)
    assert (guard.policy, guard.budget, guard.skipped) == ("skip", 3, 0)
    assert guard.evidence.folder == tmp_path / "non_finite"
    assert guard.evidence.image_format == "RGB"
    assert "BASE_LR" in guard.evidence.config_text
    assert not guard.evidence.folder.exists()
