"""Ways to show a model an image when it is used: mirrored, larger, smaller."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from d2pd.errors import ConfigError

LEAST_SCALE, LARGEST_SCALE = 0.25, 4.0


@dataclass(frozen=True)
class View:
    """How an image is shown; without arguments as evaluation shows it.

    Attributes:
        flip: Whether left and right are exchanged.
        scale: Factor on the size that the configuration's resize gives.

    Raises:
        ConfigError: If the factor is not in [0.25, 4].
    """

    flip: bool = False
    scale: float = 1.0

    def __post_init__(self) -> None:
        scale = self.scale
        is_number = isinstance(scale, int | float) and math.isfinite(scale)
        if not is_number or not LEAST_SCALE <= scale <= LARGEST_SCALE:
            raise ConfigError(
                f"a scale is a factor on the size that the configuration gives, "
                f"{LEAST_SCALE:g} to {LARGEST_SCALE:g}; got {scale!r}"
            )

    def shown(self, image: np.ndarray) -> np.ndarray:
        """Return an (H, W, ...) image as it is shown, or one that was shown as it is; no copy."""
        return image[:, ::-1] if self.flip else image

    def mirrored_back(self, boxes_xyxy: np.ndarray, width: int) -> np.ndarray:
        """Return (N, 4) boxes on the image shown as they lie on the one given, ``width`` px."""
        if not self.flip:
            return boxes_xyxy
        x1, y1, x2, y2 = boxes_xyxy.T
        return np.stack([width - x2, y1, width - x1, y2], axis=1)


def views_of(*, flip: bool, scales: Sequence[float]) -> tuple[View, ...]:
    """Return a view for each scale, and with ``flip`` its mirror image beside it.

    Raises:
        ConfigError: If there is no scale, one is there twice, or one is out of range.
    """
    if not len(scales):
        raise ConfigError("there is no scale to detect at; give at least one, such as 1.0")
    flips = (False, True) if flip else (False,)
    views = tuple(View(mirror, scale) for scale in scales for mirror in flips)
    view, times = Counter(views).most_common(1)[0]
    if times > 1:
        raise ConfigError(f"the scale {view.scale:g} is given {times} times; give it once")
    return views
