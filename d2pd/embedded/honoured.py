"""Refuses configuration keys that would be read by Detectron2 and have no effect here."""

from typing import Any

from d2pd.embedded.defaults_tree import DEFAULTS
from d2pd.errors import ConfigError

# Each has to keep its default. What belongs to one of them (ROI_MASK_HEAD.* to MASK_ON) has no
# effect under Detectron2 either as long as its switch is off, so it may differ: Detectron2's base
# configs set the mask head for all their models.
SWITCHES: dict[str, tuple[str, ...]] = {
    "MODEL.LOAD_PROPOSALS": (),
    "MODEL.MASK_ON": ("MODEL.ROI_MASK_HEAD.",),
    "MODEL.KEYPOINT_ON": ("MODEL.ROI_KEYPOINT_HEAD.", "TEST.KEYPOINT_OKS_SIGMAS"),
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": (
        "MODEL.RESNETS.DEFORM_MODULATED",
        "MODEL.RESNETS.DEFORM_NUM_GROUPS",
    ),
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": ("MODEL.ROI_BOX_HEAD.FED_LOSS_",),
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": (),
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": (),
    "TEST.AUG.ENABLED": ("TEST.AUG.",),
    "TEST.PRECISE_BN.ENABLED": ("TEST.PRECISE_BN.",),
    "VIS_PERIOD": (),
    "GLOBAL.HACK": (),
}

# Read only by a component that another name chooses. Those not built in fail where they are looked
# up; all have no effect under Detectron2 either unless chosen.
OF_OTHER_COMPONENTS = (
    "MODEL.ANCHOR_GENERATOR.ANGLES",
    "MODEL.ROI_BOX_CASCADE_HEAD.",
    "MODEL.SEM_SEG_HEAD.",
    "MODEL.PANOPTIC_FPN.",
    "MODEL.RETINANET.",
)


def leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten a tree of keys to dotted names, in the tree's order."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat.update(leaves(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def unhonoured_keys(cfg: Any) -> list[str]:
    """Return the keys that differ from their default and have no effect in this engine."""
    given, defaults = leaves(cfg), leaves(DEFAULTS)
    return [key for key in SWITCHES if key in given and not _same(given[key], defaults[key])]


def check_honoured(cfg: Any) -> None:
    """Refuse a config that asks for more than this engine does.

    Raises:
        ConfigError: If a key was changed that is not honoured; names all of them.
    """
    keys = unhonoured_keys(cfg)
    if keys:
        given, defaults = leaves(cfg), leaves(DEFAULTS)
        listed = ", ".join(f"{key} {given[key]!r} (default {defaults[key]!r})" for key in keys)
        raise ConfigError(
            f"the embedded engine does not do {listed}: put back the default, or install "
            "Detectron2 and set D2PD_ENGINE=detectron2"
        )


def _same(value: Any, default: Any) -> bool:
    # A merge keeps tuples and lists apart only loosely.
    if isinstance(value, list | tuple) and isinstance(default, list | tuple):
        return list(value) == list(default)
    return bool(value == default)
