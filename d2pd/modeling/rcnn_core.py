"""Faster R-CNN in inference as one function of tensors: what is predicted with and exported.

It is read off the modules of the embedded ``GeneralizedRCNN``, whose own ``forward`` takes and
gives lists as Detectron2's does. Both give the same bits for an image.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2pd.modeling.batch_detections import (
    BatchDetections,
    Suppress,
    best_kept,
    clip_boxes,
    suppress_by_image,
)


class RCNNCore(nn.Module):
    """Detects on a batch of images of one size.

    Args:
        model: A ``GeneralizedRCNN`` of the embedded engine; its parameters are shared.

    Attributes:
        suppress: How overlapping boxes are suppressed, of proposals and of detections.
        num_groups: An upper bound on the groups that ``suppress`` is asked for.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        of_model: Any = model
        self.model: Any = model
        self.suppress: Suppress = suppress_by_image
        self.num_groups = max(
            len(of_model.proposal_generator.in_features), of_model.roi_heads.num_classes
        )

    def forward(self, images: Tensor) -> BatchDetections:
        """Detect.

        Args:
            images: (N, C, H, W) uint8 or float, pixels as ``MODEL.PIXEL_MEAN`` is for.
        """
        model = self.model
        height, width = images.shape[-2:]
        normalised = (images - model.pixel_mean) / model.pixel_std
        multiple = max(model.backbone.size_divisibility, 1)
        features = model.backbone(F.pad(normalised, (0, -width % multiple, 0, -height % multiple)))
        proposals, is_proposal = self._propose(features, height, width)
        return self._detect(features, proposals, is_proposal, height, width)

    def _propose(
        self, features: dict[str, Tensor], height: int, width: int
    ) -> tuple[Tensor, Tensor]:
        """Return proposals (N, R, 4) in order of their score, and (N, R) which of them are any."""
        rpn = self.model.proposal_generator
        maps = [features[name] for name in rpn.in_features]
        boxes, logits, levels = self._best_anchors(maps)
        is_candidate = boxes.isfinite().all(dim=-1) & logits.isfinite()
        boxes = clip_boxes(boxes, height, width)
        is_candidate &= (boxes[..., 2:] - boxes[..., :2] > rpn.min_box_size).all(dim=-1)
        is_kept = self.suppress(boxes, logits, levels, is_candidate, rpn.nms_thresh)
        ranked, order = logits.where(is_kept, -math.inf).sort(dim=1, descending=True, stable=True)
        room = min(rpn.post_nms_topk[False], logits.shape[1])
        order = order[:, :room, None].expand(-1, -1, 4)
        return boxes.gather(1, order), ranked[:, :room] > -math.inf

    def _best_anchors(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (N, T, 4), logits (N, T), minus infinity where none is, levels (N, T)."""
        rpn = self.model.proposal_generator
        count = rpn.pre_nms_topk[False]
        anchors = rpn.anchor_generator(maps)
        boxes, scores, levels = [], [], []
        for level, (anchor, logits, deltas) in enumerate(
            zip(anchors, *rpn.rpn_head(maps), strict=True)
        ):
            # Filled up, so that a small map needs no case of its own.
            best, index = F.pad(logits, (0, count), value=-math.inf).topk(count, dim=1)
            index = index.clamp(max=logits.shape[1] - 1)
            chosen = deltas.gather(1, index[..., None].expand(-1, -1, 4)).reshape(-1, 4)
            decoded = rpn.box2box_transform.apply_deltas(chosen, anchor.tensor[index.flatten()])
            boxes.append(decoded.reshape(-1, count, 4))
            scores.append(best.float())
            levels.append(torch.full_like(index, level))
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.cat(levels, dim=1)

    def _detect(
        self,
        features: dict[str, Tensor],
        proposals: Tensor,
        is_proposal: Tensor,
        height: int,
        width: int,
    ) -> BatchDetections:
        """Classify and refine proposals (N, R, 4)."""
        heads = self.model.roi_heads
        num_images, room = is_proposal.shape
        rows = is_proposal.flatten().nonzero().squeeze(1)
        images = (rows // room).to(proposals.dtype)
        boxes, scores = self._refine(
            features, images, proposals.reshape(-1, 4)[rows], height, width
        )
        is_finite = boxes.isfinite().all(dim=1) & scores.isfinite().all(dim=1)
        count = heads.num_classes
        boxes = boxes.reshape(-1, boxes.shape[1] // 4, 4).expand(-1, count, -1)
        scores = scores[:, :-1].where(is_finite[:, None], 0.0).float()

        def of_all(values: Tensor) -> Tensor:
            """Put the values of the regions back among those of all N * R proposals."""
            empty = values.new_zeros(num_images * room, *values.shape[1:])
            filled = empty.index_put((rows,), values)
            return filled.reshape(num_images, room * count, *values.shape[2:])

        all_boxes = clip_boxes(of_all(boxes), height, width)
        all_scores = of_all(scores)
        classes = torch.arange(count, device=rows.device).repeat(room).expand(num_images, -1)
        _, predictor = heads.stages[-1]
        is_candidate = all_scores > predictor.test_score_thresh
        is_kept = self.suppress(
            all_boxes, all_scores, classes, is_candidate, predictor.test_nms_thresh
        )
        return best_kept(all_boxes, all_scores, classes, is_kept, predictor.test_topk_per_image)

    def _refine(
        self,
        features: dict[str, Tensor],
        images: Tensor,
        regions: Tensor,
        height: int,
        width: int,
    ) -> tuple[Tensor, Tensor]:
        """Send regions (M, 4) of images (M,) through the stages of the heads.

        Returns:
            (M, K * 4) or (M, 4) boxes of the last stage; (M, K + 1) scores, the mean of all.
        """
        heads = self.model.roi_heads
        maps = [features[name] for name in heads.box_in_features]
        scores: list[Tensor] = []
        boxes = regions
        for head, predictor in heads.stages:
            if scores:  # as CascadeROIHeads goes on
                regions = clip_boxes(boxes.nan_to_num(0.0, 0.0, 0.0), height, width)
            pooled = heads.box_pooler.pool(maps, torch.cat((images[:, None], regions), dim=1))
            logits, deltas = predictor(head(pooled))
            boxes = predictor.box2box_transform.apply_deltas(deltas, regions)
            scores.append(F.softmax(logits, dim=-1))
        return boxes, sum(scores[1:], scores[0]) * (1.0 / len(scores))
