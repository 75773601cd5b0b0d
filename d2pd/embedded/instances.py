"""All that is known about the objects of one image: fields of equal length."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch


class Instances:
    """N objects in one image, each described by named fields (boxes, classes, scores, ...).

    A field is set and read as an attribute and holds one entry per object: a tensor, ``Boxes``, a
    list. Indexing selects objects in all fields at once: ``instances[instances.scores > 0.5]``.
    Names that begin with an underscore are not fields.
    """

    def __init__(self, image_size: tuple[int, int], **fields: Any):
        """Describe the objects of an image.

        Args:
            image_size: Height and width of the image that the coordinates refer to.
            fields: Fields to begin with, all of the same length.
        """
        self._image_size = image_size
        self._fields: dict[str, Any] = {}
        for name, value in fields.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self._image_size

    def set(self, name: str, value: Any) -> None:
        """Set or replace a field.

        Raises:
            ValueError: If the length of ``value`` differs from that of the other fields.
        """
        if self._fields and len(value) != len(self):
            raise ValueError(
                f"Field '{name}' has {len(value)} entries, but there are {len(self)} instances."
            )
        self._fields[name] = value

    def get(self, name: str) -> Any:
        """The field of that name; KeyError if there is none."""
        return self._fields[name]

    def has(self, name: str) -> bool:
        """Whether there is a field of that name."""
        return name in self._fields

    def remove(self, name: str) -> None:
        """Forget a field; KeyError if there is none."""
        del self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """The fields by name. It is the object's own dict: changes show."""
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> Instances:
        """Move every field that can be moved; the arguments are those of ``Tensor.to``."""
        moved = {
            name: value.to(*args, **kwargs) if hasattr(value, "to") else value
            for name, value in self._fields.items()
        }
        return Instances(self._image_size, **moved)

    @staticmethod
    def cat(instance_lists: Sequence[Instances]) -> Instances:
        """Join the objects of several lists about the same image.

        Only the fields of the first list are kept; the others must have them too.

        Raises:
            ValueError: If there is no list, the images differ in size, or a field cannot be joined.
        """
        if not instance_lists:
            raise ValueError("Nothing to join: the list of Instances is empty.")
        first = instance_lists[0]
        if len(instance_lists) == 1:
            return first
        sizes = {instances.image_size for instances in instance_lists}
        if len(sizes) > 1:
            raise ValueError(f"Instances of images of different sizes do not join: {sizes}")
        joined = {
            name: _join_field(name, [instances.get(name) for instances in instance_lists])
            for name in first.get_fields()
        }
        return Instances(first.image_size, **joined)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        # Unpickling asks for attributes before there are any fields.
        if name == "_fields" or name not in self._fields:
            raise AttributeError(f"These Instances have no field '{name}'.")
        return self._fields[name]

    def __getitem__(self, item: Any) -> Instances:
        """Select objects by an int (one object), a slice, or a vector of indices or booleans."""
        if type(item) is int:
            if not -len(self) <= item < len(self):
                raise IndexError(f"Index {item} is out of range for {len(self)} instances.")
            item = slice(item, None, len(self))
        return Instances(self._image_size, **{k: v[item] for k, v in self._fields.items()})

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        raise NotImplementedError("Instances without any field have no length.")

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError("Instances are not iterable: iterate over a field.")

    def __repr__(self) -> str:
        height, width = self._image_size
        fields = ", ".join(f"{name}: {value}" for name, value in self._fields.items())
        count = len(self) if self._fields else 0
        return (
            f"{type(self).__name__}(num_instances={count}, image_height={height}, "
            f"image_width={width}, fields=[{fields}])"
        )


def _join_field(name: str, values: list[Any]) -> Any:
    if isinstance(values[0], torch.Tensor):
        return torch.cat(values, dim=0)
    if isinstance(values[0], list):
        return list(itertools.chain.from_iterable(values))
    if hasattr(type(values[0]), "cat"):
        return type(values[0]).cat(values)
    raise ValueError(f"Field '{name}' of type {type(values[0]).__name__} cannot be joined.")
