"""One look at every training image: its labels against the contract, its loss if a model is given.

The labels are looked at as their file has them. Cleaning drops boxes without area before training,
and whoever looks for faults wants to see them: each finding says whether cleaning drops its box.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from d2pd.data.cleaning import Drop, clean_records, image_name
from d2pd.data.targets import is_region, make_targets
from d2pd.errors import UserError
from d2pd.training.culprits.sample_faults import CLASS_OUT_OF_RANGE, Fault, find_faults
from d2pd.training.diagnosis.diagnosis import (
    LOSS_NOT_FINITE,
    UNREADABLE_IMAGE,
    Finding,
    ImageResult,
)
from d2pd.training.validation import ImageLosses

Record = Mapping[str, Any]
Sample = dict[str, Any]
Measure = Callable[[Sample], ImageLosses]


def label_sample(record: Record, row: int) -> Sample:
    """Make the sample of a record without its picture: a black one of its size, unread.

    Args:
        record: Boxes XYXY, in pixels of an image of ``height`` and ``width``.
        row: Its place among the records.
    """
    # One byte stands for all pixels.
    image = torch.zeros(1, dtype=torch.uint8).expand(3, record["height"], record["width"])
    annotations = record["annotations"]
    rows = [annotation["bbox"] for annotation in annotations]
    boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    sample = {"file_name": record["file_name"], "row": row, "image": image}
    return sample | make_targets(image, boxes, annotations, min_box_size=None)


def examine(
    records: Sequence[Record],
    items: Iterable[Sample | UserError],
    *,
    num_classes: int,
    min_box_size: float,
    measure: Measure | None = None,
) -> Iterator[ImageResult]:
    """Look at each record's labels and picture, and compute its losses.

    Args:
        records: Uncleaned, boxes XYXY.
        items: For each record its sample with every box kept, or why there is none; see
            ``label_sample`` and ``data.loader.build_diagnosis_loader``.
        num_classes: Number of classes, without background.
        min_box_size: What cleaning drops narrower or lower boxes by, px.
        measure: Gives the losses; None looks at labels and pixels alone.
    """
    for row, (record, item) in enumerate(zip(records, items, strict=True)):
        is_readable = not isinstance(item, UserError)
        sample: Any = item if is_readable else label_sample(record, row)
        faults = find_faults([sample], num_classes)
        findings = [_finding_of(fault, record, row, min_box_size) for fault in faults]
        losses: dict[str, float] = {}
        if not is_readable:
            findings.append(Finding(row, image_name(record), UNREADABLE_IMAGE, str(item)))
        # A class out of range is an index out of range: on a GPU the process could not go on.
        elif measure and not any(fault.rule == CLASS_OUT_OF_RANGE for fault in faults):
            measured = measure(sample)
            losses = measured.losses
            if not measured.is_finite():
                problem = measured.refusal or _not_finite(losses)
                findings.append(Finding(row, image_name(record), LOSS_NOT_FINITE, problem))
        yield ImageResult(row, image_name(record), tuple(findings), losses)


def _not_finite(losses: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {v:g}" for name, v in losses.items() if not math.isfinite(v))


def _finding_of(fault: Fault, record: Record, row: int, min_box_size: float) -> Finding:
    if fault.box is None:
        return Finding(row, image_name(record), fault.rule, fault.message)
    targets = [at for at, label in enumerate(record["annotations"]) if not is_region(label)]
    position = targets[fault.box]
    annotation = record["annotations"][position]
    drop = _drop_of({**record, "annotations": [annotation]}, min_box_size)
    return Finding(
        row,
        image_name(record),
        fault.rule,
        fault.message if drop is None else drop.message,
        position,
        tuple(annotation["bbox"]),
        annotation.get("row"),
        None if drop is None else drop.rule,
    )


def _drop_of(record: dict[str, Any], min_box_size: float) -> Drop | None:
    """Return how cleaning drops the one box of a record; None where it keeps it."""
    _, report = clean_records([record], min_size=min_box_size)
    return report.drops[0] if report.drops else None
