"""Random choice of the examples that a loss is computed on."""

import torch
from torch import Tensor


def subsample_labels(
    labels: Tensor, num_samples: int, positive_fraction: float, bg_label: int
) -> tuple[Tensor, Tensor]:
    """Choose positives up to a fraction, and fill up with negatives.

    Draws two permutations from torch's generator: of all positives, then of all negatives.

    Args:
        labels: (N,) int: -1 is never chosen, ``bg_label`` is negative, the rest is positive.
        num_samples: Examples wanted; fewer come back where there are not enough.
        positive_fraction: Most of them that may be positive, in [0, 1].
        bg_label: Label of the background.

    Returns:
        Indices of the positives and of the negatives chosen.
    """
    positive = ((labels != -1) & (labels != bg_label)).nonzero(as_tuple=True)[0]
    negative = (labels == bg_label).nonzero(as_tuple=True)[0]
    num_pos = min(positive.numel(), int(num_samples * positive_fraction))
    num_neg = min(negative.numel(), num_samples - num_pos)
    chosen_pos = torch.randperm(positive.numel(), device=positive.device)[:num_pos]
    chosen_neg = torch.randperm(negative.numel(), device=negative.device)[:num_neg]
    return positive[chosen_pos], negative[chosen_neg]
