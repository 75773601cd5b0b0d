"""Matches the state of an optimizer by the names of its parameters.

torch numbers the parameters: a model that registers its modules in another order gets another
parameter's momentum, and where the shapes agree nobody is told.

From a file come the momenta, Adam's moments and the steps. Rates, weight decay, momentum and the
like are the configuration's, so that a run can be resumed with others; of an unchanged
configuration they are the same bits.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from d2pd.errors import WeightsError

logger = logging.getLogger(__name__)

NAMES = "param_names"  # torch's own key for them
Group = dict[str, Any]
_OF_ADAM = {"step", "exp_avg", "exp_avg_sq"}
_KEPT: dict[type[Optimizer], set[str]] = {SGD: {"momentum_buffer"}, Adam: _OF_ADAM, AdamW: _OF_ADAM}
"""What each kind of optimizer keeps of a parameter."""


def track_parameter_names(optimizer: Optimizer, model: nn.Module) -> None:
    """Make an optimizer save its parameters' names, and load its state by them.

    From then on ``optimizer.state_dict()`` has the names under ``param_names`` of each group, which
    other readers ignore, and ``optimizer.load_state_dict`` finds each parameter's state by its
    name, however the parameters are grouped. A state without names (of Detectron2) is taken in its
    order, if all shapes agree. The groups keep their options, but for the current rate ``lr``; see
    ``apply_configured_rates``.

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


def apply_configured_rates(optimizer: Optimizer, scheduler: LRScheduler) -> None:
    """Set every rate to what the configured schedule says of the iteration that was loaded.

    To be called once the states of both are loaded: the file's schedule brings the rates that the
    run began with.

    Args:
        optimizer: Its groups hold the rates that they were built with under ``initial_lr``.
        scheduler: One whose rate depends on the base rates and the iteration alone.
    """
    scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
    rates = scheduler.get_lr()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = list(rates)


def _by_name(optimizer: Optimizer, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Put a saved state into the order of the optimizer's own parameters."""
    groups: list[Group] = optimizer.param_groups
    saved_groups: list[Group] = saved["param_groups"]
    if not all(NAMES in group for group in saved_groups):
        return _by_position(optimizer, saved)
    _check_names(groups, saved_groups)
    number: dict[str, int] = {}
    rates: dict[str, Any] = {}
    for group in saved_groups:
        number.update(zip(group[NAMES], group["params"], strict=True))
        rates.update(dict.fromkeys(group[NAMES], group.get("lr")))
    state: dict[int, Any] = {}
    ordered: list[Group] = []
    for group in groups:
        start = sum(len(earlier["params"]) for earlier in ordered)
        indices = list(range(start, start + len(group["params"])))
        for index, name, parameter in zip(indices, group[NAMES], group["params"], strict=True):
            if number[name] in saved["state"]:
                state[index] = saved["state"][number[name]]
                _check_state(optimizer, name, parameter, state[index])
        rate = rates[group[NAMES][0]] if group[NAMES] else None
        ordered.append(_with_own_options(group, indices, rate))
    return {**saved, "state": state, "param_groups": ordered}


def _with_own_options(group: Group, indices: list[int], rate: Any) -> Group:
    """Return a group as a file would hold it, with the options that it was built with."""
    own = {**group, "params": indices}
    return {**own, "lr": rate} if isinstance(rate, float | int) else own


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


def _check_state(
    optimizer: Optimizer, name: str, parameter: Tensor, state: Mapping[str, Any]
) -> None:
    """Refuse what the first step would stumble over."""
    kept = _KEPT.get(type(optimizer))
    if state and kept is not None and set(state) != kept:
        raise WeightsError(
            f"the checkpoint's optimizer keeps {', '.join(map(str, state))} of {name}, and "
            f"{type(optimizer).__name__} keeps {', '.join(sorted(kept))}: resume with the "
            "SOLVER.OPTIMIZER of the run, or start a new run from its weights"
        )
    for key, value in state.items():
        # Adam's step is one number, whatever the parameter's shape; no momentum yet is None.
        if key == "step" or value is None:
            continue
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if shape != tuple(parameter.shape):
            raise WeightsError(
                f"the checkpoint's optimizer has {key} of shape {shape} for {name}, whose shape is "
                f"{tuple(parameter.shape)}: it is of another model"
            )


def _by_position(optimizer: Optimizer, saved: Mapping[str, Any]) -> dict[str, Any]:
    groups: list[Group] = optimizer.param_groups
    sizes = [len(group["params"]) for group in groups]
    saved_sizes = [len(group["params"]) for group in saved["param_groups"]]
    if sizes != saved_sizes:
        raise WeightsError(
            f"the checkpoint's optimizer has groups of {saved_sizes} parameters, this one of "
            f"{sizes}, and no names to match them by: start a new run from its weights"
        )
    ordered: list[Group] = []
    for group, saved_group in zip(groups, saved["param_groups"], strict=True):
        triples = zip(group[NAMES], group["params"], saved_group["params"], strict=True)
        for name, parameter, index in triples:
            _check_state(optimizer, name, parameter, saved["state"].get(index, {}))
        ordered.append(_with_own_options(group, saved_group["params"], saved_group.get("lr")))
    logger.warning(
        "the checkpoint's optimizer has no parameter names (Detectron2 stores none): its state is "
        "taken in the order of the parameters, whose shapes agree"
    )
    return {**saved, "param_groups": ordered}
