"""What an audit looks for, and what each fault does to a training."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Rule:
    """A kind of fault; what it does is said of a training that takes the labels as they are.

    Attributes:
        severity: ``error`` stops or ruins a training, ``warning`` costs accuracy or is suspicious.
        what: What is found.
        faster_rcnn: What it does to Faster R-CNN.
        ssd: What it does to SSD.
        is_cleaned: Whether ``--write-clean`` mends it; the others are for a person to look at.
    """

    severity: Severity
    what: str
    faster_rcnn: str
    ssd: str
    is_cleaned: bool


_BOTH_STOP = "the reader stops at the first such row, before the training"
_LOST_STEP = "the loss of the step is NaN; from there on every weight is, unless the step is left"
_BLURS = "the box learns a size or place that no object has; the largest of them move the average"
_EMPTY = (
    "it is left out unless DATALOADER.FILTER_EMPTY_ANNOTATIONS is False; then, if its objects were "
    "never labelled, it teaches that they are background"
)

RULES: dict[str, Rule] = {
    "malformed_row": Rule(
        "error",
        "a row that cannot be read as a box or an image",
        _BOTH_STOP,
        _BOTH_STOP,
        True,
    ),
    "not_finite": Rule(
        "error",
        "a coordinate is NaN or infinite",
        _LOST_STEP,
        _LOST_STEP,
        True,
    ),
    "degenerate_box": Rule(
        "error",
        "a box without area, or with corners in the wrong order",
        "it overlaps nothing, so every anchor ties as its best match: all become positive, the RPN "
        "has no negative anchor and learns that everything is an object",
        "it keeps an anchor however little they overlap, and its target is log(0): the loss is "
        "infinite, and every weight NaN after it",
        True,
    ),
    "tiny_box": Rule(
        "warning",
        "a box narrower or lower than the minimum size",
        "the target is the log of next to nothing: one box outweighs the others of its batch",
        "it keeps its best anchor although they hardly overlap: a large box loss for an object "
        "that nobody can see",
        True,
    ),
    "outside_image": Rule(
        "warning",
        "a box that reaches beyond its image",
        "its target leads beyond the rim, where proposals and detections are cut: a loss that no "
        "detection can bring to zero",
        "its target leads beyond the rim, where detections are cut: anchors there learn a part of "
        "the object that is in no pixel",
        True,
    ),
    "centre_outside_image": Rule(
        "error",
        "a box whose centre lies beyond its image",
        "most of the object is not there: a positive example of background or of a sliver",
        "no cell of a map stands at its centre: a positive example of background or of a sliver",
        True,
    ),
    "unknown_category": Rule(
        "error",
        "a box of a class that is not among the classes",
        "the reader stops; where it does not, a class out of range ends in a CUDA assert",
        "the reader stops; where it does not, a class out of range ends in a CUDA assert",
        True,
    ),
    "duplicate_box": Rule(
        "warning",
        "the same box with the same class again in one image",
        "it joins the proposals twice and weighs double; in the evaluation one of the two is a "
        "miss",
        "the second box takes an anchor of its own, a worse one; in the evaluation it is a miss",
        True,
    ),
    "duplicate_image": Rule(
        "warning",
        "an image that is listed again",
        "it is seen twice an epoch; if the rows differ, what one calls an object is background in "
        "the other",
        "it is seen twice an epoch; if the rows differ, what one calls an object is background in "
        "the other",
        True,
    ),
    "no_object": Rule(
        "warning",
        "an image without any box",
        _EMPTY,
        _EMPTY,
        False,
    ),
    "ignore_only": Rule(
        "warning",
        "an image whose boxes are all regions to ignore",
        "it holds nothing to learn and is left out of the training",
        "it holds nothing to learn and is left out of the training",
        False,
    ),
    "missing_image": Rule(
        "error",
        "an image that is not there",
        "the training refuses to start",
        "the training refuses to start",
        True,
    ),
    "unreadable_image": Rule(
        "error",
        "an image that cannot be decoded, or is cut short",
        "the training stops when it comes to it, maybe hours later; half an image that does "
        "decode is learned as grey",
        "the training stops when it comes to it, maybe hours later; half an image that does "
        "decode is learned as grey",
        True,
    ),
    "size_mismatch": Rule(
        "error",
        "an image of another size than its labels state, or two cameras of different sizes",
        "the boxes lie beside the objects, and those beyond the rim are cut",
        "the boxes lie beside the objects, and those beyond the rim are cut",
        False,
    ),
    "missing_modality": Rule(
        "error",
        "a frame that one of the two cameras lacks",
        "the training on that camera, or on both, refuses to start",
        "the training on that camera, or on both, refuses to start",
        False,
    ),
    "outlier_area": Rule(
        "warning",
        "an area far from those of its class",
        _BLURS,
        _BLURS,
        False,
    ),
    "outlier_aspect": Rule(
        "warning",
        "a ratio of width to height far from those of its class",
        _BLURS,
        _BLURS,
        False,
    ),
    "whole_image_box": Rule(
        "warning",
        "a box over the whole image: often a label of the picture, not of an object in it",
        "only the largest anchors match it, and learn to fire on any picture",
        "only the anchors of the coarsest map match it, and learn to fire on any picture",
        False,
    ),
}
"""By stable name, in the order of tables and files."""

CLEANED = tuple(name for name, rule in RULES.items() if rule.is_cleaned)
"""What ``--write-clean`` mends."""
