"""Copies the weights of a file into a model, and says what happened to each."""

import logging
from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from d2pd.training.weights.first_layer import AVERAGE, adapt_filters
from d2pd.training.weights.matching import Match, WeightsFile, match_weights

logger = logging.getLogger(__name__)


def load_weights(model: nn.Module, file: WeightsFile) -> Match:
    """Copy the weights that fit into a model, and log what starts anew and what is left over.

    A first layer for RGB images is made into one for the channels of the model. Its
    ``lwir_filters``, where it has any, say how; see ``adapt_filters``.

    Raises:
        WeightsError: If the file does not fit the model; nothing is then changed.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    state = file.state_for(shapes)
    match = match_weights(state, shapes, source=str(file.path))
    chosen = OrderedDict((name, state[found]) for name, found in match.loaded.items())
    lwir_filters = getattr(model, "lwir_filters", AVERAGE)
    for one in match.adapted:
        chosen[one.name] = adapt_filters(chosen[one.name], one.model_shape[1], lwir_filters)
    if file.versions:
        chosen._metadata = OrderedDict(file.versions)  # type: ignore[attr-defined]
    model.load_state_dict(chosen, strict=False)
    _log_match(match, file)
    _log_adapted(match, lwir_filters)
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


def _log_adapted(match: Match, lwir_filters: Sequence[int]) -> None:
    if match.adapted:
        named = ", ".join(str(one) for one in match.adapted)
        chosen = "the average" if len(lwir_filters) > 1 else f"number {lwir_filters[0] + 1}"
        logger.info(
            "Filters for thermal channels are %s of the file's three (MODEL.BACKBONE."
            "LWIR_FILTERS), those for visible ones the file's: %s",
            *(chosen, named),
        )


def _warn_of_pixels(model: nn.Module, file: WeightsFile) -> None:
    std = getattr(model, "pixel_std", None)
    if "torchvision" in file.origin and isinstance(std, Tensor) and bool((std == 1).all()):
        has_stride = any(name.endswith("stem.conv1.weight") for name in model.state_dict())
        stride = ", MODEL.RESNETS.STRIDE_IN_1X1 False" if has_stride else ""
        logger.warning(
            "%s was trained on RGB pixels scaled by their deviation: set INPUT.FORMAT RGB, "
            "MODEL.PIXEL_MEAN [123.675,116.28,103.53], MODEL.PIXEL_STD [58.395,57.12,57.375]%s",
            *(file.path.name, stride),
        )
