"""What a model's own check raises, and how it is told."""

import traceback
from pathlib import Path

MODEL_CHECKS = (FloatingPointError, AssertionError)
"""What a model raises that notices by itself: proposals, boxes."""


def told(error: BaseException) -> str:
    """Return what a model's own check says in one line, with the place in its code."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split()).rstrip(".") or "assertion without a message"
    return f"{text} ({Path(frame.filename).name}:{frame.lineno})"
