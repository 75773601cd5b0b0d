"""torchvision's VGG16 by the names of SSD's backbone, its fully connected layers thinned out."""

import pytest
import torch
from torchvision.models import vgg11, vgg13_bn, vgg16, vgg16_bn, vgg19

from d2pd.modeling.backbones import PLANS, Vgg
from d2pd.training.weights.vgg_names import to_ssd_backbone, vgg16_names
from d2pd.training.weights.weight_names import describe_model, name_layout, to_detectron2_names

BUILDS = {"vgg16": vgg16, "vgg16_bn": vgg16_bn}


def shapes_of(build):
    with torch.device("meta"):
        return build(weights=None, init_weights=False).state_dict()


def small_fc(fc6, fc7):
    return {
        "classifier.0.weight": fc6,
        "classifier.0.bias": torch.arange(float(len(fc6))),
        "classifier.3.weight": fc7,
        "classifier.3.bias": torch.arange(float(len(fc7))) + 100,
        "classifier.6.weight": torch.zeros(1000, len(fc7)),
        "classifier.6.bias": torch.zeros(1000),
    }


@pytest.mark.parametrize("name", BUILDS)
def test_each_layer_gets_the_name_and_shape_of_ours(name):
    state = shapes_of(BUILDS[name])
    renamed = to_detectron2_names(state)
    with torch.device("meta"):
        ours = Vgg(PLANS[name], (3,), 0).state_dict()
    expected = {
        f"backbone.{key}": tensor.shape
        for key, tensor in ours.items()
        if not key.endswith("num_batches_tracked") and not key.startswith(("conv6.n", "conv7.n"))
    }
    assert {key: tensor.shape for key, tensor in renamed.items()} == expected
    assert name_layout(state) == "torchvision VGG16"


def test_layers_are_in_their_order():
    table = vgg16_names(shapes_of(vgg16_bn))
    assert table["features.0.weight"] == "backbone.front.conv1_1.weight"
    assert table["features.4.running_var"] == "backbone.front.conv1_2.norm.running_var"
    assert table["features.30.bias"] == "backbone.front.conv4_3.bias"
    assert table["features.34.weight"] == "backbone.rear.conv5_1.weight"
    assert vgg16_names(shapes_of(vgg16))["features.28.weight"] == "backbone.rear.conv5_3.weight"


def test_fc6_keeps_every_third_position_and_every_fourth_number():
    torch.manual_seed(0)
    fc6, fc7 = torch.rand(8, 2 * 7 * 7), torch.rand(12, 8)
    thinned = to_ssd_backbone(small_fc(fc6, fc7), {})
    by_hand = torch.empty(2, 2, 3, 3)
    for number, out in enumerate((0, 4)):
        for channel in range(2):
            for y in range(3):
                for x in range(3):
                    by_hand[number, channel, y, x] = fc6[out, channel * 49 + 3 * y * 7 + 3 * x]
    assert torch.equal(thinned["backbone.conv6.weight"], by_hand)
    assert thinned["backbone.conv6.bias"].tolist() == [0, 4]
    assert thinned["backbone.conv7.weight"].shape == (3, 2, 1, 1)
    assert thinned["backbone.conv7.weight"][1, 1, 0, 0] == fc7[4, 4]
    assert thinned["backbone.conv7.bias"].tolist() == [100, 104, 108]
    assert len(thinned) == 4  # the classifier of ImageNet is left out


def test_what_is_thinned_out_does_not_hold_on_to_what_it_is_from():
    thinned = to_ssd_backbone(small_fc(torch.rand(8, 98), torch.rand(12, 8)), {})
    for tensor in thinned.values():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * 4


def test_a_file_of_the_convolutions_alone_is_known():
    state = {n: t for n, t in shapes_of(vgg16).items() if n.startswith("features.")}
    assert len(to_detectron2_names(state)) == 26


@pytest.mark.parametrize("build", [vgg11, vgg13_bn, vgg19])
def test_a_vgg_of_another_depth_is_not_taken_for_one(build):
    state = shapes_of(build)
    assert vgg16_names(state) is None
    assert to_detectron2_names(state) == state
    assert describe_model(state) == "a classifier of torchvision (VGG, MobileNet, Swin or the like)"
