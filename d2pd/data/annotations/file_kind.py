"""Of what kind a label file is: its content tells, its name does not."""

from collections.abc import Sequence
from pathlib import Path

from d2pd.errors import AnnotationError, ConfigError

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

_KINDS = {"{": "JSON", "[": "JSON", "<": "XML", "%": "bbGt text"}
_LONGEST_START = 4096  # bytes


def kind_of(content: bytes) -> str:
    """Tell the kind of a file by its first character that is no blank.

    Returns:
        ``JSON``, ``XML``, ``bbGt text``, or ``CSV`` for whatever begins otherwise.
    """
    encoding = "utf-16" if content.startswith(UTF16_MARKS) else "utf-8-sig"
    start = content[:_LONGEST_START].decode(encoding, errors="replace").lstrip()[:1]
    return _KINDS.get(start, "CSV")


def check_kind(content: bytes, path: Path, format: str) -> None:
    """Refuse a label file that is of another kind than was said.

    Args:
        content: Of the file.
        path: Its name, for the message.
        format: ``kaist``, ``coco`` or ``csv``.

    Raises:
        AnnotationError: If it is; the message says what it looks like.
    """
    kind = kind_of(content)
    if kind != ("CSV" if format == "csv" else "JSON"):
        said = "CSV" if format == "csv" else f"{format} JSON"
        raise AnnotationError(
            f"{path}: this looks like {kind}, not {said}; leave --format out, or name the other "
            "file"
        )


def check_no_columns(columns: Sequence[str] | None, path: Path) -> None:
    """Refuse names of columns for a file that is no CSV.

    Raises:
        ConfigError: If there are any.
    """
    if columns:
        raise ConfigError(f"{path}: this is no CSV; leave --columns out")
