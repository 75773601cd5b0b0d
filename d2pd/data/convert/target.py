"""What all targets share: the converted labels, names of images, boxes as JSON writes them."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from d2pd.data.annotations.kaist import IMAGE_SUFFIXES, MODALITIES
from d2pd.data.annotations.labels import IGNORE_REGION, Annotation, Record
from d2pd.errors import AnnotationError

NOT_FINITE = "boxes left out: a coordinate is not finite, which JSON cannot say"
ROUNDED = "boxes whose right or lower edge moves by the rounding of x + w"

_WHOLE = 2.0**53  # from here on a float has no digits behind the point


@dataclass(frozen=True)
class Converted:
    """Labels in the form of a target.

    Attributes:
        content: Text of a CSV, or the plain data of a JSON.
        num_boxes: How many boxes it holds.
        lost: How often it cannot say what the labels say, by what that is.
    """

    content: str | dict[str, Any]
    num_boxes: int
    lost: Counter[str] = field(default_factory=Counter)


def picture_name(record: Record) -> str:
    """Name the picture of a record: of a KAIST frame the visible one, as the dataset has it."""
    if "im_name" not in record:
        return str(record["file_name"])
    set_name, video, frame = record["im_name"].split("/")
    return f"{set_name}/{video}/visible/{frame}.jpg"


def kaist_name(record: Record) -> str | None:
    """Name the KAIST frame of a record, None where its picture has no such place.

    Args:
        record: Of ``set00/V000/visible/I00000.jpg``, say, or with ``im_name``.
    """
    if "im_name" in record:
        return str(record["im_name"])
    name = str(record["file_name"]).replace("\\", "/")
    for suffix in IMAGE_SUFFIXES:
        name = re.sub(f"{re.escape(suffix)}$", "", name, flags=re.IGNORECASE)
    parts = [part for part in name.split("/") if part not in MODALITIES]
    return "/".join(parts) if len(parts) == 3 and all(parts) else None


def json_boxes(
    records: Sequence[Record], category_ids: Sequence[int], lost: Counter[str]
) -> list[dict[str, Any]]:
    """Return the rows of ``annotations``, with what KAIST JSON and COCO JSON share.

    Args:
        records: The images.
        category_ids: Id of each class in the target; a region without a class gets -1.
        lost: Counts the boxes that cannot be written, or not to the last digit.
    """
    rows: list[dict[str, Any]] = []
    for record in records:
        for annotation in record["annotations"]:
            box = _xywh(annotation["bbox"], lost)
            if box is None:
                continue
            category = annotation["category_id"]
            row = {"id": len(rows), "image_id": record["image_id"]}
            row["category_id"] = IGNORE_REGION if category < 0 else category_ids[category]
            row |= {"bbox": box, "ignore": int(is_region(annotation))}
            if "occlusion" in annotation:
                row["occlusion"] = annotation["occlusion"]
            rows.append(row)
    return rows


def is_region(annotation: Annotation) -> bool:
    """Tell whether a box is a region to ignore."""
    return bool(annotation["ignore"] or annotation["iscrowd"])


def as_number(value: float) -> int | float:
    """Return a whole number without a point, as label files write pixels."""
    return int(value) if abs(value) < _WHOLE and value == int(value) else value


def stated_size(record: Record) -> dict[str, int]:
    """Return ``height`` and ``width`` where the record has them."""
    return {key: record[key] for key in ("height", "width") if key in record}


def refuse_names(names: Sequence[str], taken: Sequence[str], target: str, hint: str) -> None:
    """Refuse classes whose name the target has for something else.

    Raises:
        AnnotationError: If there is one.
    """
    for name in names:
        if name in taken:
            raise AnnotationError(f"class {name!r} means a region to ignore in {target}; {hint}")


def count_duplicates(names: Sequence[str]) -> int:
    """Return how many entries repeat an earlier one."""
    return len(names) - len(set(names))


def _xywh(bbox_xyxy: Sequence[float], lost: Counter[str]) -> list[int | float] | None:
    x1, y1, x2, y2 = bbox_xyxy
    sides = [x2 - x1, y2 - y1]
    if not all(map(math.isfinite, (*bbox_xyxy, *sides))):
        lost[NOT_FINITE] += 1
        return None
    if x1 + sides[0] != x2 or y1 + sides[1] != y2:
        lost[ROUNDED] += 1
    return [as_number(value) for value in (x1, y1, *sides)]
