"""Measure on real labels the tables that ``quantiles`` embeds.

``python -m d2pd.data.synthetic.measure train20.json test20.json`` writes them to standard output.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from d2pd.data.synthetic.quantiles import HEIGHT_EDGES, LEVELS

Row = dict[str, Any]


def is_day(im_name: str) -> bool:
    """Tell whether a KAIST frame such as ``set00/V000/I01217`` was taken by day.

    Sets 00-02 and 06-08 are day, 03-05 and 09-11 night.
    """
    return int(im_name[3:5]) % 6 < 3


def _boxes(rows: list[Row]) -> np.ndarray:
    boxes = np.array([row["bbox"] for row in rows], dtype=np.float64).reshape(-1, 4)
    return boxes[(boxes[:, 2] > 1) & (boxes[:, 3] > 1)]


def _quantiles(values: np.ndarray, digits: int) -> list[float]:
    return [round(float(value), digits) for value in np.quantile(values, LEVELS)]


def _by_height(boxes: np.ndarray) -> dict[str, list[list[float]]]:
    bins = np.searchsorted(HEIGHT_EDGES, boxes[:, 3], side="right")
    groups = [boxes[bins == index] for index in range(len(HEIGHT_EDGES) + 1)]
    return {
        "top": [_quantiles(group[:, 1], 0) for group in groups],
        "aspect": [_quantiles(group[:, 2] / group[:, 3], 2) for group in groups],
    }


def _counts(rows: list[Row], image_ids: list[int]) -> list[float]:
    per_image = Counter(row["image_id"] for row in rows)
    shares = np.bincount([per_image[image_id] for image_id in image_ids]) / len(image_ids)
    return [round(float(share), 3) for share in shares]


def measure_tables(train: Path, test: Path) -> dict[str, Any]:
    """Measure heights, positions, shapes and counts of ``train`` and occlusion of ``test``.

    Args:
        train: KAIST JSON of the train labels.
        test: KAIST JSON of the test labels, which state the occlusion.

    Returns:
        One entry per table of ``quantiles``, keyed by ``<table>/<kind>[/<light>]``.
    """
    data = json.loads(train.read_text())
    day = {image["id"]: is_day(image["im_name"]) for image in data["images"]}
    tables: dict[str, Any] = {}
    for kind, category in (("person", 1), ("ignore", -1)):
        rows = [row for row in data["annotations"] if row["category_id"] == category]
        tables[f"by_height/{kind}"] = _by_height(_boxes(rows))
        for light in ("day", "night"):
            image_ids = [key for key, value in day.items() if value == (light == "day")]
            lit = [row for row in rows if day[row["image_id"]] == (light == "day")]
            boxes = _boxes(lit)
            tables[f"height/{kind}/{light}"] = _quantiles(boxes[:, 3], 0)
            tables[f"centre_x/{kind}/{light}"] = _quantiles(boxes[:, 0] + boxes[:, 2] / 2, 0)
            tables[f"count/{kind}/{light}"] = _counts(lit, image_ids)
    persons = [row for row in json.loads(test.read_text())["annotations"] if not row["ignore"]]
    grades = np.bincount([row["occlusion"] for row in persons], minlength=3) / len(persons)
    tables["occlusion"] = [round(float(share), 3) for share in grades]
    return tables


if __name__ == "__main__":
    measured = measure_tables(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.write("\n".join(f"{key}: {value}" for key, value in measured.items()) + "\n")
