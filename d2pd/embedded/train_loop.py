"""The training loop and its hooks."""

import logging
import weakref
from collections.abc import Iterable
from typing import Any

from d2pd.embedded.events import EventStorage

logger = logging.getLogger(__name__)


class HookBase:
    """Something that happens around the steps of a ``TrainerBase``.

    The trainer calls it like this::

        hook.before_train()
        for iter in range(start_iter, max_iter):
            hook.before_step()
            trainer.run_step()      # calls hook.after_backward() of the hooks it holds
            hook.after_step()
        hook.after_train()          # also after an exception

    ``before_step`` should take no time, so that a timer can tell the step from the hooks.
    A hook with ``state_dict`` also needs ``load_state_dict``; of hooks of one class only the
    first is saved.
    """

    trainer: Any = None
    """Weak reference to the trainer, set when the hook is registered."""

    def before_train(self) -> None:
        """Called before the first step."""

    def after_train(self) -> None:
        """Called after the last step, or when an exception ended the loop."""

    def before_step(self) -> None:
        """Called before each step."""

    def after_backward(self) -> None:
        """Called after the backward pass of each step."""

    def after_step(self) -> None:
        """Called after each step."""

    def state_dict(self) -> dict[str, Any]:
        """Return what has to survive a resume; empty for a hook without state."""
        return {}


class TrainerBase:
    """A loop with hooks; what a step is, a subclass says in ``run_step``.

    Attributes:
        iter: The iteration in progress; ``max_iter`` once the loop has finished.
        start_iter: The iteration that the loop started with.
        max_iter: The iteration that the loop stops before.
        storage: The ``EventStorage`` that is open during the loop.
    """

    iter: int
    start_iter: int
    max_iter: int
    storage: EventStorage

    def __init__(self) -> None:
        self._hooks: list[HookBase] = []
        self.iter = 0
        self.start_iter = 0

    def register_hooks(self, hooks: Iterable[HookBase | None]) -> None:
        """Append hooks, to be called in this order; None is left out.

        Raises:
            AssertionError: If one is no ``HookBase`` (the type that Detectron2 raises).
        """
        for hook in hooks:
            if hook is None:
                continue
            if not isinstance(hook, HookBase):
                raise AssertionError(f"a hook must be a HookBase, got {type(hook).__name__}")
            hook.trainer = weakref.proxy(self)  # two strong references would be a cycle
            self._hooks.append(hook)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run the iterations ``start_iter`` to ``max_iter - 1``."""
        logger.info("Starting training from iteration %d", start_iter)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                for self.iter in range(start_iter, max_iter):
                    self.before_step()
                    self.run_step()
                    self.after_step()
                # after_train tells by this that the loop came to its end.
                self.iter += 1
            except Exception:
                logger.exception("Exception during training:")
                raise
            finally:
                self.after_train()

    def before_train(self) -> None:
        """Call the hooks before the first step."""
        for hook in self._hooks:
            hook.before_train()

    def after_train(self) -> None:
        """Call the hooks after the loop."""
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.after_train()

    def before_step(self) -> None:
        """Bring the storage to the current iteration, then call the hooks."""
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.before_step()

    def after_backward(self) -> None:
        """Call the hooks after a backward pass; ``run_step`` has to call this."""
        for hook in self._hooks:
            hook.after_backward()

    def after_step(self) -> None:
        """Call the hooks after a step."""
        for hook in self._hooks:
            hook.after_step()

    def run_step(self) -> None:
        """Do one iteration."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return the iteration and, by class name, the state of the hooks that have one."""
        states: dict[str, Any] = {}
        for hook in self._hooks:
            state = hook.state_dict()
            if state:
                states.setdefault(type(hook).__qualname__, state)
        return {"iteration": self.iter, **({"hooks": states} if states else {})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the iteration and give each hook its state; a state without hook is logged."""
        self.iter = state_dict["iteration"]
        for name, state in state_dict.get("hooks", {}).items():
            takers = [hook for hook in self._hooks if type(hook).__qualname__ == name]
            if takers:
                takers[0].load_state_dict(state)  # type: ignore[attr-defined]
            else:
                logger.warning("There is no hook %s: its saved state is left out", name)
