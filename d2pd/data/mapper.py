"""From a record to what the model gets: read, augment, sanitise, split labels from ignore."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from d2pd.data.images import image_paths, read_pictures, stack_pictures
from d2pd.data.modality import Channels
from d2pd.data.sampler import sample_seed
from d2pd.data.targets import is_region, make_targets
from d2pd.errors import AnnotationError


class Mapper:
    """Turn a dataset_dict into a sample, the same one for the same (seed, k).

    A sample is a dict:

    - ``image``: (C, h, w) uint8: three visible channels in the order of ``image_format``, then
      the thermal ones, or one camera's alone;
    - ``height``, ``width``: of the file, before augmentation, in pixels;
    - ``file_name`` (the file that was read; of a pair the visible one), ``image_id``, ``k``, and
      of a pair ``lwir_file_name``;
    - in training ``instances``: ``gt_boxes`` (N, 4) XYXY float32 in pixels of ``image``, inside
      it, at least ``min_box_size`` wide and high, and ``gt_classes`` (N,) int64 in 0..K-1;
    - in training ``ignore_boxes``: (M, 4) XYXY float32 in the same frame: regions that are
      neither reward nor penalty, of any class.
    """

    def __init__(
        self,
        *,
        channels: Channels,
        image_format: str,
        transforms: v2.Transform,
        is_train: bool,
        seed: int,
        min_box_size: float | None = 1.0,
        min_visible: float | None = None,
    ) -> None:
        """Set up the mapper.

        Args:
            channels: Which cameras a sample is of, and how many channels of each.
            image_format: Order of the visible channels: ``BGR`` or ``RGB``.
            transforms: Applied to ``{"image": tv_tensors.Image, "boxes": BoundingBoxes,
                "is_region": bool tensor}``; boxes go in and come out unclipped, all of them.
            is_train: Whether samples carry their targets.
            seed: Not negative; with k it seeds torch's generator during ``transforms``.
            min_box_size: Boxes narrower or lower than this after augmentation are dropped, px;
                None keeps all, those without area too, for those who look for faults.
            min_visible: See ``make_targets``; ``augmentation.least_visible_share`` gives it.
        """
        self.channels = channels
        self.image_format = image_format
        self.transforms = transforms
        self.is_train = is_train
        self.seed = seed
        self.min_box_size = min_box_size
        self.min_visible = min_visible

    def __call__(self, record: Mapping[str, Any], k: int) -> dict[str, Any]:
        """Make sample number k from a record, which stays as it is.

        Raises:
            MissingFileError: If an image is not there.
            AnnotationError: If one cannot be decoded, its size is not the one recorded, or the
                record has none of a camera.
        """
        modality = self.channels.modality
        paths = image_paths(record, modality)
        pictures = read_pictures(record, modality)
        height, width = pictures[0].shape[:2]
        _check_size(record, paths[0], (height, width))
        annotations = record.get("annotations", []) if self.is_train else []
        pixels = stack_pictures(pictures, self.channels, self.image_format)
        image, boxes = self._augment(pixels, annotations, k)
        sample = {
            "file_name": paths[0],
            "image_id": record["image_id"],
            "height": height,
            "width": width,
            "k": k,
            "image": image,
        }
        if len(paths) > 1:
            sample["lwir_file_name"] = paths[1]
        if self.is_train:
            sample |= make_targets(image, boxes, annotations, self.min_box_size, self.min_visible)
        return sample

    def _augment(
        self, pixels: torch.Tensor, annotations: Sequence[Mapping[str, Any]], k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the image, (C, h, w) uint8, and the boxes, (N, 4), after the transforms."""
        image = tv_tensors.Image(pixels)
        rows = [annotation["bbox"] for annotation in annotations]
        boxes = tv_tensors.BoundingBoxes(
            torch.tensor(rows, dtype=torch.float32).reshape(-1, 4),
            format="XYXY",
            canvas_size=tuple(pixels.shape[1:]),
            clamping_mode=None,  # targets are judged by where their boxes went, then clipped
        )
        flags = torch.tensor([is_region(a) for a in annotations], dtype=torch.bool)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(sample_seed(self.seed, k))
            out = self.transforms({"image": image, "boxes": boxes, "is_region": flags})
        plain_image = out["image"].as_subclass(torch.Tensor).contiguous()
        return plain_image, out["boxes"].as_subclass(torch.Tensor)


def _check_size(record: Mapping[str, Any], path: str, found: tuple[int, int]) -> None:
    recorded = (record["height"], record["width"])
    if found != recorded:
        raise AnnotationError(
            f"{path}: the image is {found[1]}x{found[0]} pixels, its labels were made for "
            f"{recorded[1]}x{recorded[0]}; give the labels their own images, or correct width and "
            "height in the label file"
        )
