"""Suppression and choice with masks in place of lists: by hand, and against plain loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from d2pd.modeling.batch_detections import (
    best_kept,
    clip_boxes,
    first_best,
    suppress_by_image,
    suppress_jointly,
)

WAYS = [suppress_by_image, suppress_jointly]


def scene(seed, num_images, num_boxes, num_groups):
    """Boxes that overlap often, with scores that all differ."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(num_images, num_boxes, 2, generator=generator) * 40
    sides = 5 + torch.rand(num_images, num_boxes, 2, generator=generator) * 30
    boxes = torch.cat([corners, corners + sides], dim=2)
    scores = torch.stack(
        [torch.randperm(num_boxes, generator=generator) + 1.0 for _ in range(num_images)]
    ) / (num_boxes + 1)
    groups = torch.randint(num_groups, scores.shape, generator=generator)
    is_candidate = torch.rand(scores.shape, generator=generator) > 0.3
    return boxes, scores, groups, is_candidate


def suppressed_by_loops(boxes, scores, groups, is_candidate, iou_threshold):
    kept = torch.zeros_like(is_candidate)
    for image in range(len(boxes)):
        iou = box_iou(boxes[image].double(), boxes[image].double())
        for row in scores[image].argsort(descending=True).tolist():
            better = [
                other
                for other in range(scores.shape[1])
                if kept[image, other] and groups[image, other] == groups[image, row]
            ]
            overlaps = any(iou[row, other] > iou_threshold for other in better)
            kept[image, row] = is_candidate[image, row] and not overlaps
    return kept


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 25), st.integers(1, 3))
@pytest.mark.parametrize("suppress", WAYS)
def test_suppression_agrees_with_plain_loops(suppress, seed, num_images, num_boxes, num_groups):
    arguments = (*scene(seed, num_images, num_boxes, num_groups), 0.4371)

    assert torch.equal(suppress(*arguments), suppressed_by_loops(*arguments))


@pytest.mark.parametrize("suppress", WAYS)
def test_nothing_to_keep(suppress):
    boxes, scores, groups, is_candidate = scene(0, 2, 5, 2)

    kept = suppress(boxes, scores, groups, torch.zeros_like(is_candidate), 0.5)

    assert kept.shape == (2, 5)
    assert not kept.any()


@pytest.mark.parametrize("suppress", WAYS)
def test_many_images_far_apart_round_nothing_away(suppress):
    # Moved by 64 images' widths in float32, this pair would seem to overlap by .5 and more.
    pair = torch.tensor([[600.0, 0, 610, 10], [600.0 + 1e-3, 0, 610, 20]])
    scores = torch.tensor([0.9, 0.8]).expand(64, 2)
    groups = torch.zeros(64, 2, dtype=torch.int64)

    kept = suppress(pair.expand(64, 2, 4), scores, groups, groups == 0, 0.49999)

    assert kept.all()


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=7, max_size=7), min_size=1, max_size=3),
    st.integers(1, 10),
)
def test_first_best_is_the_start_of_a_stable_sort(values, count):
    scores = torch.tensor(values, dtype=torch.float32)

    best, positions = first_best(scores, count)

    expected, order = scores.sort(dim=1, descending=True, stable=True)
    known = min(count, 7)
    assert torch.equal(best[:, :known], expected[:, :known])
    assert torch.equal(positions[:, :known], order[:, :known])
    assert (best[:, known:] == -torch.inf).all()
    assert ((positions >= 0) & (positions < 7)).all()


def test_best_of_those_kept_by_hand():
    boxes = torch.arange(16.0).reshape(1, 4, 4)
    scores = torch.tensor([[0.5, 0.9, 0.5, 0.7]])
    classes = torch.tensor([[3, 1, 2, 0]])

    found = best_kept(boxes, scores, classes, torch.tensor([[True, False, True, True]]), 5)

    assert found.counts.tolist() == [3]
    assert found.boxes[0].tolist() == [[12, 13, 14, 15], [0, 1, 2, 3], [8, 9, 10, 11], [0] * 4]
    torch.testing.assert_close(found.scores, torch.tensor([[0.7, 0.5, 0.5, 0.0]]))
    assert found.classes.tolist() == [[0, 3, 2, -1]]
    assert [len(part) for part in found.of_image(0)] == [3, 3, 3]
    few = best_kept(boxes, scores, classes, torch.ones(1, 4, dtype=torch.bool), 2)
    assert few.classes.tolist() == [[1, 0]]
    assert few.counts.tolist() == [2]


def test_boxes_are_clipped_to_height_and_width():
    boxes = torch.tensor([[-5.0, -6, 70, 80], [torch.inf, 1, torch.nan, 2]])

    clipped = clip_boxes(boxes, 50, 60)

    assert clipped[0].tolist() == [0, 0, 60, 50]
    assert clipped[1, 0] == 60
    assert clipped[1, 2].isnan()
