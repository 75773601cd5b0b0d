"""Weights of Detectron2's model zoo and of ImageNet, pickled, as Detectron2 itself loads them.

Small files in the layouts and with the names of the real ones.
"""

import os
import pickle
import re

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2", reason="compares with an installed Detectron2")
from detectron2.checkpoint import DetectionCheckpointer
from parity_toys import DETECTRON2, EMBEDDED, NARROW, build, make_inputs, stir
from parity_weights import assert_same_state, check_detections, load_in_embedded

from d2pd.errors import WeightsError

COCO = {**NARROW, "MODEL.ROI_HEADS.NUM_CLASSES": 80}
HEADS = [
    f"roi_heads.box_predictor.{name}"
    for name in ("cls_score.weight", "cls_score.bias", "bbox_pred.weight", "bbox_pred.bias")
]


def write_pickle(path, content, **facts):
    arrays = {name: np.asarray(value) for name, value in content.items()}
    path.write_bytes(pickle.dumps({"model": arrays, **facts} if facts else arrays))
    return path


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A detector of Detectron2's model zoo: its layout, its names, and what older ones had more."""
    model = build(DETECTRON2, COCO)
    stir(model, make_inputs("three_images", 1, DETECTRON2))
    anchors = model.proposal_generator.anchor_generator.cell_anchors
    prefix = "proposal_generator.anchor_generator.cell_anchors"
    state = {
        **{name: value.numpy() for name, value in model.state_dict().items()},
        **{f"{prefix}.{number}": value.numpy() for number, value in enumerate(anchors)},
        **{name: getattr(model, name).numpy() for name in ("pixel_mean", "pixel_std")},
    }
    path = tmp_path_factory.mktemp("zoo") / "model_final_280758.pkl"
    return write_pickle(path, state, __author__="Detectron2 Model Zoo")


def test_a_detector_of_the_model_zoo_gives_the_same_detections(zoo):
    check_detections(zoo, COCO)


def test_a_detector_of_the_model_zoo_on_other_classes_starts_its_heads_anew(zoo, caplog):
    options = {**COCO, "MODEL.ROI_HEADS.NUM_CLASSES": 3}
    model, match = load_in_embedded(zoo, options)
    assert [entry.name for entry in match.renewed] == HEADS
    warned = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert len(warned) == 1
    assert all(name in warned[0] for name in HEADS)
    assert "cls_score.weight (81x32 in the file, 4x32 here)" in warned[0]
    reference = build(DETECTRON2, options)
    DetectionCheckpointer(reference).load(str(zoo))
    assert_same_state(model, reference, HEADS)
    untouched = build(EMBEDDED, options, seed=1).state_dict()
    assert all(torch.equal(model.state_dict()[name], untouched[name]) for name in HEADS)


def caffe2_name(name):
    """Spell a name of Detectron2's ResNet as Caffe2 did; None for what its files do not hold."""
    norms = {"norm.weight": "bn_s", "norm.bias": "bn_b", "weight": "w"}
    branches = {"shortcut": "1", "conv1": "2a", "conv2": "2b", "conv3": "2c"}
    parts = re.fullmatch(r"(stem|res\d\.\d+)\.(\w+)\.(norm\.weight|norm\.bias|weight)", name)
    if parts is None:
        return None
    stage, layer, kind = parts.groups()
    if stage == "stem":
        return "conv1_w" if kind == "weight" else f"res_conv1_{norms[kind]}"
    return f"{stage.replace('.', '_')}_branch{branches[layer]}_{norms[kind]}"


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize("spelling", ["caffe2", "heuristics"])
def test_a_pickled_backbone_is_loaded_as_detectron2_does(spelling, norm, tmp_path):
    options = {**NARROW, "MODEL.RESNETS.NORM": norm}
    source = build(DETECTRON2, options, seed=3)
    stir(source, make_inputs("three_images", 1, DETECTRON2))
    state = source.backbone.bottom_up.state_dict()
    path = tmp_path / f"R-50-{spelling}-{norm}.pkl"
    if spelling == "caffe2":
        names = {name: caffe2_name(name) for name in state}
        state = {names[name]: value for name, value in state.items() if names[name]}
        assert {"conv1_w", "res_conv1_bn_s", "res2_0_branch1_w"} < set(state)
        write_pickle(path, {**state, "fc1000_w": np.ones((4, 128)), "fc1000_b": np.ones(4)})
    else:
        write_pickle(path, state, __author__="someone", matching_heuristics=True)
    reference = build(DETECTRON2, options, seed=1)
    DetectionCheckpointer(reference).load(str(path))
    loaded = reference.backbone.bottom_up
    assert torch.equal(loaded.res2[0].conv1.weight, source.backbone.bottom_up.res2[0].conv1.weight)
    model, match = load_in_embedded(path, options)
    assert match.scope == "backbone.bottom_up."
    assert_same_state(model, reference)


def test_a_detector_of_the_model_zoo_that_asks_for_code_is_refused(tmp_path):
    content = {"model": {"x": Touch(tmp_path / "touched")}, "__author__": "Detectron2 Model Zoo"}
    (tmp_path / "hostile.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(WeightsError, match=r"hostile\.pkl asks for posix\.mkdir"):
        load_in_embedded(tmp_path / "hostile.pkl", COCO)
    assert not (tmp_path / "touched").exists()


class Touch:
    """Makes a folder when it is unpickled freely."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
