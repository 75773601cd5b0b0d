"""What a forward pass changes besides its result."""

from torch import nn

from d2pd.training.isolation import ForwardState
from d2pd.training.random_state import random_state, set_random_state


class Snapshot:
    """The random generators, and what a model keeps from forward pass to forward pass."""

    def __init__(self, model: nn.Module) -> None:
        """Take both as they are now; the model must not be wrapped."""
        self._model = ForwardState(model)
        self._random = random_state()

    def restore(self) -> None:
        """Set both back, bit by bit."""
        self._model.restore()
        set_random_state(self._random)
