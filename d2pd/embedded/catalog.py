"""The two global catalogs: how to load a dataset by name, and what is known about it."""

from collections import UserDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

Records = list[dict[str, Any]]


class _Catalog(UserDict):
    """A dictionary by dataset name, with Detectron2's spelling of its methods."""

    def list(self) -> "list[str]":
        """Return the names, in the order they came."""
        return list(self.keys())

    def remove(self, name: str) -> None:
        """Forget ``name``.

        Raises:
            KeyError: If it is not there.
        """
        self.pop(name)

    def __repr__(self) -> str:
        return f"{type(self).__name__.lstrip('_')}({', '.join(self.keys())})"

    __str__ = __repr__


class _DatasetCatalog(_Catalog):
    """Dataset name to the function that loads its records."""

    def register(self, name: str, func: Callable[[], Records]) -> None:
        """Remember how to load a dataset.

        Args:
            name: Name used in ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
            func: Takes nothing, returns the records, the same in every call.

        Raises:
            AssertionError: If ``func`` cannot be called or the name is taken (the type that
                Detectron2 raises).
        """
        if not callable(func):
            raise AssertionError(f"dataset {name} needs a function that loads it, got {func!r}")
        if name in self:
            raise AssertionError(f"dataset {name} is already registered")
        self[name] = func

    def get(self, name: str) -> Records:  # type: ignore[override]
        """Load a dataset: call its function.

        Raises:
            KeyError: If the name was not registered.
        """
        if name not in self:
            known = ", ".join(self.keys()) or "none"
            raise KeyError(f"dataset {name} is not registered; registered are: {known}")
        return self[name]()


class Metadata(SimpleNamespace):
    """What is known about one dataset, as attributes; an attribute is set once and stays."""

    name: str = "N/A"

    def __getattr__(self, key: str) -> Any:
        # Only called for what is not there.
        known = ", ".join(self.__dict__) or "none"
        raise AttributeError(f"metadata of dataset {self.name} has no {key}; it has: {known}")

    def __setattr__(self, key: str, val: Any) -> None:
        if key in self.__dict__ and self.__dict__[key] != val:
            raise AssertionError(
                f"metadata of dataset {self.name}: {key} is {self.__dict__[key]!r} "
                f"and cannot become {val!r}"
            )
        super().__setattr__(key, val)

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes as a new dictionary."""
        return dict(self.__dict__)

    def set(self, **kwargs: Any) -> "Metadata":
        """Set several attributes; returns the metadata itself.

        Raises:
            AssertionError: If one is there with another value (the type that Detectron2 raises).
        """
        for key, value in kwargs.items():
            setattr(self, key, value)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """Return an attribute, or ``default`` where there is none."""
        return getattr(self, key, default)


class _MetadataCatalog(_Catalog):
    """Dataset name to its ``Metadata``."""

    def get(self, name: str) -> Metadata:  # type: ignore[override]
        """Return the metadata of a dataset, made empty at the first call."""
        if not name:
            raise AssertionError("a dataset needs a name")
        if name not in self:
            self[name] = Metadata(name=name)
        return self[name]


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
