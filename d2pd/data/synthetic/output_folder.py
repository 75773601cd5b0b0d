"""The folder a dataset is drawn into: never anything of the user's is written over."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from d2pd.errors import UserError

MARKER = "synthetic.json"  # tells a drawn folder from one that holds anything else
LABEL_SUFFIXES = (".json", ".txt")

Drawing = dict[str, Any]  # the arguments of one drawing; "boxes" names the label file it is for


class OutputFolder:
    """A folder of drawings, listed in ``synthetic.json`` with their arguments.

    It holds one drawn dataset, or any number of drawings for label files of different names.
    """

    def __init__(self, root: Path, drawing: Drawing) -> None:
        """Look at ``root`` for ``drawing``; nothing is written yet.

        Raises:
            UserError: If ``root`` holds other things or a drawing that this one would mix with.
        """
        self.root = root
        self._drawing = drawing
        listed = self._listed()
        self.is_complete = {**drawing, "complete": True} in listed
        self.is_interrupted = {**drawing, "complete": False} in listed
        self._others = [row for row in listed if {**row, "complete": True} != self._finished]
        if any(not _can_share(drawing, other) for other in self._others):
            raise UserError(
                f"{root} holds a drawing of other arguments (see {MARKER} there); "
                "name another folder or remove this one"
            )

    def claim(self, files: Iterable[str]) -> None:
        """Mark the folder as being drawn into.

        Raises:
            UserError: If one of ``files`` is there and no earlier try of this drawing wrote it.
        """
        taken = [] if self.is_interrupted else [x for x in files if (self.root / x).exists()]
        if taken:
            raise UserError(
                f"{self.root} already holds {taken[0]} and {len(taken) - 1} more files that this "
                "drawing would write over; name another folder"
            )
        self._write_marker({**self._drawing, "complete": False})

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all.

        Raises:
            UserError: If the system refuses.
        """
        path = self.root / name
        unfinished = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(content)
            os.replace(unfinished, path)
        except OSError as error:
            raise UserError(f"Cannot write {path}: {error.strerror or error}") from error

    def finish(self) -> None:
        """Mark the drawing as complete."""
        self._write_marker(self._finished)

    @property
    def _finished(self) -> Drawing:
        return {**self._drawing, "complete": True}

    def _write_marker(self, drawing: Drawing) -> None:
        content = json.dumps({"drawings": [*self._others, drawing]}, indent=1) + "\n"
        self.write(MARKER, content.encode())

    def _listed(self) -> list[Drawing]:
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"{self.root} is a file; name a folder to draw into")
        marker = self.root / MARKER
        if not marker.is_file():
            self._check_strangers()
            return []
        try:
            return [dict(row) for row in json.loads(marker.read_bytes())["drawings"]]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{marker} is damaged; remove the folder and draw again") from None

    def _check_strangers(self) -> None:
        """Allow label files alone, and only where pictures are drawn for a label file."""
        entries = sorted(self.root.iterdir()) if self.root.is_dir() else []
        if "boxes" in self._drawing:
            entries = [entry for entry in entries if entry.suffix not in LABEL_SUFFIXES]
        if entries:
            raise UserError(
                f"{self.root} was not drawn by d2pd and holds {entries[0].name}; nothing was "
                "written. Name a new or empty folder"
            )


def _can_share(drawing: Drawing, other: Drawing) -> bool:
    both_for_files = "boxes" in drawing and "boxes" in other
    return both_for_files and drawing["boxes"] != other["boxes"]
