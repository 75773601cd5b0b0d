import json
import pickle
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from d2pd.embedded.config import CfgNode, check_honoured, get_cfg, unhonoured_keys
from d2pd.embedded.defaults_tree import DEFAULTS
from d2pd.embedded.honoured import OF_OTHER_COMPONENTS, SWITCHES, leaves
from d2pd.errors import ConfigError, MissingFileError

FASTER_RCNN_R50_FPN = """
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  BACKBONE: {NAME: build_resnet_fpn_backbone}
  RESNETS: {OUT_FEATURES: [res2, res3, res4, res5]}
  FPN: {IN_FEATURES: [res2, res3, res4, res5]}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]]}
  ROI_HEADS: {NAME: StandardROIHeads, IN_FEATURES: [p2, p3, p4, p5]}
  ROI_MASK_HEAD: {NAME: MaskRCNNConvUpsampleHead, NUM_CONV: 4, POOLER_RESOLUTION: 14}
SOLVER: {STEPS: [60000, 80000], MAX_ITER: 90000, BASE_LR: 0.02}
VERSION: 2
"""


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-6, 1.0), st.integers(1, 10**6), st.booleans())
def test_a_dumped_config_merges_into_the_same(rate, iterations, mask):
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER, cfg.MODEL.MASK_ON = rate, iterations, mask
    again = get_cfg()
    again.merge_from_other_cfg(CfgNode(yaml.safe_load(cfg.dump())))
    # As JSON, because a merge makes lists of the tuples inside tuples, as in Detectron2.
    assert json.dumps(again) == json.dumps(cfg)


def test_get_cfg_gives_copies():
    get_cfg().MODEL.PIXEL_MEAN.append(1.0)
    assert get_cfg().MODEL.PIXEL_MEAN == [103.53, 116.28, 123.675]
    assert len(leaves(get_cfg())) == len(leaves(DEFAULTS)) == 192


def test_config_survives_pickling():
    cfg = get_cfg()
    assert pickle.loads(pickle.dumps(cfg)) == cfg


def test_every_key_and_default_is_detectron2s():
    theirs = pytest.importorskip("detectron2.config").get_cfg()
    assert leaves(get_cfg()) == leaves(theirs)
    kinds = {key: type(value) for key, value in leaves(theirs).items()}
    assert {key: type(value) for key, value in leaves(get_cfg()).items()} == kinds


def test_base_files_come_first(tmp_path):
    write(tmp_path, "base.yaml", "SOLVER: {BASE_LR: 0.5, MAX_ITER: 7}\n")
    child = write(tmp_path, "child.yaml", "_BASE_: base.yaml\nSOLVER: {MAX_ITER: 9}\n")
    cfg = get_cfg()
    cfg.merge_from_file(child)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER) == (0.5, 9)


def test_published_base_config_is_honoured(tmp_path):
    cfg = get_cfg()
    cfg.merge_from_file(write(tmp_path, "r50.yaml", FASTER_RCNN_R50_FPN))
    check_honoured(cfg)
    assert cfg.SOLVER.STEPS == (60000, 80000)


@pytest.mark.parametrize("key", SWITCHES)
def test_a_switch_that_is_turned_is_refused_by_name(key):
    default = leaves(DEFAULTS)[key]
    turned = {bool: lambda: not default, int: lambda: 5, float: lambda: 2.0}
    cfg = get_cfg()
    value = [True] * 4 if isinstance(default, list) else turned[type(default)]()
    cfg.merge_from_list([key, value])
    assert unhonoured_keys(cfg) == [key]
    with pytest.raises(ConfigError, match=key) as caught:
        check_honoured(cfg)
    assert "D2PD_ENGINE=detectron2" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_key_named_in_the_table_exists():
    known = list(leaves(DEFAULTS))
    governed = [prefix for prefixes in SWITCHES.values() for prefix in prefixes]
    assert set(SWITCHES) <= set(known)
    for prefix in [*governed, *OF_OTHER_COMPONENTS]:
        assert any(key.startswith(prefix) for key in known), prefix


def test_keys_of_other_groups_are_left_alone():
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.BASE_LR", 1.0, "INPUT.FORMAT", "RGB", "DATALOADER.NUM_WORKERS", 0])
    cfg.OWN_KEY = 3
    assert unhonoured_keys(cfg) == []


def test_yaml_that_would_run_code_is_refused(tmp_path):
    marker = tmp_path / "ran"
    evil = f"OUTPUT_DIR: !!python/object/apply:os.system ['touch {marker}']\n"
    with pytest.raises(yaml.constructor.ConstructorError):
        get_cfg().merge_from_file(write(tmp_path, "evil.yaml", evil))
    assert not marker.exists()


def test_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"nowhere\.yaml does not exist"):
        get_cfg().merge_from_file(str(tmp_path / "nowhere.yaml"))


def test_old_layout_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="VERSION 1, this engine reads 2"):
        get_cfg().merge_from_file(write(tmp_path, "old.yaml", "VERSION: 1\n"))


def test_unknown_key_and_wrong_type_are_refused(tmp_path):
    with pytest.raises(KeyError, match=r"MODEL\.WEIGHT"):
        get_cfg().merge_from_file(write(tmp_path, "typo.yaml", "MODEL: {WEIGHT: x}\n"))
    with pytest.raises(ValueError, match=r"SOLVER\.MAX_ITER"):
        get_cfg().merge_from_list(["SOLVER.MAX_ITER", "many"])
