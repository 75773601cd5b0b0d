"""Text with the way its file stores it, so that what is not changed stays, byte by byte."""

import codecs
import json
from dataclasses import dataclass, replace

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True)
class StoredText:
    """The text of a file.

    Attributes:
        text: Without byte order mark; line ends as in the file.
        mark: The byte order mark, empty where there is none.
        encoding: Of the bytes after it.
    """

    text: str
    mark: bytes
    encoding: str

    @classmethod
    def decode(cls, content: bytes) -> "StoredText":
        """Take apart a label file that was read before.

        Raises:
            UnicodeDecodeError: If it is not text.
        """
        for mark, encoding in _MARKS:
            if content.startswith(mark):
                text = content.removeprefix(mark).decode(encoding, "surrogatepass")
                return cls(text, mark, encoding)
        encoding = json.detect_encoding(content)
        return cls(content.decode(encoding, "surrogatepass"), b"", encoding)

    def encode(self) -> bytes:
        """Return the bytes of the file."""
        return self.mark + self.text.encode(self.encoding, "surrogatepass")

    def with_text(self, text: str) -> "StoredText":
        """Return another text, stored likewise."""
        return replace(self, text=text)
