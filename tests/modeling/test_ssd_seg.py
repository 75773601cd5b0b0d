"""SSDSeg: Detectron2's contract in training and inference, over losses told plainly."""

import math

import pytest
import torch
import torch.nn.functional as F
from ssd_toys import make_model, sample
from torchvision.ops import box_iou

from d2pd.d2 import META_ARCH_REGISTRY, EventStorage
from d2pd.errors import ConfigError
from d2pd.modeling.segmentation import IGNORE_INDEX, segmentation_losses
from d2pd.modeling.ssd_seg import SSDSeg
from d2pd.training.culprits.sample_faults import find_faults
from d2pd.training.validation import measure_images

WITHOUT_SEG = {"MODEL__SSD__SEG__MAPS": []}


def losses_of(model, batch):
    with EventStorage(0) as storage:
        return model(batch), {name: value for name, (value, _) in storage.latest().items()}


def plain_losses(model, batch):
    """The multibox losses of one image, anchor by anchor, as the paper tells them."""
    (one,) = batch
    images = (one["image"] - model.pixel_mean) / model.pixel_std
    with torch.no_grad():
        logits, deltas, _ = model.network(images[None])
    size = tuple(one["image"].shape[-2:])
    anchors = model._anchors(model.preprocess_image(batch), model.map_sizes(size))
    boxes, classes = one["instances"].gt_boxes.tensor, one["instances"].gt_classes
    iou = box_iou(anchors, boxes)
    iou[iou.argmax(dim=0), torch.arange(len(boxes))] = 2  # each label keeps its best anchor
    positives = [a for a in range(len(anchors)) if iou[a].max() >= 0.5]
    loss_box, loss_cls, negatives = 0.0, 0.0, []
    for a in range(len(anchors)):
        if a not in positives:
            negatives.append(F.cross_entropy(logits[0, a], torch.tensor(2)).item())
            continue
        label = iou[a].argmax()
        (x1, y1, x2, y2), (u1, v1, u2, v2) = boxes[label].tolist(), anchors[a].tolist()
        target = [
            10 * ((x1 + x2) / 2 - (u1 + u2) / 2) / (u2 - u1),
            10 * ((y1 + y2) / 2 - (v1 + v2) / 2) / (v2 - v1),
            5 * math.log((x2 - x1) / (u2 - u1)),
            5 * math.log((y2 - y1) / (v2 - v1)),
        ]
        loss_box += F.smooth_l1_loss(deltas[0, a], torch.tensor(target), reduction="sum").item()
        loss_cls += F.cross_entropy(logits[0, a], classes[label]).item()
    hard = sorted(negatives, reverse=True)[: 3 * len(positives)]
    return (loss_cls + sum(hard)) / len(positives), loss_box / len(positives)


def test_it_is_registered_by_its_name():
    assert META_ARCH_REGISTRY.get("SSDSeg") is SSDSeg
    assert isinstance(make_model(), SSDSeg)


def test_losses_are_those_told_plainly():
    torch.manual_seed(3)
    model = make_model(**WITHOUT_SEG).train()
    batch = [sample(((10, 12, 40, 60), (50, 20, 62, 44), (52, 21, 64, 45)), (1, 0, 1))]
    expected = plain_losses(model, batch)
    found, _ = losses_of(model, batch)
    assert list(found) == ["loss_cls", "loss_box_reg"]
    assert found["loss_cls"].item() == pytest.approx(expected[0], rel=1e-4)
    assert found["loss_box_reg"].item() == pytest.approx(expected[1], rel=1e-4)


def test_the_box_loss_has_its_weight_and_may_be_l1():
    torch.manual_seed(3)
    batch = [sample()]
    of = {
        name: losses_of(make_model(**WITHOUT_SEG, **changes).train(), batch)[0]["loss_box_reg"]
        for name, changes in {
            "plain": {},
            "twice": {"MODEL__SSD__BBOX_REG_LOSS_WEIGHT": 2.0},
            "l1": {"MODEL__SSD__SMOOTH_L1_BETA": 0.0},
        }.items()
    }
    assert of["twice"].item() == pytest.approx(2 * of["plain"].item())
    assert of["l1"] > of["plain"]


def test_with_infusion_each_map_is_logged_and_the_total_is_a_loss():
    model = make_model(MODEL__SSD__SEG__MAP_WEIGHTS=[1.0, 3.0]).train()
    found, logged = losses_of(model, [sample(), sample(((20, 20, 60, 70),))])
    assert list(found) == ["loss_cls", "loss_box_reg", "loss_seg"]
    assert set(logged) == {"loss_seg/conv4_3", "loss_seg/conv7"}
    total = logged["loss_seg/conv4_3"] + 3 * logged["loss_seg/conv7"]
    assert found["loss_seg"].item() == pytest.approx(total, rel=1e-5)


def test_every_parameter_learns_from_the_losses():
    model = make_model().train()
    # A label for each map, without which its box head would have nothing to learn.
    boxes = ((10, 12, 40, 60), (30, 20, 94, 70), (60, 10, 75, 30))
    sum(losses_of(model, [sample(boxes, (1, 0, 1))] * 2)[0].values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("images", [1, 3])
def test_without_any_label_there_is_no_box_loss_and_no_nan(images):
    model = make_model().train()
    found, _ = losses_of(model, [sample(()) for _ in range(images)])
    assert found["loss_box_reg"].item() == 0
    assert found["loss_cls"].item() == 0
    assert found["loss_seg"].item() > 0
    sum(found.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert not model.network.heads.box_deltas["conv4_3"].weight.grad.any()


def test_an_image_without_labels_changes_nothing_for_the_others():
    torch.manual_seed(2)
    model = make_model(**WITHOUT_SEG, MODEL__BACKBONE__FREEZE_AT=0).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()  # otherwise the images see one another
    labelled, empty = sample(), sample(())
    alone, _ = losses_of(model, [labelled])
    both, _ = losses_of(model, [labelled, empty])
    for name, loss in alone.items():
        torch.testing.assert_close(both[name], loss)


def test_a_map_of_one_position_trains_on_a_single_image():
    model = make_model(MODEL__SSD__EXTRA_LAYERS=[[8, 8, 2, 0]]).train()
    assert model.map_sizes((72, 72))[-1] == (1, 1)
    found, _ = losses_of(model, [sample(size=(72, 72))])
    assert all(torch.isfinite(loss) for loss in found.values())


def test_where_all_is_ignored_only_the_labels_count():
    model = make_model(MODEL__SSD__NEGATIVE_RATIO=1000.0).train()
    whole = [(0.0, 0.0, 96.0, 72.0)]
    found, logged = losses_of(model, [sample((), regions=whole)])
    assert [found[name].item() for name in ("loss_cls", "loss_box_reg", "loss_seg")] == [0, 0, 0]
    assert set(logged.values()) == {0}
    with_label, _ = losses_of(model, [sample(regions=whole)])
    without, _ = losses_of(model, [sample()])
    assert 0 < with_label["loss_cls"] < without["loss_cls"]


def test_a_box_without_area_makes_the_loss_infinite_for_the_guard_to_see():
    found, _ = losses_of(make_model().train(), [sample(((10, 10, 10, 30),))])
    assert not math.isfinite(found["loss_box_reg"].item())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_16_bits_the_losses_are_float32_and_near_those_of_32(dtype):
    torch.manual_seed(1)
    batch = [sample(), sample(((20, 20, 60, 70),))]
    full, _ = losses_of(make_model().train(), batch)
    model = make_model().train()
    with torch.autocast("cpu", dtype=dtype):
        found, _ = losses_of(model, batch)
    for name, loss in found.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(full[name].item(), rel=0.1)
    sum(found.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    with torch.autocast("cpu", dtype=dtype), torch.no_grad():
        detections = model.eval()([sample(None)])[0]["instances"]
    assert detections.scores.dtype == torch.float32


def test_no_loss_is_computed_on_maps_which_cuda_cannot_do_deterministically():
    model = make_model().train()
    with torch.profiler.profile() as profile:
        sum(losses_of(model, [sample()])[0].values()).backward()
    names = {event.name for event in profile.events()}
    assert any(name.startswith("aten::nll_loss_") for name in names)
    assert not [name for name in names if "nll_loss2d" in name]


def test_detections_are_scaled_to_the_size_of_the_file():
    torch.manual_seed(1)
    model = make_model().eval()
    batch = [sample(None) | {"height": 144, "width": 288}, sample(None)]
    with torch.no_grad():
        scaled, plain = (each["instances"] for each in model(batch))
        bare = model.inference(batch, do_postprocess=False)
    assert scaled.image_size == (144, 288)
    assert plain.image_size == (72, 96)
    factors = torch.tensor([3.0, 2.0, 3.0, 2.0])
    torch.testing.assert_close(scaled.pred_boxes.tensor, bare[0].pred_boxes.tensor * factors)
    assert 0 < len(plain) <= 100
    assert (plain.scores[:-1] >= plain.scores[1:]).all()
    assert set(plain.pred_classes.tolist()) <= {0, 1}


def test_detections_of_a_padded_image_stay_inside_it():
    torch.manual_seed(1)
    model = make_model().eval()
    small, large = sample(None), sample(None, size=(128, 160))
    with torch.no_grad():
        padded, _ = model([small, large])
    corners = padded["instances"].pred_boxes.tensor
    assert corners.min() >= 0
    assert (corners <= torch.tensor([96.0, 72.0, 96.0, 72.0])).all()
    assert padded["instances"].image_size == (72, 96)


def test_inference_runs_no_segmentation_layer_and_needs_no_labels_or_storage():
    model = make_model().eval()
    for head in model.seg_heads.values():
        head.register_forward_hook(lambda *_: pytest.fail("a segmentation layer ran"))
    with torch.no_grad():
        model([sample(None)])
    assert not [name for name in model.network.state_dict() if "seg" in name]


def test_segmentation_layers_leave_the_detections_as_they_are():
    plain = make_model(**WITHOUT_SEG).eval()
    model = make_model().eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    batch = [sample(None)]
    with torch.no_grad():
        ours, theirs = (each(batch)[0]["instances"] for each in (model, plain))
    assert torch.equal(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)
    assert torch.equal(ours.scores, theirs.scores)


def test_heat_maps_are_probabilities_on_the_part_of_the_map_that_the_image_covers():
    torch.manual_seed(0)
    model = make_model().eval()
    small, large = model.heat_maps([sample(None), sample(None, size=(128, 160))])
    assert {name: tuple(heat.shape) for name, heat in large.items()} == {
        "conv4_3": (16, 20),
        "conv7": (8, 10),
    }
    # conv7's fifth row has its centre at 72, where the image ends: it is not in it.
    assert {name: tuple(heat.shape) for name, heat in small.items()} == {
        "conv4_3": (9, 12),
        "conv7": (4, 6),
    }
    for heat in (*small.values(), *large.values()):
        assert 0 <= heat.min() <= heat.max() <= 1
        assert heat.std() > 0
    layer = model.seg_heads["conv4_3"]
    torch.nn.init.zeros_(layer.weight)
    layer.bias.data = torch.tensor([0.0, math.log(3.0)])
    torch.testing.assert_close(
        model.heat_maps([sample(None)])[0]["conv4_3"], torch.full((9, 12), 0.75)
    )


def test_without_layers_there_is_no_heat_map():
    with pytest.raises(ConfigError, match=r"no heat map: .* MODEL\.SSD\.SEG\.MAPS \[\]"):
        make_model(**WITHOUT_SEG).eval().heat_maps([sample(None)])


def test_a_batch_learns_masks_that_ignore_its_padding(monkeypatch):
    learnt = []
    monkeypatch.setattr(
        "d2pd.modeling.ssd_seg.segmentation_losses",
        lambda logits, masks, *rest: (
            learnt.append(masks) or segmentation_losses(logits, masks, *rest)
        ),
    )
    small = sample(((8, 8, 24, 40),), regions=[(64.0, 48.0, 80.0, 64.0)])
    losses_of(make_model().train(), [small, sample((), size=(80, 112))])
    mask = learnt[0]["conv4_3"][0]
    assert mask.shape == (10, 14)
    expected = torch.zeros(10, 14, dtype=torch.int64)
    expected[:, 12:] = expected[9:] = IGNORE_INDEX  # beyond 96 x 72
    expected[6:8, 8:10] = IGNORE_INDEX
    expected[1:5, 1:3] = 1
    assert torch.equal(mask, expected)


@pytest.mark.parametrize(
    "box", [(10, 12, 10, 60), (40, 12, 10, 60), (math.nan, 12, 40, 60), (10, 12, math.inf, 60)]
)
@pytest.mark.parametrize("others", [(), ((10, 12, 40, 60),)])
def test_a_label_without_area_makes_the_loss_infinite_and_has_its_image_named(box, others):
    batch = [
        sample() | {"file_name": "sound.png"},
        sample((box, *others), (1, 1)) | {"file_name": "bad.png"},
    ]
    losses, _ = losses_of(make_model().train(), batch)
    assert not torch.isfinite(losses["loss_box_reg"])
    assert torch.isfinite(losses["loss_cls"] + losses["loss_seg"])
    faults = find_faults(batch, num_classes=2)
    assert [fault.index for fault in faults] == [1]
    assert str(faults[0]).startswith("bad.png: target box 0 [")


def test_a_loss_that_is_not_finite_is_kept_out_of_the_medians():
    broken = sample()
    broken["image"] = torch.full((3, 72, 96), math.nan)
    losses, logged = losses_of(make_model().train(), [broken])
    assert losses["loss_seg"].isnan()
    assert logged == {}


def test_detection_in_inference_mode_does_not_spoil_training():
    model = make_model()
    with torch.inference_mode():
        model.eval()([sample(None)])
    losses, _ = losses_of(model.train(), [sample()])
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_validation_measures_it_without_a_trace():
    model = make_model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    one = sample() | {"k": 0, "file_name": "a.png"}
    with EventStorage(0) as of_training:
        first, second = (measure_images(model, [one], seed=1)[0].losses for _ in range(2))
    assert of_training.latest() == {}
    assert first == second
    assert set(first) == {"total_loss", "loss_cls", "loss_box_reg", "loss_seg"}
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert model.has_peers


def test_training_without_labels_is_refused():
    with pytest.raises(ValueError, match="Training needs 'instances'"):
        make_model().train()([sample(None)])


def test_an_image_that_is_too_small_names_its_size_and_the_map():
    model = make_model(MODEL__SSD__EXTRA_LAYERS=[[8, 8, 1, 0]]).eval()
    for batch in ([sample(None, size=(40, 96))], [sample(None, size=(40, 30))]):
        with pytest.raises(ConfigError, match=r"images of 40 x \d+ px .* map conv8_2 would be 0 x"):
            model(batch)
    with pytest.raises(ConfigError, match=r"4 x 96 px .* map conv7 would be 0 x 6; raise INPUT"):
        model([sample(None, size=(4, 96))])


@pytest.mark.parametrize(
    ("modality", "mean", "fusion", "first"),
    [
        ("visible", [0.0] * 3, "halfway", ["conv1_1 3"]),
        ("lwir", [0.0], "halfway", ["conv1_1 1"]),
        ("lwir", [0.0] * 3, "halfway", ["conv1_1 3"]),
        ("both", [0.0] * 4, "early", ["conv1_1 4"]),
        ("both", [0.0] * 6, "early", ["conv1_1 6"]),
        ("both", [0.0] * 4, "halfway", ["visible.conv1_1 3", "lwir.conv1_1 1"]),
        ("both", [0.0] * 6, "halfway", ["visible.conv1_1 3", "lwir.conv1_1 3"]),
    ],
)
def test_every_modality_trains_and_detects(modality, mean, fusion, first):
    model = make_model(
        INPUT__MODALITY=modality,
        MODEL__PIXEL_MEAN=mean,
        MODEL__PIXEL_STD=[60.0] * len(mean),
        MODEL__SSD__FUSION=fusion,
    ).train()
    found = [
        f"{name.removeprefix('front.').removesuffix('.weight')} {p.shape[1]}"
        for name, p in model.network.backbone.named_parameters()
        if name.endswith("conv1_1.weight")
    ]
    assert found == first
    losses, _ = losses_of(model, [sample(channels=len(mean)), sample(channels=len(mean))])
    assert all(torch.isfinite(loss) for loss in losses.values())
    with torch.no_grad():
        assert len(model.eval()([sample(None, channels=len(mean))])[0]["instances"])
