"""What holds after any chain of augmentations, for any boxes."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors

from d2pd.config_keys import default_config
from d2pd.data.augmentation import build_augmentation, least_visible_share
from d2pd.data.mapper import Mapper
from d2pd.data.modality import channels_of
from d2pd.data.targets import clip, make_targets
from d2pd.modeling.segmentation import MaskPainter

HEIGHT, WIDTH = 80, 120

KEYS = {
    "CROP": [{}, {"CROP": (0.6, 0.7)}],
    "FIXED_SIZE": [{"FIXED_SIZE": (64, 80)}, {"FIXED_SIZE": (100, 90)}, {}],
    "RANDOM_FLIP": [{"RANDOM_FLIP": flip} for flip in ("horizontal", "vertical", "none")],
    "ZOOM_OUT": [{}, {"ZOOM_OUT": 4.0}],
    "IOU_CROP": [{}, {"IOU_CROP": True}],
    "RESIZED_CROP_SCALE": [{}, {"RESIZED_CROP_SCALE": (0.25, 4.0)}],
    "SCALE_JITTER": [{}, {"SCALE_JITTER": (0.7, 1.5)}],
}
ROTATIONS = [{}, {"ROTATION": 8.0}]
PIXELS = [{}, {"PHOTOMETRIC": True}]
MODALITIES = [("visible", 3), ("lwir", 1), ("lwir", 3), ("both", 4), ("both", 6)]


def config(changes, modality="visible", channels=3):
    cfg = default_config()
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (60, 90), 140
    cfg.INPUT.MODALITY = modality
    cfg.MODEL.PIXEL_MEAN = [10.0 * (at + 1) for at in range(channels)]
    for name, value in changes.items():
        if name == "CROP":
            cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.SIZE = True, list(value)
        else:
            group = cfg.INPUT if name in cfg.INPUT else cfg.INPUT.AUG
            group[name] = value
    return cfg


def chains(*more):
    """Draw values for the keys of geometry, and for others if asked."""
    drawn = [st.sampled_from(options) for options in (*KEYS.values(), *more)]
    return st.tuples(*drawn).map(lambda parts: {k: v for part in parts for k, v in part.items()})


SEEDS = st.integers(0, 2**31)
SPOTS = st.tuples(st.floats(-30, 130, width=32), st.floats(-30, 90, width=32))
SIDES = st.floats(0.125, 60, width=32)
BOXES = st.lists(st.tuples(SPOTS, SIDES, SIDES, st.booleans()), max_size=6)


def run(cfg, image, boxes, flags, seed):
    """Return what the transforms leave, and the targets made of it."""
    annotations = [{"category_id": row % 3, "ignore": int(flag)} for row, flag in enumerate(flags)]
    torch.manual_seed(seed)
    out = build_augmentation(cfg, is_train=True)(
        {
            "image": tv_tensors.Image(image),
            "boxes": tv_tensors.BoundingBoxes(
                torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                format="XYXY",
                canvas_size=(HEIGHT, WIDTH),
                clamping_mode=None,
            ),
            "is_region": torch.tensor(flags, dtype=torch.bool),
        }
    )
    plain = out["boxes"].as_subclass(torch.Tensor)
    share = least_visible_share(cfg)
    return out, make_targets(out["image"], plain, annotations, 1.0, share), annotations


@settings(deadline=None, max_examples=120)
@given(chains(ROTATIONS, PIXELS), st.sampled_from(MODALITIES), BOXES, SEEDS)
def test_boxes_are_inside_and_large_enough_and_all_stay_aligned(changes, modality, rows, seed):
    boxes = [(x, y, x + width, y + height) for (x, y), width, height, _ in rows]
    image = torch.zeros(modality[1], HEIGHT, WIDTH, dtype=torch.uint8)
    cfg = config(changes, *modality)
    out, targets, annotations = run(cfg, image, boxes, [row[3] for row in rows], seed)
    size = tuple(out["image"].shape[1:])
    assert out["image"].shape[0] == modality[1]
    assert out["boxes"].canvas_size == size
    assert len(out["boxes"]) == len(boxes)
    for kept in (targets["instances"].gt_boxes.tensor, targets["ignore_boxes"]):
        assert kept.isfinite().all()
        assert (kept >= 0).all()
        assert (kept <= kept.new_tensor([size[1], size[0], size[1], size[0]])).all()
        assert (kept[:, 2:] - kept[:, :2] >= 1).all()
    instances = targets["instances"]
    labels = [annotations[row] for row in instances.gt_rows.tolist()]
    assert [a["category_id"] for a in labels] == instances.gt_classes.tolist()
    assert not any(a["ignore"] for a in labels)
    plain = out["boxes"].as_subclass(torch.Tensor)
    assert torch.equal(clip(plain[instances.gt_rows], size), instances.gt_boxes.tensor)


@settings(deadline=None, max_examples=120)
@given(
    chains(ROTATIONS),
    st.sampled_from(MODALITIES),
    st.tuples(st.integers(0, WIDTH - 12), st.integers(0, HEIGHT - 12)),
    st.tuples(st.integers(6, 60), st.integers(6, 60)),
    SEEDS,
)
def test_a_marked_pattern_ends_up_inside_its_box_in_every_channel(
    changes, modality, corner, sides, seed
):
    x1, y1 = corner
    x2, y2 = min(WIDTH, x1 + sides[0]), min(HEIGHT, y1 + sides[1])
    image = torch.zeros(modality[1], HEIGHT, WIDTH, dtype=torch.uint8)
    image[:, y1:y2, x1:x2] = 255
    out, _, _ = run(config(changes, *modality), image, [(x1, y1, x2, y2)], [False], seed)
    marked = (out["image"] > 160).as_subclass(torch.Tensor)
    # Both cameras, and all their channels, have it at the same place: they differ in fill alone.
    assert (marked == marked[0]).float().mean() > 0.98
    box = out["boxes"].as_subclass(torch.Tensor)[0]
    around = torch.zeros(marked.shape[1:], dtype=torch.bool)
    left, top = (box[:2] - 1.5).floor().int().clamp(min=0).tolist()
    right, bottom = (box[2:] + 1.5).ceil().int().clamp(min=0).tolist()
    around[top:bottom, left:right] = True
    assert not (marked & ~around).any()
    if "ROTATION" not in changes:
        left, top = (box[:2] + 1.5).ceil().int().clamp(min=0).tolist()
        right, bottom = (box[2:] - 1.5).floor().int().clamp(min=0).tolist()
        assert marked[:, top:bottom, left:right].all()


@settings(deadline=None, max_examples=60)
@given(chains(ROTATIONS), SEEDS)
def test_each_label_keeps_its_own_pattern(changes, seed):
    """The picture shows at the middle of label i what was painted at the middle of label i."""
    image = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)
    boxes = []
    for row in range(6):
        x, y = 4 + 40 * (row % 3), 4 + 40 * (row // 3)
        image[:, y : y + 32, x : x + 32] = 80 + 30 * row
        boxes.append((x, y, x + 32, y + 32))
    flags = [False, True, False, False, True, False]
    out, targets, _ = run(config(changes), image, boxes, flags, seed)
    height, width = out["image"].shape[1:]
    plain = out["boxes"].as_subclass(torch.Tensor)
    for row, box in enumerate(plain):
        x, y = ((box[:2] + box[2:]) / 2).tolist()
        if min(box[2:] - box[:2]) > 6 and 2 < x < width - 2 and 2 < y < height - 2:
            assert abs(int(out["image"][0, int(y), int(x)]) - (80 + 30 * row)) <= 3
    labels = targets["instances"]
    assert set(labels.gt_rows.tolist()) <= {0, 2, 3, 5}
    assert torch.equal(labels.gt_boxes.tensor, clip(plain[labels.gt_rows], (height, width)))


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([{"ZOOM_OUT": 4.0}, {"RESIZED_CROP_SCALE": (2.0, 4.0)}, {"ROTATION": 8.0}]),
    st.sampled_from(MODALITIES),
    SEEDS,
)
def test_fill_is_the_mean_of_each_channel(changes, modality, seed):
    """A picture of the means has no rim: what is filled cannot be told from it."""
    cfg = config(changes, *modality)
    means = torch.tensor(cfg.MODEL.PIXEL_MEAN).to(torch.uint8).reshape(-1, 1, 1)
    image = means.repeat(1, HEIGHT, WIDTH)
    out, _, _ = run(cfg, image, [(20, 20, 60, 60)], [False], seed)
    assert torch.equal(out["image"], means.expand_as(out["image"]))


@settings(deadline=None, max_examples=60)
@given(chains(ROTATIONS), BOXES, SEEDS)
def test_masks_are_the_painting_of_the_boxes_that_came_out(changes, rows, seed):
    boxes = [(x, y, x + width, y + height) for (x, y), width, height, _ in rows]
    image = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)
    out, targets, _ = run(config(changes), image, boxes, [row[3] for row in rows], seed)
    size = tuple(out["image"].shape[1:])
    maps = [(8, 10), (4, 5)]
    shapes = [torch.tensor([[8.0, 16.0]]), torch.tensor([[30.0, 60.0]])]
    painter = MaskPainter(shapes, ["fine", "coarse"], [True, True], 0.5, "paint")
    labels, regions = targets["instances"].gt_boxes.tensor, targets["ignore_boxes"]
    masks = painter.masks(size, size, maps, labels, regions)
    for (rows_, columns), mask in zip(maps, masks.values(), strict=True):
        y = (torch.arange(rows_, dtype=torch.float64) + 0.5) * size[0] / rows_
        x = (torch.arange(columns, dtype=torch.float64) + 0.5) * size[1] / columns
        for row, down in enumerate(y.tolist()):
            for column, right in enumerate(x.tolist()):
                value = int(mask[row, column])
                if clearly_in(labels, right, down):
                    assert value == 1
                elif clearly_in(regions, right, down):
                    assert value in (1, 255)
                elif far_from(labels, right, down, size, maps) and len(regions) == 0:
                    assert value == 0


def clearly_in(boxes, x, y):
    return any(
        x1 + 1e-3 < x < x2 - 1e-3 and y1 + 1e-3 < y < y2 - 1e-3 for x1, y1, x2, y2 in boxes.tolist()
    )


def far_from(boxes, x, y, size, maps):
    """Further than half a cell of the coarse map: a box that holds no centre takes the next."""
    across, down = size[1] / maps[-1][1], size[0] / maps[-1][0]
    return all(
        x < x1 - across or x > x2 + across or y < y1 - down or y > y2 + down
        for x1, y1, x2, y2 in boxes.tolist()
    )


EVERYTHING = {
    "CROP": (0.9, 0.9),
    "FIXED_SIZE": (64, 80),
    "ZOOM_OUT": 3.0,
    "IOU_CROP": True,
    "RESIZED_CROP_SCALE": (0.25, 4.0),
    "ROTATION": 5.0,
    "SCALE_JITTER": (0.8, 1.2),
    "PHOTOMETRIC": True,
}


@pytest.fixture
def record(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels = cv2.GaussianBlur(pixels, (0, 0), 4)
    cv2.imwrite(str(tmp_path / "visible.png"), pixels)
    cv2.imwrite(str(tmp_path / "lwir.png"), pixels[..., 0])
    boxes = [[20, 10, 40, 60], [60, 20, 75, 60], [0, 0, 30, 30]]
    return {
        "file_name": str(tmp_path / "visible.png"),
        "lwir_file_name": str(tmp_path / "lwir.png"),
        "image_id": 1,
        "height": HEIGHT,
        "width": WIDTH,
        "annotations": [
            {"bbox": box, "bbox_mode": 0, "category_id": 0, "iscrowd": 0, "ignore": int(row == 2)}
            for row, box in enumerate(boxes)
        ],
    }


@pytest.mark.parametrize("modality", MODALITIES)
def test_same_seed_and_number_same_bits_and_another_number_another_picture(record, modality):
    def make(seed):
        cfg = config(EVERYTHING, *modality)
        return Mapper(
            channels=channels_of(*modality),
            image_format="BGR",
            transforms=build_augmentation(cfg, is_train=True),
            is_train=True,
            seed=seed,
            min_visible=least_visible_share(cfg),
        )

    forward = [make(3)(record, k) for k in range(8)]
    torch.rand(5)
    backward_mapper = make(3)
    backward = [backward_mapper(record, k) for k in reversed(range(8))][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["ignore_boxes"], other["ignore_boxes"])
        for name in ("gt_classes", "gt_rows"):
            assert torch.equal(one["instances"].get(name), other["instances"].get(name))
        boxes = [sample["instances"].gt_boxes.tensor for sample in (one, other)]
        assert torch.equal(*boxes)
    pictures = {sample["image"].numpy().tobytes() for sample in forward}
    assert len(pictures) == 8
    assert make(4)(record, 0)["image"].numpy().tobytes() not in pictures


def test_some_labels_are_lost_and_some_pictures_keep_all(record):
    """The rule for labels is in use: with it fewer are targets than without."""
    cfg = config(EVERYTHING)
    counts = []
    for share in (None, 0.25, 1.0):
        mapper = Mapper(
            channels=channels_of("visible", 3),
            image_format="BGR",
            transforms=build_augmentation(cfg, is_train=True),
            is_train=True,
            seed=0,
            min_visible=share,
        )
        counts.append([len(mapper(record, k)["instances"]) for k in range(60)])
    sums = [sum(count) for count in counts]
    assert sums[0] > sums[1] > sums[2] > 0
    assert max(counts[1]) == 2
