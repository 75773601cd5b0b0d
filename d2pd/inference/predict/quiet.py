"""Keeps OpenCV and the libraries in it from writing to stderr; what is wrong, d2pd says."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

NO_MESSAGES = "-8"
"""FFmpeg's level; it is read when a process opens its first video."""


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Let OpenCV log nothing inside; what a user has set for FFmpeg stays."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", NO_MESSAGES)
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)
