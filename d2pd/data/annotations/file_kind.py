"""Of what kind a label file is: its content tells, its name does not."""

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
