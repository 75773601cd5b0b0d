"""Faults of whole images that labels alone show, and rows that are neither image nor box."""

import posixpath
from collections.abc import Iterator

import numpy as np

from d2pd.data.audit.findings import Finding
from d2pd.data.label_table.table import LabelTable


def find_malformed_rows(table: LabelTable) -> Iterator[Finding]:
    """Give the rows that could not be read."""
    for row in sorted(table.malformed, key=lambda malformed: malformed.row):
        yield Finding("malformed_row", row.image, row.row, None, None, row.message)


def find_duplicate_images(table: LabelTable) -> Iterator[Finding]:
    """Find images that are listed again, also under another spelling of the same path."""
    found = [
        _again(table.image_names[index], line, int(table.image_rows[index]), ", without a box")
        for line, index in table.repeated.items()
    ]
    first: dict[str, int] = {}
    for index, name in enumerate(table.image_names):
        earlier = first.setdefault(_one_spelling(name), index)
        if earlier != index:
            spelled = table.image_names[earlier]
            spelling = "" if spelled == name else f", there spelled {spelled}"
            row, first_row = int(table.image_rows[index]), int(table.image_rows[earlier])
            found.append(_again(name, row, first_row, spelling))
    yield from sorted(found, key=lambda finding: finding.row or 0)


def find_images_without_objects(table: LabelTable) -> Iterator[Finding]:
    """Find images without any box, and those of regions to ignore alone.

    An image of which a row could not be read is neither: that row may be its object.
    """
    num_images = len(table.image_names)
    num_boxes = np.bincount(table.box_images, minlength=num_images)
    num_regions = np.bincount(table.box_images[table.is_region], minlength=num_images)
    unread = {row.image for row in table.malformed if row.image is not None}
    for index in np.flatnonzero(num_boxes == num_regions).tolist():
        name, row = table.image_names[index], int(table.image_rows[index])
        if name in unread:
            continue
        if count := int(num_regions[index]):
            message = f"its {count} box{'es are' if count > 1 else ' is'} to be ignored"
            yield Finding("ignore_only", name, row, None, None, message)
        else:
            yield Finding("no_object", name, row, None, None, "has no box")


def _again(name: str, row: int, first_row: int, remark: str) -> Finding:
    message = f"is the image of row {first_row} again{remark}"
    return Finding("duplicate_image", name, row, None, None, message)


def _one_spelling(name: str) -> str:
    if "\\" in name or "//" in name or "./" in name or name.endswith(("/", "/.")):
        return posixpath.normpath(name.replace("\\", "/"))
    return name
