"""Text of files as a terminal may show it."""


def printable(text: str) -> str:
    """Write what would break a line, colour a terminal or fit no encoding as its code."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )
