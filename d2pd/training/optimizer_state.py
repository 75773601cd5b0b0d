"""Matches the state of an optimizer by the names of its parameters.

torch numbers the parameters: a model that registers its modules in another order gets another
parameter's momentum, and where the shapes agree nobody is told.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from d2pd.errors import WeightsError

logger = logging.getLogger(__name__)

NAMES = "param_names"  # torch's own key for them
Group = dict[str, Any]


def track_parameter_names(optimizer: Optimizer, model: nn.Module) -> None:
    """Make an optimizer save its parameters' names, and load its state by them.

    From then on ``optimizer.state_dict()`` has the names under ``param_names`` of each group, which
    other readers ignore, and ``optimizer.load_state_dict`` finds each parameter's state by its
    name. A state without names (of Detectron2) is taken in its order, if all shapes agree.

    Args:
        optimizer: Of parameters of ``model`` only.
        model: Its names are those of ``model.named_parameters()``.

    Raises:
        ValueError: If the optimizer has a parameter that is not the model's.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        if any(id(parameter) not in names for parameter in group["params"]):
            raise ValueError("the optimizer has a parameter that is not in the model")
        group[NAMES] = [names[id(parameter)] for parameter in group["params"]]
    optimizer.register_load_state_dict_pre_hook(_by_name)


def _by_name(optimizer: Optimizer, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Put a saved state into the order of the optimizer's own parameters."""
    groups: list[Group] = optimizer.param_groups
    saved_groups: list[Group] = saved["param_groups"]
    if not all(NAMES in group for group in saved_groups):
        return _by_position(groups, saved)
    _check_names(groups, saved_groups)
    number = {
        name: index
        for group in saved_groups
        for name, index in zip(group[NAMES], group["params"], strict=True)
    }
    state: dict[int, Any] = {}
    ordered: list[Group] = []
    for position, group in enumerate(groups):
        source = _group_with(group[NAMES], saved_groups, position)
        start = sum(len(earlier["params"]) for earlier in ordered)
        indices = list(range(start, start + len(group["params"])))
        for index, name, parameter in zip(indices, group[NAMES], group["params"], strict=True):
            if number[name] in saved["state"]:
                state[index] = saved["state"][number[name]]
                _check_shapes(name, parameter, state[index])
        ordered.append({**source, "params": indices, NAMES: list(group[NAMES])})
    return {**saved, "state": state, "param_groups": ordered}


def _check_names(groups: Sequence[Group], saved_groups: Sequence[Group]) -> None:
    ours = {name for group in groups for name in group[NAMES]}
    theirs = {name for group in saved_groups for name in group[NAMES]}
    if ours != theirs:
        only_ours, only_theirs = sorted(ours - theirs), sorted(theirs - ours)
        differences = [
            f"{len(names)} {what} ({', '.join(names[:3])})"
            for names, what in (
                (only_ours, "learnt now and not then"),
                (only_theirs, "learnt then and not now"),
            )
            if names
        ]
        raise WeightsError(
            f"the checkpoint's optimizer had other parameters: {'; '.join(differences)}. Resume "
            "with the configuration of the run, or start a new run from its weights"
        )


def _group_with(names: Sequence[str], saved_groups: Sequence[Group], position: int) -> Group:
    """Find the saved group of exactly these parameters.

    A schedule keeps one base rate per position, so a group may have moved only to a position of
    the same base rate.
    """
    found = next((group for group in saved_groups if set(group[NAMES]) == set(names)), None)
    if found is None or found.get("initial_lr") != saved_groups[position].get("initial_lr"):
        raise WeightsError(
            "the checkpoint's optimizer had other parameter groups (SOLVER.WEIGHT_DECAY_NORM, "
            "WEIGHT_DECAY_BIAS or BIAS_LR_FACTOR has changed): resume with the configuration of "
            "the run, or start a new run from its weights"
        )
    return found


def _check_shapes(name: str, parameter: Tensor, state: Mapping[str, Any]) -> None:
    for key, value in state.items():
        # Adam's step is one number, whatever the parameter's shape.
        if isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape:
            raise WeightsError(
                f"the checkpoint's optimizer has {key} of shape {tuple(value.shape)} for {name}, "
                f"whose shape is {tuple(parameter.shape)}: it is of another model"
            )


def _by_position(groups: Sequence[Group], saved: Mapping[str, Any]) -> dict[str, Any]:
    sizes = [len(group["params"]) for group in groups]
    saved_sizes = [len(group["params"]) for group in saved["param_groups"]]
    if sizes != saved_sizes:
        raise WeightsError(
            f"the checkpoint's optimizer has groups of {saved_sizes} parameters, this one of "
            f"{sizes}, and no names to match them by: start a new run from its weights"
        )
    for group, saved_group in zip(groups, saved["param_groups"], strict=True):
        triples = zip(group[NAMES], group["params"], saved_group["params"], strict=True)
        for name, parameter, index in triples:
            _check_shapes(name, parameter, saved["state"].get(index, {}))
    logger.warning(
        "the checkpoint's optimizer has no parameter names (Detectron2 stores none): its state is "
        "taken in the order of the parameters, whose shapes agree"
    )
    return dict(saved)
