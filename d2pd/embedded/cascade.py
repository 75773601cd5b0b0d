"""The second stage of Cascade R-CNN: Cai and Vasconcelos, CVPR 2018."""

from collections.abc import Sequence
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from d2pd.embedded.box_head import build_box_head
from d2pd.embedded.box_regression import Box2BoxTransform
from d2pd.embedded.boxes import Boxes, pairwise_iou
from d2pd.embedded.configurable import configurable
from d2pd.embedded.events import get_event_storage
from d2pd.embedded.fast_rcnn import FastRCNNOutputLayers
from d2pd.embedded.instances import Instances
from d2pd.embedded.matcher import Matcher
from d2pd.embedded.roi_heads import StandardROIHeads
from d2pd.embedded.shape_spec import ShapeSpec
from d2pd.errors import ConfigError

Predictions = tuple[Tensor, Tensor]


class CascadeROIHeads(StandardROIHeads):
    """Heads in a row: each refines the boxes of the one before it and asks for more overlap.

    In training the losses of stage ``k`` end in ``_stage<k>``. In inference the boxes are those of
    the last stage and the scores the mean of all stages.
    """

    @configurable
    def __init__(
        self,
        *,
        box_heads: Sequence[nn.Module],
        box_predictors: Sequence[FastRCNNOutputLayers],
        proposal_matchers: Sequence[Matcher],
        **kwargs: Any,
    ):
        """Join the parts.

        Args:
            box_heads: One for each stage, see ``StandardROIHeads``.
            box_predictors: One for each stage; they predict one box for all classes.
            proposal_matchers: One for each stage: labels the boxes that enter it.
            kwargs: The other arguments of ``StandardROIHeads``.
        """
        super().__init__(
            box_head=nn.ModuleList(box_heads),
            box_predictor=nn.ModuleList(box_predictors),
            proposal_matcher=proposal_matchers[0],
            **kwargs,
        )
        self.proposal_matchers = list(proposal_matchers)

    @classmethod
    def _of_stages(cls, cfg: CfgNode, pooled_shape: ShapeSpec) -> dict[str, Any]:
        _check_cascade_keys(cfg)
        heads, predictors = [], []
        for weights in cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS:
            heads.append(build_box_head(cfg, pooled_shape))
            transform = Box2BoxTransform(weights)
            predictors.append(
                FastRCNNOutputLayers(cfg, heads[-1].output_shape, box2box_transform=transform)
            )
        return {
            "box_heads": heads,
            "box_predictors": predictors,
            "proposal_matchers": [
                Matcher([iou], [0, 1]) for iou in cfg.MODEL.ROI_BOX_CASCADE_HEAD.IOUS
            ],
        }

    @property
    def stages(self) -> list[tuple[nn.Module, FastRCNNOutputLayers]]:
        """Head and predictor of each stage."""
        heads: Any = self.box_head
        predictors: Any = self.box_predictor
        return list(zip(heads, predictors, strict=True))

    def _detect(self, features: dict[str, Tensor], proposals: list[Instances]) -> list[Instances]:
        boxes: list[Tensor] = []
        scores: list[list[Tensor]] = []
        for head, predictor in self.stages:
            if scores:
                proposals = _next_proposals(boxes, proposals)
            predictions = predictor(head(self._pool(features, proposals)))
            boxes = predictor.predict_boxes(predictions, proposals)
            scores.append(predictor.predict_probs(predictions, proposals))
        share = 1.0 / len(scores)
        means = [sum(of_image[1:], of_image[0]) * share for of_image in zip(*scores, strict=True)]
        return predictor.choose(boxes, means, proposals)[0]

    def _losses(
        self, features: dict[str, Tensor], sampled: list[Instances], targets: list[Instances]
    ) -> dict[str, Tensor]:
        boxes: list[Tensor] = []
        losses: dict[str, Tensor] = {}
        for stage, (head, predictor) in enumerate(self.stages):
            if stage:
                sampled = _next_training_proposals(boxes, sampled)
                self._label(sampled, targets, stage)
            pooled = _scale_gradient(self._pool(features, sampled), 1.0 / len(self.stages))
            predictions = predictor(head(pooled))
            boxes = predictor.predict_boxes(predictions, sampled)
            with get_event_storage().name_scope(f"stage{stage}"):
                of_stage = predictor.losses(predictions, sampled)
            losses |= {f"{name}_stage{stage}": loss for name, loss in of_stage.items()}
        return losses

    @torch.no_grad()
    def _label(self, proposals: list[Instances], targets: list[Instances], stage: int) -> None:
        """Give all boxes that enter a later stage their ``gt_classes`` and ``gt_boxes``."""
        num_fg = 0
        for proposed, labelled in zip(proposals, targets, strict=True):
            matches, labels = self.proposal_matchers[stage](
                pairwise_iou(labelled.gt_boxes, proposed.proposal_boxes)
            )
            proposed.gt_classes = torch.full_like(matches, self.num_classes)
            if len(labelled):
                is_object = labels == 1
                proposed.gt_classes[is_object] = labelled.gt_classes[matches[is_object]]
                proposed.gt_boxes = labelled.gt_boxes[matches]
            num_fg += int((labels == 1).sum())
        num_all = sum(len(each) for each in proposals)
        storage = get_event_storage()
        storage.put_scalar(f"stage{stage}/roi_head/num_fg_samples", num_fg / len(targets))
        storage.put_scalar(
            f"stage{stage}/roi_head/num_bg_samples", (num_all - num_fg) / len(targets)
        )


def _scale_gradient(pooled: Tensor, factor: float) -> Tensor:
    """Let each stage move the features by its share only; the heads learn at full rate."""
    if pooled.requires_grad:
        pooled.register_hook(lambda gradient: gradient * factor)
    return pooled


def _next_training_proposals(
    boxes: Sequence[Tensor], proposals: Sequence[Instances]
) -> list[Instances]:
    """Clip the boxes of a stage to their images and drop what is empty then.

    Raises:
        FloatingPointError: If a box is infinite or NaN.
    """
    following = []
    for of_image, before in zip(boxes, proposals, strict=True):
        clipped = Boxes(of_image.detach())
        clipped.clip(before.image_size)
        following.append(Instances(before.image_size, proposal_boxes=clipped[clipped.nonempty()]))
    return following


def _next_proposals(boxes: Sequence[Tensor], proposals: Sequence[Instances]) -> list[Instances]:
    """Clip the boxes of a stage, all of them: the scores of a region are averaged later.

    Boxes that are infinite or NaN go on as empty ones; the scores of their regions mostly are NaN
    too, and drop out at the end.
    """
    following = []
    for of_image, before in zip(boxes, proposals, strict=True):
        clipped = Boxes(of_image.nan_to_num(0.0, 0.0, 0.0))
        clipped.clip(before.image_size)
        following.append(Instances(before.image_size, proposal_boxes=clipped))
    return following


def _check_cascade_keys(cfg: CfgNode) -> None:
    cascade, heads = cfg.MODEL.ROI_BOX_CASCADE_HEAD, cfg.MODEL.ROI_HEADS
    if not cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG:
        raise ConfigError(
            "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG is False: CascadeROIHeads refine one box "
            "for all classes; set it to True"
        )
    if len(cascade.IOUS) != len(cascade.BBOX_REG_WEIGHTS) or not cascade.IOUS:
        raise ConfigError(
            f"MODEL.ROI_BOX_CASCADE_HEAD has {len(cascade.IOUS)} IOUS and "
            f"{len(cascade.BBOX_REG_WEIGHTS)} BBOX_REG_WEIGHTS: give one of each for every stage"
        )
    if list(heads.IOU_THRESHOLDS) != [cascade.IOUS[0]]:
        raise ConfigError(
            f"MODEL.ROI_BOX_CASCADE_HEAD.IOUS starts with {cascade.IOUS[0]} and "
            f"MODEL.ROI_HEADS.IOU_THRESHOLDS is {list(heads.IOU_THRESHOLDS)}: the first stage is "
            "sampled by the latter; set both to the same value"
        )
