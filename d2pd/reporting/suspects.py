"""A picture of samples that may have ruined a step, however broken they are."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
            their boxes and classes may be anything. The first ``MOST_TILES`` are drawn.
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
        _tile(sample, rules[number], class_names, image_format)
        for number, sample in enumerate(samples[:MOST_TILES])
    ]
    draw_sheet(tiles, path, heading=heading, columns=4)


def _tile(
    sample: Mapping[str, Any],
    rules: Mapping[int | None, str],
    class_names: Sequence[str],
    image_format: str,
) -> Tile:
    pixels = displayable(sample["image"], image_format)
    limit = (pixels.shape[1], pixels.shape[0]) * 2
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
    return Tile(pixels, f"{rules[None]}  {caption}" if None in rules else caption, marks)


def displayable(image: Tensor, image_format: str) -> np.ndarray:
    """Return pixels that can be drawn.

    Args:
        image: (3, h, w) or (1, h, w), uint8 or float of any range.
        image_format: Order of the channels: ``BGR`` or ``RGB``.

    Returns:
        (h, w, 3) uint8 RGB. Numbers that are not finite are magenta; a float image beyond 0..255,
        or within 0..1, is stretched to 0..255.
    """
    values = image.detach().cpu()
    values = values.expand(3, *values.shape[-2:]).permute(1, 2, 0)
    if image_format == "BGR":
        values = values.flip(2)
    if values.dtype == torch.uint8:
        return np.ascontiguousarray(values.numpy())
    values = values.double()
    is_finite = torch.isfinite(values)
    known = values[is_finite]
    low, high = (known.min().item(), known.max().item()) if len(known) else (0.0, 0.0)
    if low < 0 or high > 255 or high <= 1:
        span = high - low
        usable = span > 0 and math.isfinite(span)
        values = (values - low) / span * 255 if usable else torch.full_like(values, 128)
    shown = torch.where(is_finite, values, 0).clamp(0, 255).to(torch.uint8)
    shown[~is_finite.all(dim=2)] = torch.tensor([255, 0, 255], dtype=torch.uint8)
    return np.ascontiguousarray(shown.numpy())
