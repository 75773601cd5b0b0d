"""Region proposal network: Ren et al., Faster R-CNN, NeurIPS 2015, section 3.1."""

from typing import Any

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from d2pd.embedded.anchor_generator import DefaultAnchorGenerator, build_anchor_generator
from d2pd.embedded.box_regression import Box2BoxTransform, box_regression_loss
from d2pd.embedded.boxes import Boxes, pairwise_iou
from d2pd.embedded.configurable import configurable
from d2pd.embedded.events import get_event_storage
from d2pd.embedded.image_list import ImageList
from d2pd.embedded.instances import Instances
from d2pd.embedded.matcher import Matcher
from d2pd.embedded.proposal_utils import find_top_proposals, select_and_decode
from d2pd.embedded.rpn_head import build_rpn_head
from d2pd.embedded.sampling import subsample_labels
from d2pd.embedded.shape_spec import ShapeSpec
from d2pd.errors import ConfigError


class RPN(nn.Module):
    """Proposes boxes that may hold an object of any class."""

    @configurable
    def __init__(
        self,
        *,
        in_features: list[str],
        head: nn.Module,
        anchor_generator: DefaultAnchorGenerator,
        anchor_matcher: Matcher,
        box2box_transform: Box2BoxTransform,
        batch_size_per_image: int,
        positive_fraction: float,
        pre_nms_topk: tuple[int, int],
        post_nms_topk: tuple[int, int],
        nms_thresh: float = 0.7,
        min_box_size: float = 0.0,
        anchor_boundary_thresh: float = -1.0,
        loss_weight: dict[str, float] | None = None,
        box_reg_loss_type: str = "smooth_l1",
        smooth_l1_beta: float = 0.0,
    ):
        """Join the parts.

        Args:
            in_features: Feature maps to predict on.
            head: Predicts logits and deltas, as ``StandardRPNHead``.
            anchor_generator: Anchors for these feature maps.
            anchor_matcher: Labels anchors by their IoU with ground truth.
            box2box_transform: Meaning of the deltas.
            batch_size_per_image: Anchors of each image that the loss is computed on.
            positive_fraction: Most of them that may hold an object.
            pre_nms_topk: Anchors per level kept before suppression, in training and in inference.
            post_nms_topk: Proposals per image after it, in training and in inference.
            nms_thresh: IoU for non-maximum suppression within a level.
            min_box_size: Proposals with a side not longer than this are dropped, pixels.
            anchor_boundary_thresh: Pixels by which an anchor may leave the image and still be
                trained on; negative for any.
            loss_weight: Factors on ``loss_rpn_cls`` and ``loss_rpn_loc``, 1 where not given.
            box_reg_loss_type: See ``box_regression_loss``.
            smooth_l1_beta: See ``box_regression_loss``.
        """
        super().__init__()
        self.in_features = list(in_features)
        self.rpn_head = head
        self.anchor_generator = anchor_generator
        self.anchor_matcher = anchor_matcher
        self.box2box_transform = box2box_transform
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.pre_nms_topk = {True: pre_nms_topk[0], False: pre_nms_topk[1]}
        self.post_nms_topk = {True: post_nms_topk[0], False: post_nms_topk[1]}
        self.nms_thresh = nms_thresh
        self.min_box_size = min_box_size
        self.anchor_boundary_thresh = anchor_boundary_thresh
        self.loss_weight = loss_weight or {}
        self.box_reg_loss_type = box_reg_loss_type
        self.smooth_l1_beta = smooth_l1_beta

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Read ``MODEL.RPN``, ``MODEL.ANCHOR_GENERATOR`` and ``MODEL.PROPOSAL_GENERATOR``."""
        rpn = cfg.MODEL.RPN
        shapes = [input_shape[name] for name in rpn.IN_FEATURES]
        anchor_generator = build_anchor_generator(cfg, shapes)
        return {
            "in_features": rpn.IN_FEATURES,
            "head": build_rpn_head(cfg, shapes, anchor_generator.num_anchors),
            "anchor_generator": anchor_generator,
            "anchor_matcher": Matcher(
                rpn.IOU_THRESHOLDS, rpn.IOU_LABELS, allow_low_quality_matches=True
            ),
            "box2box_transform": Box2BoxTransform(rpn.BBOX_REG_WEIGHTS),
            "batch_size_per_image": rpn.BATCH_SIZE_PER_IMAGE,
            "positive_fraction": rpn.POSITIVE_FRACTION,
            "pre_nms_topk": (rpn.PRE_NMS_TOPK_TRAIN, rpn.PRE_NMS_TOPK_TEST),
            "post_nms_topk": (rpn.POST_NMS_TOPK_TRAIN, rpn.POST_NMS_TOPK_TEST),
            "nms_thresh": rpn.NMS_THRESH,
            "min_box_size": cfg.MODEL.PROPOSAL_GENERATOR.MIN_SIZE,
            "anchor_boundary_thresh": rpn.BOUNDARY_THRESH,
            "loss_weight": {
                "loss_rpn_cls": rpn.LOSS_WEIGHT,
                "loss_rpn_loc": rpn.BBOX_REG_LOSS_WEIGHT * rpn.LOSS_WEIGHT,
            },
            "box_reg_loss_type": rpn.BBOX_REG_LOSS_TYPE,
            "smooth_l1_beta": rpn.SMOOTH_L1_BETA,
        }

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        gt_instances: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Propose boxes, and in training also compute the losses.

        Args:
            images: The N images; their sizes bound the proposals.
            features: Feature maps by name, (N, C, H, W).
            gt_instances: ``gt_boxes`` of each image, in training.

        Returns:
            ``proposal_boxes`` and ``objectness_logits`` of each image, best first; the losses
            ``loss_rpn_cls`` and ``loss_rpn_loc``, none in inference.

        Raises:
            ValueError: If labels are missing in training.
            FloatingPointError: If predictions in training are infinite or NaN.
        """
        maps = [features[name] for name in self.in_features]
        anchors = self.anchor_generator(maps)
        logits, deltas = self.rpn_head(maps)
        losses = {}
        if self.training:
            if gt_instances is None:
                raise ValueError("The RPN needs 'instances' with gt_boxes in training.")
            gt_labels, gt_boxes = self.label_and_sample_anchors(anchors, gt_instances)
            losses = self.losses(anchors, logits, gt_labels, deltas, gt_boxes)
        proposals = self.predict_proposals(anchors, logits, deltas, images.image_sizes)
        return proposals, losses

    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Turn predictions into proposals, which are constants to the rest of the network."""
        boxes, logits, levels = select_and_decode(
            anchors,
            pred_objectness_logits,
            pred_anchor_deltas,
            self.box2box_transform,
            self.pre_nms_topk[self.training],
        )
        return [
            find_top_proposals(
                boxes[index],
                logits[index],
                levels,
                image_size,
                self.nms_thresh,
                self.post_nms_topk[self.training],
                self.min_box_size,
                self.training,
            )
            for index, image_size in enumerate(image_sizes)
        ]

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Choose the anchors to train on.

        Args:
            anchors: Anchors of each feature map, R in all.
            gt_instances: ``gt_boxes`` of each image.

        Returns:
            For each image (R,) labels, 1 object, 0 background, -1 not chosen; and (R, 4) the box
            each anchor should become, meaningful where the label is 1.
        """
        all_anchors = Boxes.cat(anchors)
        gt_labels, matched_gt_boxes = [], []
        for instances in gt_instances:
            gt_boxes: Boxes = instances.gt_boxes
            matches, labels = self.anchor_matcher(pairwise_iou(gt_boxes, all_anchors))
            if self.anchor_boundary_thresh >= 0:
                inside = all_anchors.inside_box(instances.image_size, self.anchor_boundary_thresh)
                labels[~inside] = -1
            gt_labels.append(self._subsample(labels))
            matched_gt_boxes.append(
                gt_boxes.tensor[matches] if len(gt_boxes) else torch.zeros_like(all_anchors.tensor)
            )
        return gt_labels, matched_gt_boxes

    def _subsample(self, labels: Tensor) -> Tensor:
        positive, negative = subsample_labels(
            labels, self.batch_size_per_image, self.positive_fraction, bg_label=0
        )
        chosen = torch.full_like(labels, -1)
        chosen[positive] = 1
        chosen[negative] = 0
        return chosen

    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """Cost of the predictions on the chosen anchors.

        Both losses are sums divided by ``batch_size_per_image`` and the number of images.

        Args:
            anchors: Anchors of each feature map, R in all.
            pred_objectness_logits: (N, H * W * A) for each feature map.
            gt_labels: (R,) for each image, see ``label_and_sample_anchors``.
            pred_anchor_deltas: (N, H * W * A, 4) for each feature map.
            gt_boxes: (R, 4) for each image.

        Returns:
            ``loss_rpn_cls`` and ``loss_rpn_loc``.
        """
        labels = torch.stack(gt_labels)
        is_object = labels == 1
        _log_sample_counts(labels)
        image_index, anchor_index = is_object.nonzero(as_tuple=True)
        loss_loc = box_regression_loss(
            self.box2box_transform,
            Boxes.cat(anchors).tensor[anchor_index],
            torch.cat(pred_anchor_deltas, dim=1)[image_index, anchor_index],
            torch.stack(gt_boxes)[image_index, anchor_index],
            self.box_reg_loss_type,
            self.smooth_l1_beta,
        )
        is_chosen = labels >= 0
        loss_cls = F.binary_cross_entropy_with_logits(
            torch.cat(pred_objectness_logits, dim=1)[is_chosen],
            labels[is_chosen].to(torch.float32),
            reduction="sum",
        )
        normalizer = self.batch_size_per_image * len(gt_labels)
        return {
            "loss_rpn_cls": loss_cls / normalizer * self.loss_weight.get("loss_rpn_cls", 1.0),
            "loss_rpn_loc": loss_loc / normalizer * self.loss_weight.get("loss_rpn_loc", 1.0),
        }


def _log_sample_counts(labels: Tensor) -> None:
    storage = get_event_storage()
    storage.put_scalar("rpn/num_pos_anchors", (labels == 1).sum().item() / len(labels))
    storage.put_scalar("rpn/num_neg_anchors", (labels == 0).sum().item() / len(labels))


def build_proposal_generator(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> RPN:
    """Build the RPN over feature maps of these shapes.

    Raises:
        ConfigError: If ``MODEL.PROPOSAL_GENERATOR.NAME`` is another, or a feature map is missing.
    """
    name = cfg.MODEL.PROPOSAL_GENERATOR.NAME
    if name != RPN.__name__:
        raise ConfigError(
            f"MODEL.PROPOSAL_GENERATOR.NAME is '{name}', the embedded engine has 'RPN'"
        )
    missing = [name for name in cfg.MODEL.RPN.IN_FEATURES if name not in input_shape]
    if missing:
        raise ConfigError(
            f"MODEL.RPN.IN_FEATURES asks for {missing}, the backbone has {list(input_shape)}"
        )
    return RPN(cfg, input_shape)
