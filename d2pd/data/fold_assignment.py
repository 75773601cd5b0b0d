"""Which fold an image goes into: what belongs together stays together, the rest by lot."""

import posixpath
import re
import warnings

import numpy as np

from d2pd.data.annotations.kaist import MODALITIES
from d2pd.data.label_table.table import LabelTable
from d2pd.errors import AnnotationError, ConfigError
from d2pd.evaluation.subsets import KAIST

KAIST_VIDEO = re.compile(r"(?:^|[/_])(set\d\d)[/_](?:set\d\d[/_])?(V\d{3})[/_]")
"""Set and video in a frame's name, as folders or in the name of the file itself."""

DAYTIMES: dict[str, str] = {
    prefix: split.name for split in KAIST.splits for prefix in split.prefixes
}
"""KAIST's set -> ``day`` or ``night``."""

SEEDS = 2**32

UNKNOWN_DAYTIME = ""


def assign_folds(
    table: LabelTable, num_folds: int, *, by: str, is_stratified: bool, seed: int
) -> np.ndarray:
    """Divide the images of a label file into folds.

    Args:
        table: The labels; names that mean one file count as one image.
        num_folds: From 2 on.
        by: ``video`` keeps the frames of a video in one fold; ``image`` each image alone.
        is_stratified: Balance images by day and night, and boxes by class, day and night, instead
            of drawing lots; the seed then decides ties alone.
        seed: 0 or more.

    Returns:
        (I,) int64, fold of each image, 0..``num_folds`` - 1; each fold holds an image.

    Raises:
        ConfigError: If there are fewer than two folds, fewer videos or images than folds, or the
            seed is none of scikit-learn's.
        AnnotationError: If ``by`` is ``video`` and the names tell of one video alone.
    """
    if num_folds < 2:
        raise ConfigError(f"--folds {num_folds} leaves nothing to train on; give 2 or more")
    if not 0 <= seed < SEEDS:
        raise ConfigError(f"--seed {seed}: scikit-learn takes seeds from 0 to {SEEDS - 1}")
    groups = _groups(table, by)
    number = len(np.unique(groups))
    if number < num_folds:
        fewer = ", or --by image" if by == "video" else ""
        raise ConfigError(
            f"--folds {num_folds}: {table.path} holds {number} {by}{'s' if number > 1 else ''}, "
            f"and a fold takes one at least; give fewer folds{fewer}"
        )
    if is_stratified:
        return _balanced(table, groups, num_folds, seed)
    return _by_lot(groups, num_folds, seed)


def video_of(image_name: str) -> str:
    """Return the video of an image: set and video of KAIST, else its folder.

    Args:
        image_name: As in the label file. Folders of a camera (``visible``, ``lwir``) do not count:
            both show the same.
    """
    name = _normalised(image_name)
    if found := KAIST_VIDEO.search(name):
        return "/".join(found.groups())
    folders = posixpath.dirname(name).split("/")
    return "/".join(folder for folder in folders if folder not in MODALITIES)


def daytime_of(image_name: str) -> str:
    """Return ``day`` or ``night`` of a KAIST frame, and ``UNKNOWN_DAYTIME`` of other images."""
    found = KAIST_VIDEO.search(_normalised(image_name))
    return DAYTIMES.get(found[1], UNKNOWN_DAYTIME) if found else UNKNOWN_DAYTIME


def _normalised(image_name: str) -> str:
    return posixpath.normpath(image_name.replace("\\", "/"))


def _groups(table: LabelTable, by: str) -> np.ndarray:
    """Give the group of each image, (I,) int64, numbered by the groups' names in their order."""
    name_group = video_of if by == "video" else _normalised
    names, groups = np.unique(
        np.array([name_group(name) for name in table.image_names], dtype=object),
        return_inverse=True,
    )
    if not len(names):
        raise AnnotationError(f"{table.path}: not a single image in it; nothing to split")
    if by == "video" and len(names) == 1:
        which = f"are of {names[0]}" if names[0] else "have a name without a folder"
        raise AnnotationError(
            f"{table.path}: all {table.num_images} images {which}, so nothing tells videos apart: "
            "give --by image, if no two of them show the same scene"
        )
    return groups.astype(np.int64)


def _by_lot(groups: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    from sklearn.model_selection import GroupKFold  # takes a second: only where it is used

    splitter = GroupKFold(num_folds, shuffle=True, random_state=seed)
    folds = np.empty(len(groups), dtype=np.int64)
    for fold, (_, held_out) in enumerate(splitter.split(groups, groups=groups)):
        folds[held_out] = fold
    return folds


def _balanced(table: LabelTable, groups: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedGroupKFold  # as above

    images, strata = _strata(table)
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    folds = np.empty(len(groups), dtype=np.int64)
    with warnings.catch_warnings():
        # Of a class with fewer boxes than folds: the table shows it.
        warnings.simplefilter("ignore", UserWarning)
        try:
            for fold, (_, held_out) in enumerate(splitter.split(images, strata, groups[images])):
                folds[images[held_out]] = fold
        except ValueError as error:
            raise ConfigError(
                f"{table.path}: too little of everything to balance {num_folds} folds ({error}); "
                "give fewer folds, or no --stratify"
            ) from error
    return folds


def _strata(table: LabelTable) -> tuple[np.ndarray, np.ndarray]:
    """Give what is to be balanced: a sample for each image, and one for each box of a class.

    Returns:
        (S,) int64 image of each sample, every image among them; (S,) int64 its stratum, one for
        each class, or image as such, by day and night.
    """
    daytimes = np.unique([daytime_of(name) for name in table.image_names], return_inverse=True)[1]
    is_object = (table.categories >= 0) & ~table.is_region
    image_samples = np.arange(len(table.image_names))
    box_images = table.box_images[is_object]
    kinds = np.concatenate([np.zeros(len(image_samples)), 1 + table.categories[is_object]])
    images = np.concatenate([image_samples, box_images])
    return images, (kinds * (daytimes.max() + 1) + daytimes[images]).astype(np.int64)
