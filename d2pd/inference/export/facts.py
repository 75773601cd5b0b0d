"""What a program must know to use an exported file; it is stored inside."""

import json
from collections.abc import Mapping
from typing import Any

from d2pd import __version__
from d2pd.d2 import CfgNode
from d2pd.inference.predictor import Predictor

OUTPUTS = (
    "boxes (N, D, 4) float32: x1, y1, x2, y2 in px of the input (times picture size / input size "
    "they are in px of the picture), best first; scores (N, D) "
    "float32; classes (N, D) int64, positions in class_names; counts (N,) int64: rows of each "
    "image that hold a detection, the others are 0, class -1"
)

INTERPOLATION = (
    "bilinear with antialiasing, as Pillow's Image.BILINEAR and torchvision's resize; OpenCV's "
    "INTER_LINEAR is another where pictures become smaller, and costs detections"
)

COLOURS = {"R": "red", "G": "green", "B": "blue"}


def facts_of(predictor: Predictor, facts: Mapping[str, Any]) -> dict[str, str]:
    """Describe input, output and origin of a model, as text by name.

    Args:
        predictor: The model.
        facts: What its checkpoint holds beside the weights.
    """
    cfg = predictor.cfg
    metric = facts.get("metric")
    return {
        "made_by": f"d2pd {__version__}",
        "architecture": cfg.MODEL.META_ARCHITECTURE,
        "class_names": json.dumps(list(predictor.class_names)),
        "modality": cfg.INPUT.MODALITY,
        "input": f"images (N, {predictor.channels.total}, H, W) uint8: {_channels(predictor)}",
        "resize": json.dumps(_resize(cfg)),
        "interpolation": INTERPOLATION,
        "output": OUTPUTS,
        "score_floor": str(predictor.score_floor),
        "iteration": str(facts.get("iteration", "unknown")),
        "metric": json.dumps(metric) if isinstance(metric, Mapping) else "",
    }


def _channels(predictor: Predictor) -> str:
    """Say what the channels of the input are."""
    channels = predictor.channels
    parts = []
    if channels.visible:
        names = [COLOURS[letter] for letter in predictor.cfg.INPUT.FORMAT]
        parts.append(f"{', '.join(names)} of the visible picture")
    if channels.lwir:
        equal = "the thermal picture" if channels.lwir == 1 else "the thermal picture, three times"
        parts.append(equal)
    return ", then ".join(parts)


def _resize(cfg: CfgNode) -> dict[str, Any]:
    """Say what size pictures are given before."""
    if len(cfg.INPUT.FIXED_SIZE):
        height, width = cfg.INPUT.FIXED_SIZE
        return {"height": height, "width": width}
    edges = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    return dict(zip(("shortest_edge", "longest_edge_at_most"), edges, strict=True))
