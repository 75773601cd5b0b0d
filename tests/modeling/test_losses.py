"""Mining and the loss of SSD: by hand, against plain loops and against torchvision."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.ssd import SSD

from d2pd.modeling.box_coding import encode
from d2pd.modeling.losses import hard_negatives, multibox_loss
from d2pd.modeling.matching import BACKGROUND, IGNORE

OPTIONS = {"num_positives": 1.0, "negative_ratio": 3.0, "smooth_l1_beta": 1.0}
BATCHES = st.tuples(
    st.integers(0, 2**32 - 1),  # seed
    st.integers(1, 3),  # images
    st.integers(1, 30),  # anchors
    st.integers(1, 3),  # classes
)


def random_batch(seed, num_images, num_anchors, num_classes, positives=0.15):
    """Return what ``multibox_loss`` takes, with few different logits, so that losses tie."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(-2, 3, (num_images, num_anchors, num_classes + 1), generator=generator)
    deltas = torch.randn(num_images, num_anchors, 4, generator=generator)
    kind = torch.rand(num_images, num_anchors, generator=generator)
    classes = torch.randint(0, num_classes, kind.shape, generator=generator)
    matched = classes.where(kind < positives, torch.where(kind > 0.8, IGNORE, BACKGROUND))
    targets = torch.randn(int((matched >= 0).sum()), 4, generator=generator)
    return logits.float(), deltas, matched, targets


def mined_by_loops(cls_loss, matched, ratio):
    chosen = torch.zeros_like(matched, dtype=torch.bool)
    for image, row in enumerate(matched.tolist()):
        wanted = math.floor(ratio * sum(value >= 0 for value in row))
        background = [index for index, value in enumerate(row) if value == BACKGROUND]
        background.sort(key=lambda index: (-cls_loss[image, index].item(), index))
        chosen[image, background[:wanted]] = True
    return chosen


def cross_entropy_by_hand(logits, target):
    return math.log(sum(math.exp(x) for x in logits)) - logits[target]


def losses_by_loops(cls_logits, box_deltas, matched, targets, ratio, beta):
    """Sum the losses of the anchors one by one."""
    background = cls_logits.shape[-1] - 1
    # The order of ties must be that of the float32 losses, which differ in the last bit.
    mined = mined_by_loops(-cls_logits.log_softmax(-1)[..., -1], matched, ratio)
    loss_cls = loss_box_reg = 0.0
    rows = iter(targets.tolist())
    for image, row in enumerate(matched.tolist()):
        for anchor, value in enumerate(row):
            logits = cls_logits[image, anchor].tolist()
            if value >= 0:
                loss_cls += cross_entropy_by_hand(logits, value)
                for got, wanted in zip(box_deltas[image, anchor].tolist(), next(rows), strict=True):
                    off = abs(got - wanted)
                    loss_box_reg += off**2 / 2 / beta if off < beta else off - beta / 2
            elif mined[image, anchor]:
                loss_cls += cross_entropy_by_hand(logits, background)
    return torch.tensor([loss_cls, loss_box_reg])


def test_the_hardest_negatives_by_hand():
    cls_loss = torch.tensor([[9.0, 1, 5, 7, 5, 8], [3, 2, 1, 0, 4, 5]])
    matches = torch.tensor(
        [[0, BACKGROUND, BACKGROUND, IGNORE, BACKGROUND, BACKGROUND], [BACKGROUND] * 6]
    )

    chosen = hard_negatives(cls_loss, matches, 2.0)

    assert chosen.nonzero().tolist() == [[0, 2], [0, 5]]  # of the two 5s the first


@pytest.mark.parametrize(
    ("ratio", "expected"), [(0.0, 0), (0.5, 1), (1.0, 2), (1.4, 2), (1.5, 3), (9.0, 4)]
)
def test_parts_of_a_negative_do_not_count_and_there_are_no_more_than_there_are(ratio, expected):
    matches = torch.tensor([[0, 1, IGNORE, *[BACKGROUND] * 4]])

    assert hard_negatives(torch.rand(1, 7), matches, ratio).sum() == expected


@settings(max_examples=100, deadline=None)
@given(BATCHES, st.sampled_from([0.5, 1.0, 3.0, 3.7]))
def test_mining_agrees_with_plain_loops(batch, ratio):
    _, deltas, matched, _ = random_batch(*batch)
    cls_loss = deltas[..., 0].mul(2).round().abs()  # many ties

    chosen = hard_negatives(cls_loss, matched, ratio)

    assert torch.equal(chosen, mined_by_loops(cls_loss, matched, ratio))


@settings(max_examples=100, deadline=None)
@given(BATCHES, st.sampled_from([0.1, 1.0]), st.sampled_from([1.0, 7.5]))
def test_losses_agree_with_plain_loops(batch, beta, num_positives):
    tensors = random_batch(*batch)
    options = {"negative_ratio": 3.0, "smooth_l1_beta": beta}

    losses = torch.stack(multibox_loss(*tensors, num_positives=num_positives, **options))

    expected = losses_by_loops(*tensors, 3.0, beta) / num_positives
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)


def torchvision_losses(cls_logits, box_deltas, anchors, gt_boxes, gt_classes, matches):
    """Compute SSD's losses with torchvision, where background is class 0."""
    ssd = SSD.__new__(SSD)  # without a network: the loss reads these two alone
    torch.nn.Module.__init__(ssd)
    ssd.neg_to_pos_ratio = 3
    ssd.box_coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    losses = ssd.compute_loss(
        [{"boxes": b, "labels": c + 1} for b, c in zip(gt_boxes, gt_classes, strict=True)],
        {"cls_logits": cls_logits.roll(1, dims=-1), "bbox_regression": box_deltas},
        [anchors] * len(gt_boxes),
        list(matches),
    )
    return torch.stack([losses["classification"], losses["bbox_regression"]])


@pytest.mark.parametrize("seed", range(5))
def test_losses_agree_with_torchvision(seed):
    generator = torch.Generator().manual_seed(seed)
    counts, num_anchors, num_classes = (4, 0, 7), 200, 3

    def boxes(number):
        corners = torch.rand(number, 4, generator=generator) * 100
        return torch.cat([corners[:, :2], corners[:, :2] + 5 + corners[:, 2:]], dim=1)

    anchors, gt_boxes = boxes(num_anchors), [boxes(count) for count in counts]
    gt_classes = [torch.randint(0, num_classes, (n,), generator=generator) for n in counts]
    matches = torch.full((len(counts), num_anchors), BACKGROUND)
    for row, count in zip(matches, counts, strict=True):
        row[torch.randperm(num_anchors, generator=generator)[: 2 * count]] = torch.arange(
            2 * count
        ) % max(count, 1)
    cls_logits = torch.randn(len(counts), num_anchors, num_classes + 1, generator=generator)
    box_deltas = torch.randn(len(counts), num_anchors, 4, generator=generator)
    matched, targets = matches.clone(), []
    for image, row in enumerate(matches):
        positive = row >= 0
        matched[image, positive] = gt_classes[image][row[positive]]
        targets.append(
            encode(gt_boxes[image][row[positive]], anchors[positive], (10.0, 10.0, 5.0, 5.0))
        )

    losses = multibox_loss(
        cls_logits,
        box_deltas,
        matched,
        torch.cat(targets),
        num_positives=float((matches >= 0).sum()),
        negative_ratio=3.0,
        smooth_l1_beta=1.0,
    )

    expected = torchvision_losses(cls_logits, box_deltas, anchors, gt_boxes, gt_classes, matches)
    torch.testing.assert_close(torch.stack(losses), expected)


def test_perfect_predictions_cost_nothing():
    _, deltas, matched, targets = random_batch(1, 2, 40, 3)
    right = matched.where(matched >= 0, 3)
    deltas[matched >= 0] = targets
    logits = torch.nn.functional.one_hot(right, 4) * 50.0

    loss_cls, loss_box_reg = multibox_loss(logits, deltas, matched, targets, **OPTIONS)

    assert loss_cls < 1e-6
    assert loss_box_reg == 0


def test_even_logits_cost_the_logarithm_of_the_number_of_classes():
    matched = torch.tensor([[1, BACKGROUND, BACKGROUND, BACKGROUND, BACKGROUND, IGNORE]])
    deltas = torch.zeros(1, 6, 4)

    loss_cls, _ = multibox_loss(torch.zeros(1, 6, 5), deltas, matched, torch.zeros(1, 4), **OPTIONS)

    assert loss_cls.item() == pytest.approx(4 * math.log(5))


def test_beta_0_is_l1_and_beta_1_is_quadratic_near_0():
    deltas = torch.tensor([[[0.5, -3.0, 0.0, 1.0]]])
    tensors = (torch.zeros(1, 1, 2), deltas, torch.zeros(1, 1, dtype=torch.int64))
    target = torch.zeros(1, 4)

    _, l1 = multibox_loss(*tensors, target, **{**OPTIONS, "smooth_l1_beta": 0.0})
    _, smooth = multibox_loss(*tensors, target, **OPTIONS)

    assert l1 == 4.5
    assert smooth == 0.125 + 2.5 + 0.5


@settings(max_examples=50, deadline=None)
@given(BATCHES, st.randoms(use_true_random=False))
def test_the_order_of_the_anchors_does_not_matter(batch, random):
    cls_logits, box_deltas, matched, targets = random_batch(*batch)
    order = list(range(matched.shape[1]))
    random.shuffle(order)
    index = torch.full(matched.shape, -1)
    index[matched >= 0] = torch.arange(len(targets))
    index = index[:, order]

    losses = multibox_loss(cls_logits, box_deltas, matched, targets, **OPTIONS)
    permuted = multibox_loss(
        cls_logits[:, order], box_deltas[:, order], matched[:, order],
        targets[index[index >= 0]], **OPTIONS,
    )  # fmt: skip

    torch.testing.assert_close(permuted, losses)


@pytest.mark.parametrize("value", [50.0, float("inf"), float("nan")])
def test_ignored_anchors_change_no_loss_and_get_no_gradient(value):
    cls_logits, box_deltas, matched, targets = random_batch(3, 2, 60, 2)
    is_ignored = matched == IGNORE
    assert is_ignored.any()
    expected = multibox_loss(cls_logits, box_deltas, matched, targets, **OPTIONS)
    cls_logits[is_ignored] = value
    box_deltas[is_ignored] = value
    cls_logits.requires_grad_()
    box_deltas.requires_grad_()

    losses = multibox_loss(cls_logits, box_deltas, matched, targets, **OPTIONS)
    sum(losses).backward()

    assert losses == expected
    assert not cls_logits.grad[is_ignored].any()
    assert not box_deltas.grad[is_ignored].any()
    assert cls_logits.grad[matched >= 0].any()


def test_easy_background_gets_no_gradient():
    cls_logits = torch.tensor([[[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]], requires_grad=True)
    matched = torch.tensor([[0, BACKGROUND, BACKGROUND]])

    options = {**OPTIONS, "negative_ratio": 1.0}
    loss_cls, _ = multibox_loss(
        cls_logits, torch.zeros(1, 3, 4), matched, torch.zeros(1, 4), **options
    )
    loss_cls.backward()

    assert cls_logits.grad.any(dim=-1).tolist() == [[True, True, False]]


@pytest.mark.parametrize("fill", [BACKGROUND, IGNORE])
def test_a_batch_without_labels_costs_exactly_0_and_keeps_its_graph(fill):
    cls_logits = torch.randn(2, 30, 3, requires_grad=True)
    box_deltas = torch.randn(2, 30, 4, requires_grad=True)
    matched = torch.full((2, 30), fill)

    losses = multibox_loss(cls_logits, box_deltas, matched, torch.zeros(0, 4), **OPTIONS)
    sum(losses).backward()

    assert [loss.item() for loss in losses] == [0, 0]
    assert torch.equal(box_deltas.grad, torch.zeros(2, 30, 4))
    assert torch.equal(cls_logits.grad, torch.zeros(2, 30, 3))


def test_an_image_without_labels_adds_nothing_to_a_batch():
    cls_logits, box_deltas, matched, targets = random_batch(5, 1, 50, 2)
    expected = multibox_loss(cls_logits, box_deltas, matched, targets, **OPTIONS)

    losses = multibox_loss(
        torch.cat([cls_logits, torch.randn_like(cls_logits)]),
        torch.cat([box_deltas, torch.randn_like(box_deltas)]),
        torch.cat([matched, torch.full_like(matched, BACKGROUND)]),
        targets,
        **OPTIONS,
    )

    assert losses == expected


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_a_label_without_area_gives_an_infinite_loss(beta):
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    targets = encode(torch.tensor([[3.0, 3, 3, 8]]), anchors, (10.0, 10.0, 5.0, 5.0))
    matched = torch.zeros(1, 1, dtype=torch.int64)

    options = {**OPTIONS, "smooth_l1_beta": beta}
    _, loss_box_reg = multibox_loss(
        torch.zeros(1, 1, 2), torch.zeros(1, 1, 4), matched, targets, **options
    )

    assert loss_box_reg == float("inf")


def test_a_target_too_few_is_refused():
    cls_logits, box_deltas, matched, targets = random_batch(5, 1, 50, 2)

    with pytest.raises(ValueError, match=rf"^{len(targets)} anchors are positive, .*\(1, 4\)"):
        multibox_loss(cls_logits, box_deltas, matched, targets[:1], **OPTIONS)
