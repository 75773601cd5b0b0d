"""Builds any model by the name in ``MODEL.META_ARCHITECTURE``, d2pd's own among them."""

from typing import Any

import torch
from torch import Tensor, nn

from d2pd import d2
from d2pd.config_words import one_line
from d2pd.d2 import CfgNode
from d2pd.errors import ConfigError
from d2pd.modeling import ssd_seg, torchvision_fpn  # both register themselves
from d2pd.modeling.batch_detections import BatchDetections
from d2pd.modeling.rcnn_core import RCNNCore
from d2pd.modeling.ssd_core import SSDCore

RGB = ("red", "green", "blue")
SSD_SEG = ssd_seg.SSDSeg.__name__
TORCHVISION_FPN = torchvision_fpn.NAME
HEADS = {SSD_SEG: "SSD", "RetinaNet": "RETINANET"}
"""Group below MODEL that says which detections a model gives; of all others it is ROI_HEADS."""


class ListedCore(nn.Module):
    """The inference of a model that only Detectron2 has, asked image by image. Not for export.

    Args:
        model: Takes a list with a dict for each image.
        why: Why d2pd has no model of its own for it.
    """

    def __init__(self, model: nn.Module, why: str) -> None:
        super().__init__()
        self.model: Any = model
        self.why = why

    def forward(self, images: Tensor) -> BatchDetections:
        """Detect on (N, C, H, W) pixels.

        Raises:
            ConfigError: If the model gives something else than boxes.
        """
        answers = self.model([{"image": image} for image in images])
        if not all("instances" in answer for answer in answers):
            raise ConfigError(
                f"{type(self.model).__name__} detects no objects (it gives "
                f"{', '.join(answers[0])}): take a model that gives instances"
            )
        found = [answer["instances"] for answer in answers]
        counts = torch.tensor([len(instances) for instances in found], device=images.device)
        room = int(counts.max())
        scores = torch.zeros(len(found), room, device=images.device)
        boxes = scores.new_zeros(len(found), room, 4)
        classes = counts.new_full((len(found), room), -1)
        for index, instances in enumerate(found):
            rows = (index, slice(len(instances)))
            boxes[rows] = instances.pred_boxes.tensor.float()
            scores[rows], classes[rows] = instances.scores.float(), instances.pred_classes
        return BatchDetections(boxes, scores, classes, counts)


Core = RCNNCore | SSDCore | ListedCore


def build_model(cfg: CfgNode) -> nn.Module:
    """Build a model on ``MODEL.DEVICE``; no weights are loaded.

    Args:
        cfg: The whole configuration.

    Returns:
        The model. Its ``lwir_filters`` says which filters of a first layer for RGB images make up,
        as their mean, those for a thermal channel; see ``training.weights.first_layer``.

    Raises:
        ConfigError: If keys do not fit together, or there is no such model.
    """
    try:
        model = d2.build_model(cfg)
    except (KeyError, AssertionError) as error:  # so Detectron2 refuses what it does not know
        told = f"{type(error).__name__}: {one_line(error)}"
        raise ConfigError(
            f"the model cannot be built ({told[:200]}): check what the configuration has below "
            "MODEL"
        ) from error
    return _finished(model, cfg)


def build_detector(cfg: CfgNode) -> tuple[nn.Module, Core]:
    """Build a model to detect with, on ``MODEL.DEVICE``, the same under either engine.

    Returns:
        The model, in evaluation mode, that weights are loaded into; and its inference as one
        function of tensors. Where only Detectron2 has the model, that is a ``ListedCore``.

    Raises:
        ConfigError: If keys do not fit together, or there is no such model.
    """
    if cfg.MODEL.META_ARCHITECTURE == SSD_SEG:
        model = build_model(cfg).eval()
        return model, SSDCore(model).eval()
    try:
        model = _finished(d2.build_embedded_model(cfg), cfg).eval()
    except ConfigError as error:
        if d2.ENGINE == "embedded":
            raise
        model = build_model(cfg).eval()
        return model, ListedCore(model, one_line(error)).eval()
    return model, RCNNCore(model).eval()


def num_classes_of(cfg: CfgNode) -> int:
    """Return how many classes a model tells, without background."""
    count: int = cfg.MODEL[_head(cfg)].get("NUM_CLASSES", cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    return count


def score_floor_of(cfg: CfgNode) -> tuple[str, float]:
    """Return the score, in [0, 1], that detections of a model lie above, behind its key."""
    return f"MODEL.{_head(cfg)}.SCORE_THRESH_TEST", float(cfg.MODEL[_head(cfg)].SCORE_THRESH_TEST)


def _head(cfg: CfgNode) -> str:
    return HEADS.get(cfg.MODEL.META_ARCHITECTURE, "ROI_HEADS")


def _finished(model: nn.Module, cfg: CfgNode) -> nn.Module:
    """Give a model its ``lwir_filters``, and the layout that ``MODEL.CHANNELS_LAST`` asks for."""
    vars(model)["lwir_filters"] = lwir_filters(cfg.MODEL.BACKBONE.LWIR_FILTERS, cfg.INPUT.FORMAT)
    if cfg.MODEL.CHANNELS_LAST:
        to: Any = model.to
        to(memory_format=torch.channels_last)  # of the weights: convolutions pass it on
    return model


def lwir_filters(name: str, image_format: str) -> tuple[int, ...]:
    """Return the positions, 0 to 2, of the filters that ``MODEL.BACKBONE.LWIR_FILTERS`` names.

    Args:
        name: ``average``, ``red``, ``green`` or ``blue``.
        image_format: Order of the channels, ``RGB`` or ``BGR``: what the weights are for.
    """
    if name == "average":
        return (0, 1, 2)
    position = RGB.index(name)
    return (position if image_format == "RGB" else 2 - position,)
