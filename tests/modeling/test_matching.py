import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import SSDMatcher
from torchvision.ops import box_iou

from d2pd.modeling import matching
from d2pd.modeling.matching import BACKGROUND, IGNORE, match_anchors


def area(box):
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])


def shared(a, b):
    return area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])


def plain_matches(anchors, gt_boxes, is_ignore, threshold):
    """The rules one by one, over whole numbers, so that ties are ties."""
    labels = [g for g in range(len(gt_boxes)) if not is_ignore[g]]
    regions = [g for g in range(len(gt_boxes)) if is_ignore[g]]
    iou = {}
    for g in labels:
        for a, anchor in enumerate(anchors):
            inter = shared(anchor, gt_boxes[g])
            iou[g, a] = inter / (area(anchor) + area(gt_boxes[g]) - inter)
    matches = []
    for a, anchor in enumerate(anchors):
        best = max(labels, key=lambda g: iou[g, a], default=None)
        if best is not None and iou[best, a] >= threshold:
            matches.append(best)
        elif any(shared(anchor, gt_boxes[g]) / area(anchor) >= threshold for g in regions):
            matches.append(IGNORE)
        else:
            matches.append(BACKGROUND)
    served, taken = set(), set()
    for g, a in sorted(iou, key=lambda pair: (-iou[pair], *pair)):
        if g not in served and a not in taken:
            served.add(g)
            taken.add(a)
            matches[a] = g
    return matches


@st.composite
def boxes(draw, least, most):
    """Whole pixels on a small canvas: ties and shared best anchors are frequent."""
    corner, side = st.integers(0, 12), st.sampled_from([2, 3, 4, 8])
    rows = draw(st.lists(st.tuples(corner, corner, side, side), min_size=least, max_size=most))
    return [[x, y, x + w, y + h] for x, y, w, h in rows]


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


@settings(max_examples=300, deadline=None)
@given(
    anchors=boxes(0, 12),
    labels=boxes(0, 8),
    regions=boxes(0, 3),
    threshold=st.sampled_from([0.25, 0.5, 0.7, 1]),
    pairs_at_once=st.sampled_from([1, 20, 300_000]),
    order=st.randoms(use_true_random=False),
)
def test_follows_the_plain_rules(anchors, labels, regions, threshold, pairs_at_once, order):
    rows = [(box, False) for box in labels] + [(box, True) for box in regions]
    order.shuffle(rows)
    gt_boxes, is_ignore = [box for box, _ in rows], [ignore for _, ignore in rows]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "PAIRS_AT_ONCE", pairs_at_once)
        found = match_anchors(
            tensor(anchors), tensor(gt_boxes), torch.tensor(is_ignore, dtype=torch.bool), threshold
        )

    assert found.dtype == torch.int64
    assert found.tolist() == plain_matches(anchors, gt_boxes, is_ignore, threshold)


@pytest.mark.parametrize("seed", range(20))
def test_follows_the_plain_rules_in_a_crowd(seed):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 60, (170, 2), generator=generator)
    sides = torch.randint(3, 25, (170, 2), generator=generator)
    drawn = torch.cat((corners, corners + sides), dim=1)
    anchors, gt_boxes = drawn[:120], drawn[120:]
    is_ignore = torch.rand(50, generator=generator) < 0.15

    found = match_anchors(anchors.float(), gt_boxes.float(), is_ignore, 0.5)

    expected = plain_matches(anchors.tolist(), gt_boxes.tolist(), is_ignore.tolist(), 0.5)
    assert found.tolist() == expected
    assert {IGNORE, BACKGROUND} < set(expected)


def test_equals_torchvision_without_regions_and_shared_best_anchors():
    compared = 0
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        corners = torch.rand(310, 2, generator=generator) * 300
        sides = torch.rand(310, 2, generator=generator) * 80 + 20
        drawn = torch.cat((corners, corners + sides), dim=1)
        anchors, gt_boxes = drawn[:300], drawn[300:]
        iou = box_iou(gt_boxes, anchors)
        if iou.argmax(1).unique().numel() < len(gt_boxes):
            continue
        compared += 1

        found = match_anchors(anchors, gt_boxes, torch.zeros(10, dtype=torch.bool), 0.5)

        assert torch.equal(found, SSDMatcher(0.5)(iou))
    assert compared > 20


ANCHORS = tensor([[0, 0, 10, 10], [10, 0, 20, 10], [0, 10, 10, 20], [100, 100, 110, 110]])


def matched(labels, regions=(), threshold=0.5, anchors=ANCHORS):
    is_ignore = torch.tensor([False] * len(labels) + [True] * len(regions), dtype=torch.bool)
    return match_anchors(anchors, tensor([*labels, *regions]), is_ignore, threshold).tolist()


def test_without_labels_all_is_background():
    assert matched([]) == [BACKGROUND] * 4


def test_a_label_keeps_its_best_anchor_below_the_threshold():
    assert matched([[8, 0, 14, 10]]) == [BACKGROUND, 0, BACKGROUND, BACKGROUND]


def test_a_label_that_overlaps_nothing_gets_the_first_free_anchor():
    assert matched([[0, 0, 10, 10], [50, 50, 60, 60]]) == [0, 1, BACKGROUND, BACKGROUND]


def test_of_two_labels_with_the_same_best_anchor_the_better_one_has_it():
    """With .9 against .8; the other overlaps nothing else, and has the next that is free."""
    worse, better = [0, 2, 10, 10], [0, 1, 10, 10]

    assert matched([worse, better]) == [1, 0, BACKGROUND, BACKGROUND]


def test_of_equal_labels_the_first_has_the_anchor():
    box = [0, 0, 10, 11]

    assert matched([box, box]) == [0, BACKGROUND, 1, BACKGROUND]


def test_more_labels_than_anchors_leave_some_without():
    assert sorted(matched([[0, 0, 10, 10]] * 6)) == [0, 1, 2, 3]


def test_an_anchor_that_two_labels_reach_learns_the_one_it_overlaps_more():
    anchors = tensor([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 7, 10]])

    assert matched([[0, 0, 10, 9], [0, 0, 7, 10]], anchors=anchors) == [0, 0, 1]


def test_a_region_takes_out_anchors_that_it_covers_by_half():
    assert matched([], [[0, 0, 15, 10]]) == [IGNORE, IGNORE, BACKGROUND, BACKGROUND]
    assert matched([], [[0, 0, 14.9, 10]]) == [IGNORE, BACKGROUND, BACKGROUND, BACKGROUND]


def test_two_regions_do_not_add_up():
    assert matched([], [[0, 0, 4, 10], [6, 0, 10, 10]])[0] == BACKGROUND


def test_a_large_region_takes_out_small_anchors_though_their_iou_is_small():
    assert matched([], [[0, 0, 1000, 1000]]) == [IGNORE] * 4


def test_a_positive_anchor_stays_positive_inside_a_region():
    assert matched([[0, 0, 10, 10]], [[0, 0, 1000, 1000]]) == [0, IGNORE, IGNORE, IGNORE]


@pytest.mark.parametrize("box", [[5, 5, 5, 30], [9, 9, 3, 3]])
def test_a_box_without_area_gets_an_anchor_of_its_own(box):
    assert matched([box, [0, 0, 10, 10]]) == [1, 0, BACKGROUND, BACKGROUND]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_box_that_is_not_finite_spoils_no_other(value):
    found = matched([[0, 0, value, 10], [10, 0, 20, 10]], [[0, 10, 10, value]])

    assert found == [0, 1, BACKGROUND, BACKGROUND]


def test_no_anchors_give_no_matches():
    assert matched([[0, 0, 10, 10]], [[0, 0, 3, 3]], anchors=tensor([])) == []


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, float("nan")])
def test_a_threshold_outside_0_to_1_is_refused(threshold):
    with pytest.raises(ValueError, match=r"iou_threshold must be in \(0, 1\], got"):
        matched([[0, 0, 10, 10]], threshold=threshold)
