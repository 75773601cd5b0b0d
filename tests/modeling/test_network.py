"""The network: shapes of every map, the L2 norm, and that it can be exported."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection import ssd300_vgg16

from d2pd.modeling.backbones import PLANS
from d2pd.modeling.network import ExtraLayer, L2Norm, SSDNetwork, map_names, map_sides

SSD300 = [
    ExtraLayer(256, 512, 2, 1),
    ExtraLayer(128, 256, 2, 1),
    ExtraLayer(128, 256, 1, 0),
    ExtraLayer(128, 256, 1, 0),
]
PEDESTRIANS = [*SSD300[:2], ExtraLayer(128, 256, 1, 1), ExtraLayer(128, 256, 1, 1)]
SMALL = [ExtraLayer(8, 12, 2, 1), ExtraLayer(8, 12, 1, 0)]


def make_network(extra_layers=SMALL, plan="vgg_light", num_classes=1, **options):
    torch.manual_seed(0)
    anchors = [4, 6, 6, 6, 4, 4][: 2 + len(extra_layers)]
    defaults = {"channels": (3,), "freeze_at": 0, "l2_norm_scale": 20.0}
    return SSDNetwork(
        PLANS[plan],
        extra_layers=extra_layers,
        anchors_per_position=anchors,
        num_classes=num_classes,
        **(defaults | options),
    )


def test_maps_of_ssd300_and_of_the_pedestrian_one():
    assert map_sides(300, SSD300) == [38, 19, 10, 5, 3, 1]
    assert map_sides(512, PEDESTRIANS) == [64, 32, 16, 8, 8, 8]
    assert map_sides(640, PEDESTRIANS) == [80, 40, 20, 10, 10, 10]
    assert map_names(4) == ["conv4_3", "conv7", "conv8_2", "conv9_2", "conv10_2", "conv11_2"]


@settings(deadline=None, max_examples=12)
@given(height=st.integers(49, 120), width=st.integers(49, 120))
def test_sides_are_those_of_the_maps_and_below_one_there_is_no_map(height, width):
    network = make_network().eval()
    sides = [*zip(map_sides(height, SMALL), map_sides(width, SMALL), strict=True)]
    with torch.no_grad():
        if min(min(size) for size in sides) < 1:
            with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
                network(torch.rand(1, 3, height, width))
            return
        found = network(torch.rand(1, 3, height, width))
    channels = network.map_channels.values()
    assert [tuple(f.shape) for f in found.features] == [
        (1, c, *size) for c, size in zip(channels, sides, strict=True)
    ]


@pytest.mark.slow
def test_ssd300_has_8732_anchors_and_computes_what_torchvisions_does():
    network = make_network(SSD300, "vgg16", num_classes=20).eval()
    reference = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=21).eval()
    # torchvision's layers come in the order of ours; its L2 scale comes first.
    ours, theirs = network.state_dict(), reference.state_dict()
    body = [t for n, t in ours.items() if n.startswith(("backbone.", "extras."))]
    names = [n for n in theirs if n.startswith("backbone.") and n != "backbone.scale_weight"]
    reference.load_state_dict(dict(zip(names, body, strict=True)), strict=False)
    image = torch.rand(1, 3, 300, 300)
    with torch.no_grad():
        found = network(image)
        expected = list(reference.backbone(image).values())
    assert found.cls_logits.shape == (1, 8732, 21)
    assert found.box_deltas.shape == (1, 8732, 4)
    assert [f.shape[1] for f in found.features] == [512, 1024, 512, 256, 256, 256]
    for mine, its in zip(found.features, expected, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-4 * its.max().item())


def test_l2_norm_gives_each_position_the_length_of_its_scale():
    norm = L2Norm(3, 20.0)
    x = torch.tensor([3.0, 0.0, 4.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    torch.testing.assert_close(norm(x)[0, :, 1, 0], torch.tensor([12.0, 0.0, 16.0]))
    norm.scale.data = torch.tensor([1.0, 1.0, 10.0])
    torch.testing.assert_close(norm(x)[0, :, 0, 1], torch.tensor([0.6, 0.0, 8.0]))


def test_l2_norm_survives_dead_positions_and_large_ones_in_16_bits():
    norm = L2Norm(512, 20.0)
    dead = torch.zeros(1, 512, 2, 2, requires_grad=True)
    norm(torch.relu(dead)).sum().backward()
    assert torch.isfinite(dead.grad).all()
    large = norm(torch.full((1, 512, 1, 1), 60000.0, dtype=torch.float16))
    torch.testing.assert_close(large, torch.full((1, 512, 1, 1), 20 / 512**0.5))


def test_without_a_scale_conv4_3_stays_as_it_is():
    network = make_network(l2_norm_scale=0.0).eval()
    image = torch.rand(1, 3, 80, 96)
    assert "l2_norm.scale" not in network.state_dict()
    torch.testing.assert_close(network(image).features[0], network.backbone(image)[0])


def test_names_are_readable():
    names = set(make_network(channels=(3, 1)).state_dict())
    for name in (
        "backbone.front.visible.conv1_1.weight",
        "backbone.front.lwir.conv4_3.norm.running_mean",
        "backbone.front.fuse.weight",
        "backbone.rear.conv5_2.bias",
        "backbone.conv7.weight",
        "l2_norm.scale",
        "extras.conv8_1.weight",
        "extras.conv9_2.norm.weight",
        "heads.cls_logits.conv9_2.weight",
        "heads.box_deltas.conv4_3.bias",
    ):
        assert name in names
    assert not any("seg" in name for name in names)


@pytest.mark.parametrize("channels", [(3,), (3, 1)])
def test_it_is_exported_and_computes_the_same(channels):
    network = make_network(channels=channels).eval()
    image = torch.rand(2, sum(channels), 80, 96)
    exported = torch.export.export(network, (image,)).module()
    for found, expected in zip(exported(image)[:2], network(image)[:2], strict=True):
        torch.testing.assert_close(found, expected)
