"""Pictures of samples as the model gets them, and of detections beside labels."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d2pd.data.images import image_path, image_paths, read_image, read_pictures
from d2pd.data.modality import CAMERAS
from d2pd.errors import UserError
from d2pd.reporting.camera_pictures import sample_tiles, short_path
from d2pd.reporting.cells import mask_tiles
from d2pd.reporting.sheet import (
    DETECTION,
    FAULT,
    IGNORE,
    LABEL,
    REMINDER,
    Mark,
    Tile,
    draw_sheet,
)

IMAGES_OF_A_SHEET = 8
TILES_OF_A_ROW = 4
MOST_DETECTIONS = 20
"""Drawn of an image; an early model has hundreds, and nothing is seen below them."""


def draw_batch(
    samples: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    path: str | Path,
    image_format: str = "BGR",
    masks: Sequence[Mapping[str, np.ndarray]] = (),
) -> None:
    """Draw training samples exactly as the model gets them: each camera, and the masks if any.

    Args:
        samples: As ``data.mapper.Mapper`` makes them in training.
        class_names: In the order of the class ids.
        path: PNG file to write.
        image_format: Order of the visible channels of ``image``: ``BGR`` or ``RGB``.
        masks: For each sample, (rows, columns) int by the name of its map, which spans the image:
            what ``modeling.segmentation.paint_mask`` paints. Empty where the model has none.

    Raises:
        ValueError: If there is no sample.
    """
    groups = [_sample_group(sample, class_names, image_format) for sample in samples]
    for group, painted in zip(groups, masks or [{}] * len(groups), strict=True):
        group += mask_tiles(group[0], painted)
    has_colours = any(len(sample["image"]) > 1 for sample in samples)
    colours = f", {image_format} (channels in the right order, colours as augmented)"
    heading = (
        f"What the model gets: augmented{colours if has_colours else ''}.  "
        f"Green: {_learnt(class_names)}.  Hatched: ignore region, not learnt."
    )
    if masks:
        heading += (
            "  Masks of the segmentation, a cell each: blue painted, amber ignored (no loss), "
            "dark background.  A label too small to hold a cell's centre is painted into the cell "
            "that holds its own centre."
        )
    draw_groups(groups, path, heading, least=2 if masks else 1)


def draw_detections(
    records: Sequence[Mapping[str, Any]],
    predictions: Iterable[Mapping[str, Any]],
    class_names: Sequence[str],
    path: str | Path,
    score_threshold: float = 0.5,
    max_images: int = 8,
    modality: str = "visible",
) -> None:
    """Draw detections beside the labels of the same images.

    Images are taken at even distances from those that have a label or a detection to show.

    Args:
        records: The dataset, boxes XYXY.
        predictions: COCO results, see ``evaluation.coco``; those of other images are left out.
        class_names: In the order of the class ids.
        path: PNG file to write.
        score_threshold: Detections under it are left out, 0..1.
        max_images: Number of images at most.
        modality: ``visible``, ``lwir`` or ``both``: which image of a pair to draw on.

    Raises:
        ValueError: If there is no record.
        MissingFileError: If an image is not there.
        AnnotationError: If one cannot be decoded, or there is none of a camera.
    """
    found: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for row in predictions:
        if row["score"] >= score_threshold:
            found[row["image_id"]].append(row)
    groups = [
        detection_group(record, found[record["image_id"]], class_names, modality)
        for record in choose_images(records, set(found), max_images)
    ]
    heading = (
        f"Labels (green) beside detections with a score of {score_threshold:g} or more (orange, "
        "labels dashed).  Hatched: ignore region."
    )
    draw_groups(groups, path, heading)


def draw_faults(
    faulty: Sequence[tuple[Mapping[str, Any], str, Mapping[int, str]]],
    class_names: Sequence[str],
    folder: Path,
    stem: str,
    modality: str = "visible",
) -> list[Path]:
    """Draw images with all their labels, those that are at fault marked, eight on a sheet.

    Args:
        faulty: For each image its record, boxes XYXY as their file has them, the caption, and what
            is wrong with each annotation at fault, by its position in the record.
        class_names: In the order of the class ids.
        folder: ``<stem>_1.png`` and so on are written here.
        stem: See ``folder``.
        modality: ``visible``, ``lwir`` or ``both``: which image of a pair to draw on. Where it
            cannot be read, an empty one of its size stands in.

    Returns:
        The files, in the order of the images.
    """
    heading = (
        "Labels as their file has them.  Red: at fault, with a ring where there is nothing to "
        f"see.  Green: {_learnt(class_names)}.  Hatched: ignore region."
    )
    paths: list[Path] = []
    for start in range(0, len(faulty), IMAGES_OF_A_SHEET):
        of_sheet = faulty[start : start + IMAGES_OF_A_SHEET]
        groups = [_faulty_group(*one, class_names, modality) for one in of_sheet]
        path = folder / f"{stem}_{len(paths) + 1}.png"
        draw_groups(groups, path, heading)
        paths.append(path)
    return paths


def choose_images(
    records: Sequence[Mapping[str, Any]], with_detections: set[Any], count: int
) -> list[Mapping[str, Any]]:
    """Return up to ``count`` records, evenly spread over those with something to see.

    Args:
        records: To choose from, in order.
        with_detections: ``image_id`` of the images that have detections.
        count: Most records to return.

    Returns:
        Records with a label or a detection; where there are none, any.
    """
    telling = [r for r in records if r.get("annotations") or r["image_id"] in with_detections]
    pool = telling or list(records)
    count = min(count, len(pool))
    return [pool[number * len(pool) // count] for number in range(count)]


def draw_groups(
    groups: Sequence[Sequence[Tile]], path: str | Path, heading: str, least: int = 1
) -> None:
    """Draw groups of tiles in rows of about ``TILES_OF_A_ROW`` that divide none.

    Args:
        groups: As many tiles in each.
        path: PNG file to write.
        heading: Above all.
        least: Groups in a row, however many tiles that makes.

    Raises:
        ValueError: If there is no group.
    """
    size = len(groups[0]) if groups else 1
    columns = size * max(least, TILES_OF_A_ROW // size)
    draw_sheet([tile for group in groups for tile in group], path, heading=heading, columns=columns)


def _sample_group(
    sample: Mapping[str, Any], class_names: Sequence[str], image_format: str
) -> list[Tile]:
    marks = [Mark(bbox, IGNORE) for bbox in sample["ignore_boxes"].tolist()]
    instances = sample["instances"]
    for bbox, category in zip(
        instances.gt_boxes.tensor.tolist(), instances.gt_classes.tolist(), strict=True
    ):
        marks.append(Mark(bbox, LABEL, _name(category, class_names)))
    height, width = sample["image"].shape[-2:]
    caption = f"k={sample['k']}  {width}×{height}  {short_path(str(sample['file_name']))}"
    return sample_tiles(sample, image_format, caption, marks)


def detection_group(
    record: Mapping[str, Any],
    found: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    modality: str,
) -> list[Tile]:
    """Return the labels and the detections of an image, on the picture of each camera.

    Args:
        record: Of the dataset, boxes XYXY.
        found: COCO results of this image.
        class_names: In the order of the class ids.
        modality: ``visible``, ``lwir`` or ``both``.

    Returns:
        Two tiles for each camera; the second shows the best ``MOST_DETECTIONS``.

    Raises:
        UserError: If a picture cannot be read.
    """
    labels = _label_marks(record.get("annotations", []), class_names)
    count = sum(mark.kind == LABEL for mark in labels)
    reminders = [Mark(mark.bbox, REMINDER if mark.kind == LABEL else IGNORE) for mark in labels]
    detections = [
        Mark(
            _xyxy(row["bbox"]),
            DETECTION,
            f"{_name(row['category_id'], class_names)} {row['score']:.2f}".strip(),
        )
        for row in sorted(found, key=lambda row: -row["score"])[:MOST_DETECTIONS]
    ]
    counted = _plural(len(found), "detection")
    if len(found) > len(detections):
        counted += f", the best {len(detections)} drawn"
    tiles = []
    for path, picture in zip(
        image_paths(record, modality), read_pictures(record, modality), strict=True
    ):
        image = np.ascontiguousarray(picture[:, :, ::-1])
        tiles.append(Tile(image, f"{_plural(count, 'label')}  {short_path(path)}", labels))
        tiles.append(Tile(image, counted, reminders + detections))
    return tiles


def _faulty_group(
    record: Mapping[str, Any],
    caption: str,
    faults: Mapping[int, str],
    class_names: Sequence[str],
    modality: str,
) -> list[Tile]:
    marks = []
    for position, annotation in enumerate(record["annotations"]):
        if position in faults:
            # Its nearest place in the picture; what is no number has none and goes to a corner.
            bbox = np.nan_to_num(np.asarray(annotation["bbox"], dtype=float))
            bbox = np.clip(bbox, 0, (record["width"], record["height"]) * 2)
            marks.append(Mark(bbox.tolist(), FAULT, faults[position]))
        else:
            marks += _label_marks([annotation], class_names)
    return [Tile(_picture_or_grey(record, camera), caption, marks) for camera in CAMERAS[modality]]


def _picture_or_grey(record: Mapping[str, Any], camera: str) -> np.ndarray:
    """Return (H, W, 3) RGB; a grey picture of the record's size where there is none to read."""
    try:
        path = image_path(record, camera)
        return np.ascontiguousarray(read_image(path, camera)[:, :, ::-1])
    except UserError:
        return np.full((record["height"], record["width"], 3), 96, np.uint8)


def _label_marks(
    annotations: Iterable[Mapping[str, Any]], class_names: Sequence[str]
) -> list[Mark]:
    marks = []
    for annotation in annotations:
        if annotation.get("ignore", 0) or annotation.get("iscrowd", 0):
            marks.append(Mark(annotation["bbox"], IGNORE))
        else:
            name = _name(annotation["category_id"], class_names)
            marks.append(Mark(annotation["bbox"], LABEL, name))
    return marks


def _name(category_id: int, class_names: Sequence[str]) -> str:
    """Return what to write beside a box: nothing where all boxes would say the same."""
    return class_names[category_id] if len(class_names) > 1 else ""


def _learnt(class_names: Sequence[str]) -> str:
    return f"{class_names[0]}, to be learnt" if len(class_names) == 1 else "to be learnt"


def _xyxy(xywh: Sequence[float]) -> list[float]:
    x, y, width, height = xywh
    return [x, y, x + width, y + height]


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
