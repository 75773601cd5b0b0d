import pytest
import yacs.config

from d2pd.embedded.config import get_cfg
from d2pd.embedded.honoured import OF_OTHER_COMPONENTS, SWITCHES, leaves
from d2pd.embedded.rcnn import GeneralizedRCNN

# Read by d2pd's loader and optimizer, which are the same under both engines.
OF_D2PD = ("SOLVER.", "INPUT.", "DATALOADER.", "DATASETS.")
# Read by the trainer, by default_setup and by what builds the model.
OF_THE_RUN = {
    "VERSION",
    "MODEL.DEVICE",
    "MODEL.META_ARCHITECTURE",
    "MODEL.WEIGHTS",
    "TEST.EXPECTED_RESULTS",
    "TEST.EVAL_PERIOD",
    "OUTPUT_DIR",
    "SEED",
    "CUDNN_BENCHMARK",
    "FLOAT32_PRECISION",
}


def faster_rcnn_r50():
    cfg = get_cfg()
    levels = ["res2", "res3", "res4", "res5"]
    model = cfg.MODEL
    model.DEVICE = "cpu"
    model.BACKBONE.NAME = "build_resnet_fpn_backbone"
    model.RESNETS.OUT_FEATURES = levels
    model.FPN.IN_FEATURES = levels
    model.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    model.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    model.ROI_HEADS.merge_from_list(["NAME", "StandardROIHeads", "IN_FEATURES", ["p2", "p3"]])
    model.ROI_BOX_HEAD.merge_from_list(["NAME", "FastRCNNConvFCHead", "NUM_FC", 1])
    return cfg


@pytest.fixture
def keys_read(monkeypatch):
    """Dotted names of the keys that were read of the config passed to ``watch``."""
    prefixes, read = {}, set()

    def watch(node, prefix=""):
        prefixes[id(node)] = prefix
        for key, value in node.items():
            if isinstance(value, dict):
                watch(value, f"{prefix}{key}.")

    original = yacs.config.CfgNode.__getattr__

    def note(self, key):
        if id(self) in prefixes:
            read.add(prefixes[id(self)] + key)
        return original(self, key)

    monkeypatch.setattr(yacs.config.CfgNode, "__getattr__", note)
    return watch, read


def test_each_key_is_read_or_refused_or_belongs_to_something_else(keys_read):
    watch, read = keys_read
    cfg, cascade = faster_rcnn_r50(), faster_rcnn_r50()
    cascade.MODEL.ROI_HEADS.NAME = "CascadeROIHeads"
    cascade.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True
    for each in (cfg, cascade):
        watch(each)
        GeneralizedRCNN(each)
    elsewhere = [*OF_D2PD, *OF_OTHER_COMPONENTS, *(p for ps in SWITCHES.values() for p in ps)]
    silent = [
        key
        for key in leaves(cfg)
        if key not in read | OF_THE_RUN | set(SWITCHES) and not key.startswith(tuple(elsewhere))
    ]
    assert silent == []
    # What is refused must not also be read: then it would be honoured after all.
    assert read & set(SWITCHES) == set()
