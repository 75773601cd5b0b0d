"""Labels as KAIST JSON and as COCO JSON."""

from collections import Counter
from typing import Any

from d2pd.data.annotations.kaist import FRAME_SIZE, PUBLISHED_CATEGORIES
from d2pd.data.annotations.labels import IGNORE_REGION, Labels
from d2pd.data.convert.target import (
    Converted,
    count_duplicates,
    json_boxes,
    kaist_name,
    picture_name,
    refuse_names,
    stated_size,
)
from d2pd.errors import AnnotationError

REGION = PUBLISHED_CATEGORIES[0]
"""What KAIST calls regions to ignore."""


def to_kaist(labels: Labels) -> Converted:
    """Write labels as KAIST JSON: its four classes have the published ids, others the next ones.

    Raises:
        AnnotationError: If an image has no name such as set00/V000/I01217, or a class is called as
            the regions to ignore are.
    """
    refuse_names(labels.class_names, [REGION], "KAIST JSON", "rename it, or choose others")
    lost: Counter[str] = Counter()
    names = _kaist_names(labels)
    images: list[dict[str, Any]] = []
    for record, name in zip(labels.records, names, strict=True):
        size = stated_size(record)
        lost["image sizes that are not stated: KAIST's is meant then, 640x512"] += not size
        images.append({"id": record["image_id"], "im_name": name, **(size or FRAME_SIZE)})
    lost["names of pictures that become one frame, of both cameras"] = count_duplicates(
        names
    ) - count_duplicates([picture_name(record) for record in labels.records])
    ids = _kaist_ids(labels.class_names)
    boxes = json_boxes(labels.records, [ids[name] for name in labels.class_names], lost)
    for row in boxes:
        row["height"] = row["bbox"][3]
    categories = [{"id": IGNORE_REGION, "name": REGION}]
    categories += [{"id": key, "name": name} for name, key in ids.items()]
    content = {"images": images, "annotations": boxes, "categories": categories}
    return Converted(content, len(boxes), +lost)


def to_coco(labels: Labels) -> Converted:
    """Write labels as COCO JSON; a region to ignore is a crowd, without a class of category -1."""
    lost: Counter[str] = Counter()
    images = [
        {"id": record["image_id"], "file_name": picture_name(record), **stated_size(record)}
        for record in labels.records
    ]
    lost["lwir pictures: one name an image, of the visible one, as .jpg"] = sum(
        "im_name" in record for record in labels.records
    )
    boxes = json_boxes(labels.records, range(1, len(labels.class_names) + 1), lost)
    for row in boxes:
        row |= {"area": row["bbox"][2] * row["bbox"][3], "iscrowd": row["ignore"]}
    categories = [{"id": key, "name": name} for key, name in enumerate(labels.class_names, 1)]
    content = {"images": images, "annotations": boxes, "categories": categories}
    return Converted(content, len(boxes), +lost)


def _kaist_names(labels: Labels) -> list[str]:
    names = [kaist_name(record) for record in labels.records]
    bad = [
        record["file_name"]
        for record, name in zip(labels.records, names, strict=True)
        if name is None
    ]
    if bad:
        raise AnnotationError(
            f"{len(bad)} of {len(names)} images are no KAIST frames such as set00/V000/I01217 or "
            f"set00/V000/visible/I01217.jpg; the first is {bad[0]!r}: convert to coco or csv"
        )
    return [name for name in names if name is not None]


def _kaist_ids(class_names: tuple[str, ...]) -> dict[str, int]:
    """Give ids by name: the published classes always, then the others."""
    ids = {name: int(key) for key, name in PUBLISHED_CATEGORIES.items() if name != REGION}
    for name in class_names:
        ids.setdefault(name, len(ids) + 1)
    return ids
