"""What is to happen to which row of a label file, so that the cleaned rules find nothing more."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from d2pd.data.audit.box_rules import find_duplicate_boxes
from d2pd.data.audit.csv_text import CsvText
from d2pd.data.audit.findings import Finding
from d2pd.data.audit.json_text import JsonText
from d2pd.data.audit.rules import CLEANED
from d2pd.data.label_table.table import LabelTable

OF_IMAGES = ("duplicate_image", "missing_image", "unreadable_image")
OF_BOXES = tuple(
    rule for rule in CLEANED if rule not in (*OF_IMAGES, "malformed_row", "outside_image")
)

Document = JsonText | CsvText

Place = tuple[str, int]
"""``image``, ``annotation`` or ``line``, and the row that it counts."""


@dataclass(frozen=True)
class Mending:
    """What happens to a row.

    Attributes:
        rule: Why.
        image: The name of its image, None where the row names none.
        text: Its new text, None where it is taken out.
    """

    rule: str
    image: str | None
    text: str | None = None


class CleaningPlan:
    """Collects what is to happen; the methods stand in the order in which they must be called.

    Args:
        table: The labels.
        document: The text of the same file.

    Attributes:
        mendings: What happens to which row.
        removed_images: Index of each image that goes.
    """

    def __init__(self, table: LabelTable, document: Document) -> None:
        self.mendings: dict[Place, Mending] = {}
        self.removed_images: set[int] = set()
        self._table = table
        self._document = document
        self._box_place, self._image_place = (
            ("line", "line") if table.format == "csv" else ("annotation", "image")
        )

    def remove_malformed(self) -> None:
        """Take out the rows that cannot be read."""
        for row in self._table.malformed:
            self.mendings[row.place, row.row] = Mending("malformed_row", row.image)

    def remove_images(self, findings: Iterable[Finding]) -> None:
        """Take out images, and their boxes with them."""
        table = self._table
        index_of_row = {row: index for index, row in enumerate(table.image_rows.tolist())}
        rules: dict[int, str] = {}
        for finding in findings:
            if finding.rule not in OF_IMAGES or finding.row is None:
                continue
            if finding.row in table.repeated:  # the image has other lines, and they stay
                self._remove(self._image_place, finding.row, finding.rule, finding.image)
            else:
                rules.setdefault(index_of_row[finding.row], finding.rule)
        for index, rule in rules.items():
            name = table.image_names[index]
            self._remove(self._image_place, int(table.image_rows[index]), rule, name)
        self.removed_images = set(rules)

    def remove_boxes_of_removed_images(self) -> None:
        """Take out what belongs to an image that goes, boxes of classes left out included."""
        document = self._document
        if isinstance(document, CsvText):
            self._remove_lines_of_removed_images()
            return
        known = set(self._table.image_ids)
        gone: dict[int | str, Mending] = {}
        for (place, row), mending in self.mendings.items():
            image_id = document.image_id(row) if place == "image" else None
            # A malformed row may claim the id of a sound one, which keeps its boxes.
            if image_id is not None and (mending.rule != "malformed_row" or image_id not in known):
                gone[image_id] = mending
        for row, image_id in document.boxes_of(gone):
            self._remove("annotation", row, gone[image_id].rule, gone[image_id].image)

    def remove_boxes(self, findings: Iterable[Finding]) -> None:
        """Take out boxes that cannot be mended."""
        for finding in findings:
            if finding.rule in OF_BOXES and finding.row is not None:
                self._remove(self._box_place, finding.row, finding.rule, finding.image)

    def clip_boxes(self, findings: Iterable[Finding], min_box_size: float) -> None:
        """Cut boxes to their image; take them out where too little is left, or what another has."""
        table, document = self._table, self._document
        boxes = table.boxes_xyxy.copy()
        for finding in findings:
            row = finding.row
            if finding.rule != "outside_image" or row is None or self._is_planned(row):
                continue
            index = int(np.searchsorted(table.box_rows, row))
            image = table.box_images[index]
            box = document.box(row).clipped(table.heights[image], table.widths[image])
            x1, y1, x2, y2 = boxes[index] = box.corners
            side = min(x2 - x1, y2 - y1)
            text = document.with_box(row, box) if side > 0 and side >= min_box_size else None
            mending = Mending(finding.rule, finding.image, text)
            self.mendings[self._box_place, row] = mending
        for finding in find_duplicate_boxes(replace(table, boxes_xyxy=boxes), self._is_kept()):
            if finding.row is not None:
                place = (self._box_place, finding.row)
                self.mendings[place] = Mending(finding.rule, finding.image)

    def keep_emptied_images(self) -> None:
        """Let the first line of an image of a CSV name it where all lines with its boxes go."""
        table, document = self._table, self._document
        if not isinstance(document, CsvText):
            return
        has_boxes = np.zeros(table.num_images, dtype=bool)
        has_boxes[table.box_images[self._is_kept()]] = True
        for index in np.flatnonzero(~has_boxes).tolist():
            line = int(table.image_rows[index])
            if index not in self.removed_images and self._is_planned(line):
                planned = self.mendings[self._box_place, line]
                self.mendings[self._box_place, line] = replace(
                    planned, text=document.without_box(line)
                )

    def _remove_lines_of_removed_images(self) -> None:
        table, removed = self._table, self.removed_images
        rows = zip(table.box_rows.tolist(), table.box_images.tolist(), strict=True)
        for line, image in rows:  # lines without a box go as duplicate_image
            if image in removed:
                first = self.mendings["line", int(table.image_rows[image])]
                self._remove("line", line, first.rule, first.image)

    def _remove(self, place: str, row: int, rule: str, image: str | None) -> None:
        self.mendings.setdefault((place, row), Mending(rule, image))

    def _is_planned(self, row: int) -> bool:
        return (self._box_place, row) in self.mendings

    def _is_kept(self) -> np.ndarray:
        """Tell which boxes stay, (B,) bool."""
        removed = [
            row
            for (place, row), mending in self.mendings.items()
            if place == self._box_place and mending.text is None
        ]
        return ~np.isin(self._table.box_rows, removed)


def plan_cleaning(
    table: LabelTable, findings: Sequence[Finding], document: Document, min_box_size: float
) -> CleaningPlan:
    """Decide what happens to the rows of a file.

    Args:
        table: The labels.
        findings: Of all rules.
        document: The text of the same file.
        min_box_size: Least side in pixels of a box after it was cut.
    """
    plan = CleaningPlan(table, document)
    plan.remove_malformed()
    plan.remove_images(findings)
    plan.remove_boxes_of_removed_images()
    plan.remove_boxes(findings)
    plan.clip_boxes(findings, min_box_size)
    plan.keep_emptied_images()
    return plan
