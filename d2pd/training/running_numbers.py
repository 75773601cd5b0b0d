"""Numbers that a model keeps of its batches outside of its buffers."""

from collections.abc import Mapping

from torch import nn

Numbers = dict[str, dict[str, int | float]]


class RunningNumbers:
    """The attributes of modules that training has changed, such as RetinaNet's normaliser.

    Detectron2 saves none of them. What training leaves as it was built, such as a threshold, is the
    configuration's and no state.

    Args:
        model: Not trained yet; not wrapped.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._built = _numbers_of(model)

    def state_dict(self) -> Numbers:
        """Return module -> attribute -> number, of those that are not as they were built."""
        built = self._built
        changed = {
            name: {
                key: value for key, value in now.items() if built.get(name, {}).get(key) != value
            }
            for name, now in _numbers_of(self._model).items()
        }
        return {name: numbers for name, numbers in changed.items() if numbers}

    def load_state_dict(self, state_dict: Mapping[str, Mapping[str, int | float]]) -> None:
        """Take up what ``state_dict`` returned.

        Raises:
            KeyError: If there is no such module.
            TypeError: If something else than a number is in it.
        """
        modules = dict(self._model.named_modules())
        for name, numbers in state_dict.items():
            for key, value in numbers.items():
                if type(value) not in (int, float):
                    raise TypeError(f"{name}.{key} is a {type(value).__name__}, not a number")
                setattr(modules[name], key, value)


def _numbers_of(model: nn.Module) -> Numbers:
    return {
        name: {key: value for key, value in vars(module).items() if type(value) in (int, float)}
        for name, module in model.named_modules()
    }
