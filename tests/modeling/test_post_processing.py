"""Detections of an image: by hand, and against the textbook's plain loops."""

import math
import time
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.ssd import SSD

from d2pd.errors import ConfigError
from d2pd.modeling.post_processing import DetectionOptions, detect

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
OPTIONS = DetectionOptions(
    bbox_reg_weights=WEIGHTS,
    score_threshold=0.001,
    topk_candidates=1000,
    nms_type="hard",
    nms_threshold=0.45,
    soft_nms_sigma=0.5,
    detections_per_image=100,
)
NMS_TYPES = ("hard", "soft_linear", "soft_gaussian")
SIZE = (100, 100)


def logits_of(probabilities):
    """Return logits of (A, K) probabilities; what is left to 1 is background."""
    scores = torch.tensor(probabilities, dtype=torch.float64).reshape(len(probabilities), -1)
    return torch.cat([scores, 1 - scores.sum(dim=1, keepdim=True)], dim=1).log().float()


def detect_one(cls_logits, box_deltas, *arguments):
    """Detect on the one image of a batch."""
    return detect(cls_logits[None], box_deltas[None], *arguments).of_image(0)


def found(boxes, probabilities, image_size=SIZE, **options):
    """Detect with anchors that already lie right."""
    anchors = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return detect_one(
        logits_of(probabilities),
        torch.zeros(len(anchors), 4),
        anchors,
        image_size,
        replace(OPTIONS, **options),
    )


BOX, SHIFTED, FAR = (10, 10, 30, 50), (10, 20, 30, 60), (60, 10, 80, 50)  # IoU 600 / 1000 = .6


def test_hard_nms_by_hand():
    boxes, scores, classes = found([SHIFTED, FAR, BOX], [[0.8], [0.5], [0.9]])

    assert boxes.tolist() == [[*BOX], [*FAR]]
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.5]))
    assert classes.tolist() == [0, 0]
    assert classes.dtype == torch.int64


@pytest.mark.parametrize(
    ("nms_type", "decayed"),
    [("soft_linear", 0.8 * (1 - 0.6)), ("soft_gaussian", 0.8 * math.exp(-(0.6**2) / 0.5))],
)
def test_soft_nms_by_hand(nms_type, decayed):
    boxes, scores, _ = found([SHIFTED, FAR, BOX], [[0.8], [0.5], [0.9]], nms_type=nms_type)

    assert boxes.tolist() == [[*BOX], [*FAR], [*SHIFTED]]  # behind a box that was worse
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.5, decayed]))


def test_sigma_sets_the_decay():
    _, scores, _ = found([BOX, SHIFTED], [[0.9], [0.8]], nms_type="soft_gaussian", soft_nms_sigma=2)

    torch.testing.assert_close(scores, torch.tensor([0.9, 0.8 * math.exp(-(0.6**2) / 2)]))


@pytest.mark.parametrize("nms_type", ["hard", "soft_linear"])
def test_an_overlap_of_the_threshold_costs_nothing(nms_type):
    boxes = [(0, 0, 10, 10), (0, 0, 10, 20)]

    _, scores, _ = found(boxes, [[0.9], [0.8]], nms_type=nms_type, nms_threshold=0.5)

    torch.testing.assert_close(scores, torch.tensor([0.9, 0.8]))


def test_a_score_that_decays_to_the_floor_goes():
    options = {"nms_type": "soft_linear", "score_threshold": 0.33}

    _, scores, _ = found([BOX, SHIFTED], [[0.9], [0.8]], **options)  # .8 * (1 - .6) = .32

    torch.testing.assert_close(scores, torch.tensor([0.9]))


@pytest.mark.parametrize("nms_type", NMS_TYPES)
def test_boxes_of_other_classes_do_not_matter(nms_type):
    boxes, scores, classes = found(
        [BOX, BOX, SHIFTED], [[0.9, 0.05], [0.0, 0.7], [0.0, 0.0]], nms_type=nms_type,
        score_threshold=0.1,
    )  # fmt: skip

    torch.testing.assert_close(scores, torch.tensor([0.9, 0.7]))
    assert classes.tolist() == [0, 1]
    assert boxes.tolist() == [[*BOX], [*BOX]]


def test_one_anchor_may_be_detected_as_two_classes():
    boxes, scores, classes = found([BOX], [[0.3, 0.5]])

    assert boxes.tolist() == [[*BOX], [*BOX]]
    torch.testing.assert_close(scores, torch.tensor([0.5, 0.3]))
    assert classes.tolist() == [1, 0]


def test_scores_at_or_under_the_floor_go():
    _, scores, _ = found([BOX, FAR], [[0.5], [0.4]], score_threshold=0.5)

    assert len(scores) == 0


@pytest.mark.parametrize("nms_type", NMS_TYPES)
def test_the_best_candidates_and_the_best_detections_stay(nms_type):
    boxes = [(10 * n, 0, 10 * n + 8, 20) for n in range(10)]
    probabilities = [[0.05 + 0.07 * ((3 * n) % 10)] for n in range(10)]
    best = sorted((p for (p,) in probabilities), reverse=True)

    _, of_few_candidates, _ = found(boxes, probabilities, topk_candidates=4, nms_type=nms_type)
    _, few, _ = found(boxes, probabilities, detections_per_image=3, nms_type=nms_type)

    torch.testing.assert_close(of_few_candidates, torch.tensor(best[:4]))
    torch.testing.assert_close(few, torch.tensor(best[:3]))


def test_candidates_count_over_all_classes():
    _, scores, classes = found([BOX, FAR], [[0.5, 0.4], [0.3, 0.2]], topk_candidates=2)

    torch.testing.assert_close(scores, torch.tensor([0.5, 0.4]))
    assert classes.tolist() == [0, 1]


def test_a_box_that_the_nms_drops_leaves_its_place_to_the_next():
    boxes, _, _ = found([BOX, SHIFTED, FAR], [[0.9], [0.8], [0.5]], detections_per_image=2)

    assert boxes.tolist() == [[*BOX], [*FAR]]


def test_deltas_move_the_anchors_before_the_nms():
    anchors = torch.tensor([BOX, BOX], dtype=torch.float32)
    deltas = torch.tensor([[0.0, 0, 0, 0], [25.0, 0, 0, 5 * math.log(0.5)]])  # 2.5 widths; half

    boxes, _, _ = detect_one(logits_of([[0.9], [0.8]]), deltas, anchors, SIZE, OPTIONS)

    torch.testing.assert_close(boxes, torch.tensor([[10.0, 10, 30, 50], [60, 20, 80, 40]]))


@pytest.mark.parametrize("nms_type", NMS_TYPES)
def test_boxes_are_clipped_to_the_image_and_those_beyond_it_go(nms_type):
    boxes, scores, _ = found(
        [(-20, 90, 15, 120), (100, 10, 120, 40), (40, 50, 60, 70), (10, 50, 30, 80)],
        [[0.5], [0.9], [0.8], [0.4]],
        image_size=(95, 50),
        nms_type=nms_type,
    )

    assert boxes.tolist() == [[40, 50, 50, 70], [0, 90, 15, 95], [10, 50, 30, 80]]
    torch.testing.assert_close(scores, torch.tensor([0.8, 0.5, 0.4]))


@pytest.mark.parametrize("nms_type", NMS_TYPES)
def test_no_detections(nms_type):
    boxes, scores, classes = found([BOX, FAR], [[1e-4], [1e-5]], nms_type=nms_type)

    assert boxes.shape == (0, 4)
    assert scores.shape == classes.shape == (0,)
    assert (scores.dtype, classes.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize("nms_type", NMS_TYPES)
def test_what_is_not_finite_gives_no_detection(nms_type):
    anchors = torch.tensor([BOX, FAR, BOX], dtype=torch.float32)
    logits, deltas = logits_of([[0.9], [0.8], [0.5]]), torch.zeros(3, 4)
    logits[0] = deltas[1] = float("nan")

    options = replace(OPTIONS, nms_type=nms_type)
    _, scores, _ = detect_one(logits, deltas, anchors, SIZE, options)

    torch.testing.assert_close(scores, torch.tensor([0.5]))


@pytest.mark.parametrize("nms_type", NMS_TYPES)
@pytest.mark.parametrize("number", [20, 3000])  # torchvision's NMS has a form for many boxes
def test_ties_keep_the_order_of_the_anchors(nms_type, number):
    side = math.ceil(number**0.5)
    boxes = torch.tensor([(3 * (n % side), 3 * (n // side)) for n in range(number)]).float()
    boxes = torch.cat([boxes, boxes + 2], dim=1)

    kept, _, _ = found(
        boxes.tolist(), [[0.5]] * number, image_size=(500, 500), topk_candidates=2500,
        nms_type=nms_type, detections_per_image=50,
    )  # fmt: skip

    assert torch.equal(kept, boxes[:50])


def test_of_tied_overlapping_boxes_the_first_stays():
    boxes, _, _ = found([SHIFTED, BOX], [[0.5], [0.5]])

    assert boxes.tolist() == [[*SHIFTED]]


def iou_of(a, b):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / (areas - width * height)


def suppressed_by_loops(candidates, options):
    """Do Bodla et al.'s figure 2, with (score, anchor, class, box), one class after the other."""
    detections = []
    for category in {candidate[2] for candidate in candidates}:
        remaining = [list(c) for c in candidates if c[2] == category]
        while remaining:
            remaining.sort(key=lambda c: (-c[0], c[1]))
            best = remaining.pop(0)
            detections.append(best)
            for other in remaining:
                iou = iou_of(best[3], other[3])
                if options.nms_type == "soft_gaussian":
                    other[0] *= math.exp(-(iou**2) / options.soft_nms_sigma)
                elif iou > options.nms_threshold:
                    other[0] *= 0 if options.nms_type == "hard" else 1 - iou
            remaining = [c for c in remaining if c[0] > options.score_threshold]
    detections.sort(key=lambda c: (-c[0], c[1], c[2]))
    return detections[: options.detections_per_image]


def detected_by_loops(scores, boxes, image_size, options):
    height, width = image_size
    candidates = [
        (score, anchor, category, box)
        for anchor, (box, row) in enumerate(zip(boxes, scores, strict=True))
        for category, score in enumerate(row)
        if score > options.score_threshold
    ]
    candidates.sort(key=lambda c: (-c[0], c[1], c[2]))
    clipped = [
        (*c[:3], [min(max(v, 0), width if n % 2 == 0 else height) for n, v in enumerate(c[3])])
        for c in candidates[: options.topk_candidates]
    ]
    return suppressed_by_loops(
        [c for c in clipped if c[3][2] > c[3][0] and c[3][3] > c[3][1]], options
    )


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 25),
    st.integers(1, 3),
    st.sampled_from(NMS_TYPES),
    st.sampled_from([0.001, 0.15]),
    st.sampled_from([5, 1000]),
    st.sampled_from([3, 100]),
)
def test_detections_agree_with_plain_loops(
    seed, num_anchors, num_classes, nms_type, floor, candidates, most
):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(-20, 80, (num_anchors, 2), generator=generator)
    sides = torch.randint(1, 60, (num_anchors, 2), generator=generator)
    anchors = torch.cat([corners, corners + sides], dim=1).float()
    cls_logits = torch.randn(num_anchors, num_classes + 1, generator=generator)
    options = replace(
        OPTIONS, nms_type=nms_type, score_threshold=floor, topk_candidates=candidates,
        detections_per_image=most, nms_threshold=0.437,
    )  # fmt: skip

    boxes, scores, classes = detect_one(
        cls_logits, torch.zeros(num_anchors, 4), anchors, (64, 90), options
    )

    probabilities = cls_logits.softmax(dim=1)[:, :-1].tolist()
    expected = detected_by_loops(probabilities, anchors.tolist(), (64, 90), options)
    assert classes.tolist() == [c[2] for c in expected]
    torch.testing.assert_close(boxes, torch.tensor([c[3] for c in expected]).reshape(-1, 4))
    torch.testing.assert_close(scores, torch.tensor([c[0] for c in expected]))


def test_hard_nms_agrees_with_torchvisions_ssd():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(500, 4, generator=generator) * 90
    anchors = torch.cat([corners[:, :2], corners[:, :2] + 4 + corners[:, 2:] / 3], dim=1)
    cls_logits = torch.randn(500, 3, generator=generator)
    box_deltas = torch.randn(500, 4, generator=generator)
    ssd = SSD.__new__(SSD)  # without a network
    torch.nn.Module.__init__(ssd)
    ssd.box_coder = BoxCoder(WEIGHTS)
    ssd.score_thresh, ssd.nms_thresh, ssd.topk_candidates, ssd.detections_per_img = (
        0.1, 0.45, 1000, 40,
    )  # fmt: skip
    outputs = {"cls_logits": cls_logits.roll(1, dims=-1)[None], "bbox_regression": box_deltas[None]}

    (expected,) = ssd.postprocess_detections(outputs, [anchors], [SIZE])
    options = replace(OPTIONS, score_threshold=0.1, detections_per_image=40)
    boxes, scores, classes = detect_one(cls_logits, box_deltas, anchors, SIZE, options)

    torch.testing.assert_close(boxes, expected["boxes"])
    torch.testing.assert_close(scores, expected["scores"])
    assert torch.equal(classes, expected["labels"] - 1)


def test_a_sigma_of_0_is_refused():
    with pytest.raises(ConfigError, match=r"^MODEL.SSD.SOFT_NMS_SIGMA is 0, and must be above 0$"):
        replace(OPTIONS, soft_nms_sigma=0)


@pytest.mark.parametrize("nms_type", NMS_TYPES)
def test_all_anchors_of_a_large_image_take_little_time(nms_type):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(41_760, 2, generator=generator) * 600
    anchors = torch.cat([corners, corners + 40], dim=1)
    cls_logits = torch.randn(41_760, 2, generator=generator)
    options = replace(OPTIONS, nms_type=nms_type)
    start = time.perf_counter()

    boxes, _, _ = detect_one(cls_logits, torch.zeros(41_760, 4), anchors, (640, 640), options)

    assert len(boxes) == 100
    assert time.perf_counter() - start < 1.0  # 10 to 40 ms on an idle core
