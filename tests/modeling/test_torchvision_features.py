"""Where torchvision's classifiers have their maps, and what a backbone makes of them."""

import pytest
import torch
from torch import nn
from torchvision.models import get_model
from torchvision.ops import FrozenBatchNorm2d

from d2pd.errors import ConfigError
from d2pd.modeling.torchvision_features import (
    TorchvisionFeatures,
    build_classifier,
    maps_by_level,
    node_values,
)

ALL = ["res2", "res3", "res4", "res5"]
# The nodes of strides 4, 8, 16 and 32, and their channels, read off torchvision's source.
FAMILIES = {
    "swin_t": (["features.1", "features.3", "features.5", "permute"], [96, 192, 384, 768]),
    "convnext_tiny": (
        ["features.1", "features.3", "features.5", "features"],
        [96, 192, 384, 768],
    ),
    "mobilenet_v3_large": (
        ["features.3", "features.6", "features.12", "features"],
        [24, 40, 112, 960],
    ),
    "efficientnet_b0": (
        ["features.2", "features.3", "features.5", "features"],
        [24, 40, 112, 1280],
    ),
    "regnet_y_400mf": (
        [f"trunk_output.block{n}" for n in (1, 2, 3)] + ["trunk_output"],
        [48, 104, 208, 440],
    ),
    "resnet50": ([f"layer{n}" for n in (1, 2, 3, 4)], [256, 512, 1024, 2048]),
    "vgg16_bn": (
        ["features.22", "features.32", "features.42", "features"],
        [256, 512, 512, 512],
    ),
    "shufflenet_v2_x0_5": (["maxpool", "stage2", "stage3", "conv5"], [24, 48, 96, 1024]),
}


def features_of(name, in_channels=3, features=ALL, **options):
    torch.manual_seed(0)
    return TorchvisionFeatures(name, in_channels, features, **options)


@pytest.mark.parametrize("name", FAMILIES)
def test_stages_are_found_in_each_family(name):
    found = maps_by_level(node_values(build_classifier(name, 3), name, 3))
    nodes, channels = FAMILIES[name]
    assert [found[level].node for level in (2, 3, 4, 5)] == nodes
    assert [found[level].channels for level in (2, 3, 4, 5)] == channels


def test_looking_for_the_maps_draws_no_random_number():
    classifier = build_classifier("swin_t", 3)
    torch.manual_seed(5)
    node_values(classifier, "swin_t", 3)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))


def test_maps_of_swin_are_those_of_torchvision_with_channels_first():
    features = features_of("swin_t").eval()
    torch.manual_seed(0)
    classifier = get_model("swin_t", weights=None).eval()
    images = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        found = features(images)
        x = images
        for index, layer in enumerate(classifier.features):
            x = layer(x)
            if index in (1, 3, 5):
                expected = x.permute(0, 3, 1, 2)
                assert torch.equal(found[f"res{(index + 3) // 2}"], expected)
        assert torch.equal(found["res5"], classifier.norm(x).permute(0, 3, 1, 2))
    assert {key: tuple(one.shape[1:]) for key, one in found.items()} == {
        "res2": (96, 24, 32),
        "res3": (192, 12, 16),
        "res4": (384, 6, 8),
        "res5": (768, 3, 4),
    }


def test_maps_of_a_resnet_are_its_stages():
    features = features_of("resnet18").eval()
    torch.manual_seed(0)
    net = get_model("resnet18", weights=None).eval()
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        found = features(images)
        for key, layer in zip(ALL, (net.layer1, net.layer2, net.layer3, net.layer4), strict=True):
            x = layer(x)
            assert torch.equal(found[key], x)


@pytest.mark.parametrize("in_channels", [1, 4, 6])
@pytest.mark.parametrize("name", ["swin_t", "mobilenet_v3_small", "resnet18"])
def test_images_of_other_channels_have_a_first_layer_of_their_own(name, in_channels):
    features = features_of(name, in_channels, ["res5"])
    first = next(p for p in features.parameters() if p.dim() == 4)
    assert first.shape[1] == in_channels
    assert features(torch.rand(2, in_channels, 64, 64))["res5"].shape[2:] == (2, 2)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_freezing_stops_gradients_and_statistics_up_to_the_map(name):
    features = features_of(name, freeze_at=2).train()
    before = {key: value.clone() for key, value in features.state_dict().items()}
    found = features(torch.rand(2, 3, 64, 64))
    assert not found["res2"].requires_grad
    assert found["res3"].requires_grad
    sum(each.sum() for each in found.values()).backward()
    for key, parameter in features.named_parameters():
        assert (parameter.grad is None) == (not parameter.requires_grad), key
    changed = {key for key, value in features.state_dict().items() if (value != before[key]).any()}
    frozen_stage = {"resnet18": "body.layer1.", "mobilenet_v3_small": "body.features.1."}[name]
    next_stage = {"resnet18": "body.layer2.", "mobilenet_v3_small": "body.features.2."}[name]
    assert not [key for key in changed if key.startswith(frozen_stage)]
    assert [key for key in changed if key.startswith(next_stage)]


def test_freezing_swin_freezes_its_patches_and_first_stage():
    features = features_of("swin_t", freeze_at=2)
    frozen = {key for key, p in features.named_parameters() if not p.requires_grad}
    assert frozen == {
        key
        for key, _ in features.named_parameters()
        if key.startswith(("body.features.0.", "body.features.1."))
    }
    assert "body.features.1.1.attn.relative_position_bias_table" in frozen


def test_frozen_batch_norm_computes_what_batch_norm_does_in_evaluation():
    plain = features_of("mobilenet_v3_small").eval()
    frozen = features_of("mobilenet_v3_small", freezes_norm=True).train()
    norms = [type(one) for one in frozen.modules() if "BatchNorm" in type(one).__name__]
    assert set(norms) == {FrozenBatchNorm2d}
    assert all(p.requires_grad for p in frozen.parameters())
    images = torch.rand(1, 3, 64, 64)
    for key, value in plain(images).items():
        torch.testing.assert_close(frozen(images)[key], value, rtol=1e-4, atol=1e-5)


def test_stochastic_depth_has_a_mode_of_its_own():
    features = features_of("swin_t").train()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        first, second = features(images)["res5"], features(images)["res5"]
        assert not torch.equal(first, second)
        for module in features.modules():
            if type(module).__name__ == "StochasticDepth":
                module.training = False
        assert torch.equal(features(images)["res5"], features(images)["res5"])


def test_layers_behind_the_last_map_are_dropped_and_norms_stay_norms():
    features = features_of("swin_t")
    assert not [key for key in features.state_dict() if "head" in key]
    assert isinstance(features.get_submodule("body.features.1.0.norm1"), nn.LayerNorm)
    short = features_of("resnet18", features=["res2", "res3"])
    assert not [key for key in short.state_dict() if "layer3" in key]


def test_nodes_can_be_chosen():
    features = features_of(
        "mobilenet_v3_small", features=["res3", "res4"], out_nodes=["features.2", "features.4"]
    )
    maps = features(torch.rand(1, 3, 64, 64))
    assert {key: tuple(one.shape) for key, one in maps.items()} == {
        "res3": (1, 24, 8, 8),
        "res4": (1, 40, 4, 4),
    }


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("swin_tt", {}, "'swin_tt', which is no classifier .* did you mean swin_t or "),
        ("xyzzyx", {}, "take one such as swin_t$"),
        ("fcos_resnet50_fpn", {}, "no classifier"),
        ("vit_b_16", {}, r"vit_b_16 cannot be a backbone, .*any size .*Wrong image height"),
        ("alexnet", {}, "alexnet has no maps of stride .* hence no pyramid"),
        ("resnet18", {"features": ["res6"]}, r"IN_FEATURES is \['res6'\], but resnet18 has res1"),
        ("resnet18", {"freeze_at": 7}, "FREEZE_AT is 7: .* N one of 1, 2, 3, 4, 5, or not"),
        ("swin_t", {"freeze_at": 1}, "N one of 2, 3, 4, 5, or not at all"),
        ("resnet18", {"out_nodes": ["layr1"]}, "'layr1', which the model does not have; it has la"),
        ("resnet18", {"out_nodes": ["fc"]}, "'fc', which is no map of stride 2, 4, 8"),
        ("resnet18", {"out_nodes": ["maxpool", "layer1"]}, "both have stride 4: name one"),
    ],
)
def test_what_cannot_be_a_backbone_is_refused_in_one_line(name, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        features_of(name, **options)
    assert "\n" not in str(caught.value)
