"""What the images of a dataset are: by day or night, photos or drawings, whose."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from d2pd.d2 import MetadataCatalog
from d2pd.data.cleaning import image_name
from d2pd.data.dataset_source import DatasetSource
from d2pd.data.fold_assignment import KAIST_VIDEO, UNKNOWN_DAYTIME, daytime_of
from d2pd.data.records import Record
from d2pd.data.synthetic.output_folder import MARKER


@dataclass(frozen=True)
class ImageFacts:
    """Images of a dataset.

    Attributes:
        num_images: How many.
        by_daytime: ``day`` and ``night`` -> images that KAIST's sets place there.
        is_kaist: Whether they are named as KAIST's frames, and are not made up with their labels.
        paths: Of the files; empty where they are not there.
    """

    num_images: int
    by_daytime: Mapping[str, int]
    is_kaist: bool
    paths: frozenset[str]

    def only_daytime(self) -> str:
        """Return ``day`` or ``night`` where all images are of the one; else nothing."""
        return next(
            (name for name, count in self.by_daytime.items() if count == self.num_images), ""
        )


def image_facts(
    records: Sequence[Record], source: DatasetSource | None, *, has_pictures: bool
) -> ImageFacts:
    """Tell what the images of records are.

    Args:
        records: Of one dataset.
        source: What they were read from; None where d2pd did not register them.
        has_pictures: Whether their paths lead to files.
    """
    image_names = [str(image_name(record)) for record in records]
    daytimes = Counter(map(daytime_of, image_names))
    del daytimes[UNKNOWN_DAYTIME]
    is_kaist = any(map(KAIST_VIDEO.search, image_names))
    paths = [os.path.abspath(record["file_name"]) for record in records if has_pictures]
    return ImageFacts(
        num_images=len(records),
        by_daytime=dict(sorted(daytimes.items())),
        is_kaist=is_kaist and (source is None or source.format != "synthetic"),
        paths=frozenset(paths),
    )


def is_drawn(dataset_name: str) -> bool:
    """Tell whether ``d2pd synth``, or a configuration that asks for it, has drawn the pictures."""
    source = MetadataCatalog.get(dataset_name).get("source")
    if source is None:
        return False
    folders = (source.images, source.images.parent)
    return source.format == "synthetic" or any((folder / MARKER).is_file() for folder in folders)
