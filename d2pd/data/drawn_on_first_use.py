"""Synthetic datasets that a config asks for: drawn when they are first loaded."""

import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from d2pd.errors import ConfigError

logger = logging.getLogger(__name__)

STAMP = "drawn_with.json"


@dataclass(frozen=True)
class DrawingSize:
    """What to draw.

    Attributes:
        num_train: Pairs in ``train20.json``.
        num_test: Pairs in ``test20.json``.
        seed: The same seed gives the same bytes.
    """

    num_train: int
    num_test: int
    seed: int


def drawing_conflict(annotations: Path, size: DrawingSize) -> str | None:
    """Say why the dataset of a label file cannot be drawn or used, None if it can.

    Args:
        annotations: The label file, in the folder that all of the dataset is drawn into.
        size: What is asked for.
    """
    folder = annotations.parent
    cure = f"delete {folder}, or name another folder with DATASETS.ROOT"
    stamp = folder / STAMP
    if stamp.is_file() and stamp.read_text(encoding="utf-8") != _stamp(size):
        drawn_with = " ".join(stamp.read_text(encoding="utf-8").split())
        return (
            f"{folder} was drawn with {drawn_with}, DATASETS.SYNTHETIC asks for "
            f"{json.dumps(asdict(size))}; {cure}"
        )
    if not annotations.is_file() and folder.is_dir() and any(folder.iterdir()):
        return f"{folder} holds other files and no {annotations.name} to use or draw; {cure}"
    return None


def ensure_drawn(annotations: Path, size: DrawingSize) -> None:
    """Draw the dataset of a label file unless it is there; it appears whole or not at all.

    Args:
        annotations: The label file, in the folder that all of the dataset is drawn into.
        size: What to draw.

    Raises:
        ConfigError: If the folder holds other files, or a dataset drawn with another size.
    """
    conflict = drawing_conflict(annotations, size)
    if conflict is not None:
        raise ConfigError(conflict)
    if annotations.is_file():
        return
    from d2pd.data.synthetic import draw_dataset

    folder = annotations.parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.unfinished-{os.getpid()}")
    logger.info("drawing %d pairs into %s", size.num_train + size.num_test, folder)
    try:
        draw_dataset(unfinished, **asdict(size))
        (unfinished / STAMP).write_text(_stamp(size), encoding="utf-8")
        _move_into_place(unfinished, folder, annotations)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _move_into_place(unfinished: Path, folder: Path, annotations: Path) -> None:
    try:
        unfinished.replace(folder)
    except OSError:
        if not annotations.is_file():  # otherwise another process was first, with the same bytes
            raise


def _stamp(size: DrawingSize) -> str:
    return json.dumps(asdict(size)) + "\n"
