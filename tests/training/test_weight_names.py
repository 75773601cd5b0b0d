import numpy as np
import pytest
import torch
from torchvision.models import resnet18, resnet50

from d2pd.training.weights.weight_names import (
    describe_model,
    name_layout,
    resnet_blocks,
    resnet_name,
    to_detectron2_names,
)

RESNETS = {18: resnet18, 50: resnet50}
NORM_WORDS = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}
LONG_NORM_WORDS = {
    "gamma": "weight",
    "beta": "bias",
    "running_mean": "running_mean",
    "running_var": "running_var",
}


def torchvision_state(depth):
    torch.manual_seed(depth)
    model = RESNETS[depth](weights=None).eval()
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return model, model.state_dict()


def caffe2_resnet50(norm_words):
    """Caffe2's names of ResNet-50 (MSRA), and the Detectron2 name that each stands for."""
    layers = {"res_conv1": "stem.conv1"}
    for stage, blocks in zip(range(2, 6), (3, 4, 6, 3), strict=True):
        for block in range(blocks):
            theirs, ours = f"res{stage}_{block}_branch", f"res{stage}.{block}"
            layers |= {f"{theirs}2{c}": f"{ours}.conv{n}" for n, c in enumerate("abc", 1)}
        layers[f"res{stage}_0_branch1"] = f"res{stage}.0.shortcut"
    names = {"conv1_w": "stem.conv1.weight"}
    names |= {f"{a}_w": f"{b}.weight" for a, b in layers.items() if a != "res_conv1"}
    for short, word in norm_words.items():
        names |= {f"{a}_bn_{short}": f"{b}.norm.{word}" for a, b in layers.items()}
    return names


CAFFE2_DETECTOR = {
    "conv_rpn_fpn2_w": "proposal_generator.rpn_head.conv.weight",
    "rpn_cls_logits_fpn2_b": "proposal_generator.rpn_head.objectness_logits.bias",
    "rpn_bbox_pred_fpn2_w": "proposal_generator.rpn_head.anchor_deltas.weight",
    "fpn_inner_res5_2_sum_w": "fpn_lateral5.weight",
    "fpn_inner_res4_5_sum_lateral_w": "fpn_lateral4.weight",
    "fpn_res2_2_sum_b": "fpn_output2.bias",
    "fc6_w": "box_head.fc1.weight",
    "fc7_b": "box_head.fc2.bias",
}


@pytest.mark.parametrize("depth", [18, 50])
def test_a_renamed_torchvision_resnet_computes_the_same(build_detector, depth):
    source, state = torchvision_state(depth)
    backbone = build_detector(depth=depth, norm="BN").backbone.bottom_up.eval()
    backbone.load_state_dict(to_detectron2_names(state), strict=True)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        x = source.maxpool(source.relu(source.bn1(source.conv1(image))))
        features = backbone(image)
        for stage in range(1, 5):
            x = getattr(source, f"layer{stage}")(x)
            torch.testing.assert_close(features[f"res{stage + 1}"], x)


@pytest.mark.parametrize("words", [NORM_WORDS, LONG_NORM_WORDS])
def test_caffe2_names_are_those_of_the_backbone(build_detector, words):
    names = caffe2_resnet50(words)
    state = {name: torch.tensor(float(i)) for i, name in enumerate(names)}
    renamed = to_detectron2_names({**state, "fc1000_w": torch.ones(1), "pred_b": torch.ones(1)})
    assert renamed == {names[name]: value for name, value in state.items()}
    backbone = build_detector(depth=50).backbone.bottom_up.state_dict()
    assert set(renamed) == {n for n in backbone if not n.endswith("num_batches_tracked")}


def test_caffe2_names_of_a_detector():
    state = {name: torch.ones(2) for name in ("conv1_w", "res2_0_branch2a_w", *CAFFE2_DETECTOR)}
    renamed = to_detectron2_names(state)
    assert set(renamed) == {
        *CAFFE2_DETECTOR.values(),
        "stem.conv1.weight",
        "res2.0.conv1.weight",
    }


def test_caffe2s_background_moves_from_the_first_class_to_the_last():
    base = {"conv1_w": torch.ones(1), "res2_0_branch2a_w": torch.ones(1)}
    scores, deltas = torch.tensor([0.0, 1.0, 2.0]), torch.arange(12.0)
    renamed = to_detectron2_names({**base, "cls_score_b": scores, "bbox_pred_b": deltas})
    assert renamed["cls_score.bias"].tolist() == [1, 2, 0]
    assert renamed["bbox_pred.bias"].tolist() == [4, 5, 6, 7, 8, 9, 10, 11]


def test_detectron2_names_stay_as_they_are():
    state = {"backbone.bottom_up.stem.conv1.weight": torch.ones(1), "conv1.weight": torch.ones(1)}
    assert to_detectron2_names(state) == state


def test_layouts_are_told_apart():
    assert name_layout(torchvision_state(18)[1]) == "torchvision"
    assert name_layout(caffe2_resnet50(NORM_WORDS)) == "caffe2"
    assert name_layout(["conv1.weight", "backbone.layer1.0.conv1.weight"]) == "detectron2"


def test_caffe2_names_as_detectron2_converts_them():
    loading = pytest.importorskip("detectron2.checkpoint.c2_model_loading")
    names = [*caffe2_resnet50(NORM_WORDS), *CAFFE2_DETECTOR, "cls_score_w", "bbox_pred_b"]
    state = {name: torch.arange(12.0) + i for i, name in enumerate(names)}
    expected, _ = loading.convert_c2_detectron_names(state)
    renamed = to_detectron2_names(state)
    assert set(renamed) == set(expected)
    for name, tensor in renamed.items():
        np.testing.assert_array_equal(tensor.numpy(), expected[name].numpy())


@pytest.mark.parametrize(("depth", "blocks"), [(18, [2, 2, 2, 2]), (50, [3, 4, 6, 3])])
def test_the_depth_is_counted(depth, blocks):
    names = to_detectron2_names(torchvision_state(depth)[1])
    is_bottleneck, counted = resnet_blocks(names)
    assert list(counted.values()) == blocks
    assert is_bottleneck == (depth == 50)
    assert resnet_name(names) == f"ResNet-{depth}"
    assert resnet_name(name for name in names if not name.startswith("res5")) == f"ResNet-{depth}"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["backbone.body.layer1.0.conv1.weight"], "torchvision"),
        (["model.0.conv.weight"], "YOLO"),
        (["transformer.encoder.layers.0.linear1.weight"], "DETR"),
        (["features.0.weight"], "VGG"),
        (["res2.0.conv1.weight", "res3.1.conv1.weight"], "a model with names such as res2.0"),
        (["alpha", "beta", "gamma", "delta"], "names such as alpha, beta, delta"),
    ],
)
def test_models_are_described(names, words):
    assert words in describe_model(names)


def test_a_detector_is_described_with_its_backbone(build_detector):
    words = describe_model(build_detector(depth=18).state_dict())
    assert words == "a Detectron2 R-CNN detector with ResNet-18"
