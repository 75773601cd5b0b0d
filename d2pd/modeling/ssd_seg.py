"""SSD with segmentation infusion as a meta-architecture: Detectron2's contract over pure parts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from d2pd.d2 import (
    META_ARCH_REGISTRY,
    Boxes,
    CfgNode,
    ImageList,
    Instances,
    comm,
    detector_postprocess,
    get_event_storage,
)
from d2pd.errors import ConfigError
from d2pd.modeling.anchors import centres
from d2pd.modeling.losses import multibox_loss
from d2pd.modeling.network import Predictions, map_sizes
from d2pd.modeling.post_processing import detect
from d2pd.modeling.segmentation import segmentation_losses
from d2pd.modeling.ssd_core import laid_anchors
from d2pd.modeling.ssd_parts import (
    build_anchor_shapes,
    build_mask_painter,
    build_network,
    build_seg_heads,
    read_detection_options,
    read_extra_layers,
    read_iou_threshold,
    read_map_weights,
)
from d2pd.modeling.targets import Labels, anchor_targets

Sample = dict[str, Any]
Size = tuple[int, int]


@META_ARCH_REGISTRY.register()
class SSDSeg(nn.Module):
    """Single-shot detection on an ``SSDNetwork``; in training, also masks on some of its maps.

    It takes a list with a dict for each image: ``image``, (C, H, W) uint8 or float in the range
    and channel order that ``MODEL.PIXEL_MEAN`` is for, visible channels first; in training
    ``instances`` with ``gt_boxes`` (pixels of ``image``, with area) and ``gt_classes`` (0 to
    K - 1), and optionally ``ignore_boxes`` (M, 4), regions that are neither reward nor penalty; in
    inference optionally ``height`` and ``width``, the size that detections are scaled to.

    In training it returns a dict of losses: ``loss_cls``, ``loss_box_reg``, and ``loss_seg`` where
    a map has a segmentation layer; that of each map goes to the open event storage. In inference it
    returns a list with ``{"instances": Instances}`` for each image: ``pred_boxes``, ``scores``,
    ``pred_classes``, best first; segmentation has no part in it.

    Args:
        cfg: The whole configuration.

    Attributes:
        network: What inference needs, and all that is exported.
        seg_heads: Segmentation layers by the names of their maps.
        has_peers: Positives are counted over all processes of a training. False where the others
            take no part in a forward pass, see ``training.isolation``.

    Raises:
        ConfigError: If keys do not fit together.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.anchor_shapes = build_anchor_shapes(cfg)
        self.extra_layers = read_extra_layers(cfg)
        self.network = build_network(cfg, self.anchor_shapes)
        self.painter = build_mask_painter(cfg, self.anchor_shapes)
        names = self.painter.layer_names
        self.seg_heads = nn.ModuleDict(build_seg_heads(cfg, self.network, names))
        self.map_weights = read_map_weights(cfg, names)
        self.detection = read_detection_options(cfg)
        self.iou_threshold = read_iou_threshold(cfg)
        self.negative_ratio: float = cfg.MODEL.SSD.NEGATIVE_RATIO
        self.smooth_l1_beta: float = cfg.MODEL.SSD.SMOOTH_L1_BETA
        self.box_loss_weight: float = cfg.MODEL.SSD.BBOX_REG_LOSS_WEIGHT
        self.pixel_reduction = cfg.MODEL.SSD.SEG.PIXEL_REDUCTION
        self.map_reduction = cfg.MODEL.SSD.SEG.MAP_REDUCTION
        self.has_peers = True
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        for name in ("pixel_mean", "pixel_std"):
            values = torch.tensor(cfg.MODEL[name.upper()], dtype=torch.float32)
            self.register_buffer(name, values.view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model lies, and images are moved to."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[Sample]) -> Any:
        """Losses in training, detections in inference; see the class.

        Raises:
            ValueError: If labels are missing in training.
            ConfigError: If the images are too small for the maps.
        """
        if not self.training:
            return self.inference(batched_inputs)
        if "instances" not in batched_inputs[0]:
            raise ValueError("Training needs 'instances' with labels in every input.")
        images = self.preprocess_image(batched_inputs)
        map_sizes = self.map_sizes(_size(images.tensor))
        predictions = self.network(images.tensor)
        logits = self._seg_logits(predictions.features)
        labels = [_labels(sample, self.device) for sample in batched_inputs]
        with torch.autocast(self.device.type, enabled=False):
            losses = self._multibox_losses(predictions, labels, self._anchors(images, map_sizes))
            if logits:
                masks = self._masks(images, map_sizes, labels)
                losses["loss_seg"] = self._segmentation_loss(logits, masks)
        return losses

    def inference(
        self, batched_inputs: list[Sample], do_postprocess: bool = True
    ) -> list[dict[str, Instances]] | list[Instances]:
        """Detect, whatever the labels.

        Args:
            batched_inputs: See the class.
            do_postprocess: Scale detections to ``height`` and ``width`` of the inputs; otherwise
                return bare ``Instances`` in the network's coordinates.

        Raises:
            ConfigError: If the images are too small for the maps.
        """
        images = self.preprocess_image(batched_inputs)
        anchors = self._anchors(images, self.map_sizes(_size(images.tensor)))
        predictions = self.network(images.tensor)
        logits, deltas = predictions.cls_logits.float(), predictions.box_deltas.float()
        found = [
            self._detections(logits[i : i + 1], deltas[i : i + 1], anchors, size)
            for i, size in enumerate(images.image_sizes)
        ]
        if not do_postprocess:
            return found
        return [
            {"instances": _scaled(instances, sample)}
            for instances, sample in zip(found, batched_inputs, strict=True)
        ]

    @torch.no_grad()
    def heat_maps(self, batched_inputs: list[Sample]) -> list[dict[str, Tensor]]:
        """Show what the segmentation layers see, for a picture; the model is in evaluation mode.

        Args:
            batched_inputs: See the class; only ``image`` counts.

        Returns:
            For each image, by map name, (rows, columns) float32 probability of a person; the map
            without the part that lies beyond the image in its batch.

        Raises:
            ConfigError: If no map has a segmentation layer, or the images are too small.
        """
        if not self.seg_heads:
            raise ConfigError(
                "no map has a segmentation layer, so that there is no heat map: this model was "
                "built with MODEL.SSD.SEG.MAPS [] or without a True in it"
            )
        images = self.preprocess_image(batched_inputs)
        batch_size = _size(images.tensor)
        self.map_sizes(batch_size)
        logits = self._seg_logits(self.network(images.tensor).features)
        of_batch = {name: each.float().softmax(dim=1)[:, 1] for name, each in logits.items()}
        return [
            {name: _of_image(maps[i], size, batch_size) for name, maps in of_batch.items()}
            for i, size in enumerate(images.image_sizes)
        ]

    def map_sizes(self, image_size: Size) -> list[Size]:
        """Return (rows, columns) of every map.

        Args:
            image_size: (height, width) of the network input, px.

        Raises:
            ConfigError: If nothing is left of a map.
        """
        return map_sizes(image_size, self.extra_layers)

    def preprocess_image(self, batched_inputs: list[Sample]) -> ImageList:
        """Normalise the images and pad them to one batch on the model's device."""
        images = [sample["image"].to(self.device, non_blocking=True) for sample in batched_inputs]
        return ImageList.from_tensors(
            [(image - self.pixel_mean) / self.pixel_std for image in images]
        )

    def _anchors(self, images: ImageList, map_sizes: Sequence[Size]) -> Tensor:
        return laid_anchors(self.anchor_shapes, tuple(map_sizes), _size(images.tensor), self.device)

    def _multibox_losses(
        self, predictions: Predictions, labels: Sequence[Labels], anchors: Tensor
    ) -> dict[str, Tensor]:
        weights = self.detection.bbox_reg_weights
        of_images = [anchor_targets(anchors, each, self.iou_threshold, weights) for each in labels]
        target_deltas = torch.cat([deltas for _, deltas in of_images])
        loss_cls, loss_box_reg = multibox_loss(
            predictions.cls_logits.float(),
            predictions.box_deltas.float(),
            torch.stack([classes for classes, _ in of_images]),
            target_deltas,
            num_positives=self._mean_over_processes(len(target_deltas)),
            negative_ratio=self.negative_ratio,
            smooth_l1_beta=self.smooth_l1_beta,
        )
        return {"loss_cls": loss_cls, "loss_box_reg": loss_box_reg * self.box_loss_weight}

    def _mean_over_processes(self, count: int) -> float:
        """Return the mean of a count, at least 1: all processes divide by the same number."""
        if self.has_peers and comm.get_world_size() > 1:
            total = torch.tensor(float(count), device=self.device)
            dist.all_reduce(total)
            return max(1.0, total.item() / comm.get_world_size())
        return max(1.0, float(count))

    def _seg_logits(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        by_name = dict(zip(self.network.map_channels, features, strict=True))
        return {name: head(by_name[name]) for name, head in self.seg_heads.items()}

    def _masks(
        self,
        images: ImageList,
        map_sizes: Sequence[Size],
        labels: Sequence[Labels],
    ) -> dict[str, Tensor]:
        batch_size = _size(images.tensor)
        of_images = [
            self.painter.masks(size, batch_size, map_sizes, each.boxes, each.ignore_boxes)
            for size, each in zip(images.image_sizes, labels, strict=True)
        ]
        return {name: torch.stack([each[name] for each in of_images]) for name in self.seg_heads}

    def _segmentation_loss(
        self, logits: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> Tensor:
        of_maps, total = segmentation_losses(
            {name: each.float() for name, each in logits.items()},
            masks,
            self.pixel_reduction,
            self.map_reduction,
            self.map_weights,
        )
        storage = get_event_storage()
        # Together: on a GPU each look at a number waits for all that came before.
        values = torch.stack(list(of_maps.values())).detach().tolist()
        for name, value in zip(of_maps, values, strict=True):
            if math.isfinite(value):  # else the step is refused, and medians keep their numbers
                storage.put_scalar(f"loss_seg/{name}", value)
        return total

    def _detections(
        self, cls_logits: Tensor, box_deltas: Tensor, anchors: Tensor, image_size: Size
    ) -> Instances:
        of_batch = detect(cls_logits, box_deltas, anchors, image_size, self.detection)
        boxes, scores, classes = of_batch.of_image(0)
        found = Instances(image_size)
        found.pred_boxes = Boxes(boxes)
        found.scores = scores
        found.pred_classes = classes
        return found


def _size(images: Tensor) -> Size:
    return (images.shape[-2], images.shape[-1])


def _labels(sample: Sample, device: torch.device) -> Labels:
    instances = sample["instances"]
    boxes = instances.gt_boxes.tensor.to(device, torch.float32)
    regions = sample.get("ignore_boxes", boxes.new_zeros(0, 4)).to(device, torch.float32)
    return Labels(boxes, instances.gt_classes.to(device), regions)


def _scaled(instances: Instances, sample: Sample) -> Instances:
    height, width = instances.image_size
    return detector_postprocess(instances, sample.get("height", height), sample.get("width", width))


def _of_image(of_batch: Tensor, image_size: Size, batch_size: Size) -> Tensor:
    """Cut a map (rows, columns) down to the cells whose centres lie in the image."""
    rows, columns = (
        max(1, int((centres(cells, side) < length).sum()))
        for cells, side, length in zip(of_batch.shape, batch_size, image_size, strict=True)
    )
    return of_batch[:rows, :columns]
