"""The published KAIST labels and detections, which lie beside the project."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from d2pd.data.annotations import read_kaist_json
from d2pd.evaluation.arrays import DetectionArrays, LabelArrays, detection_arrays, label_arrays

Lines = Callable[[str], np.ndarray]


@pytest.fixture(scope="session")
def kaist_labels(shared_data: Path) -> LabelArrays:
    records = read_kaist_json(shared_data / "kaist" / "test20.json", None).records
    return label_arrays(records, ["person"])


@pytest.fixture(scope="session")
def kaist_lines(shared_data: Path) -> Lines:
    """Return (D, 6) image id from 1, x, y, width, height, score of ``MLPD`` or ``MSDS-RCNN``."""

    def read(method: str) -> np.ndarray:
        path = shared_data / "kaist" / "results" / f"{method}_result.txt"
        return np.loadtxt(path, delimiter=",")

    return read


@pytest.fixture(scope="session")
def kaist_detections(kaist_lines: Lines) -> Callable[[str], DetectionArrays]:
    return lambda method: detections_of_lines(kaist_lines(method))


def detections_of_lines(lines: np.ndarray) -> DetectionArrays:
    index = lines[:, 0].astype(np.int64) - 1
    return detection_arrays(index, lines[:, 1:5], lines[:, 5], np.zeros(len(lines), np.int64))
