"""Heads: the order of what they predict, how they start, the layers that see masks."""

import pytest
import torch
from torch import nn
from torchvision.models.detection.ssd import SSDHead

from d2pd.modeling.heads import MultiboxHeads, make_seg_head

CHANNELS = {"conv4_3": 8, "conv7": 4}


def test_predictions_are_in_the_order_of_torchvisions_head():
    torch.manual_seed(0)
    heads = MultiboxHeads(CHANNELS, [4, 6], 2)
    reference = SSDHead([8, 4], [4, 6], 3)
    for ours, theirs in (
        (heads.cls_logits, reference.classification_head.module_list),
        (heads.box_deltas, reference.regression_head.module_list),
    ):
        for mine, its in zip(ours.values(), theirs, strict=True):
            its.load_state_dict(mine.state_dict())
    maps = [torch.randn(2, 8, 3, 5), torch.randn(2, 4, 2, 2)]
    cls_logits, box_deltas = heads(maps)
    expected = reference(maps)
    assert cls_logits.shape == (2, 3 * 5 * 4 + 2 * 2 * 6, 3)
    torch.testing.assert_close(cls_logits, expected["cls_logits"])
    torch.testing.assert_close(box_deltas, expected["bbox_regression"])


def test_an_anchor_is_found_at_its_place():
    heads = MultiboxHeads({"conv4_3": 1, "conv7": 1}, [2, 3], 1)
    for layer in heads.box_deltas.values():
        nn.init.zeros_(layer.weight)
        layer.bias.data = torch.arange(float(len(layer.bias)))
        layer.weight.data[:, 0, 1, 1] = 100
    first, second = torch.arange(6.0).view(1, 1, 2, 3), torch.zeros(1, 1, 1, 1)
    _, deltas = heads([first, second])
    # Row 1, column 2 of the first map holds 5; its second anchor has the biases 4 to 7.
    assert deltas[0, (1 * 3 + 2) * 2 + 1].tolist() == [504, 505, 506, 507]
    assert deltas[0, 6 * 2 + 2].tolist() == [8, 9, 10, 11]


def test_heads_start_by_xavier_with_bias_zero():
    torch.manual_seed(0)
    heads = MultiboxHeads({"conv4_3": 64}, [4], 1)
    layer = heads.cls_logits["conv4_3"]
    bound = (6 / (64 * 9 + 8 * 9)) ** 0.5
    assert layer.weight.abs().max() <= bound
    assert layer.weight.abs().max() > 0.95 * bound
    assert torch.equal(layer.bias, torch.zeros(8))


def test_names_say_which_map_and_what():
    assert list(MultiboxHeads(CHANNELS, [4, 6], 2).state_dict())[:2] == [
        "cls_logits.conv4_3.weight",
        "cls_logits.conv4_3.bias",
    ]


@pytest.mark.parametrize(("kernel_size", "reach"), [(1, 0), (3, 1)])
def test_segmentation_layers_see_as_far_as_their_kernel(kernel_size, reach):
    torch.manual_seed(0)
    head = make_seg_head(4, kernel_size)
    x = torch.rand(1, 4, 9, 9, requires_grad=True)
    logits = head(x)
    assert logits.shape == (1, 2, 9, 9)
    logits[0, 1, 4, 4].backward()
    rows, columns = x.grad.abs().sum(dim=(0, 1)).nonzero(as_tuple=True)
    for seen in (rows, columns):
        assert (seen.min().item(), seen.max().item()) == (4 - reach, 4 + reach)
