"""From a record to what the model gets: read, augment, sanitise, split labels from ignore."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from d2pd.data.images import image_path, read_image
from d2pd.data.sampler import sample_seed
from d2pd.data.targets import make_targets
from d2pd.errors import AnnotationError


class Mapper:
    """Turn a dataset_dict into a sample, the same one for the same (seed, k).

    A sample is a dict:

    - ``image``: (3, h, w) uint8, channels in the order of ``image_format``;
    - ``height``, ``width``: of the file, before augmentation, in pixels;
    - ``file_name`` (the file that was read), ``image_id``, ``k``;
    - in training ``instances``: ``gt_boxes`` (N, 4) XYXY float32 in pixels of ``image``, inside
      it, at least ``min_box_size`` wide and high, and ``gt_classes`` (N,) int64 in 0..K-1;
    - in training ``ignore_boxes``: (M, 4) XYXY float32 in the same frame: regions that are
      neither reward nor penalty, of any class.
    """

    def __init__(
        self,
        *,
        modality: str,
        image_format: str,
        transforms: v2.Transform,
        is_train: bool,
        seed: int,
        min_box_size: float | None = 1.0,
    ) -> None:
        """Set up the mapper.

        Args:
            modality: ``visible``, or ``lwir`` for the thermal image as three equal channels.
            image_format: ``BGR`` or ``RGB``.
            transforms: Applied to ``{"image": tv_tensors.Image, "boxes": BoundingBoxes}``.
            is_train: Whether samples carry their targets.
            seed: Not negative; with k it seeds torch's generator during ``transforms``.
            min_box_size: Boxes narrower or lower than this after augmentation are dropped, px;
                None keeps all, those without area too, for those who look for faults.
        """
        self.modality = modality
        self.image_format = image_format
        self.transforms = transforms
        self.is_train = is_train
        self.seed = seed
        self.min_box_size = min_box_size

    def __call__(self, record: Mapping[str, Any], k: int) -> dict[str, Any]:
        """Make sample number k from a record, which stays as it is.

        Raises:
            MissingFileError: If the image is not there.
            AnnotationError: If it cannot be decoded, or its size is not the one recorded.
        """
        path = image_path(record, self.modality)
        pixels = read_image(path, self.modality)
        _check_size(record, path, pixels)
        annotations = record.get("annotations", []) if self.is_train else []
        image, boxes = self._augment(pixels, annotations, k)
        sample = {
            "file_name": path,
            "image_id": record["image_id"],
            "height": pixels.shape[0],
            "width": pixels.shape[1],
            "k": k,
            "image": image,
        }
        if self.is_train:
            sample |= make_targets(image, boxes, annotations, self.min_box_size)
        return sample

    def _augment(
        self, pixels: np.ndarray, annotations: Sequence[Mapping[str, Any]], k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the image, (3, h, w) uint8, and the boxes, (N, 4), after the transforms."""
        if self.image_format == "RGB":
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        image = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())
        rows = [annotation["bbox"] for annotation in annotations]
        boxes = tv_tensors.BoundingBoxes(
            torch.tensor(rows, dtype=torch.float32).reshape(-1, 4),
            format="XYXY",
            canvas_size=pixels.shape[:2],
        )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(sample_seed(self.seed, k))
            out = self.transforms({"image": image, "boxes": boxes})
        plain_image = out["image"].as_subclass(torch.Tensor).contiguous()
        return plain_image, out["boxes"].as_subclass(torch.Tensor)


def _check_size(record: Mapping[str, Any], path: str, pixels: np.ndarray) -> None:
    found, recorded = pixels.shape[:2], (record["height"], record["width"])
    if found != recorded:
        raise AnnotationError(
            f"{path}: the image is {found[1]}x{found[0]} pixels, its labels were made for "
            f"{recorded[1]}x{recorded[0]}; give the labels their own images, or correct width and "
            "height in the label file"
        )
