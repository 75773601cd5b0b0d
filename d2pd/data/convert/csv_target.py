"""Labels as CSV: a line for each box, with a header."""

import csv
import io
from collections import Counter
from collections.abc import Sequence

from d2pd.data.annotations.csv_rows import IGNORE_CLASSES
from d2pd.data.annotations.labels import Annotation, Labels, Record
from d2pd.data.convert.target import (
    Converted,
    as_number,
    count_duplicates,
    is_region,
    picture_name,
    refuse_names,
    stated_size,
)
from d2pd.errors import AnnotationError

HEADER = (
    *("filename", "x1", "y1", "x2", "y2", "class"),
    *("ignore", "occlusion", "image_width", "image_height"),
)


def to_csv(labels: Labels) -> Converted:
    """Write labels as CSV; an image without objects is a line without a box.

    Raises:
        AnnotationError: If a class or a file name cannot stand in a cell.
    """
    refuse_names(labels.class_names, IGNORE_CLASSES, "a CSV", "rename it, or choose others")
    names = [picture_name(record) for record in labels.records]
    for word in (*labels.class_names, *names):
        _check_cell(word)
    sizes: dict[str, tuple[int, int]] = {}
    for name, record in zip(names, labels.records, strict=True):
        if size := stated_size(record):
            sizes.setdefault(name, (size["width"], size["height"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for name, record in zip(names, labels.records, strict=True):
        size_cells = sizes.get(name, ("", ""))
        for cells in _boxes(record, labels.class_names) or [[""] * (len(HEADER) - 3)]:
            writer.writerow([name, *cells, *size_cells])
    num_boxes = sum(len(record["annotations"]) for record in labels.records)
    return Converted(text.getvalue(), num_boxes, _lost(labels, names, sizes))


def _boxes(record: Record, class_names: Sequence[str]) -> list[list[object]]:
    return [_cells(annotation, class_names) for annotation in record["annotations"]]


def _cells(annotation: Annotation, class_names: Sequence[str]) -> list[object]:
    category = annotation["category_id"]
    word = IGNORE_CLASSES[0] if category < 0 else class_names[category]
    box = [as_number(value) for value in annotation["bbox"]]
    return [*box, word, int(is_region(annotation)), annotation.get("occlusion", "")]


def _lost(labels: Labels, names: Sequence[str], sizes: dict[str, tuple[int, int]]) -> Counter[str]:
    lost: Counter[str] = Counter()
    lost["image ids: they are counted from 0"] = sum(
        record["image_id"] != index for index, record in enumerate(labels.records)
    )
    lost["lwir pictures: one name an image, of the visible one, as .jpg"] = sum(
        "im_name" in record for record in labels.records
    )
    lost["images listed again: their boxes join those of the first"] = count_duplicates(names)
    for name, record in zip(names, labels.records, strict=True):
        stated = stated_size(record)
        is_kept = not stated or sizes[name] == (stated["width"], stated["height"])
        lost["sizes of images that are another where they are listed first"] += not is_kept
    mentioned = {
        labels.class_names[annotation["category_id"]]
        for record in labels.records
        for annotation in record["annotations"]
        if annotation["category_id"] >= 0
    }
    order = ", ".join(labels.class_names)
    what = f"numbers of classes: a CSV lists none, set CLASSES to keep them ({order})"
    lost[what] = len(labels.class_names) * (sorted(mentioned) != list(labels.class_names))
    return +lost


def _check_cell(word: str) -> None:
    try:
        word.encode()
    except UnicodeEncodeError:
        is_text = False
    else:
        is_text = bool(word) and word == word.strip() and not set("\r\n\0") & set(word)
    if not is_text:
        raise AnnotationError(
            f"the name {word!r} cannot stand in a CSV: it is empty, has blanks at its ends, a line "
            "break or half a character; rename it, or convert to coco"
        )
