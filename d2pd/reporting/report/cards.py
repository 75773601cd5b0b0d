"""The gallery: which errors are shown, and a picture of each."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, cycle, zip_longest
from typing import Any

import numpy as np
from tqdm import tqdm

from d2pd.errors import AnnotationError, MissingFileError, UserError
from d2pd.evaluation.arrays import labels_to_find
from d2pd.evaluation.error_cases import REASONS, ErrorCase, worst
from d2pd.evaluation.error_counts import HEIGHT_BANDS, OCCLUSION_BANDS
from d2pd.evaluation.subsets import in_split
from d2pd.reporting.report.content import Box, Card
from d2pd.reporting.report.measured import Evaluated, splits_of
from d2pd.reporting.report.pictures import crop_uri, frame_uri, read_picture, view_around

logger = logging.getLogger(__name__)

TURNS = ("false positive", "miss", "false positive", "miss", "not counted")
"""Whose turn it is to be shown, over and over: what the metric leaves out counts less here."""


@dataclass
class Gallery:
    """Draws cards, and keeps each whole picture once.

    Attributes:
        records: Of the dataset, in the order of the labels.
        modality: ``visible``, ``lwir`` or ``both``: what the model saw; a card of a pair shows the
            visible frame.
        prefix: Before the keys of ``frames``, unlike that of any other gallery of the page.
        score_threshold: Detections under it are drawn only where the error is about one.
        trouble: Why there is no picture of any record; empty where there are some.
        frames: Key -> data URI, filled by ``draw``.
        troubles: Image -> why it has no picture.
    """

    records: Sequence[Mapping[str, Any]]
    modality: str
    prefix: str
    score_threshold: float
    trouble: str = ""
    frames: dict[str, str] = field(default_factory=dict)
    troubles: dict[int, str] = field(default_factory=dict)

    def draw(self, cases: Sequence[ErrorCase], given: Evaluated, *, quiet: bool) -> list[Card]:
        """Draw a card for each case, with a progress bar.

        Args:
            cases: To show.
            given: What they were found in.
            quiet: No bar.
        """
        cards: dict[int, Card] = {}
        # Image by image, so that each is read once.
        order = sorted(range(len(cases)), key=lambda position: cases[position].image)
        image, number = None, -1
        for position in tqdm(order, desc=f"pictures of {given.name}", disable=quiet, leave=False):
            case = cases[position]
            if case.image != number:
                image, number = self._read(case.image), case.image
            cards[position] = self._card(case, given, image)
        if self.troubles:
            first = next(iter(self.troubles.values()))
            logger.warning(
                "%s: %d pictures are not shown: %s", given.name, len(self.troubles), first
            )
        return [cards[position] for position in range(len(cases))]

    def _read(self, number: int) -> np.ndarray | None:
        record = self.records[number]
        try:
            if self.trouble:
                raise MissingFileError(self.trouble)
            image = read_picture(record, self.modality)
            if image.shape[:2] != (record["height"], record["width"]):
                raise AnnotationError(
                    f"{record['file_name']} is now {image.shape[1]}x{image.shape[0]}, its labels "
                    f"are for {record['width']}x{record['height']}"
                )
        except UserError as error:
            self.troubles[number] = str(error)
            return None
        self.frames[f"{self.prefix}{number}"] = frame_uri(image)
        return image

    def _card(self, case: ErrorCase, given: Evaluated, image: np.ndarray | None) -> Card:
        labels = given.labels
        height, width = labels.image_sizes[case.image].tolist()
        view = view_around(_subject_box(case, given), (height, width))
        belongs = [split for split in splits_of(given) if in_split(labels, split)[case.image]]
        return Card(
            kind=case.kind,
            reason=case.reason,
            splits=tuple(split.name for split in belongs if split.prefixes),
            band=next(
                (n for n, (low, high) in HEIGHT_BANDS.items() if low <= case.height < high), ""
            ),
            score=None if case.kind == "miss" else case.score,
            lines=tuple(_lines(case, given)),
            image_name=labels.image_names[case.image],
            image_size=(height, width),
            view=view,
            crop="" if image is None else crop_uri(image, view),
            frame="" if image is None else f"{self.prefix}{case.image}",
            boxes=tuple(_boxes(case, given, self.score_threshold)),
            trouble=self.troubles.get(case.image, ""),
        )


def choose_cases(cases: Sequence[ErrorCase], most: int) -> list[ErrorCase]:
    """Return the errors to show: the worst of each kind and reason, kinds taking turns.

    Args:
        cases: All errors.
        most: As many at most.
    """
    groups: dict[tuple[str, str], list[ErrorCase]] = {
        (kind, reason): [] for kind, reasons in REASONS.items() for reason in reasons
    }
    for case in worst(cases, len(cases)):
        groups[case.kind, case.reason].append(case)
    queues = {kind: _in_turns(g for (k, _), g in groups.items() if k == kind) for kind in REASONS}
    chosen: list[ErrorCase] = []
    for kind in cycle(TURNS):
        if len(chosen) >= most or not queues:
            return chosen
        next_one = next(queues.get(kind, iter(())), None)
        if next_one is None:
            queues.pop(kind, None)
        else:
            chosen.append(next_one)
    return chosen


def _in_turns(groups: Iterable[Sequence[ErrorCase]]) -> Iterator[ErrorCase]:
    return (case for case in chain.from_iterable(zip_longest(*groups)) if case is not None)


def _subject_box(case: ErrorCase, given: Evaluated) -> Sequence[float]:
    if case.kind == "miss":
        return given.labels.boxes_xywh[case.label].tolist()
    return given.detections.boxes_xywh[case.detection].tolist()


def _lines(case: ErrorCase, given: Evaluated) -> Iterator[str]:
    """Say in words what the picture shows."""
    labels, detections = given.labels, given.detections
    is_miss = case.kind == "miss"
    number = labels.classes[case.label] if is_miss else detections.classes[case.detection]
    words = [labels.class_names[number], f"{case.height:.0f} px high"]
    occlusion = next((n for n, value in OCCLUSION_BANDS.items() if value == case.occlusion), "")
    if is_miss and case.occlusion > 0:
        words.append(f"occlusion {occlusion}")
    if case.at_border:
        words.append("at the border")
    yield ", ".join(words)
    if case.iou is None:
        return
    if is_miss:
        yield f"a detection with score {case.score:.3f} overlaps it, IoU {case.iou:.3f}"
    elif case.kind == "not counted":
        yield f"IoU {case.iou:.3f} with a region to ignore"
    else:
        yield f"IoU {case.iou:.3f} with a label of {labels.class_names[labels.classes[case.label]]}"


def _boxes(case: ErrorCase, given: Evaluated, score_threshold: float) -> Iterator[Box]:
    labels, detections = given.labels, given.detections
    names, is_object = labels.class_names, labels_to_find(labels)
    for index in np.flatnonzero(labels.image_index == case.image).tolist():
        is_ignore = not is_object[index]
        text = "" if is_ignore or len(names) == 1 else names[labels.classes[index]]
        is_subject = case.kind == "miss" and index == case.label
        kind = "ignore" if is_ignore else "label"
        yield Box(_rounded(labels.boxes_xywh[index]), kind, text, is_subject)
    shown = (detections.image_index == case.image) & (detections.scores >= score_threshold)
    if case.detection is not None:
        shown[case.detection] = True
    for index in np.flatnonzero(shown).tolist():
        name = f"{names[detections.classes[index]]} " if len(names) > 1 else ""
        is_subject = case.kind != "miss" and index == case.detection
        text = f"{name}{detections.scores[index]:.2f}"
        yield Box(_rounded(detections.boxes_xywh[index]), "detection", text, is_subject)


def _rounded(xywh: np.ndarray) -> tuple[float, float, float, float]:
    x, y, width, height = (round(float(value), 1) for value in np.nan_to_num(xywh))
    return x, y, max(0.0, width), max(0.0, height)
