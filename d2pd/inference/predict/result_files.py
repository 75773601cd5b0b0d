"""``detections.json``, ``.csv`` and ``.txt``: written as detections come, of any number of them."""

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from d2pd.atomic_file import atomic_file
from d2pd.errors import UserError
from d2pd.inference.detections import Detections
from d2pd.inference.predict.pipeline import Shot
from d2pd.printable import inert_cell

JSON_NAME, CSV_NAME, LINES_NAME = NAMES = "detections.json", "detections.csv", "detections.txt"
CSV_HEADER = ("file", "frame", "time_s", "x1", "y1", "x2", "y2", "class", "score")
ID_OFFSET = 1
"""The published ``.txt`` files count images from 1, where label files count from 0."""


@contextmanager
def result_files(
    folder: Path, class_names: Sequence[str], *, has_lines: bool
) -> Iterator["ResultFiles"]:
    """Open the files for detections; they take their names, whole, when the context is left.

    If it is left by an error, the files are as they were before.

    Args:
        folder: Is made.
        class_names: Of the model.
        has_lines: Whether to write ``detections.txt``, which knows neither classes nor ids that
            are no numbers.

    Raises:
        UserError: If they cannot be written: the disk is full, or a folder has a name of theirs.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            names = NAMES if has_lines else NAMES[:2]
            files = [stack.enter_context(atomic_file(folder / name)) for name in names]
            images = stack.enter_context(tempfile.TemporaryFile())
            results = ResultFiles(files, images, class_names)
            yield results
            results.finish()
    except UserError:  # some of which are OSErrors too
        raise
    except OSError as error:
        raise UserError(
            f"cannot write to {folder} ({error.strerror or error}): make room there, or choose "
            "another folder"
        ) from error


class ResultFiles:
    """Writes the detections of each image; nothing of them is kept in memory.

    Args:
        files: For JSON, CSV and, if there are three, lines.
        images: Holds the list of images meanwhile.
        class_names: Of the model.

    Attributes:
        num_images: Written so far.
        num_detections: Likewise.
    """

    def __init__(
        self, files: Sequence[IO[bytes]], images: IO[bytes], class_names: Sequence[str]
    ) -> None:
        self._json, self._csv = files[:2]
        self._lines = files[2] if len(files) > 2 else None
        self._images = images
        self._class_names = class_names
        self.num_images = self.num_detections = 0
        names = json.dumps(list(class_names), ensure_ascii=False)
        self._write(self._json, f'{{"class_names": {names},\n"predictions": [')
        self._write(self._csv, _csv_text([CSV_HEADER]))

    def add(self, shot: Shot, found: Detections) -> None:
        """Write what was found in an image; its id is that of the label file, or its number."""
        image_id = shot.source.image_id
        image_id = self.num_images if image_id is None else image_id
        rows = found.coco_results(image_id)
        self._write(self._images, _list_text([_image(shot, image_id)], self.num_images))
        self._write(self._json, _list_text(rows, self.num_detections))
        self._write(self._csv, _csv_text(self._csv_rows(shot, found)))
        if self._lines is not None:
            self._write(self._lines, "".join(map(_line, rows)))
        self.num_images += 1
        self.num_detections += len(rows)

    def finish(self) -> None:
        """Write what comes behind the last image."""
        self._write(self._json, '\n],\n"images": [')
        self._images.seek(0)
        shutil.copyfileobj(self._images, self._json)
        self._write(self._json, "\n]}\n")

    def _csv_rows(self, shot: Shot, found: Detections) -> Iterator[Sequence[Any]]:
        time_s = "" if shot.time_s is None else f"{shot.time_s:.3f}"
        start = (inert_cell(shot.source.paths[0]), "" if shot.frame is None else shot.frame, time_s)
        for box, score, number in zip(found.boxes_xyxy, found.scores, found.classes, strict=True):
            sides = (f"{side:.2f}" for side in box)
            yield *start, *sides, inert_cell(self._class_names[int(number)]), f"{score:.4f}"

    def _write(self, file: IO[bytes], text: str) -> None:
        file.write(text.encode(errors="backslashreplace"))  # names may hold half a character


def _image(shot: Shot, image_id: Any) -> dict[str, Any]:
    height, width = (0, 0) if shot.image is None else shot.image.shape[:2]
    row: dict[str, Any] = {"id": image_id, "file_name": shot.source.paths[0]}
    if len(shot.source.paths) > 1:
        row["lwir_file_name"] = shot.source.paths[1]
    row |= {"width": width, "height": height}
    if shot.frame is not None and shot.time_s is not None:
        row |= {"frame": shot.frame, "time_s": round(shot.time_s, 6)}
    return row


def _list_text(rows: Sequence[Any], num_before: int) -> str:
    """Return the text of rows of a JSON list, behind others."""
    texts = [f"\n{json.dumps(row, ensure_ascii=False)}" for row in rows]
    return ("," if num_before and texts else "") + ",".join(texts)


def _csv_text(rows: Iterator[Sequence[Any]] | Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _line(row: dict[str, Any]) -> str:
    values = ",".join(f"{value:.9g}" for value in (*row["bbox"], row["score"]))
    return f"{row['image_id'] + ID_OFFSET},{values}\n"
