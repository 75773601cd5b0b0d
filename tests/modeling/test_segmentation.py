"""Painted masks by hand and against a loop over the cells; the loss of segmentation infusion."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from d2pd.errors import ConfigError
from d2pd.modeling.segmentation import (
    IGNORE_INDEX,
    MaskPainter,
    paint_mask,
    segmentation_losses,
)

NO_BOXES = torch.zeros(0, 4)
OTHER_SIZES = ("paint", "background", "ignore")


def painted(boxes, regions=(), detected=None, other_sizes="paint", image=(64, 64), batch=None):
    """Paint on a map of stride 16."""
    batch = batch or image
    return paint_mask(
        (batch[0] // 16, batch[1] // 16),
        image,
        batch,
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(regions, dtype=torch.float32).reshape(-1, 4),
        torch.tensor([True] * len(boxes) if detected is None else detected, dtype=torch.bool),
        other_sizes,
    )


def rows_of(mask):
    """Write a mask as text: . background, # person, - ignored."""
    signs = {0: ".", 1: "#", IGNORE_INDEX: "-"}
    return ["".join(signs[value] for value in row) for row in mask.tolist()]


# Centres of the cells lie at 8, 24, 40, 56.
@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((20, 5, 30, 30), [".#..", ".#..", "....", "...."]),  # 10x25 px around x = 24
        ((26, 5, 36, 30), [".#..", ".#..", "....", "...."]),  # none; its centre, 31 < 32, is in 1
        ((27, 5, 37, 30), [".##.", ".##.", "....", "...."]),  # its centre lies between two cells
        ((28, 5, 38, 30), ["..#.", "..#.", "....", "...."]),
        ((24, 8, 40, 24), [".##.", ".##.", "....", "...."]),  # its border runs through centres
        ((25, 9, 39, 23), [".##.", ".##.", "....", "...."]),  # between: four cells hold its centre
        ((0, 50, 3, 64), ["....", "....", "....", "#..."]),  # in the corner
        ((60, 0, 64, 64), ["...#"] * 4),  # along the border
        ((0, 20, 64, 28), ["....", "####", "....", "...."]),  # as wide as the image
        ((-30, 20, 90, 28), ["....", "####", "....", "...."]),  # wider
        ((0, 0, 64, 64), ["####"] * 4),
        ((33, 33, 33, 33), ["....", "....", "..#.", "...."]),  # no area
    ],
)
def test_a_box_by_hand(box, expected):
    assert rows_of(painted([box])) == expected


def test_a_label_lies_over_a_region_and_a_region_over_background():
    mask = painted([(20, 20, 44, 44)], regions=[(0, 20, 64, 64)])

    assert rows_of(mask) == ["....", "-##-", "-##-", "----"]


@pytest.mark.parametrize(
    ("other_sizes", "expected"),
    [
        ("paint", ["####", "-##-", "-##-", "...."]),
        ("background", ["....", "-##-", "-##-", "...."]),
        ("ignore", ["----", "-##-", "-##-", "...."]),
    ],
)
def test_labels_that_the_map_does_not_detect(other_sizes, expected):
    labels = [(20, 20, 44, 44), (0, 4, 64, 12), (24, 24, 40, 40)]

    mask = painted(labels, [(0, 20, 64, 44)], [True, False, False], other_sizes)

    assert rows_of(mask) == expected


def test_a_detected_label_lies_over_one_that_is_not():
    for other_sizes in OTHER_SIZES:
        mask = painted([(0, 0, 64, 64), (4, 4, 12, 12)], (), [False, True], other_sizes)
        assert mask[0, 0] == 1


def test_cells_beyond_the_image_are_ignored():
    # Of columns 2 and 3, with centres at 40 and 56, the image of 40 px has none.
    mask = painted([(4, 4, 12, 12)], image=(60, 40), batch=(80, 64))

    assert rows_of(mask) == ["#.--", "..--", "..--", "..--", "----"]


def test_a_label_keeps_its_cell_where_most_of_that_is_padding():
    mask = painted([(33, 4, 36, 12)], image=(64, 37), batch=(64, 64))

    assert rows_of(mask) == ["..#-", *["..--"] * 3]


def test_labels_that_are_not_finite_are_painted_nowhere():
    mask = painted([(float("nan"), 5, 30, 30)])

    assert rows_of(mask) == ["...."] * 4


@pytest.mark.parametrize("other_sizes", OTHER_SIZES)
def test_an_image_without_labels_is_background(other_sizes):
    mask = painted([], other_sizes=other_sizes)

    assert mask.dtype == torch.int64
    assert rows_of(mask) == ["...."] * 4


def stretch(low, high, centres):
    """Return the cells of one direction that a box covers, with one loop for each rule."""
    inside = {cell for cell, centre in enumerate(centres) if low <= centre <= high}
    if inside:
        return inside
    nearest = min(abs(centre - (low + high) / 2) for centre in centres)
    return {
        cell for cell, centre in enumerate(centres) if abs(centre - (low + high) / 2) == nearest
    }


def painted_by_loops(map_size, image_size, batch_size, boxes, regions, detected, other_sizes):
    rows, columns = map_size
    y = [(row + 0.5) * batch_size[0] / rows for row in range(rows)]
    x = [(column + 0.5) * batch_size[1] / columns for column in range(columns)]
    mask = torch.zeros(map_size, dtype=torch.int64)
    for row in range(rows):
        for column in range(columns):

            def covers(box, row=row, column=column):
                return row in stretch(box[1], box[3], y) and column in stretch(box[0], box[2], x)

            over = [flag for box, flag in zip(boxes, detected, strict=True) if covers(box)]
            beyond = y[row] >= image_size[0] or x[column] >= image_size[1]
            if any(over) or (over and other_sizes == "paint"):
                mask[row, column] = 1
            elif beyond or any(map(covers, regions)) or (over and other_sizes == "ignore"):
                mask[row, column] = IGNORE_INDEX
    return mask


SPANS = st.tuples(st.integers(0, 128), st.integers(0, 128)).map(sorted)
BOXES = st.lists(
    st.tuples(SPANS, SPANS).map(lambda s: [s[0][0] / 2, s[1][0] / 2, s[0][1] / 2, s[1][1] / 2]),
    max_size=4,
)


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 16])),
    st.tuples(st.integers(1, 64), st.integers(1, 64)),
    BOXES,
    BOXES,
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.sampled_from(OTHER_SIZES),
)
def test_masks_agree_with_a_loop_over_the_cells(map_size, image, boxes, regions, flags, other):
    detected = flags[: len(boxes)]
    expected = painted_by_loops(map_size, image, (64, 64), boxes, regions, detected, other)

    mask = paint_mask(
        map_size,
        image,
        (64, 64),
        torch.tensor(boxes).reshape(-1, 4),
        torch.tensor(regions).reshape(-1, 4),
        torch.tensor(detected, dtype=torch.bool),
        other,
    )

    assert torch.equal(mask, expected)


@settings(max_examples=100, deadline=None)
@given(BOXES, BOXES, st.sampled_from([(4, 8), (8, 16), (1, 2), (64, 64)]))
def test_the_mask_of_mirrored_boxes_is_the_mirrored_mask(boxes, regions, map_size):
    sizes = (map_size, (64, 64), (64, 64))
    boxes, regions = (torch.tensor(b).reshape(-1, 4) for b in (boxes, regions))
    detected = torch.ones(len(boxes), dtype=torch.bool)

    def mirrored(boxes):
        return torch.stack([64 - boxes[:, 2], boxes[:, 1], 64 - boxes[:, 0], boxes[:, 3]], dim=1)

    mask = paint_mask(*sizes, boxes, regions, detected, "paint")
    of_mirrored = paint_mask(*sizes, mirrored(boxes), mirrored(regions), detected, "paint")

    assert torch.equal(of_mirrored, mask.flip(1))


SHAPES = [torch.tensor([[10.0, 20.0], [20.0, 20.0]]), torch.tensor([[40.0, 80.0]])]


def painter(has_layer=(True, True), threshold=0.5, other_sizes="paint"):
    return MaskPainter(SHAPES, ["conv4_3", "conv7"], has_layer, threshold, other_sizes)


def test_a_map_detects_what_its_anchors_overlap():
    boxes = torch.tensor(
        [
            [5.0, 5, 15, 25],  # one of conv4_3's
            [0.0, 0, 40, 41],  # half of conv7's and 2 % more: IoU .5125; of 20x20: .24
            [0.0, 0, 40, 39],  # IoU .4875 with conv7's, .256 with 20x20: neither, conv7 is nearer
            [0.0, 0, 3, 3],  # under every anchor: IoU .045 with 10x20 is the best
            [0.0, 0, 30, 40],  # IoU .375 with conv7's, .33 with 20x20
        ]
    )

    assert painter().detected(boxes).tolist() == [
        [True, False], [False, True], [False, True], [True, False], [False, True],
    ]  # fmt: skip
    assert painter(threshold=0.2).detected(boxes).tolist() == [
        [True, False], [True, True], [True, True], [True, False], [True, True],
    ]  # fmt: skip


def test_an_overlap_of_the_threshold_is_enough():
    shapes = [torch.tensor([[20.0, 20.0]]), torch.tensor([[20.0, 10.0]])]
    of_two = MaskPainter(shapes, ["conv4_3", "conv7"], [True, True], 0.5, "paint")

    assert of_two.detected(torch.tensor([[0.0, 0, 20, 20]])).tolist() == [[True, True]]


def test_masks_are_painted_for_maps_with_a_layer_and_the_sizes_of_each():
    boxes = torch.tensor([[0.0, 0, 38, 78], [52, 2, 62, 22]])  # one of conv7's, one of conv4_3's
    of_images = ((96, 64), (96, 64), [(6, 4), (3, 2)], boxes, NO_BOXES)

    masks = painter(other_sizes="ignore").masks(*of_images)
    of_one = painter(has_layer=(False, True)).masks(*of_images)

    assert rows_of(masks["conv4_3"]) == ["--.#", *["--.."] * 4, "...."]
    assert rows_of(masks["conv7"]) == ["#-", "#.", ".."]
    assert {name: rows_of(mask) for name, mask in of_one.items()} == {"conv7": ["##", "#.", ".."]}


def test_names_and_flags_of_the_maps():
    assert painter(has_layer=(False, True)).layer_names == ["conv7"]
    assert painter(has_layer=()).layer_names == []
    with pytest.raises(ConfigError, match=r"^MODEL.SSD.SEG.MAPS has 1 flags, but .* 2 maps"):
        painter(has_layer=(True,))


def test_images_without_labels_have_masks():
    assert painter().detected(NO_BOXES).shape == (0, 2)
    masks = painter().masks((32, 32), (32, 32), [(2, 2), (1, 1)], NO_BOXES, NO_BOXES)
    assert not any(mask.any() for mask in masks.values())


def random_maps(seed=0, ignored=0.3):
    generator = torch.Generator().manual_seed(seed)
    sizes = {"conv4_3": (2, 6, 8), "conv7": (2, 3, 4)}
    logits = {name: torch.randn(n, 2, *s, generator=generator) for name, (n, *s) in sizes.items()}
    masks = {name: torch.randint(0, 2, size, generator=generator) for name, size in sizes.items()}
    for mask in masks.values():
        mask[torch.rand(mask.shape, generator=generator) < ignored] = IGNORE_INDEX
    return logits, masks


WEIGHTS = {"conv4_3": 1.0, "conv7": 1.0}


def test_the_loss_is_the_cross_entropy_of_the_maps():
    logits, masks = random_maps()

    losses, total = segmentation_losses(logits, masks, "mean", "sum", WEIGHTS)

    for name, loss in losses.items():
        expected = F.cross_entropy(logits[name], masks[name], ignore_index=IGNORE_INDEX)
        torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(total, losses["conv4_3"] + losses["conv7"])


def test_reductions_of_the_pixels_by_hand():
    # Logits of 0: each of 5 cells that count costs log 2, in 2 images.
    logits = {"conv7": torch.zeros(2, 2, 2, 2)}
    masks = {"conv7": torch.tensor([[[0, 1], [255, 255]], [[1, 0], [0, 255]]])}
    log2 = torch.log(torch.tensor(2.0))

    mean, _ = segmentation_losses(logits, masks, "mean", "sum", {"conv7": 1.0})
    total, _ = segmentation_losses(logits, masks, "sum", "sum", {"conv7": 1.0})

    torch.testing.assert_close(mean["conv7"], log2)
    torch.testing.assert_close(total["conv7"], 5 / 2 * log2)


def test_a_batch_twice_as_large_costs_the_same():
    logits, masks = random_maps()
    twice = [{name: torch.cat([t, t]) for name, t in maps.items()} for maps in (logits, masks)]

    for reduction in ("mean", "sum"):
        _, once = segmentation_losses(logits, masks, reduction, "sum", WEIGHTS)
        _, of_twice = segmentation_losses(*twice, reduction, "sum", WEIGHTS)
        torch.testing.assert_close(of_twice, once)


def test_reductions_and_weights_of_the_maps():
    logits, masks = random_maps()
    weights = {"conv4_3": 0.5, "conv7": 3.0}

    losses, total = segmentation_losses(logits, masks, "mean", "sum", weights)
    unweighted, mean = segmentation_losses(logits, masks, "mean", "mean", weights)

    expected = 0.5 * losses["conv4_3"] + 3 * losses["conv7"]
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(mean, expected / 2)
    assert unweighted == losses


def test_ignored_cells_cost_nothing_whatever_their_logits():
    logits, masks = random_maps()
    _, expected = segmentation_losses(logits, masks, "mean", "sum", WEIGHTS)
    for name, mask in masks.items():
        logits[name][(mask == IGNORE_INDEX)[:, None].expand_as(logits[name])] = 50.0
        logits[name].requires_grad_()

    _, total = segmentation_losses(logits, masks, "mean", "sum", WEIGHTS)
    total.backward()

    assert total == expected
    for name, mask in masks.items():
        grad = logits[name].grad.abs().sum(dim=1)
        assert torch.equal(grad > 0, mask != IGNORE_INDEX)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_maps_without_a_cell_that_counts_cost_exactly_0(reduction):
    logits, masks = random_maps(ignored=1.1)
    logits = {name: tensor.requires_grad_() for name, tensor in logits.items()}

    losses, total = segmentation_losses(logits, masks, reduction, "sum", WEIGHTS)
    total.backward()

    assert [loss.item() for loss in (*losses.values(), total)] == [0, 0, 0]
    assert all(torch.equal(t.grad, torch.zeros_like(t)) for t in logits.values())


def operators(function):
    with profile(activities=[ProfilerActivity.CPU]) as record:
        function()
    return {event.key for event in record.key_averages()}


def test_the_loss_uses_no_operator_that_cuda_lacks_a_deterministic_form_of():
    logits, masks = random_maps()
    logits = {name: tensor.requires_grad_() for name, tensor in logits.items()}

    used = operators(
        lambda: segmentation_losses(logits, masks, "mean", "sum", WEIGHTS)[1].backward()
    )
    plain = operators(lambda: F.cross_entropy(logits["conv7"], masks["conv7"], ignore_index=255))

    assert any("nll_loss2d" in name for name in plain)  # the profiler does see it
    assert any("nll_loss" in name for name in used)
    assert not [name for name in used if "nll_loss2d" in name]
