"""Findings with their pictures, the box drawn."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from tqdm import tqdm

from d2pd.data.audit.findings import Audit, Finding
from d2pd.data.audit.rules import RULES
from d2pd.data.fold_assignment import daytime_of
from d2pd.data.images import read_image
from d2pd.errors import UserError
from d2pd.reporting.audit_page.places import Places
from d2pd.reporting.report.content import Box, Card
from d2pd.reporting.report.pictures import FAR, crop_uri, frame_uri, view_around

MOST_BOXES = 200
"""Boxes that are drawn on a picture."""

LEAST_SIDE = 1.0
"""px: as wide and high a box without area is drawn, to be seen at all."""

FARTHEST = 0.5
"""How far beyond the rim a picture is continued to show a box, in sides of the image."""

GREY = (96, 96, 96)

View = tuple[float, float, float, float]
"""x, y, width, height in pixels of the image."""


@dataclass
class FindingCards:
    """Draws findings, and keeps each whole picture once.

    Attributes:
        audit: What was found.
        paths: (I,) files of each image by camera; empty where no pictures are to be shown.
        frames: Key -> data URI, filled by ``draw``.
    """

    audit: Audit
    paths: Sequence[Mapping[str, str]]
    frames: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._places = Places(self.audit.table)

    def draw(self, most: int, *, quiet: bool | None) -> dict[str, list[Card]]:
        """Draw the first findings of each rule, of an image the first one, with a progress bar.

        Args:
            most: As many of a rule at most.
            quiet: No bar; None for none where nobody looks.
        """
        chosen = [pair for rule in RULES for pair in self._choose(rule, most).items()]
        cards: dict[str, list[Card]] = {rule: [] for rule in RULES}
        for image, finding in tqdm(chosen, "Page", unit="picture", leave=False, disable=quiet):
            cards[finding.rule].append(self._card(image, finding))
        return cards

    def _choose(self, rule: str, most: int) -> dict[int, Finding]:
        chosen: dict[int, Finding] = {}
        for finding in self.audit.of_rule(rule) if self.paths else ():
            if len(chosen) >= most:
                break
            image = self._places.image_of(finding)
            if image is not None and self.paths[image]:
                chosen.setdefault(image, finding)
        return chosen

    def _card(self, image: int, finding: Finding) -> Card:
        table = self.audit.table
        name, files = table.image_names[image], self.paths[image]
        # At night people are seen by the thermal camera.
        camera = list(files)[-1 if daytime_of(name) == "night" else 0]
        picture, trouble = _read(files[camera], camera)
        size = (max(1, int(table.heights[image])), max(1, int(table.widths[image])))
        if picture is not None:
            size = picture.shape[:2]
            self.frames.setdefault(f"{image}-{camera}", frame_uri(picture))
        view = view_beyond(finding.box, size)
        return Card(
            kind=RULES[finding.rule].severity,
            reason=_title(finding),
            splits=(),
            band="",
            score=None,
            lines=tuple(_lines(finding, camera if len(files) > 1 else "")),
            image_name=name,
            image_size=size,
            view=view,
            crop="" if picture is None else crop_beyond(picture, view),
            frame="" if picture is None else f"{image}-{camera}",
            boxes=tuple(self._boxes(image, self._places.box_of(finding))),
            trouble=trouble,
        )

    def _boxes(self, image: int, subject: int | None) -> Iterator[Box]:
        table = self.audit.table
        indices = np.flatnonzero(table.box_images == image)[:MOST_BOXES].tolist()
        if subject is not None and subject not in indices:
            indices.append(subject)
        for index in indices:
            box = table.boxes_xyxy[index]
            if not np.isfinite(box).all():
                continue
            category = int(table.categories[index])
            kind = "ignore" if table.is_region[index] or category < 0 else "label"
            has_text = kind == "label" and len(table.class_names) > 1
            text = table.class_names[category] if has_text else ""
            yield Box(_drawn(box), kind, text, index == subject)


def view_beyond(box_xyxy: Sequence[float] | None, image_size: tuple[int, int]) -> View:
    """Return the part of a picture to show of a box, beyond the rim where the box lies there.

    Args:
        box_xyxy: Pixels; None, or no finite numbers, for the whole picture.
        image_size: (height, width) in pixels.

    Returns:
        Whole pixels; the corner may be negative, and the part end beyond the picture.
    """
    height, width = image_size
    if box_xyxy is None or not np.isfinite(box_xyxy).all():
        return 0.0, 0.0, float(width), float(height)
    x, y, w, h = _drawn(box_xyxy)
    before = [_rim(-x, width), _rim(-y, height)]
    after = [_rim(x + w - width, width), _rim(y + h - height, height)]
    shown = (height + before[1] + after[1], width + before[0] + after[0])
    left, top, *sides = view_around((x + before[0], y + before[1], w, h), shown)
    return left - before[0], top - before[1], sides[0], sides[1]


def crop_beyond(picture: np.ndarray, view: View) -> str:
    """Return a part of a picture as a data URI, grey where it lies beyond the rim."""
    height, width = picture.shape[:2]
    left, top, *sides = (int(value) for value in view)
    before = max(0, -left), max(0, -top)
    after = max(0, left + sides[0] - width), max(0, top + sides[1] - height)
    if any(before + after):
        rims = (before[1], after[1], before[0], after[0])
        picture = cv2.copyMakeBorder(picture, *rims, cv2.BORDER_CONSTANT, value=GREY)
    return crop_uri(picture, (left + before[0], top + before[1], *sides))


def _read(path: str, camera: str) -> tuple[np.ndarray | None, str]:
    try:
        return read_image(path, camera), ""
    except UserError as error:
        return None, str(error)


def _rim(distance: float, side: int) -> int:
    """Return by how many pixels a picture is continued for a box that ends at a distance."""
    return int(np.ceil(np.clip(distance, 0, FARTHEST * side)))


def _drawn(box_xyxy: Sequence[float] | np.ndarray) -> View:
    """Return x, y, width and height of a finite box as it is drawn, corners in either order."""
    x1, y1, x2, y2 = np.clip(np.asarray(box_xyxy, dtype=float), -FAR, FAR).round(1).tolist()
    width, height = max(abs(x2 - x1), LEAST_SIDE), max(abs(y2 - y1), LEAST_SIDE)
    return min(x1, x2), min(y1, y2), width, height


def _title(finding: Finding) -> str:
    words = [finding.category or ("region" if finding.is_region else "")]
    words.append("" if finding.row is None else f"row {finding.row}")
    return ", ".join(filter(None, words))


def _lines(finding: Finding, camera: str) -> Iterator[str]:
    yield finding.message
    if finding.box is not None:
        yield f"[{', '.join(f'{side:g}' for side in finding.box)}]"
    if camera:
        yield f"{camera} picture"
