"""Picture files that are none."""

import os
import struct
import zlib

import pytest

from d2pd.data.images import read_image
from d2pd.errors import AnnotationError, MissingFileError


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(MissingFileError, match="a.png: not a file; the label file names this"):
        read_image(tmp_path / "a.png")
    with pytest.raises(MissingFileError, match="not a file"):
        read_image(tmp_path)


def test_more_pixels_than_opencv_takes_are_no_image(tmp_path):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 1, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(AnnotationError, match="not an image that OpenCV can decode"):
        read_image(tmp_path / "a.png")
