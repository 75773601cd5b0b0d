"""Files of ``d2pd split``: the fold of each image, for cross-validation."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2pd.data.annotations.labels import read_label_file
from d2pd.errors import AnnotationError, ConfigError, MissingFileError
from d2pd.json_file import write_json

PARTS = ("train", "test")
"""All folds but one, and that one."""

_SHOWN = 3


@dataclass(frozen=True)
class Folds:
    """Content of a file of folds.

    Attributes:
        annotations: Name of the label file that was split, without its folder.
        num_images: Entries of that file; an image that it lists twice counts twice.
        num_boxes: Likewise, regions to ignore included.
        num_folds: K.
        by: ``video`` or ``image``: what stays together.
        is_stratified: Whether classes, day and night were balanced.
        seed: Of the lots.
        fold_of_image: Image name as in the label file -> 0..K-1.
    """

    annotations: str
    num_images: int
    num_boxes: int
    num_folds: int
    by: str
    is_stratified: bool
    seed: int
    fold_of_image: Mapping[str, int]

    def write(self, path: Path) -> None:
        """Write it as JSON.

        Raises:
            UserError: If it cannot be written.
        """
        content = {
            "annotations": self.annotations,
            "num_images": self.num_images,
            "num_boxes": self.num_boxes,
            "folds": self.num_folds,
            "by": self.by,
            "stratify": self.is_stratified,
            "seed": self.seed,
            "images": dict(self.fold_of_image),
        }
        write_json(path, content, indent=0)


@dataclass(frozen=True)
class FoldPart:
    """What a registered dataset takes of a label file that was split.

    Attributes:
        path: File of folds.
        part: ``train`` takes all folds but one, ``test`` that one.
        fold: The one.
    """

    path: Path
    part: str
    fold: int

    def select(
        self, names: Sequence[str], annotations: Path, *, is_whole: bool = True
    ) -> list[int]:
        """Return the positions of the images of this part, in the order of the labels.

        Args:
            names: Of all images, as the label file has them.
            annotations: The label file, for the message.
            is_whole: Whether these are all images of the file; else some may be absent.

        Raises:
            MissingFileError: If there is no file of folds.
            AnnotationError: If it holds something else, or other images than the labels, or
                nothing is selected.
            ConfigError: If it has no such fold.
        """
        folds = self._read()
        _check_same_images(folds, self.path, names, annotations, is_whole)
        is_train = self.part == "train"
        chosen = [
            position
            for position, name in enumerate(names)
            if (folds.fold_of_image[name] != self.fold) == is_train
        ]
        if not chosen:
            raise AnnotationError(
                f"{annotations}: no image is left in the {self.part} part of fold {self.fold} of "
                f"{self.path}; take another DATASETS.FOLD, or mend IMAGE_LIST, INCLUDE and EXCLUDE"
            )
        return chosen

    def describe(self) -> str:
        """Return a sentence on what it holds.

        Raises:
            MissingFileError: As for ``select``; so for the others.
            AnnotationError: Likewise.
            ConfigError: Likewise.
        """
        folds = self._read()
        held_out = sum(fold == self.fold for fold in folds.fold_of_image.values())
        total = len(folds.fold_of_image)
        which, number = f"fold {self.fold}", held_out
        if self.part == "train":
            which, number = f"all folds but {self.fold}", total - held_out
        return f"{which} of 0 to {folds.num_folds - 1} in {self.path}: {number} of {total} images"

    def check(self) -> None:
        """See that the file of folds is there, can be read and has the fold.

        Raises:
            MissingFileError: As for ``select``; so for the others.
            AnnotationError: Likewise.
            ConfigError: Likewise.
        """
        self._read()

    def digest(self) -> str:
        """Return what tells whether the images lie in other folds: the path does not.

        Raises:
            MissingFileError: As for ``select``; so for the others.
            AnnotationError: Likewise.
            ConfigError: Likewise.
        """
        folds = json.dumps(sorted(self._read().fold_of_image.items()))
        return hashlib.sha256(folds.encode(errors="backslashreplace")).hexdigest()[:12]

    def _read(self) -> Folds:
        folds = read_folds(self.path)
        if self.fold >= folds.num_folds:
            raise ConfigError(
                f"DATASETS.FOLD is {self.fold}, and {self.path} has the folds 0 to "
                f"{folds.num_folds - 1}"
            )
        return folds


def read_folds(path: Path) -> Folds:
    """Read a file of ``d2pd split``.

    Raises:
        MissingFileError: If it is not there or may not be read.
        AnnotationError: If it holds something else; the message says what.
    """
    if not path.is_file():
        raise MissingFileError(
            f"{path}: no such file of folds; correct FOLDS, or write it with d2pd split"
        )
    try:
        content = json.loads(read_label_file(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, AnnotationError):
            raise
        raise AnnotationError(
            f"{path}: not JSON ({error}); write the folds anew with d2pd split"
        ) from error
    try:
        return _folds_of(content)
    except (TypeError, KeyError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise AnnotationError(
            f"{path}: not a file of d2pd split ({what}); correct FOLDS, or write it anew"
        ) from error


def _folds_of(content: Any) -> Folds:
    if not isinstance(content, dict):
        raise TypeError("an object is expected")
    num_folds, images = content["folds"], content["images"]
    if type(num_folds) is not int or num_folds < 2:
        raise ValueError(f"folds must be 2 or more, got {num_folds!r}")
    if not isinstance(images, dict):
        raise TypeError("images must map names to folds")
    for name, fold in images.items():
        if type(fold) is not int or not 0 <= fold < num_folds:
            raise ValueError(f"{name!r} is in fold {fold!r}, and there are 0 to {num_folds - 1}")
    return Folds(
        content["annotations"],
        content["num_images"],
        content["num_boxes"],
        num_folds,
        content["by"],
        content["stratify"],
        content["seed"],
        images,
    )


def _check_same_images(
    folds: Folds, path: Path, names: Sequence[str], annotations: Path, is_whole: bool
) -> None:
    known = set(names)
    unsplit = [name for name in dict.fromkeys(names) if name not in folds.fold_of_image]
    gone = [name for name in folds.fold_of_image if name not in known] if is_whole else []
    told = [
        f"{what}: {len(found)} ({_first(found)})"
        for what, found in (
            ("images of the labels that are in no fold", unsplit),
            ("images of the folds that the labels lack", gone),
        )
        if found
    ]
    if told:
        raise AnnotationError(
            f"{annotations} and {path} do not go together: {'; '.join(told)}; the labels are not "
            f"those that were split ({folds.annotations}, {folds.num_images} images): run d2pd "
            "split on them, or correct FOLDS"
        )


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
