"""What is wrong with registered datasets, before anything is built: a line with the cure each."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from d2pd.d2 import CfgNode, DatasetCatalog, MetadataCatalog
from d2pd.data.annotations.labels import Record
from d2pd.data.cleaning import image_name
from d2pd.data.dataset_source import DatasetSource
from d2pd.data.drawn_on_first_use import drawing_conflict
from d2pd.data.images import lacking_camera
from d2pd.data.registration import RegisteredDataset, dataset_root
from d2pd.errors import UserError

PHOTO_FORMATS = ("csv", "coco")
"""Formats whose images are files of one kind, whatever the camera."""

CURES = {
    "kaist": "download KAIST (README), or draw stand-ins: python -m d2pd synth --output {folder}",
    "coco": "correct DATASETS.REGISTER.{name}.{key}, or set D2PD_DATASETS or DATASETS.ROOT",
    "csv": "correct DATASETS.REGISTER.{name}.{key}, or set D2PD_DATASETS or DATASETS.ROOT",
}
FOLDS_CURE = "write it: python -m d2pd split --annotations {file} --folds K --output {path}"


def missing_files(cfg: CfgNode, names: Sequence[str]) -> list[str]:
    """List what datasets need and do not find, a line with the cure each; nothing is loaded.

    Args:
        cfg: For the dataset root.
        names: Names of datasets; those that d2pd did not register are passed over.
    """
    wanted: dict[tuple[str, Path], list[str]] = defaultdict(list)
    problems: list[str] = []
    for name in names:
        source = MetadataCatalog.get(name).get("source") if name in DatasetCatalog else None
        if source is None:
            continue
        if source.drawing is not None:
            problems += filter(None, [drawing_conflict(source.annotations, source.drawing)])
            continue
        for key, path in _missing_paths(source):
            wanted[key, path].append(name)
    for (key, path), users in wanted.items():
        source = MetadataCatalog.get(users[0]).source
        cure = FOLDS_CURE if key == "FOLDS" else CURES[source.format]
        places = {"file": source.annotations, "folder": source.annotations.parent, "path": path}
        cure = cure.format(name=users[0], key=key, **places)
        what = "folder" if key == "IMAGES" else "file"
        problems.append(
            f"no {what} {path} ({key} of {', '.join(users)}; dataset root: {dataset_root(cfg)}): "
            f"{cure}"
        )
    return list(dict.fromkeys(problems))


def unreadable_labels(names: Sequence[str], modality: str) -> list[str]:
    """Load datasets and list what is wrong with them: labels, classes, images that are missing.

    A fault in the test labels is to be heard of before the training, not at its first evaluation.

    Args:
        names: Names of datasets; those that d2pd did not register, or that are still to be drawn,
            are passed over.
        modality: ``INPUT.MODALITY``; photos, which have one camera alone, are not asked for more.
    """
    problems: list[str] = []
    for name in names:
        source = MetadataCatalog.get(name).get("source") if name in DatasetCatalog else None
        if source is None or source.drawing is not None:
            continue
        try:
            records, _ = RegisteredDataset(name, source).read()
        except UserError as error:
            problems.append(str(error))
        else:
            if not records:
                problems.append(f"{source.annotations}: not a single image in it ({name})")
            elif source.format not in PHOTO_FORMATS:
                problems += _lacking_cameras(name, records, modality)
    return list(dict.fromkeys(problems))


def _lacking_cameras(name: str, records: Sequence[Record], modality: str) -> list[str]:
    """Say which frames have no image of a camera that is asked for, with the way out."""
    frames: dict[str, list[str]] = defaultdict(list)
    for record in records:
        frames[lacking_camera(record, modality)].append(image_name(record))
    return [
        f"{name}: {len(lacking)} of {len(records)} frames have no {camera} image "
        f"({', '.join(lacking[:3])}{', ...' if len(lacking) > 3 else ''}), and INPUT.MODALITY is "
        f"{modality}: get the {camera} folders too, or set INPUT.MODALITY {other}"
        for camera, other in (("visible", "lwir"), ("lwir", "visible"))
        if (lacking := frames[camera])
    ]


def _missing_paths(source: DatasetSource) -> list[tuple[str, Path]]:
    image_list = source.options.get("image_list")
    folds = source.fold_part.path if source.fold_part else None
    files = {"ANNOTATIONS": source.annotations, "IMAGE_LIST": image_list, "FOLDS": folds}
    missing = [(key, path) for key, path in files.items() if path and not path.is_file()]
    if not source.images.is_dir():
        missing.append(("IMAGES", source.images))
    return missing
