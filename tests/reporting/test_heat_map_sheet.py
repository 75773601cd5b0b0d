"""The sheet of heat maps."""

import cv2
import numpy as np
import pytest

from d2pd.reporting import gallery
from d2pd.reporting.heat_maps import draw_heat_maps
from d2pd.reporting.sheet import DETECTION, IGNORE, LABEL, REMINDER

HEAT = {"conv4_3": np.full((4, 8), 0.25), "conv7": np.array([[0.125, 0.75]])}


@pytest.fixture
def record(tmp_path):
    """A pair of 320 x 160 px with a label and an ignore region."""
    for name, grey in (("seen.png", 20), ("warm.png", 200)):
        cv2.imwrite(str(tmp_path / name), np.full((160, 320, 3), grey, np.uint8))
    boxes = [([10, 20, 30, 60], 0), ([100, 50, 200, 150], 1)]
    return {
        "file_name": str(tmp_path / "seen.png"),
        "lwir_file_name": str(tmp_path / "warm.png"),
        "image_id": 1,
        "annotations": [{"bbox": box, "category_id": 0, "ignore": flag} for box, flag in boxes],
    }


@pytest.fixture
def tiles(monkeypatch, record):
    """Return a function that gives the tiles for a modality, with a good and a poor detection."""

    def drawn(modality):
        sheets = []
        monkeypatch.setattr(gallery, "draw_sheet", lambda tiles, *_, **__: sheets.append(tiles))
        good = {"image_id": 1, "category_id": 0, "bbox": [5, 5, 20, 40], "score": 0.5}
        found = [good, good | {"score": 0.49}, good | {"image_id": 2}]
        draw_heat_maps([record], found, [HEAT], ["person"], "h.png", modality=modality)
        return sheets[0]

    return drawn


@pytest.mark.parametrize(("modality", "grey"), [("visible", 20), ("lwir", 200), ("both", 20)])
def test_an_image_is_shown_once_for_labels_and_once_for_detections(tiles, modality, grey):
    labels, detections, *heat = tiles(modality)
    assert [int(tile.image[0, 0, 0]) for tile in (labels, detections)] == [grey, grey]
    assert [mark.kind for mark in labels.marks] == [LABEL, IGNORE]
    assert [mark.kind for mark in detections.marks] == [REMINDER, IGNORE, DETECTION]
    assert [tile.caption for tile in heat] == [
        "conv4_3, 4×8 cells, 0.25 at most",
        "conv7, 1×2 cells, 0.75 at most",
    ]


def test_heat_has_the_boxes_of_the_labels_at_its_own_size(tiles):
    for tile in tiles("lwir")[2:]:
        assert tile.image.shape == (320, 640, 3)
        assert [(list(mark.bbox), mark.kind, mark.text) for mark in tile.marks] == [
            ([20, 40, 60, 120], LABEL, ""),
            ([200, 100, 400, 300], IGNORE, ""),
        ]
