"""Class and box of each region: Girshick, Fast R-CNN, ICCV 2015."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from d2pd.embedded.box_regression import Box2BoxTransform, box_regression_loss
from d2pd.embedded.boxes import Boxes
from d2pd.embedded.configurable import configurable
from d2pd.embedded.events import get_event_storage
from d2pd.embedded.instances import Instances
from d2pd.embedded.nms import batched_nms
from d2pd.embedded.shape_spec import ShapeSpec


def fast_rcnn_inference_single_image(
    boxes: Tensor,
    scores: Tensor,
    image_shape: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[Instances, Tensor]:
    """Choose the detections of one image.

    Args:
        boxes: (R, K * 4) XYXY, a box per class, or (R, 4) one box for all classes.
        scores: (R, K + 1) probabilities, background last.
        image_shape: Height and width of the image, to which boxes are clipped.
        score_thresh: Only scores above it count.
        nms_thresh: IoU for non-maximum suppression within a class.
        topk_per_image: Most detections to return; negative for all.

    Returns:
        ``pred_boxes``, ``scores`` and ``pred_classes``, best first; and for each the index of its
        region among those whose numbers are finite.
    """
    is_finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores).all(dim=1)
    if not is_finite.all():
        boxes, scores = boxes[is_finite], scores[is_finite]
    num_box_classes = boxes.shape[1] // 4
    clipped = Boxes(boxes.reshape(-1, 4))
    clipped.clip(image_shape)
    regions, classes = (scores[:, :-1] > score_thresh).nonzero(as_tuple=True)
    own_box = classes if num_box_classes > 1 else torch.zeros_like(classes)
    candidates = clipped.tensor.view(-1, num_box_classes, 4)[regions, own_box]
    candidate_scores = scores[regions, classes]
    keep = batched_nms(candidates, candidate_scores, classes, nms_thresh)
    if topk_per_image >= 0:
        keep = keep[:topk_per_image]
    detections = Instances(
        image_shape,
        pred_boxes=Boxes(candidates[keep]),
        scores=candidate_scores[keep],
        pred_classes=classes[keep],
    )
    return detections, regions[keep]


def _log_classification_stats(pred_logits: Tensor, gt_classes: Tensor) -> None:
    """Put the accuracy over all regions and over those with an object into the event storage."""
    if gt_classes.numel() == 0:
        return
    background = pred_logits.shape[1] - 1
    pred_classes = pred_logits.argmax(dim=1)
    is_object = (gt_classes >= 0) & (gt_classes < background)
    is_right = pred_classes == gt_classes
    num_objects = int(is_object.sum())
    storage = get_event_storage()
    storage.put_scalar("fast_rcnn/cls_accuracy", int(is_right.sum()) / gt_classes.numel())
    if num_objects > 0:
        num_right = int((is_right & is_object).sum())
        num_missed = int((is_object & (pred_classes == background)).sum())
        storage.put_scalar("fast_rcnn/fg_cls_accuracy", num_right / num_objects)
        storage.put_scalar("fast_rcnn/false_negative", num_missed / num_objects)


class FastRCNNOutputLayers(nn.Module):
    """Two linear layers: scores of the K classes and the background, and box deltas."""

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        box2box_transform: Box2BoxTransform,
        num_classes: int,
        test_score_thresh: float = 0.0,
        test_nms_thresh: float = 0.5,
        test_topk_per_image: int = 100,
        cls_agnostic_bbox_reg: bool = False,
        smooth_l1_beta: float = 0.0,
        box_reg_loss_type: str = "smooth_l1",
        loss_weight: dict[str, float] | None = None,
    ):
        """Create the layers.

        Args:
            input_shape: Shape of what the box head gives for a region.
            box2box_transform: Meaning of the deltas.
            num_classes: Classes without the background.
            test_score_thresh: Detections need a score above it.
            test_nms_thresh: IoU for non-maximum suppression within a class.
            test_topk_per_image: Most detections per image.
            cls_agnostic_bbox_reg: Predict one box for all classes instead of one for each.
            smooth_l1_beta: See ``box_regression_loss``.
            box_reg_loss_type: See ``box_regression_loss``.
            loss_weight: Factors on ``loss_cls`` and ``loss_box_reg``, 1 where not given.
        """
        super().__init__()
        size = (input_shape.channels or 1) * (input_shape.height or 1) * (input_shape.width or 1)
        self.cls_score = nn.Linear(size, num_classes + 1)
        self.bbox_pred = nn.Linear(size, 4 * (1 if cls_agnostic_bbox_reg else num_classes))
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        nn.init.zeros_(self.cls_score.bias)
        nn.init.zeros_(self.bbox_pred.bias)
        self.num_classes = num_classes
        self.box2box_transform = box2box_transform
        self.test_score_thresh = test_score_thresh
        self.test_nms_thresh = test_nms_thresh
        self.test_topk_per_image = test_topk_per_image
        self.smooth_l1_beta = smooth_l1_beta
        self.box_reg_loss_type = box_reg_loss_type
        self.loss_weight = loss_weight or {}

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Read ``MODEL.ROI_BOX_HEAD``, ``MODEL.ROI_HEADS`` and ``TEST.DETECTIONS_PER_IMAGE``."""
        head = cfg.MODEL.ROI_BOX_HEAD
        return {
            "input_shape": input_shape,
            "box2box_transform": Box2BoxTransform(head.BBOX_REG_WEIGHTS),
            "num_classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "test_score_thresh": cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
            "test_nms_thresh": cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST,
            "test_topk_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "cls_agnostic_bbox_reg": head.CLS_AGNOSTIC_BBOX_REG,
            "smooth_l1_beta": head.SMOOTH_L1_BETA,
            "box_reg_loss_type": head.BBOX_REG_LOSS_TYPE,
            "loss_weight": {"loss_box_reg": head.BBOX_REG_LOSS_WEIGHT},
        }

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (R, ...) to logits (R, K + 1), background last, and deltas (R, K * 4)."""
        x = x.flatten(1)
        return self.cls_score(x), self.bbox_pred(x)

    def losses(
        self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]
    ) -> dict[str, Tensor]:
        """Cost of the predictions.

        Args:
            predictions: What ``forward`` returned.
            proposals: The same regions by image, with ``proposal_boxes``, ``gt_classes`` and,
                where the image has labels, ``gt_boxes``.

        Returns:
            ``loss_cls``, the mean over all regions; ``loss_box_reg``, the sum over those with an
            object, divided by the number of all, so that each object weighs the same.
        """
        logits, deltas = predictions
        gt_classes = torch.cat([each.gt_classes for each in proposals])
        _log_classification_stats(logits, gt_classes)
        losses = {
            # The mean over nothing would be NaN.
            "loss_cls": F.cross_entropy(logits, gt_classes)
            if gt_classes.numel()
            else logits.sum() * 0.0,
            "loss_box_reg": self._box_reg_loss(deltas, proposals, gt_classes),
        }
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}

    def _box_reg_loss(
        self, deltas: Tensor, proposals: Sequence[Instances], gt_classes: Tensor
    ) -> Tensor:
        proposal_boxes = torch.cat([each.proposal_boxes.tensor for each in proposals])
        # An image without labels has background only; any box will do in its place.
        gt_boxes = torch.cat(
            [(each.gt_boxes if each.has("gt_boxes") else each.proposal_boxes).tensor
             for each in proposals]
        )  # fmt: skip
        is_object = (gt_classes >= 0) & (gt_classes < self.num_classes)
        objects = is_object.nonzero(as_tuple=True)[0]
        if deltas.shape[1] == 4:
            object_deltas = deltas[objects]
        else:
            object_deltas = deltas.view(-1, self.num_classes, 4)[objects, gt_classes[objects]]
        loss = box_regression_loss(
            self.box2box_transform,
            proposal_boxes[objects],
            object_deltas,
            gt_boxes[objects],
            self.box_reg_loss_type,
            self.smooth_l1_beta,
        )
        return loss / max(gt_classes.numel(), 1)

    def inference(
        self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """Detections of each image, see ``fast_rcnn_inference_single_image``."""
        boxes = self.predict_boxes(predictions, proposals)
        return self.choose(boxes, self.predict_probs(predictions, proposals), proposals)

    def choose(
        self, boxes: Sequence[Tensor], scores: Sequence[Tensor], proposals: Sequence[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """Detections of each image, of boxes and probabilities as the methods below give them."""
        per_image = [
            fast_rcnn_inference_single_image(
                image_boxes,
                image_scores,
                proposed.image_size,
                self.test_score_thresh,
                self.test_nms_thresh,
                self.test_topk_per_image,
            )
            for image_boxes, image_scores, proposed in zip(boxes, scores, proposals, strict=True)
        ]
        return [detections for detections, _ in per_image], [kept for _, kept in per_image]

    def predict_boxes(
        self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]
    ) -> list[Tensor]:
        """(R_i, K * 4) or (R_i, 4) boxes XYXY of each image."""
        proposal_boxes = torch.cat([each.proposal_boxes.tensor for each in proposals])
        boxes = self.box2box_transform.apply_deltas(predictions[1], proposal_boxes)
        return list(boxes.split([len(each) for each in proposals]))

    def predict_probs(
        self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]
    ) -> list[Tensor]:
        """(R_i, K + 1) probabilities of each image."""
        probabilities = F.softmax(predictions[0], dim=-1)
        return list(probabilities.split([len(each) for each in proposals]))
