"""Files of other models in d2pd's: VGG16 in SSDSeg, RGB filters for other channels."""

import logging
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18, vgg16, vgg16_bn

from d2pd.config import load_config
from d2pd.errors import WeightsError
from d2pd.modeling.build import build_model
from d2pd.training.checkpoints.checkpointer import Checkpointer
from d2pd.training.weights.matching import WeightsFile, match_weights, read_weights
from d2pd.training.weights.weight_names import to_detectron2_names
from d2pd.training.weights.weights_loading import load_weights

CAMERAS = {
    "visible": {"INPUT.MODALITY": "visible"},
    "lwir": {"INPUT.MODALITY": "lwir", "MODEL.PIXEL_MEAN": [0.0], "MODEL.PIXEL_STD": [9.0]},
    "lwir3": {"INPUT.MODALITY": "lwir"},
    "both4": {
        "INPUT.MODALITY": "both",
        "MODEL.PIXEL_MEAN": [0.0] * 4,
        "MODEL.PIXEL_STD": [9.0] * 4,
    },
    "both6": {
        "INPUT.MODALITY": "both",
        "MODEL.PIXEL_MEAN": [0.0] * 6,
        "MODEL.PIXEL_STD": [9.0] * 6,
    },
}
EARLY, HALFWAY = {"MODEL.SSD.FUSION": "early"}, {"MODEL.SSD.FUSION": "halfway"}
SSD = {
    "MODEL.META_ARCHITECTURE": "SSDSeg",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[16.0], [40.0]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[1.0], [1.0]],
    "MODEL.SSD.EXTRA_LAYERS": [],
    "MODEL.SSD.SEG.MAPS": [True, True],
}
RCNN = {
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
}
BASE = Path(__file__).resolve().parents[2] / "configs/Base-FasterRCNN-FPN.yaml"


def build(base, settings, seed=0):
    words = {"MODEL.DEVICE": "cpu", "MODEL.WEIGHTS": "", **settings}
    opts = [word for key, value in words.items() for word in (key, str(value))]
    torch.manual_seed(seed)
    return build_model(load_config(base, opts))


def build_ssd(name="vgg16", camera="visible", fusion=EARLY, **kwargs):
    settings = {"MODEL.BACKBONE.NAME": name} | SSD | CAMERAS[camera] | fusion
    return build("", settings, **kwargs)


def vgg_state(build_vgg):
    """A classifier of torchvision as far as its convolutions are; its fully connected layers are
    one row, seen as often as it takes: they would fill half a gigabyte."""
    torch.manual_seed(7)
    with torch.device("meta"):
        shapes = build_vgg(weights=None, init_weights=False).state_dict()
    state = {}
    for name, tensor in shapes.items():
        rows = torch.rand(tensor.shape[:1]) if tensor.dim() else torch.tensor(3)
        state[name] = torch.rand(tensor.shape) if "features" in name else rows
        if name.startswith("classifier") and tensor.dim() == 2:
            state[name] = rows[:, None].expand(tensor.shape)
    return state


@pytest.fixture(scope="module")
def vgg_files():
    return {
        "vgg16": vgg_file(vgg_state(vgg16)),
        "vgg16_bn": vgg_file(vgg_state(vgg16_bn)),
    }


def vgg_file(state):
    return WeightsFile(to_detectron2_names(state), "torchvision VGG16 names", Path("vgg.pth"))


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_the_backbone_of_ssd_is_torchvisions(vgg_files, name):
    model = build_ssd(name)
    match = load_weights(model, vgg_files[name])
    state, file = model.network.backbone.state_dict(), vgg_files[name].state
    assert match.scope == "network.backbone."
    assert (match.adapted, match.renewed, match.unused) == ([], [], [])
    # torchvision has no norm behind its fully connected layers.
    assert {n.split(".norm.")[0] for n in match.missing} <= {
        *("network.backbone.conv6", "network.backbone.conv7")
    }
    assert bool(match.missing) == (name == "vgg16_bn")
    for theirs, tensor in file.items():
        assert torch.equal(state[theirs.removeprefix("backbone.")], tensor), theirs
    assert state["conv6.weight"].shape == (1024, 512, 3, 3)


def test_a_file_is_read_and_loaded_by_the_checkpointer(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    state = {n: t for n, t in vgg_state(vgg16).items() if n.startswith("features.")}
    torch.save(state, tmp_path / "vgg16.pth")
    model = build_ssd(camera="lwir")
    Checkpointer(model).load(str(tmp_path / "vgg16.pth"))
    first = model.network.backbone.front.conv1_1.weight
    torch.testing.assert_close(first, state["features.0.weight"].mean(dim=1, keepdim=True))
    assert torch.equal(model.network.backbone.rear.conv5_3.bias, state["features.28.bias"])
    assert "(torchvision VGG16 names): 87% of the parameters of network.backbone" in caplog.text
    assert (
        "Filters for thermal channels are the average of the file's three (MODEL.BACKBONE."
        "LWIR_FILTERS), those for visible ones the file's: "
        "network.backbone.front.conv1_1.weight (64x3x3x3 in the file, 64x1x3x3 here)"
    ) in caplog.text
    assert "These are not in vgg16.pth: network.backbone.conv6.weight" in caplog.text


@pytest.mark.parametrize(("camera", "channels"), [("both4", (3, 1)), ("both6", (3, 3))])
def test_both_streams_of_halfway_fusion_get_the_features(vgg_files, camera, channels):
    model = build_ssd("vgg16_bn", camera, HALFWAY)
    match = load_weights(model, vgg_files["vgg16_bn"])
    front, file = model.network.backbone.front, vgg_files["vgg16_bn"].state
    for stream in (front.visible, front.lwir):
        for name, tensor in stream.state_dict().items():
            if not name.endswith("num_batches_tracked") and name != "conv1_1.weight":
                assert torch.equal(tensor, file[f"backbone.front.{name}"]), name
    rgb = file["backbone.front.conv1_1.weight"]
    assert torch.equal(front.visible.conv1_1.weight, rgb)
    mean = rgb.mean(dim=1, keepdim=True)
    torch.testing.assert_close(front.lwir.conv1_1.weight, rgb if channels[1] == 3 else mean)
    assert [one.name for one in match.adapted] == (
        ["network.backbone.front.lwir.conv1_1.weight"] if channels[1] == 1 else []
    )
    assert {n.split(".")[-2] for n in match.missing if "front" in n} == {"fuse", "norm"}


def test_a_chosen_colour_makes_the_thermal_filters(vgg_files, caplog):
    caplog.set_level(logging.INFO)
    settings = SSD | CAMERAS["both4"] | EARLY
    settings |= {"MODEL.BACKBONE.NAME": "vgg16", "INPUT.FORMAT": "RGB"}
    model = build("", settings | {"MODEL.BACKBONE.LWIR_FILTERS": "green"})
    load_weights(model, vgg_files["vgg16"])
    rgb = vgg_files["vgg16"].state["backbone.front.conv1_1.weight"]
    weight = model.network.backbone.front.conv1_1.weight
    assert torch.equal(weight, torch.cat([rgb, rgb[:, 1:2]], dim=1))
    assert "Filters for thermal channels are number 2 of the file's three" in caplog.text


@pytest.mark.parametrize(
    ("file", "model", "way_out"),
    [
        (
            "vgg16",
            "vgg16_bn",
            "VGG16 without batch norm, but the model has one with it: .*NAME vgg16, or",
        ),
        (
            "vgg16_bn",
            "vgg16",
            "VGG16 with batch norm, but the model has one without it: .* vgg16_bn, or",
        ),
    ],
)
def test_batch_norm_in_one_alone_is_refused(vgg_files, file, model, way_out):
    with pytest.raises(WeightsError, match=rf"vgg\.pth holds a {way_out}"):
        load_weights(build_ssd(model), vgg_files[file])


def test_files_of_other_models_are_named(vgg_files):
    with pytest.raises(
        WeightsError, match=r"does not fit .* It looks like a file for a VGG16 of t"
    ):
        load_weights(build_ssd("vgg_light"), vgg_files["vgg16_bn"])
    with pytest.raises(WeightsError, match=r"does not fit .* like a file for a VGG16 of torchvis"):
        load_weights(build(BASE, RCNN), vgg_files["vgg16"])
    ssd = WeightsFile(build_ssd("vgg_light").state_dict(), "x", Path("ssd.pth"))
    with pytest.raises(
        WeightsError, match=r"looks like a file for an SSDSeg detector of d2pd; giv"
    ):
        load_weights(build(BASE, RCNN), ssd)


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("fusion", [EARLY, HALFWAY])
def test_our_own_checkpoints_load_untouched(tmp_path, camera, fusion):
    model = build_ssd("vgg_light", camera, fusion)
    Checkpointer(model, str(tmp_path)).save("model_final")
    file = read_weights(tmp_path / "model_final.pth")
    other = build_ssd("vgg_light", camera, fusion, seed=1)
    match = load_weights(other, file)
    assert (match.adapted, match.renewed, match.missing, match.unused) == ([], [], [], [])
    assert match.matched_fraction == 1
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_a_trained_single_stream_starts_both_of_halfway_fusion():
    single = build_ssd("vgg_light", "visible")
    model = build_ssd("vgg_light", "both4", HALFWAY, seed=1)
    match = load_weights(model, WeightsFile(single.state_dict(), "x", Path("x.pth")))
    front = model.network.backbone.front
    weight = single.network.backbone.front.conv3_1.weight
    assert torch.equal(front.visible.conv3_1.weight, weight)
    assert torch.equal(front.lwir.conv3_1.weight, weight)
    heads = single.network.heads.state_dict()
    assert all(torch.equal(t, heads[n]) for n, t in model.network.heads.state_dict().items())
    assert all("front.fuse" in name for name in match.missing)


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_resnet_for_rgb_starts_faster_rcnn_on_any_channels(camera):
    torch.manual_seed(3)
    state = resnet18(weights=None).state_dict()
    model = build(BASE, RCNN | CAMERAS[camera])
    match = load_weights(
        model, WeightsFile(to_detectron2_names(state), "torchvision names", Path("r18.pth"))
    )
    weight, rgb = model.backbone.bottom_up.stem.conv1.weight, state["conv1.weight"]
    channels = weight.shape[1]
    assert channels == {"lwir": 1, "both4": 4, "both6": 6}.get(camera, 3)
    assert [one.name for one in match.adapted] == (
        [] if channels == 3 else ["backbone.bottom_up.stem.conv1.weight"]
    )
    assert (match.renewed, match.matched_fraction) == ([], 1.0)
    visible = 0 if channels == 1 else 3
    assert torch.equal(weight[:, :visible], rgb[:, :visible])
    for channel in range(visible, channels):
        torch.testing.assert_close(weight[:, channel], rgb.mean(dim=1))


def test_a_run_does_not_go_on_from_other_channels(tmp_path):
    Checkpointer(build_ssd("vgg_light", "visible"), str(tmp_path)).save("model_0000001")
    checkpointer = Checkpointer(build_ssd("vgg_light", "both4"), str(tmp_path))
    with pytest.raises(WeightsError, match=r"another model: 1 parameters differ, such as network"):
        checkpointer.resume()


def test_streams_count_as_one_place_and_others_do_not():
    shapes = {"backbone.front.visible.a": (1,), "backbone.front.lwir.a": (1,), "b": (1,)}
    state = {"backbone.front.a": torch.zeros(1), "b": torch.zeros(1)}
    match = match_weights(state, shapes)
    assert match.loaded == {
        "backbone.front.visible.a": "backbone.front.a",
        "backbone.front.lwir.a": "backbone.front.a",
        "b": "b",
    }
    apart = {"net.visible.a": (1,), "net.lwir.a": (1,), "b": (1,)}
    assert match_weights(
        {"a": torch.zeros(1), "b": torch.zeros(1), "c": torch.zeros(1)}, apart | {"c": (1,)}
    ).missing == ["net.visible.a", "net.lwir.a"]


def test_pixels_of_torchvision_are_explained_without_what_a_vgg_has_not(vgg_files, caplog):
    settings = {"MODEL.BACKBONE.NAME": "vgg16"} | SSD
    load_weights(build("", settings), vgg_files["vgg16"])
    assert "vgg.pth was trained on RGB pixels" in caplog.text
    assert "STRIDE_IN_1X1" not in caplog.text
