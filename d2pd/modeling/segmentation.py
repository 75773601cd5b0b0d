"""Segmentation infusion: masks painted from boxes on the grid of a map, and their loss."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from d2pd.errors import ConfigError
from d2pd.modeling.anchors import centres

IGNORE_INDEX = 255
"""Cells that are neither person nor background."""

OtherSizes = Literal["paint", "background", "ignore"]
Reduction = Literal["mean", "sum"]


def paint_mask(
    map_size: tuple[int, int],
    image_size: tuple[int, int],
    batch_size: tuple[int, int],
    boxes: Tensor,
    ignore_boxes: Tensor,
    is_detected: Tensor,
    other_sizes: OtherSizes,
) -> Tensor:
    """Paint the boxes of an image on the grid of one map.

    A box covers the cells whose centres lie in it or on its border. In a direction where there is
    no such cell it covers the one that holds the centre of the box, or both where that lies
    exactly between two, so that a mirrored box gives the mirrored mask.

    Args:
        map_size: (rows, columns) of the map, which spans the whole batch.
        image_size: (height, width) px of the image, which starts at the batch's upper left.
        batch_size: (height, width) px of the batch, ``image_size`` with padding.
        boxes: (G, 4) XYXY px inside the image; G may be 0.
        ignore_boxes: (M, 4), regions that are neither person nor background; M may be 0.
        is_detected: (G,) bool, False for a label of a size that the map does not detect.
        other_sizes: What such a label becomes: painted as the others, background, or ignored.

    Returns:
        (rows, columns) int64: 1 where a label is painted; else ``IGNORE_INDEX`` in regions to
        ignore, in labels to ignore and where the cell's centre lies beyond the image; else 0.
    """
    y, x = (
        centres(cells, side).to(boxes) for cells, side in zip(map_size, batch_size, strict=True)
    )
    labels, regions = _Cover.of(boxes, y, x), _Cover.of(ignore_boxes, y, x)
    mask = torch.zeros(map_size, dtype=torch.int64, device=boxes.device)
    mask[y >= image_size[0]] = IGNORE_INDEX
    mask[:, x >= image_size[1]] = IGNORE_INDEX
    mask[regions.union()] = IGNORE_INDEX
    if other_sizes == "ignore":
        mask[labels.union(~is_detected)] = IGNORE_INDEX
    mask[labels.union(None if other_sizes == "paint" else is_detected)] = 1
    return mask


class MaskPainter:
    """Paints masks for the maps that have a segmentation layer.

    Args:
        anchor_shapes: For each map of the model, (a, 2) widths and heights of its anchors, px.
        map_names: Of the same maps.
        has_layer: A flag for each map; empty: none has a layer.
        iou_threshold: IoU from which an anchor learns a label.
        other_sizes: See ``paint_mask``.

    Raises:
        ConfigError: If there is not a flag for each map.
    """

    def __init__(
        self,
        anchor_shapes: Sequence[Tensor],
        map_names: Sequence[str],
        has_layer: Sequence[bool],
        iou_threshold: float,
        other_sizes: OtherSizes,
    ) -> None:
        if has_layer and len(has_layer) != len(map_names):
            raise ConfigError(
                f"MODEL.SSD.SEG.MAPS has {len(has_layer)} flags, but the model has "
                f"{len(map_names)} maps ({', '.join(map_names)}): give a flag for each, or []"
            )
        self.anchor_shapes = torch.cat(list(anchor_shapes))
        self.shapes_of_map = [len(shapes) for shapes in anchor_shapes]
        self.map_names = map_names
        self.layers = [index for index, flag in enumerate(has_layer) if flag]
        self.iou_threshold = iou_threshold
        self.other_sizes = other_sizes

    @property
    def layer_names(self) -> list[str]:
        """Names of the maps that have a layer, in the order of the maps."""
        return [self.map_names[index] for index in self.layers]

    def detected(self, boxes: Tensor) -> Tensor:
        """Tell which maps detect which labels.

        A map detects a label if one of its anchors, centred on the label, overlaps it by the
        threshold. A label that no map detects so belongs to the map with the best anchor.

        Args:
            boxes: (G, 4) XYXY px of the network input; G may be 0.

        Returns:
            (G, maps) bool, for every map of the model.
        """
        sizes = boxes[:, 2:] - boxes[:, :2]
        iou = _centred_iou(sizes, self.anchor_shapes.to(sizes))
        best = torch.stack([part.amax(dim=1) for part in iou.split(self.shapes_of_map, 1)], dim=1)
        is_best = F.one_hot(best.argmax(dim=1), len(self.shapes_of_map)).bool()
        return (best >= self.iou_threshold) | is_best

    def masks(
        self,
        image_size: tuple[int, int],
        batch_size: tuple[int, int],
        map_sizes: Sequence[tuple[int, int]],
        boxes: Tensor,
        ignore_boxes: Tensor,
    ) -> dict[str, Tensor]:
        """Paint the masks of one image.

        Args:
            image_size: (height, width) px of the image without padding.
            batch_size: (height, width) px of the batch.
            map_sizes: (rows, columns) of every map of the model, with a layer or not.
            boxes: (G, 4) XYXY px, the labels that came out of the augmentation.
            ignore_boxes: (M, 4), its regions to ignore.

        Returns:
            By the names of the maps that have a layer, masks as of ``paint_mask``.
        """
        is_detected = self.detected(boxes)
        return {
            self.map_names[index]: paint_mask(
                map_sizes[index],
                image_size,
                batch_size,
                boxes,
                ignore_boxes,
                is_detected[:, index],
                self.other_sizes,
            )
            for index in self.layers
        }


def segmentation_losses(
    logits: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    pixel_reduction: Reduction,
    map_reduction: Reduction,
    weights: Mapping[str, float],
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the cross-entropy of the cells of each map, and of all maps.

    Args:
        logits: By map, (N, 2, rows, columns) float32, background first.
        masks: By map, (N, rows, columns) int64 of 0, 1 and ``IGNORE_INDEX``.
        pixel_reduction: ``mean`` over the cells of a map in the whole batch that are not
            ignored; ``sum`` of them, divided by the number of images, so that the size of the
            batch does not scale the loss against those of the boxes, which are means as well.
        map_reduction: ``mean`` or ``sum`` of the maps' losses times their weights.
        weights: By map, a factor on its loss.

    Returns:
        The loss of each map without its weight, so that runs of other weights compare, and the
        total. A map whose cells are all ignored gives exactly 0, and still a graph.

    Source: Brazil et al., Illuminating Pedestrians via Simultaneous Detection & Segmentation,
    ICCV 2017.
    """
    losses = {name: _map_loss(logits[name], masks[name], pixel_reduction) for name in logits}
    total = torch.stack([loss * weights[name] for name, loss in losses.items()]).sum()
    return losses, total / len(losses) if map_reduction == "mean" else total


def _map_loss(logits: Tensor, mask: Tensor, pixel_reduction: Reduction) -> Tensor:
    """Compute the loss of one map; see ``segmentation_losses``.

    The cells are flattened because CUDA has no deterministic loss on (N, 2, rows, columns).
    """
    cells = logits.permute(0, 2, 3, 1).flatten(end_dim=2)
    loss = F.cross_entropy(cells, mask.flatten(), ignore_index=IGNORE_INDEX, reduction="sum")
    if pixel_reduction == "sum":
        return loss / len(mask)
    return loss / (mask != IGNORE_INDEX).sum().clamp(min=1)


class _Cover(NamedTuple):
    """The (G, rows) and (G, columns) that boxes cover, bool."""

    rows: Tensor
    columns: Tensor

    @classmethod
    def of(cls, boxes: Tensor, y: Tensor, x: Tensor) -> "_Cover":
        """Find what (G, 4) boxes cover of the cells whose centres lie at y and x."""
        return cls(_covered_stretch(boxes[:, 1::2], y), _covered_stretch(boxes[:, 0::2], x))

    def union(self, is_used: Tensor | None = None) -> Tensor:
        """Return (rows, columns) bool, True where any box, of (G,) used ones, covers the cell."""
        rows = self.rows if is_used is None else self.rows & is_used[:, None]
        # The product counts the boxes of each cell, which is quicker than any() over all pairs.
        return (rows.t().float() @ self.columns.float()) > 0


def _covered_stretch(ends: Tensor, points: Tensor) -> Tensor:
    """Return (G, cells) bool, which of the cells around points (G, 2) stretches cover."""
    low, high = ends[:, :1], ends[:, 1:]
    is_inside = (points >= low) & (points <= high)
    distance = (points - (low + high) / 2).abs()
    is_nearest = distance == distance.amin(dim=1, keepdim=True)
    return is_inside | is_nearest  # where points lie inside, the nearest is one of them


def _centred_iou(sizes: Tensor, shapes: Tensor) -> Tensor:
    """Return (G, a) IoU of boxes of (G, 2) sizes with (a, 2) shapes that share their centres."""
    overlap = torch.minimum(sizes[:, None], shapes).prod(dim=-1)
    return overlap / (sizes.prod(dim=-1)[:, None] + shapes.prod(dim=-1) - overlap)
