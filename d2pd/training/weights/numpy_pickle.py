"""Reads pickles of numpy arrays without ever calling what a pickle names.

A pickle is a program. Only nine names are understood here, and each one is answered by an object of
this module, never by numpy's: what is rebuilt is numbers from bytes, and nothing else can be asked.
"""

import io
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from d2pd.errors import WeightsError
from d2pd.printable import printable

WAY_OUT = "replace it by a whole copy (one that was fetched is fetched again once deleted)"
_NUMBER = re.compile(r"(b1|[iu][1248]|f[248]|c(8|16))")


class PickledDtype:
    """Stands for a numpy dtype: booleans and numbers only, no objects and no records."""

    def __init__(self, code: str, *_align_and_copy: object) -> None:
        if not (isinstance(code, str) and _NUMBER.fullmatch(code)):
            raise pickle.UnpicklingError(f"an array of type {code!r}, which is not a number")
        self._code = code
        self._byte_order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        byte_order = {"<": "<", ">": ">", "=": "=", "|": "="}[state[1]]
        self._byte_order = byte_order

    def resolve(self) -> np.dtype[Any]:
        """Return numpy's dtype."""
        return np.dtype(self._byte_order + self._code)


def _array_from_bytes(
    raw: object, dtype: PickledDtype, shape: object, is_fortran: bool
) -> np.ndarray[Any, np.dtype[Any]]:
    if isinstance(raw, str):  # pickled by Python 2, read as latin1
        raw = raw.encode("latin1")
    if not (isinstance(raw, bytes | bytearray) and isinstance(dtype, PickledDtype)):
        raise pickle.UnpicklingError("an array whose content is not plain bytes")
    if not (isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)):
        raise pickle.UnpicklingError(f"an array of shape {shape!r}")
    number = dtype.resolve()
    if math.prod(shape) * number.itemsize != len(raw):
        raise pickle.UnpicklingError(f"an array of shape {shape} with {len(raw)} bytes")
    array = np.frombuffer(raw, dtype=number).reshape(shape, order="F" if is_fortran else "C")
    return array.astype(number.newbyteorder("="), order="C", copy=True)


class PickledArray:
    """Stands for a numpy array; ``value`` holds the real one once its state has been read."""

    def __init__(self, *_ignored: object) -> None:
        self.value: np.ndarray[Any, np.dtype[Any]] = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, is_fortran, raw = state[-4:]  # newer pickles put a version in front
        self.value = _array_from_bytes(raw, dtype, shape, bool(is_fortran))


def pickled_array(*_ignored: object) -> PickledArray:
    """Answer ``numpy._core.multiarray._reconstruct``: an array that waits for its state."""
    return PickledArray()


def pickled_buffer(raw: object, dtype: PickledDtype, shape: object, order: str) -> PickledArray:
    """Answer ``numpy._core.numeric._frombuffer``, which pickle protocol 5 uses."""
    array = PickledArray()
    array.value = _array_from_bytes(raw, dtype, shape, order == "F")
    return array


def pickled_scalar(dtype: PickledDtype, raw: object) -> Any:
    """Answer ``numpy._core.multiarray.scalar`` with a Python number."""
    return _array_from_bytes(raw, dtype, (), False).item()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


def _bytes(content: bytes = b"") -> bytes:
    if not isinstance(content, bytes):  # a number would ask for so much memory
        raise pickle.UnpicklingError(f"bytes made of {type(content).__name__}")
    return content


# numpy 2 moved numpy.core to numpy._core; files carry the name of the numpy that wrote them.
NUMPY_NAMES: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": PickledArray,
    "numpy.dtype": PickledDtype,
    **{
        f"numpy.{core}.{name}": answer
        for core in ("core", "_core")
        for name, answer in (
            ("multiarray._reconstruct", pickled_array),
            ("multiarray.scalar", pickled_scalar),
            ("numeric._frombuffer", pickled_buffer),
        )
    },
}
_PICKLE_NAMES: dict[str, Callable[..., Any]] = {
    **NUMPY_NAMES,
    "_codecs.encode": _encode,
    "collections.OrderedDict": OrderedDict,
    # Python 2 pickles, and old protocols, call builtins by the name they had there.
    **{f"{module}.bytes": _bytes for module in ("builtins", "__builtin__")},
    **{f"{module}.bytearray": _bytes for module in ("builtins", "__builtin__")},
}


class _Name:
    """A name the pickle may call. Has no state, so that a pickle cannot change what it does."""

    __slots__ = ("_answer",)
    _answer: Callable[..., Any]

    def __init__(self, answer: Callable[..., Any]) -> None:
        object.__setattr__(self, "_answer", answer)

    def __setattr__(self, key: str, value: object) -> None:
        raise pickle.UnpicklingError("an attempt to change a function")

    def __call__(self, *args: object) -> Any:
        return self._answer(*args)


# The Python implementation: the one in C sizes its memo by a number that the file gives, so that
# ten bytes can ask for all of the memory. The arrays are single reads; it costs no time.
class _ArrayUnpickler(pickle._Unpickler):
    def __init__(self, file: IO[bytes], source: str) -> None:
        super().__init__(file, encoding="latin1")
        self._source = source

    def find_class(self, module: str, name: str) -> Any:
        if not name:
            raise EOFError("a name is cut off")
        answer = _PICKLE_NAMES.get(f"{module}.{name}")
        if answer is None:
            asked = printable(f"{module}.{name}")
            raise WeightsError(
                f"{self._source} asks for {asked}, which is neither a number nor a "
                "container: loading it could run code, so nothing was loaded. Take the file from "
                "a source you trust, as a .pth of tensors"
            )
        return _Name(answer)


def load_numpy_pickle(file: IO[bytes], source: str) -> Any:
    """Load a pickle of containers, strings, numbers and arrays (as ``PickledArray``).

    Args:
        file: Opened for reading bytes; read from its beginning.
        source: The name of the file, for messages.

    Raises:
        WeightsError: If the pickle names anything else, or is cut off or damaged.
    """
    try:
        file.seek(-1, io.SEEK_END)
        if file.read(1) != pickle.STOP:
            raise EOFError("it does not end where a pickle ends")
        file.seek(0)
        return _ArrayUnpickler(file, source).load()
    except WeightsError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        what = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"{source} is cut off or damaged ({what}): {WAY_OUT}") from error
