"""Heat maps of segmentation layers beside labels and detections."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d2pd.data.modality import CAMERAS
from d2pd.reporting.cells import heat_cells, tile_with_boxes_of
from d2pd.reporting.gallery import detection_group, draw_groups
from d2pd.reporting.sheet import Tile


def draw_heat_maps(
    records: Sequence[Mapping[str, Any]],
    predictions: Sequence[Mapping[str, Any]],
    heat_maps: Sequence[Mapping[str, np.ndarray]],
    class_names: Sequence[str],
    path: str | Path,
    *,
    modality: str,
    score_threshold: float = 0.5,
) -> None:
    """Draw images with their labels, detections and the heat map of each segmentation layer.

    A pair is shown by its visible image.

    Args:
        records: The images, boxes XYXY.
        predictions: COCO results on them.
        heat_maps: For each record, (rows, columns) in [0, 1] by the name of its map, the same
            names for all.
        class_names: In the order of the class ids.
        path: PNG file to write.
        modality: ``visible``, ``lwir`` or ``both``.
        score_threshold: Detections under it are left out, 0..1.

    Raises:
        ValueError: If there is no record.
        UserError: If a picture cannot be read.
    """
    camera = CAMERAS[modality][0]
    groups = []
    for record, heat in zip(records, heat_maps, strict=True):
        found = [
            row
            for row in predictions
            if row["image_id"] == record["image_id"] and row["score"] >= score_threshold
        ]
        group = detection_group(record, found, class_names, camera)
        groups.append([*group, *(_heat_tile(group[0], *each) for each in heat.items())])
    heading = (
        "Heat maps: what each segmentation layer takes for an object, dark 0 to bright 1, a cell "
        f"each.  Green: labels.  Orange: detections with a score of {score_threshold:g} or more.  "
        "Hatched: ignore region."
    )
    draw_groups(groups, path, heading)


def _heat_tile(of_labels: Tile, name: str, heat: np.ndarray) -> Tile:
    rows, columns = heat.shape
    caption = f"{name}, {rows}×{columns} cells, {heat.max():.2f} at most"
    return tile_with_boxes_of(of_labels, heat_cells(of_labels.image, heat), caption)
