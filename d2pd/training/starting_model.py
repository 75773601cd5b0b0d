"""The model that a run starts with, and whether its weights are its own."""

import torch

from d2pd.d2 import CfgNode
from d2pd.errors import ConfigError, MissingFileError, UserError
from d2pd.modeling.build import SSD_SEG, TORCHVISION_FPN, build_detector, build_model
from d2pd.training.weights.matching import (
    Match,
    WeightsFile,
    match_weights,
    read_weights,
    resolve_weights,
)


def check_model(cfg: CfgNode, file: WeightsFile | None, eval_only: bool) -> None:
    """Build the model once, and see that the weights are its own, before anything is written."""
    trial = cfg.clone()
    trial.MODEL.DEVICE = "cpu"
    shapes = {name: tuple(tensor.shape) for name, tensor in build_model(trial).state_dict().items()}
    if file is not None:
        match = match_weights(file.state_for(shapes), shapes, source=str(file.path))
        if eval_only:
            check_whole(match, file)


def check_fit(cfg: CfgNode, file: WeightsFile) -> None:
    """See that weights are all that a model detects with, before it takes any memory.

    A configuration that comes with a stranger's weights may describe a model of any size.

    Raises:
        ConfigError: If there is no such model, or the file lacks a part of it.
        WeightsError: If the weights are of another model.
    """
    trial = cfg.clone()
    trial.defrost()
    trial.MODEL.DEVICE = "meta"
    try:
        with torch.device("meta"):
            state = build_detector(trial)[0].state_dict()
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise ConfigError(
            f"{file.path}: the model of its configuration cannot be built ({error}): give the one "
            "it was trained with"
        ) from error
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    check_whole(match_weights(file.state_for(shapes), shapes, source=str(file.path)), file)


def check_whole(match: Match, file: WeightsFile) -> None:
    """Refuse to detect with a model of which a part would keep its random values.

    Raises:
        ConfigError: Naming what the file lacks.
    """
    random = [str(one) for one in match.renewed] + match.missing
    random = [name for name in random if not name.startswith("seg_heads.")]  # of training alone
    if random or match.scope:
        told = ", ".join(random[:3]) or f"all but {match.scope.rstrip('.')}"
        raise ConfigError(
            f"{file.path} lacks what this model detects with ({told}), which would "
            "keep random values: give the configuration it was trained with (config.yaml in its "
            "folder), or weights of this model"
        )


def starting_weights(cfg: CfgNode, eval_only: bool) -> WeightsFile | None:
    """Read what a run that does not go on starts from; None where that is nothing."""
    if cfg.MODEL.WEIGHTS:
        path = resolve_weights(cfg.MODEL.WEIGHTS)
        cfg.MODEL.WEIGHTS = str(path)
        return read_weights(path)
    if eval_only:
        raise MissingFileError(
            "--eval-only needs a trained model: MODEL.WEIGHTS PATH, or --resume for the newest "
            f"checkpoint in {cfg.OUTPUT_DIR}"
        )
    check_scratch(cfg)
    return None


def check_scratch(cfg: CfgNode) -> None:
    """Refuse a training from random weights that keeps some of them random for good."""
    cures = []
    is_ssd = cfg.MODEL.META_ARCHITECTURE == SSD_SEG
    is_torchvision = cfg.MODEL.BACKBONE.NAME == TORCHVISION_FPN
    if cfg.MODEL.BACKBONE.FREEZE_AT > 0:
        cures.append("MODEL.BACKBONE.FREEZE_AT 0")
    if is_torchvision and cfg.MODEL.TORCHVISION.FREEZE_NORM:
        cures.append("MODEL.TORCHVISION.FREEZE_NORM False")
    if "FrozenBN" in cfg.MODEL.RESNETS.NORM and not is_ssd and not is_torchvision:
        cures.append("MODEL.RESNETS.NORM BN (or GN)")
    if cures:
        is_resnet = not is_ssd and not is_torchvision
        example = ", as the *_scratch.yaml configs do" if is_resnet else ""
        raise ConfigError(
            "MODEL.WEIGHTS is empty, and frozen layers would keep their random values: set "
            f"{' and '.join(cures)}{example}, or "
            "give MODEL.WEIGHTS"
        )
