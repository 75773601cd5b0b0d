"""Copies the weights of a file into a model, and says what happened to each."""

import logging
from collections import OrderedDict

from torch import Tensor, nn

from d2pd.training.weights.matching import Match, WeightsFile, match_weights

logger = logging.getLogger(__name__)


def load_weights(model: nn.Module, file: WeightsFile) -> Match:
    """Copy the weights that fit into a model, and log what starts anew and what is left over.

    Raises:
        WeightsError: If the file does not fit the model; nothing is then changed.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    match = match_weights(file.state, shapes, source=str(file.path))
    chosen = OrderedDict((name, file.state[found]) for name, found in match.loaded.items())
    if file.versions:
        chosen._metadata = OrderedDict(file.versions)  # type: ignore[attr-defined]
    model.load_state_dict(chosen, strict=False)
    _log_match(match, file)
    _warn_of_pixels(model, file)
    return match


def _log_match(match: Match, file: WeightsFile) -> None:
    part = match.scope.rstrip(".") or "the model"
    logger.info(
        "Loaded %s (%s): %.0f%% of the parameters of %s",
        *(file.path, file.origin, 100 * match.matched_fraction, part),
    )
    if match.scope:
        logger.info("Everything outside %s starts anew", part)
    if match.renewed:
        named = ", ".join(str(entry) for entry in match.renewed)
        logger.warning("These start anew, as their shape is another one: %s", named)
    if match.missing:
        logger.warning("These are not in %s: %s", file.path.name, ", ".join(match.missing))
    if match.unused:
        logger.info("The model has no place for: %s", ", ".join(match.unused))


def _warn_of_pixels(model: nn.Module, file: WeightsFile) -> None:
    std = getattr(model, "pixel_std", None)
    if "torchvision" in file.origin and isinstance(std, Tensor) and bool((std == 1).all()):
        logger.warning(
            "%s was trained on RGB pixels scaled by their deviation: set INPUT.FORMAT RGB, "
            "MODEL.PIXEL_MEAN [123.675,116.28,103.53], MODEL.PIXEL_STD [58.395,57.12,57.375] and "
            "MODEL.RESNETS.STRIDE_IN_1X1 False",
            file.path.name,
        )
