"""What a checkpoint must hold for a training to go on from it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from d2pd.errors import WeightsError
from d2pd.training.checkpoints.optimizer_state import NAMES
from d2pd.training.checkpoints.plain_data import plain
from d2pd.training.weights.weights_file import WeightsFile, read_checkpoint


def read_training(
    path: Path, needs: Iterable[str] = ("trainer",)
) -> tuple[WeightsFile, dict[str, Any]]:
    """Read a checkpoint and check that all is there, and of the right kind, to go on from it.

    Args:
        path: A file of d2pd or of Detectron2.
        needs: Keys that must be there; none for the weights alone.

    Returns:
        The weights, and the rest by its keys as plain data.

    Raises:
        MissingFileError: If there is no such file.
        WeightsError: If it is cut off, damaged, asks for code, or holds another state.
    """
    file, rest = read_checkpoint(path)
    absent = [name for name in needs if name not in rest]
    if absent:
        raise WeightsError(
            f"{path} holds weights without the state of a training ({', '.join(absent)}): to start "
            f"a run from them, MODEL.WEIGHTS {path} without --resume"
        )
    try:
        rest = plain(rest, "")
        for name in needs:
            _check_entry(rest[name], name)
        _check_iteration(rest.get("iteration", 0), "iteration")
    except (TypeError, RecursionError) as error:
        what = str(error) if isinstance(error, TypeError) else "it is nested without end"
        raise WeightsError(
            f"{path} holds a state that no training has written ({what.lstrip('.')}): remove it, "
            "or replace it by a whole copy"
        ) from error
    return file, rest


def iteration_of(rest: Mapping[str, Any]) -> int | None:
    """Return the iteration that a checkpoint was written after; None where it does not say."""
    trainer = rest.get("trainer")
    source = trainer if isinstance(trainer, dict) and "iteration" in trainer else rest
    iteration = source.get("iteration")
    return iteration if _is_count(iteration) else None


def _check_entry(state: Any, where: str) -> None:
    _check_type(state, dict, where)
    if "param_groups" in state:
        check_optimizer_state(state, where)
    if where != "trainer":
        return
    _check_iteration(state.get("iteration"), "trainer.iteration")
    _check_type(state.get("hooks", {}), dict, "trainer.hooks")
    for name, hook in state.get("hooks", {}).items():
        _check_type(hook, dict, f"trainer.hooks.{name}")
    _check_schedule(state.get("hooks", {}).get("LRScheduler", {}))
    _check_type(state.get("_trainer"), dict, "trainer._trainer")
    check_optimizer_state(state["_trainer"].get("optimizer"), "trainer._trainer.optimizer")


def check_optimizer_state(state: Any, where: str) -> None:
    """Check the form of what ``Optimizer.state_dict`` returned.

    Raises:
        TypeError: Saying what is of another type, and where.
    """
    _check_type(state, dict, where)
    _check_type(state.get("state"), dict, f"{where}.state")
    for number, entry in state["state"].items():
        _check_type(entry, dict, f"{where}.state.{number}")
    _check_type(state.get("param_groups"), list, f"{where}.param_groups")
    for position, group in enumerate(state["param_groups"]):
        place = f"{where}.param_groups[{position}]"
        _check_type(group, dict, place)
        _check_type(group.get("params"), list, f"{place}.params")
        names = group.get(NAMES)
        if names is None:
            continue
        _check_type(names, list, f"{place}.{NAMES}")
        if len(names) != len(group["params"]) or not all(isinstance(n, str) for n in names):
            raise TypeError(f"{place}.{NAMES} are not the names of its parameters")


def _check_schedule(state: Mapping[str, Any]) -> None:
    rates = state.get("base_lrs", [])
    if not isinstance(rates, list) or not all(isinstance(rate, int | float) for rate in rates):
        raise TypeError("trainer.hooks.LRScheduler.base_lrs are not numbers")
    _check_iteration(state.get("last_epoch", 0), "trainer.hooks.LRScheduler.last_epoch")


def _check_type(value: Any, kind: type, where: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{where} is a {type(value).__name__}, not a {kind.__name__}")


def _check_iteration(value: Any, where: str) -> None:
    if not _is_count(value):
        raise TypeError(f"{where} is {value!r:.40}, not a number from 0 up")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53
