"""Which ground-truth box an anchor or a proposal belongs to."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from d2pd.errors import ConfigError


class Matcher:
    """Gives every prediction the best ground truth and a label by the quality of that match.

    Labels: 1 object, 0 background, -1 neither (left out of training).
    """

    def __init__(
        self,
        thresholds: Sequence[float],
        labels: Sequence[int],
        allow_low_quality_matches: bool = False,
    ):
        """Fix the limits.

        Args:
            thresholds: Rising qualities that part the labels; a quality equal to a threshold
                belongs above it.
            labels: One more than thresholds, from the lowest quality up.
            allow_low_quality_matches: Also label as 1 the best predictions of each ground truth,
                ties included, however low their quality.

        Raises:
            ConfigError: If thresholds do not rise from above 0, or the labels do not fit.
        """
        if list(thresholds) != sorted(thresholds) or not thresholds or thresholds[0] <= 0:
            raise ConfigError(f"IOU_THRESHOLDS must rise from above 0, got {list(thresholds)}")
        if len(labels) != len(thresholds) + 1 or not set(labels) <= {-1, 0, 1}:
            raise ConfigError(
                f"IOU_LABELS needs {len(thresholds) + 1} of -1, 0 and 1 for the thresholds "
                f"{list(thresholds)}, got {list(labels)}"
            )
        self.thresholds = [-float("inf"), *thresholds, float("inf")]
        self.labels = list(labels)
        self.allow_low_quality_matches = allow_low_quality_matches

    def __call__(self, match_quality_matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Match predictions.

        Args:
            match_quality_matrix: (G, P), quality (such as IoU) of each pair, at least 0.

        Returns:
            (P,) int64 index of the best ground truth, 0 where G is 0; and (P,) int8 labels, all
            the lowest label where G is 0.

        Raises:
            FloatingPointError: If a quality is negative or NaN: a box is not finite.
        """
        if match_quality_matrix.numel() == 0:
            matches = match_quality_matrix.new_zeros(
                match_quality_matrix.shape[1], dtype=torch.int64
            )
            return matches, matches.new_full(matches.shape, self.labels[0], dtype=torch.int8)
        if not (match_quality_matrix >= 0).all():
            raise FloatingPointError("overlaps of boxes are not numbers of at least 0")
        best, matches = match_quality_matrix.max(dim=0)
        match_labels = torch.ones_like(matches, dtype=torch.int8)
        for label, (low, high) in zip(self.labels, pairwise(self.thresholds), strict=True):
            match_labels[(best >= low) & (best < high)] = label
        if self.allow_low_quality_matches:
            # The index stays that of the prediction's own best ground truth, as in Detectron.
            best_of_each_gt = match_quality_matrix.amax(dim=1, keepdim=True)
            match_labels[(match_quality_matrix == best_of_each_gt).any(dim=0)] = 1
        return matches, match_labels
