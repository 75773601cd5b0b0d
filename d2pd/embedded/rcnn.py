"""Faster R-CNN as a whole: images in; losses or detections out."""

from collections.abc import Sequence
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from d2pd.embedded import fpn  # noqa: F401  registers the backbones
from d2pd.embedded.backbone import Backbone, build_backbone
from d2pd.embedded.build import META_ARCH_REGISTRY
from d2pd.embedded.build_roi_heads import build_roi_heads
from d2pd.embedded.configurable import configurable
from d2pd.embedded.image_list import ImageList
from d2pd.embedded.instances import Instances
from d2pd.embedded.postprocessing import detector_postprocess
from d2pd.embedded.rpn import build_proposal_generator


@META_ARCH_REGISTRY.register()
class GeneralizedRCNN(nn.Module):
    """Feature extraction, region proposals, and prediction on regions.

    It takes a list with a dict for each image: ``image``, (C, H, W) uint8 or float in the range
    and channel order that ``pixel_mean`` is for; in training ``instances`` with ``gt_boxes``
    (pixels of ``image``, with area) and ``gt_classes`` (0 to K - 1); in inference optionally
    ``height`` and ``width``, the size that detections are scaled to.

    In training it returns a dict of losses: ``loss_rpn_cls``, ``loss_rpn_loc``, ``loss_cls``,
    ``loss_box_reg``, the last two for each stage where there are several. In inference it returns a
    list with ``{"instances": Instances}`` for each image: ``pred_boxes``, ``scores``,
    ``pred_classes``, best first.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module,
        roi_heads: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ):
        """Join the parts.

        Args:
            backbone: From images to feature maps.
            proposal_generator: From feature maps to proposals.
            roi_heads: From proposals to losses or detections.
            pixel_mean: Subtracted from each channel.
            pixel_std: Then each channel is divided by it.
        """
        super().__init__()
        self.backbone = backbone
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the keys under ``MODEL``."""
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        return {
            "backbone": backbone,
            "proposal_generator": build_proposal_generator(cfg, shapes),
            "roi_heads": build_roi_heads(cfg, shapes),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        """Where the model lies, and images are moved to."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses in training, detections in inference; see the class.

        Raises:
            ValueError: If labels are missing in training.
            FloatingPointError: If predictions in training are infinite or NaN.
        """
        if not self.training:
            return self.inference(batched_inputs)
        if "instances" not in batched_inputs[0]:
            raise ValueError("Training needs 'instances' with labels in every input.")
        images = self.preprocess_image(batched_inputs)
        targets = [each["instances"].to(self.device) for each in batched_inputs]
        features = self.backbone(images.tensor)
        proposals, proposal_losses = self.proposal_generator(images, features, targets)
        _, detector_losses = self.roi_heads(images, features, proposals, targets)
        return {**detector_losses, **proposal_losses}

    def inference(self, batched_inputs: list[dict[str, Any]], do_postprocess: bool = True) -> Any:
        """Detect, whatever the labels.

        Args:
            batched_inputs: See the class.
            do_postprocess: Scale detections to ``height`` and ``width`` of the inputs; otherwise
                return bare ``Instances`` in the network's coordinates.
        """
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        proposals, _ = self.proposal_generator(images, features, None)
        results, _ = self.roi_heads(images, features, proposals, None)
        return self._postprocess(results, batched_inputs) if do_postprocess else results

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalise the images and pad them to one batch on the model's device."""
        images = [each["image"].to(self.device, non_blocking=True) for each in batched_inputs]
        return ImageList.from_tensors(
            [(image - self.pixel_mean) / self.pixel_std for image in images],
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )

    @staticmethod
    def _postprocess(
        results: list[Instances], batched_inputs: list[dict[str, Any]]
    ) -> list[dict[str, Instances]]:
        processed = []
        for detections, each in zip(results, batched_inputs, strict=True):
            height, width = detections.image_size
            scaled = detector_postprocess(
                detections, each.get("height", height), each.get("width", width)
            )
            processed.append({"instances": scaled})
        return processed
