"""Builds the parts of SSDSeg that a configuration describes, and says what does not fit."""

from collections.abc import Sequence
from typing import Any

from d2pd.d2 import CfgNode
from d2pd.data.modality import channels_of
from d2pd.errors import ConfigError
from d2pd.modeling.anchors import KEYS, AnchorShapes
from d2pd.modeling.backbones import vgg_plan
from d2pd.modeling.heads import make_seg_head
from d2pd.modeling.network import ExtraLayer, SSDNetwork, map_names
from d2pd.modeling.post_processing import DetectionOptions
from d2pd.modeling.segmentation import MaskPainter
from d2pd.sync_batch_norm import synchronised

MOST_CHANNELS = 16384
MOST_PADDING = 2
"""From 3 on a 3x3 convolution would read nothing but padding along the rim."""

MOST_WEIGHT = 1e6
"""Of a factor in a loss; far beyond it float32 has no room."""


def read_extra_layers(cfg: CfgNode) -> list[ExtraLayer]:
    """Read ``MODEL.SSD.EXTRA_LAYERS``.

    Raises:
        ConfigError: If an entry is not four whole numbers that make a layer.
    """
    layers = []
    for entry in cfg.MODEL.SSD.EXTRA_LAYERS:
        is_row = isinstance(entry, list | tuple) and len(entry) == 4
        if not is_row or not all(type(number) is int for number in entry):
            raise _no_layer(entry)
        layer = ExtraLayer(*entry)
        widths = (layer.squeezed, layer.channels)
        if min(*widths, layer.stride) < 1 or max(widths) > MOST_CHANNELS:
            raise _no_layer(entry)
        if not 0 <= layer.padding <= MOST_PADDING:
            raise _no_layer(entry)
        layers.append(layer)
    return layers


def _no_layer(entry: Any) -> ConfigError:
    return ConfigError(
        f"MODEL.SSD.EXTRA_LAYERS has {entry!r}, which is not [channels of the 1x1 convolution, "
        "channels of the 3x3 convolution, stride, padding], such as [256, 512, 2, 1]; channels are "
        f"at most {MOST_CHANNELS}, the padding {MOST_PADDING}"
    )


def build_anchor_shapes(cfg: CfgNode) -> AnchorShapes:
    """Read the anchors, a list for each map.

    Raises:
        ConfigError: If there is not a list for each map, or a number is not positive.
    """
    names = map_names(len(read_extra_layers(cfg)))
    generator = cfg.MODEL.ANCHOR_GENERATOR
    lists = (generator.SIZES, generator.ASPECT_RATIOS, cfg.MODEL.SSD.EXTRA_SQUARE_SIZES)
    for key, of_maps in zip(KEYS, lists, strict=True):
        if of_maps or key != KEYS[2]:
            _check_entries(key, of_maps, "list", names)
        if not all(isinstance(entry, list | tuple) for entry in of_maps):
            raise ConfigError(f"{key} must have a list for each map, got {list(of_maps)!r}")
    try:
        return AnchorShapes(*(tuple(tuple(entry) for entry in of_maps) for of_maps in lists))
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from None


def _check_entries(key: str, entries: Sequence[Any], what: str, names: Sequence[str]) -> None:
    if len(entries) != len(names):
        raise ConfigError(
            f"{key} has {len(entries)} {what}{'s' * (len(entries) != 1)}, but the network has "
            f"{len(names)} maps ({', '.join(names)}): give a {what} for each, or change "
            "MODEL.SSD.EXTRA_LAYERS"
        )


def build_network(cfg: CfgNode, anchor_shapes: AnchorShapes) -> SSDNetwork:
    """Build the network for the images of ``INPUT.MODALITY``.

    Raises:
        ConfigError: If there is no such backbone, or the modality has not so many channels.
    """
    channels = channels_of(cfg.INPUT.MODALITY, len(cfg.MODEL.PIXEL_MEAN))
    is_halfway = channels.visible and channels.lwir and cfg.MODEL.SSD.FUSION == "halfway"
    freeze_at = cfg.MODEL.BACKBONE.FREEZE_AT
    network = SSDNetwork(
        vgg_plan(cfg.MODEL.BACKBONE.NAME, freeze_at),
        channels=(channels.visible, channels.lwir) if is_halfway else (channels.total,),
        freeze_at=freeze_at,
        extra_layers=read_extra_layers(cfg),
        anchors_per_position=anchor_shapes.num_per_position,
        num_classes=cfg.MODEL.ROI_HEADS.NUM_CLASSES,
        l2_norm_scale=cfg.MODEL.SSD.L2_NORM_SCALE,
    )
    if cfg.MODEL.SSD.SYNC_BN:
        synchronised(network)
    return network


def build_mask_painter(cfg: CfgNode, anchor_shapes: AnchorShapes) -> MaskPainter:
    """Build what paints the masks of the maps that ``MODEL.SSD.SEG.MAPS`` flags.

    Raises:
        ConfigError: If there is not a flag, True or False, for each map.
    """
    seg = cfg.MODEL.SSD.SEG
    if not all(isinstance(flag, bool) for flag in seg.MAPS):
        raise ConfigError(
            f"MODEL.SSD.SEG.MAPS is {list(seg.MAPS)}; it holds True or False for each map"
        )
    return MaskPainter(
        anchor_shapes.of_maps,
        map_names(len(anchor_shapes.sizes) - 2),
        list(seg.MAPS),
        cfg.MODEL.SSD.IOU_THRESHOLD,
        seg.OTHER_SIZES,
    )


def build_seg_heads(cfg: CfgNode, network: SSDNetwork, names: Sequence[str]) -> dict[str, Any]:
    """Build the segmentation layers of these maps.

    Raises:
        ConfigError: If ``MODEL.SSD.SEG.KERNEL_SIZE`` is neither 1 nor 3.
    """
    size = cfg.MODEL.SSD.SEG.KERNEL_SIZE
    if size not in (1, 3):
        raise ConfigError(
            f"MODEL.SSD.SEG.KERNEL_SIZE is {size}; allowed: 1 (one 1x1 convolution), 3 (3x3, then "
            "1x1)"
        )
    return {name: make_seg_head(network.map_channels[name], size) for name in names}


def read_map_weights(cfg: CfgNode, names: Sequence[str]) -> dict[str, float]:
    """Read the factor on the loss of each map that has a segmentation layer; 1 by default.

    Raises:
        ConfigError: If there is not a factor of 0 or more for each of these maps.
    """
    weights = cfg.MODEL.SSD.SEG.MAP_WEIGHTS or [1.0] * len(names)
    if len(weights) != len(names):
        raise ConfigError(
            f"MODEL.SSD.SEG.MAP_WEIGHTS has {len(weights)} factors, but {len(names)} of "
            f"MODEL.SSD.SEG.MAPS are True ({', '.join(names) or 'none'}): give a factor for each "
            "of these, or []"
        )
    if not all(_is_factor(weight) for weight in weights):
        raise ConfigError(
            f"MODEL.SSD.SEG.MAP_WEIGHTS is {list(weights)}; a factor is a number of 0 or more"
        )
    return dict(zip(names, weights, strict=True))


def _is_factor(number: Any) -> bool:
    return type(number) in (int, float) and 0 <= number <= MOST_WEIGHT


def read_detection_options(cfg: CfgNode) -> DetectionOptions:
    """Read how detections are chosen.

    Raises:
        ConfigError: If a value is out of range.
    """
    ssd = cfg.MODEL.SSD
    weights = tuple(ssd.BBOX_REG_WEIGHTS)
    if len(weights) != 4 or not all(_is_factor(weight) and weight > 0 for weight in weights):
        raise ConfigError(
            f"MODEL.SSD.BBOX_REG_WEIGHTS is {weights}; give a positive factor for each of x, y, "
            "width and height"
        )
    return DetectionOptions(
        bbox_reg_weights=weights,
        score_threshold=ssd.SCORE_THRESH_TEST,
        topk_candidates=ssd.TOPK_CANDIDATES_TEST,
        nms_type=ssd.NMS_TYPE,
        nms_threshold=ssd.NMS_THRESH_TEST,
        soft_nms_sigma=ssd.SOFT_NMS_SIGMA,
        detections_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
    )


def read_iou_threshold(cfg: CfgNode) -> float:
    """Read the overlap from which an anchor learns a label.

    Raises:
        ConfigError: If it is not in (0, 1].
    """
    threshold: float = cfg.MODEL.SSD.IOU_THRESHOLD
    if not 0 < threshold <= 1:
        raise ConfigError(
            f"MODEL.SSD.IOU_THRESHOLD is {threshold}; it must be above 0 and at most 1"
        )
    return threshold
