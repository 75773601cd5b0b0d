import pytest
import torch
from torch import nn

from d2pd.embedded.backbone import build_backbone
from d2pd.embedded.batch_norm import FrozenBatchNorm2d, get_norm
from d2pd.embedded.config import get_cfg
from d2pd.embedded.fpn import build_resnet_fpn_backbone
from d2pd.embedded.resnet import BasicStem, BottleneckBlock, ResNet
from d2pd.embedded.shape_spec import ShapeSpec
from d2pd.errors import ConfigError

RGB = ShapeSpec(channels=3)


def make_cfg(depth=18, **keys):
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth < 50 else 256
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    for key, value in keys.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    return cfg


def test_levels_have_the_strides_in_their_names():
    fpn = build_resnet_fpn_backbone(make_cfg(), RGB)
    maps = fpn(torch.zeros(1, 3, 64, 128))
    assert {name: tuple(each.shape) for name, each in maps.items()} == {
        f"p{k}": (1, 32, 64 // 2**k, 128 // 2**k) for k in range(2, 7)
    }
    assert {name: spec.stride for name, spec in fpn.output_shape().items()} == {
        f"p{k}": 2**k for k in range(2, 7)
    }
    assert fpn.size_divisibility == 32


def test_names_are_those_of_detectron2_and_the_pyramid_registers_first():
    names = list(build_resnet_fpn_backbone(make_cfg(50), RGB).state_dict())
    assert names[:2] == ["fpn_lateral2.weight", "fpn_lateral2.bias"]
    first_bottom_up = next(i for i, name in enumerate(names) if name.startswith("bottom_up"))
    assert all(name.startswith("bottom_up") for name in names[first_bottom_up:])
    block = [n.removeprefix("bottom_up.res2.0.") for n in names if "res2.0." in n]
    assert [name for name in block if name.endswith("v1.weight") or name == "shortcut.weight"] == [
        "shortcut.weight",
        "conv1.weight",
    ]
    assert "bottom_up.stem.conv1.norm.running_var" in names


def test_the_stride_sits_in_the_convolution_asked_for():
    kwargs = {"bottleneck_channels": 4, "stride": 2, "norm": ""}
    first = BottleneckBlock(8, 16, stride_in_1x1=True, **kwargs)
    middle = BottleneckBlock(8, 16, stride_in_1x1=False, **kwargs)
    assert (first.conv1.stride, first.conv2.stride) == ((2, 2), (1, 1))
    assert (middle.conv1.stride, middle.conv2.stride) == ((1, 1), (2, 2))
    x = torch.zeros(1, 8, 10, 10)
    assert first(x).shape == middle(x).shape == (1, 16, 5, 5)


def test_freezing_stops_gradients_and_statistics_of_the_first_stages():
    fpn = build_resnet_fpn_backbone(
        make_cfg(MODEL__RESNETS__NORM="BN", MODEL__BACKBONE__FREEZE_AT=2), RGB
    )
    before = {name: value.clone() for name, value in fpn.state_dict().items()}
    sum(each.sum() for each in fpn.train()(torch.rand(2, 3, 64, 64)).values()).backward()
    for name, parameter in fpn.named_parameters():
        assert (parameter.grad is None) == ("stem" in name or "res2" in name), name
    changed = {name for name, value in fpn.state_dict().items() if (value != before[name]).any()}
    assert {name.split(".")[1] for name in changed} == {"res3", "res4", "res5"}


def test_stages_that_nobody_asks_for_are_dropped():
    resnet = ResNet(
        BasicStem(3, 8, ""),
        [[BottleneckBlock(8, 16, bottleneck_channels=4, norm="")] for _ in range(4)],
        ["stem", "res2"],
    )
    assert [name for name, _ in resnet.named_children()] == ["stem", "res2"]
    assert list(resnet(torch.zeros(1, 3, 16, 16))) == ["stem", "res2"]


def test_a_frozen_norm_equals_batch_norm_in_evaluation():
    norm = nn.BatchNorm2d(4)
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2), nn.init.normal_(norm.weight)
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(norm)
    x = torch.randn(2, 4, 3, 3, requires_grad=True)
    torch.testing.assert_close(frozen(x), norm.eval()(x))
    torch.testing.assert_close(frozen(x.detach()), norm(x.detach()))
    assert list(frozen.parameters()) == []
    assert set(frozen.state_dict()) == set(norm.state_dict())


def test_a_frozen_norm_starts_as_the_identity_and_loads_files_without_statistics():
    frozen = FrozenBatchNorm2d(3)
    x = torch.randn(1, 3, 2, 2)
    torch.testing.assert_close(frozen(x), x)
    frozen.load_state_dict({"weight": torch.full((3,), 2.0), "bias": torch.ones(3)})
    torch.testing.assert_close(frozen(x), 2 * x + 1, rtol=1e-4, atol=1e-4)


def test_unknown_norm_lists_the_known():
    with pytest.raises(ConfigError, match="'XN', the embedded engine has '', BN, FrozenBN, GN"):
        get_norm("XN", 8)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"MODEL__RESNETS__DEPTH": 19}, r"DEPTH is 19, allowed are \[18, 34, 50"),
        ({"MODEL__RESNETS__RES2_OUT_CHANNELS": 256}, "set it to 64 for DEPTH 18"),
        ({"MODEL__RESNETS__RES5_DILATION": 3}, "RES5_DILATION is 3"),
        ({"MODEL__RESNETS__OUT_FEATURES": ["res9"]}, "OUT_FEATURES"),
        ({"MODEL__FPN__IN_FEATURES": ["res2", "res5"]}, "strides that double"),
        ({"MODEL__FPN__IN_FEATURES": ["res7", "res5"]}, "FPN.IN_FEATURES"),
        ({"MODEL__FPN__IN_FEATURES": ["res3", "res4"]}, "has to end in res5, as Detectron2 pools"),
        ({"MODEL__FPN__FUSE_TYPE": "max"}, "FUSE_TYPE is 'max'"),
        ({"MODEL__FPN__OUT_CHANNELS": 48, "MODEL__FPN__NORM": "GN"}, "multiple of 32 channels"),
        ({"MODEL__BACKBONE__NAME": "vit"}, "'vit', the embedded engine has .*build_resnet_fpn"),
    ],
)
def test_keys_that_do_not_go_together_are_named(keys, message):
    with pytest.raises(ConfigError, match=message):
        build_backbone(make_cfg(**keys))


def test_averaging_halves_the_sum():
    fpn = build_resnet_fpn_backbone(make_cfg(MODEL__FPN__FUSE_TYPE="avg"), RGB)
    lateral, coarser = torch.full((1, 1, 2, 2), 3.0), torch.full((1, 1, 1, 1), 5.0)
    assert fpn._merge(lateral, coarser).unique().item() == 4.0
