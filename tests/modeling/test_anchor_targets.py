"""What the anchors of an image learn: classes, deltas, nothing, or neither."""

import math

import torch

from d2pd.modeling.matching import BACKGROUND, IGNORE
from d2pd.modeling.targets import Labels, anchor_targets

ANCHORS = torch.tensor([[0.0, 0, 10, 20], [40, 40, 50, 60], [100, 0, 110, 20], [0, 100, 10, 120]])
NONE = torch.zeros(0, 4)


def test_each_anchor_learns_the_class_and_deltas_of_its_label():
    boxes = torch.tensor([[40.0, 40, 50, 50], [1.0, 2, 11, 22]])
    labels = Labels(boxes, torch.tensor([4, 7]), torch.tensor([[95.0, 0, 110, 20]]))
    classes, deltas = anchor_targets(ANCHORS, labels, 0.5, (10.0, 10.0, 5.0, 5.0))
    assert classes.tolist() == [7, 4, IGNORE, BACKGROUND]
    # In the order of the anchors: 1 of 10 px right, 2 of 20 px down; then half as high.
    expected = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, -2.5, 0.0, 5 * math.log(0.5)]])
    torch.testing.assert_close(deltas, expected)


def test_without_labels_all_is_background():
    labels = Labels(NONE, torch.zeros(0, dtype=torch.int64), NONE)
    classes, deltas = anchor_targets(ANCHORS, labels, 0.5, (1.0, 1.0, 1.0, 1.0))
    assert classes.tolist() == [BACKGROUND] * 4
    assert deltas.shape == (0, 4)
