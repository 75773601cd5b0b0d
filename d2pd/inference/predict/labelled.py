"""The pictures of a label file, with the ids that it gives them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2pd.data.annotations.any_format import read_any_labels
from d2pd.data.annotations.image_files import FolderListing, existing_folder, missing_images
from d2pd.data.audit.picture_files import picture_files_of
from d2pd.data.modality import CAMERAS
from d2pd.inference.predict.pairing import Chosen, Pairing, Source, why_no_pair


@dataclass(frozen=True)
class LabelledImage:
    """An image of a label file.

    Attributes:
        name: As the file has it.
        image_id: Likewise.
        is_kaist: Whether the layout of KAIST tells its cameras.
        paths: Camera -> file, of those that are there; ``visible`` alone but for KAIST.
    """

    name: str
    image_id: Any
    is_kaist: bool
    paths: Mapping[str, str]


def find_labelled(annotations: Path, images: Path | None) -> list[LabelledImage]:
    """Find the pictures of all images of a label file.

    Args:
        annotations: KAIST or COCO JSON, or CSV.
        images: Folder that names are relative to; None for that of the file.

    Raises:
        UserError: If the labels cannot be read, or none of the pictures is there.
    """
    records = read_any_labels(annotations).labels.records
    root, listing = existing_folder(images or annotations.parent), FolderListing()
    found = []
    for record in records:
        is_kaist = "im_name" in record
        name = record["im_name"] if is_kaist else record["file_name"]
        paths = picture_files_of(listing, root, name, "kaist" if is_kaist else "")
        found.append(LabelledImage(name, record["image_id"], is_kaist, paths))
    if not any(image.paths for image in found):
        raise missing_images([image.name for image in found], len(found), annotations, str(root))
    return found


def choose_labelled(images: list[LabelledImage], pairing: Pairing, modality: str) -> Chosen:
    """Choose the files of each image that a model of some modality sees.

    Args:
        images: Of the label file.
        pairing: How the path of a thermal picture follows, where the layout is not KAIST's.
        modality: ``visible``, ``lwir`` or ``both``.
    """
    chosen = Chosen([], [])
    for image in images:
        paths, trouble = _paths(image, pairing, modality)
        if trouble:
            chosen.skipped.append(f"{image.name}: {trouble}")
        else:
            chosen.sources.append(Source(paths, image.name, image.image_id))
    return chosen


def _paths(image: LabelledImage, pairing: Pairing, modality: str) -> tuple[tuple[str, ...], str]:
    if not image.paths:
        return (), "there is no such picture"
    if image.is_kaist:
        lacking = [camera for camera in CAMERAS[modality] if camera not in image.paths]
        if lacking:
            return (), f"there is no {lacking[0]} picture"
        return tuple(image.paths[camera] for camera in CAMERAS[modality]), ""
    path = image.paths["visible"]
    if modality != "both":
        return (path,), ""
    absolute = os.path.abspath(path)
    return (path, pairing.lwir_of(absolute)), why_no_pair(absolute, pairing)
