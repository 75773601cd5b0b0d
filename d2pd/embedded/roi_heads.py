"""The second stage of Faster R-CNN: pool the proposals, classify and refine them."""

from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from d2pd.embedded.box_head import build_box_head
from d2pd.embedded.boxes import pairwise_iou
from d2pd.embedded.configurable import configurable
from d2pd.embedded.events import get_event_storage
from d2pd.embedded.fast_rcnn import FastRCNNOutputLayers
from d2pd.embedded.image_list import ImageList
from d2pd.embedded.instances import Instances
from d2pd.embedded.matcher import Matcher
from d2pd.embedded.poolers import ROIPooler
from d2pd.embedded.proposal_utils import add_ground_truth_to_proposals
from d2pd.embedded.sampling import subsample_labels
from d2pd.embedded.shape_spec import ShapeSpec
from d2pd.errors import ConfigError


class StandardROIHeads(nn.Module):
    """Samples proposals in training, and predicts a class and a box for each proposal."""

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        batch_size_per_image: int,
        positive_fraction: float,
        proposal_matcher: Matcher,
        box_in_features: list[str],
        box_pooler: ROIPooler,
        box_head: nn.Module,
        box_predictor: FastRCNNOutputLayers,
        proposal_append_gt: bool = True,
    ):
        """Join the parts.

        Args:
            num_classes: Classes without the background.
            batch_size_per_image: Proposals of each image to train on.
            positive_fraction: Most of them that may hold an object.
            proposal_matcher: Labels proposals by their IoU with ground truth.
            box_in_features: Feature maps to pool from, fine to coarse.
            box_pooler: Pools from these maps.
            box_head: From pooled features to what the predictor takes.
            box_predictor: Predictions, losses and detections.
            proposal_append_gt: Train on the labelled boxes themselves, too.
        """
        super().__init__()
        self.num_classes = num_classes
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.proposal_matcher = proposal_matcher
        self.proposal_append_gt = proposal_append_gt
        self.box_in_features = list(box_in_features)
        self.box_pooler = box_pooler
        self.box_head = box_head
        self.box_predictor = box_predictor

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Read ``MODEL.ROI_HEADS`` and ``MODEL.ROI_BOX_HEAD``."""
        heads = cfg.MODEL.ROI_HEADS
        pooler, pooled_shape = build_box_pooler(cfg, input_shape)
        return {
            "num_classes": heads.NUM_CLASSES,
            "batch_size_per_image": heads.BATCH_SIZE_PER_IMAGE,
            "positive_fraction": heads.POSITIVE_FRACTION,
            "proposal_append_gt": heads.PROPOSAL_APPEND_GT,
            "box_in_features": heads.IN_FEATURES,
            "box_pooler": pooler,
            **cls._of_stages(cfg, pooled_shape),
        }

    @classmethod
    def _of_stages(cls, cfg: CfgNode, pooled_shape: ShapeSpec) -> dict[str, Any]:
        box_head = build_box_head(cfg, pooled_shape)
        return {
            "proposal_matcher": Matcher(
                cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS, cfg.MODEL.ROI_HEADS.IOU_LABELS
            ),
            "box_head": box_head,
            "box_predictor": FastRCNNOutputLayers(cfg, box_head.output_shape),
        }

    @property
    def stages(self) -> list[tuple[nn.Module, FastRCNNOutputLayers]]:
        """Head and predictor of each stage, here of the only one."""
        return [(self.box_head, self.box_predictor)]

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Predict on proposals.

        Args:
            images: The N images.
            features: Feature maps by name, (N, C, H, W).
            proposals: ``proposal_boxes`` and ``objectness_logits`` of each image.
            targets: ``gt_boxes`` and ``gt_classes`` of each image, in training.

        Returns:
            In training the sampled proposals and the losses ``loss_cls`` and ``loss_box_reg``; in
            inference the detections of each image and no loss.

        Raises:
            ValueError: If labels are missing in training.
        """
        if not self.training:
            return self._detect(features, proposals), {}
        if targets is None:
            raise ValueError("The RoI heads need 'instances' with labels in training.")
        sampled = self.label_and_sample_proposals(proposals, targets)
        return sampled, self._losses(features, sampled, targets)

    def _detect(self, features: dict[str, Tensor], proposals: list[Instances]) -> list[Instances]:
        predictions = self.box_predictor(self.box_head(self._pool(features, proposals)))
        return self.box_predictor.inference(predictions, proposals)[0]

    def _losses(
        self, features: dict[str, Tensor], sampled: list[Instances], targets: list[Instances]
    ) -> dict[str, Tensor]:
        predictions = self.box_predictor(self.box_head(self._pool(features, sampled)))
        return self.box_predictor.losses(predictions, sampled)

    def _pool(self, features: dict[str, Tensor], proposals: list[Instances]) -> Tensor:
        maps = [features[name] for name in self.box_in_features]
        return self.box_pooler(maps, [each.proposal_boxes for each in proposals])

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        """Choose the proposals to train on and give them their labels.

        Args:
            proposals: ``proposal_boxes`` and ``objectness_logits`` of each image.
            targets: ``gt_boxes`` and ``gt_classes`` of each image.

        Returns:
            The chosen proposals of each image, objects first, with ``gt_classes`` (background is
            ``num_classes``) and, where the image has labels, all other ``gt_`` fields.
        """
        if self.proposal_append_gt:
            proposals = add_ground_truth_to_proposals(targets, proposals)
        sampled = [self._sample(*pair) for pair in zip(proposals, targets, strict=True)]
        num_bg = sum(int((each.gt_classes == self.num_classes).sum()) for each in sampled)
        num_all = sum(len(each) for each in sampled)
        storage = get_event_storage()
        storage.put_scalar("roi_head/num_fg_samples", (num_all - num_bg) / len(sampled))
        storage.put_scalar("roi_head/num_bg_samples", num_bg / len(sampled))
        return sampled

    def _sample(self, proposals: Instances, targets: Instances) -> Instances:
        matches, labels = self.proposal_matcher(
            pairwise_iou(targets.gt_boxes, proposals.proposal_boxes)
        )
        gt_classes = torch.full_like(matches, self.num_classes)
        if len(targets):
            gt_classes = targets.gt_classes[matches]
            gt_classes[labels == 0] = self.num_classes
            gt_classes[labels == -1] = -1
        chosen = torch.cat(
            subsample_labels(
                gt_classes, self.batch_size_per_image, self.positive_fraction, self.num_classes
            )
        )
        sampled = proposals[chosen]
        sampled.gt_classes = gt_classes[chosen]
        if len(targets):
            for name, value in targets.get_fields().items():
                if name.startswith("gt_") and not sampled.has(name):
                    sampled.set(name, value[matches[chosen]])
        return sampled


def build_box_pooler(
    cfg: CfgNode, input_shape: dict[str, ShapeSpec]
) -> tuple[ROIPooler, ShapeSpec]:
    """Build what pools from ``MODEL.ROI_HEADS.IN_FEATURES``; also return the shape it gives.

    Raises:
        ConfigError: If these feature maps differ in channels.
    """
    names, head = cfg.MODEL.ROI_HEADS.IN_FEATURES, cfg.MODEL.ROI_BOX_HEAD
    channels = {input_shape[name].channels for name in names}
    if len(channels) != 1:
        raise ConfigError(f"MODEL.ROI_HEADS.IN_FEATURES differ in channels: {channels}")
    pooler = ROIPooler(
        output_size=head.POOLER_RESOLUTION,
        scales=[1.0 / (input_shape[name].stride or 1) for name in names],
        sampling_ratio=head.POOLER_SAMPLING_RATIO,
        pooler_type=head.POOLER_TYPE,
    )
    side = head.POOLER_RESOLUTION
    return pooler, ShapeSpec(channels=channels.pop(), height=side, width=side)
