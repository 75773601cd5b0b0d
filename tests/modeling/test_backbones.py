"""VGG: torchvision's arithmetic, SSD's conv6 and conv7, streams of two cameras, frozen blocks."""

import pytest
import torch
from torch import nn
from torchvision.models import vgg16, vgg16_bn
from torchvision.ops import FrozenBatchNorm2d

from d2pd.errors import ConfigError
from d2pd.modeling.backbones import PLANS, BatchNorm, ConvLayer, Vgg, vgg_plan
from d2pd.training.weights.weight_names import to_detectron2_names


def light(channels=(3,), freeze_at=0):
    torch.manual_seed(0)
    return Vgg(PLANS["vgg_light"], channels, freeze_at)


@pytest.fixture(scope="module")
def small_classifiers():
    """torchvision's VGG16 with and without batch norm, whose buffers are not those of a start."""
    torch.manual_seed(1)
    models = {}
    for name, build in (("vgg16", vgg16), ("vgg16_bn", vgg16_bn)):
        models[name] = build(weights=None, init_weights=False).eval()
        for key, buffer in models[name].named_buffers():
            if key.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.5, 1.5)
    return models


@pytest.mark.parametrize(("name", "end"), [("vgg16", 23), ("vgg16_bn", 33)])
def test_with_torchvisions_weights_conv4_3_and_conv5_3_are_torchvisions(
    small_classifiers, name, end
):
    theirs = small_classifiers[name]
    ours = Vgg(PLANS[name], (3,), 0).eval()
    state = to_detectron2_names(theirs.state_dict())
    ours.load_state_dict({k.removeprefix("backbone."): v for k, v in state.items()}, strict=False)
    image = torch.rand(1, 3, 32, 48)  # of sides that the third pooling need not round
    with torch.no_grad():
        conv4_3 = theirs.features[:end](image)
        conv5 = theirs.features[end:-1](conv4_3)
        torch.testing.assert_close(ours.front(image), conv4_3)
        torch.testing.assert_close(ours.rear(torch.max_pool2d(conv4_3, 2)), conv5)


def test_conv6_is_dilated_and_pool5_keeps_the_size():
    model = light()
    assert (model.conv6.dilation, model.conv6.padding, model.conv6.kernel_size) == (
        *((6, 6), (6, 6)),
        (3, 3),
    )
    conv4_3, conv7 = model.eval()(torch.rand(1, 3, 300, 300))
    assert conv4_3.shape == (1, 96, 38, 38)
    assert conv7.shape == (1, 192, 19, 19)
    assert model.out_channels == (96, 192)
    full = PLANS["vgg16"]
    assert [len(widths) for widths in full.widths.values()] == [2, 2, 3, 3, 3]
    assert (full.widths[4][-1], full.last_width) == (512, 1024)


def test_the_third_pooling_rounds_up_and_the_others_down():
    front = light().front.eval()
    # 30 -> 15 -> 7 -> 4: only the third one has an odd side to round up.
    assert front(torch.rand(1, 3, 30, 31)).shape[-2:] == (4, 4)


def test_each_camera_has_its_own_layers_and_both_reach_the_maps():
    model = light((3, 1)).eval()
    assert model.front.visible.conv1_1.weight.shape == (8, 3, 3, 3)
    assert model.front.lwir.conv1_1.weight.shape == (8, 1, 3, 3)
    assert model.front.fuse.weight.shape == (96, 192, 1, 1)
    images = torch.rand(1, 4, 32, 32)
    before = model(images)
    for channel in (0, 3):
        changed = images.clone()
        changed[:, channel] += 1
        assert not torch.equal(model(changed)[0], before[0])
    mixed = torch.cat([model.front.visible(images[:, :3]), model.front.lwir(images[:, 3:])], 1)
    torch.testing.assert_close(model.front.fuse(mixed), before[0])


@pytest.mark.parametrize("freeze_at", range(6))
@pytest.mark.parametrize("channels", [(3,), (3, 3)])
def test_frozen_blocks_learn_nothing_and_keep_their_running_numbers(channels, freeze_at):
    model = light(channels, freeze_at).train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    sum(each.sum() for each in model(torch.rand(2, sum(channels), 32, 32))).backward()
    optimizer.step()
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, state[n])}
    blocks = {n.split("conv")[1][0] for n in changed if "conv" in n}
    assert blocks == {str(number) for number in range(freeze_at + 1, 8)}
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert {n.split("conv")[1][0] for n in frozen} == {str(n) for n in range(1, freeze_at + 1)}


def test_a_frozen_model_has_the_names_of_one_that_learns():
    learning = {n for n in light().state_dict() if not n.endswith("num_batches_tracked")}
    assert {
        n for n in light(freeze_at=5).state_dict() if not n.endswith("num_batches_tracked")
    } == learning
    assert isinstance(light(freeze_at=1).front.conv1_1.norm, FrozenBatchNorm2d)


def test_weights_start_as_those_of_torchvisions_vgg():
    torch.manual_seed(0)
    layer = Vgg(PLANS["vgg16"], (3,), 0).front.conv3_2
    assert layer.weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert torch.equal(layer.bias, torch.zeros(256))


def test_one_value_a_channel_is_normalised_by_the_running_numbers():
    norm = BatchNorm(2).train()
    norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
    norm.running_var.fill_(4.0)
    x = torch.tensor([3.0, 2.0]).view(1, 2, 1, 1)
    torch.testing.assert_close(norm(x).flatten(), torch.tensor([1.0, 0.0]), atol=1e-5, rtol=0)
    assert torch.equal(norm.running_mean, torch.tensor([1.0, 2.0]))
    rows = torch.rand(2, 2, 1, 1)
    reference = nn.BatchNorm2d(2).train()
    torch.testing.assert_close(BatchNorm(2).train()(rows), reference(rows))


def test_a_layer_without_norm_is_a_convolution_and_relu():
    layer = ConvLayer(2, 3, 3, has_norm=False, padding=1)
    x = torch.randn(1, 2, 4, 4)
    expected = nn.functional.conv2d(x, layer.weight, layer.bias, padding=1).clamp(min=0)
    torch.testing.assert_close(layer(x), expected)
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_unknown_backbones_and_blocks_are_named():
    with pytest.raises(ConfigError, match=r"NAME is 'resnet'; .* one of vgg16, vgg16_bn, vgg_ligh"):
        vgg_plan("resnet", 0)
    for wrong in (-1, 6):
        with pytest.raises(
            ConfigError, match=rf"FREEZE_AT is {wrong}; vgg16 has 5 blocks .* 0 .*5"
        ):
            vgg_plan("vgg16", wrong)
    assert vgg_plan("vgg_light", 5) is PLANS["vgg_light"]
