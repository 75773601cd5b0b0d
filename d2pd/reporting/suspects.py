"""A picture of samples that may have ruined a step, however broken they are."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from d2pd.reporting.camera_pictures import sample_tiles
from d2pd.reporting.sheet import FAULT, IGNORE, LABEL, Mark, Tile, draw_sheet
from d2pd.training.culprits.sample_faults import Fault, image_label

MOST_TILES = 16


def draw_suspects(
    samples: Sequence[Mapping[str, Any]],
    faults: Sequence[Fault],
    class_names: Sequence[str],
    path: Path,
    image_format: str,
    heading: str,
) -> None:
    """Draw samples as the model got them, boxes at fault in red.

    Args:
        samples: Their images may be uint8, or float of any range with numbers that are not finite;
            their boxes and classes may be anything. The first ``MOST_TILES`` are drawn, those of
            pairs once for each camera.
        faults: Their ``index`` counts the samples.
        class_names: In the order of the class ids.
        path: PNG file to write.
        image_format: Order of the channels: ``BGR`` or ``RGB``.
        heading: Above all.
    """
    rules: dict[int, dict[int | None, str]] = defaultdict(dict)
    for fault in faults:
        rules[fault.index][fault.box] = fault.rule.replace("_", " ")
    tiles = [
        tile
        for number, sample in enumerate(samples[:MOST_TILES])
        for tile in _tiles(sample, rules[number], class_names, image_format)
    ]
    draw_sheet(tiles, path, heading=heading, columns=4)


def _tiles(
    sample: Mapping[str, Any],
    rules: Mapping[int | None, str],
    class_names: Sequence[str],
    image_format: str,
) -> list[Tile]:
    height, width = sample["image"].shape[-2:]
    limit = (width, height) * 2
    instances = sample["instances"]
    marks = [Mark(bbox, IGNORE) for bbox in sample.get("ignore_boxes", torch.empty(0, 4)).tolist()]
    for box, (bbox, label) in enumerate(
        zip(instances.gt_boxes.tensor.tolist(), instances.gt_classes.tolist(), strict=True)
    ):
        # Its nearest place in the picture; what is no number has none and goes to a corner.
        nearest = np.clip(np.nan_to_num(np.asarray(bbox, dtype=float)), 0, limit).tolist()
        known = len(class_names) > 1 and 0 <= label < len(class_names)
        text = f"{box} {class_names[label]}" if known else f"{box}"
        if box in rules:
            marks.append(Mark(nearest, FAULT, f"{box} {rules[box]}"))
        else:
            marks.append(Mark(nearest, LABEL, text))
    caption = image_label(str(sample["file_name"]), sample.get("row"))
    caption = f"{rules[None]}  {caption}" if None in rules else caption
    return sample_tiles(sample, image_format, caption, marks)
