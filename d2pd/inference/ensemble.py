"""Several detectors as one: models, or views of a model, whose detections are fused."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from d2pd.errors import ConfigError
from d2pd.inference.detections import Detections
from d2pd.inference.detector import Detector, PreparedImage
from d2pd.inference.fusion import fuse


@dataclass(frozen=True)
class PreparedForAll:
    """An image as each member takes it.

    Attributes:
        of_members: In their order.
        image: As it was given.
    """

    of_members: tuple[PreparedImage, ...]
    image: np.ndarray

    @property
    def batch_key(self) -> tuple[Any, ...]:
        """What images that are computed together have in common: the keys of all members."""
        return tuple(each.batch_key for each in self.of_members)


class Ensemble(Detector[PreparedForAll, list[Any]]):
    """Detects with every member and fuses what they find; see ``fusion.fuse``.

    A detection that only one of N members makes keeps 1/N of its score, so a threshold that suits
    one model may be too high here. The cost is one forward pass a member.

    Args:
        members: They may differ in architecture, in size, and in whether a thermal image has one
            channel or three.

    Raises:
        ConfigError: If there is no member, or two differ in their classes or cameras.
    """

    def __init__(self, members: Sequence[Detector[Any, Any]]) -> None:
        if not members:
            raise ConfigError("an ensemble needs at least one detector")
        self.members = tuple(members)
        first = members[0]
        for other in members[1:]:
            _check_alike(first, other)
        self.class_names, self.channels = first.class_names, first.channels
        self.device = first.device
        # What one member alone sees keeps its part of the score.
        self.score_floor = min(member.score_floor for member in members) / len(members)
        self.name = ", ".join(dict.fromkeys(member.name for member in members))

    def prepare(self, image: np.ndarray) -> PreparedForAll:
        """Prepare an image for each member; see ``Detector``."""
        return PreparedForAll(tuple(member.prepare(image) for member in self.members), image)

    def detect(self, prepared: Sequence[PreparedForAll]) -> list[Any]:
        """Run every member; see ``Detector``.

        Returns:
            What each member's ``detect`` returns.
        """
        return [
            member.detect([each.of_members[number] for each in prepared])
            for number, member in enumerate(self.members)
        ]

    def finish(
        self, of_batch: Sequence[Any], prepared: Sequence[PreparedForAll], threshold: float
    ) -> list[Detections]:
        """Fuse, image by image, all that the members found; see ``Detector``."""
        found = [
            member.finish(of_member, [each.of_members[number] for each in prepared], 0)
            for number, (member, of_member) in enumerate(zip(self.members, of_batch, strict=True))
        ]
        return [
            self._fused(of_image, each.image).above(threshold)
            for of_image, each in zip(zip(*found, strict=True), prepared, strict=True)
        ]

    def _fused(self, found: Sequence[Detections], image: np.ndarray) -> Detections:
        sources = [(each.boxes_xyxy, each.scores, each.classes) for each in found]
        boxes, scores, classes = fuse(sources)
        return Detections(
            boxes.astype(np.float32), scores.astype(np.float32), classes, self.class_names, image
        )


def _check_alike(first: Detector[Any, Any], other: Detector[Any, Any]) -> None:
    one = f"{first.name} and {other.name} cannot be used together:"
    if first.class_names != other.class_names:
        raise ConfigError(
            f"{one} their classes are {', '.join(first.class_names)} and "
            f"{', '.join(other.class_names)}; take detectors of the same classes, in one order"
        )
    if first.channels.modality != other.channels.modality:
        raise ConfigError(
            f"{one} their images are {first.channels.modality} and {other.channels.modality}; "
            "take detectors with one INPUT.MODALITY"
        )
