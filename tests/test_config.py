"""Loading a configuration: what is taken, what is refused, and in which words."""

import json
import math
import re
from pathlib import Path

import pytest
from easydict import EasyDict

from d2pd.config import config_from_easydict, load_config
from d2pd.config_checks import check_config
from d2pd.config_keys import EASYDICT_KEYS, REGISTER_DEFAULTS, default_config
from d2pd.config_rules import ALLOWED_VALUES, HONOURED, SWITCHED_KEYS
from d2pd.config_words import flatten, lookup
from d2pd.d2 import get_cfg
from d2pd.errors import ConfigError, MissingFileError

ROOT = Path(__file__).resolve().parent.parent
LAID_OVER = ROOT / "configs/ablations/light.yaml"  # no configuration: keys over others
CONFIGS = sorted(set(ROOT.glob("configs/**/*.yaml")) - {LAID_OVER})


def test_defaults_differ_from_detectron2_only_in_seed_and_device():
    before = dict(flatten(get_cfg()))
    after = dict(flatten(default_config()))
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {"SEED", "MODEL.DEVICE"}
    assert (after["SEED"], after["MODEL.DEVICE"]) == (42, "auto")


def test_every_honoured_and_every_restricted_key_exists():
    known = {key for key, _ in flatten(default_config())}
    honoured = {group + name for group, names in HONOURED.items() for name in names.split()}
    assert honoured <= known
    assert set(ALLOWED_VALUES) <= known
    assert set(SWITCHED_KEYS) | {switch for switch, _ in SWITCHED_KEYS.values()} <= known
    flags = {"--resume", "--overwrite", "--eval-only", "--num-machines"}
    assert set(EASYDICT_KEYS.values()) - flags <= known


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_shipped_config_loads_and_says_how_it_is_run(path):
    cfg = load_config(path)
    check_config(cfg)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    if not path.stem.startswith("Base"):
        words = rf"--config-files? configs/{path.relative_to(ROOT / 'configs')}"
        assert re.search(words, text)
        assert "Expected:" in text
        name = "_".join(path.relative_to(ROOT / "configs").with_suffix("").parts)
        assert f"output/{name}" == cfg.OUTPUT_DIR
        for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST, *cfg.DATASETS.FINAL_TEST):
            assert name in cfg.DATASETS.REGISTER


def test_dumped_configuration_loads_to_the_same_values(tmp_path):
    cfg = load_config(ROOT / "configs/faster_rcnn_kaist.yaml", ["SOLVER.BASE_LR", "0.125"])
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again = load_config(tmp_path / "config.yaml")
    assert json.dumps(dict(flatten(again)), sort_keys=True) == json.dumps(
        dict(flatten(cfg)), sort_keys=True
    )


def test_dumped_detectron2_configuration_merges_and_gets_a_seed(tmp_path, caplog):
    (tmp_path / "config.yaml").write_text(get_cfg().dump())
    cfg = load_config(tmp_path / "config.yaml")
    assert (cfg.MODEL.DEVICE, cfg.SEED) == ("cuda", 42)
    assert "SEED -1 is replaced by 42" in caplog.text


def test_keys_of_a_dataset_are_overridden_from_the_command_line():
    config = ROOT / "configs/faster_rcnn_face_mask.yaml"
    key = "DATASETS.REGISTER.face_mask_train"
    cfg = load_config(config, [f"{key}.BOX_FORMAT", "xywh", f"{key}.COLUMNS", "['a', 'b']"])
    entry = cfg.DATASETS.REGISTER.face_mask_train
    assert (entry.BOX_FORMAT, entry.COLUMNS) == ("xywh", ["a", "b"])
    assert entry.FORMAT == "csv"


def test_dataset_is_described_from_the_command_line_alone():
    cfg = load_config("", ["DATASETS.REGISTER.mine.FORMAT", "csv"])
    assert dict(cfg.DATASETS.REGISTER.mine) == REGISTER_DEFAULTS | {"FORMAT": "csv"}
    other = load_config("", ["DATASETS.REGISTER.mine.CLASSES", "['a']"])
    assert other.DATASETS.REGISTER.mine.CLASSES == ["a"]
    assert REGISTER_DEFAULTS["CLASSES"] == []


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SOLVER:\n  BASE_LRR: 0.1\n", "unknown key SOLVER.BASE_LRR; did you mean SOLVER.BASE_LR?"),
        ("ZZZ_QQ: 0.1\n", "unknown key ZZZ_QQ; configs/README.md lists the keys"),
        ("SOLVER:\n  BASE_LR: fast\n", "SOLVER.BASE_LR"),
        ("SOLVER: [1\n", "not YAML: while parsing a flow sequence"),
        ("just words\n", "not a configuration: the file must hold keys and values"),
        ("- a\n- b\n", "not a configuration: the file must hold keys and values"),
        ("", "not a configuration: the file must hold keys and values"),
        ("SEED: !!python/object/apply:os.system ['true']\n", "YAML that would run code is refused"),
        ("DATASETS: {REGISTER: {a: {FORMATT: csv}}}\n", "DATASETS.REGISTER.a.FORMATT; known: FORM"),
        ("DATASETS: {REGISTER: {a: 3}}\n", "DATASETS.REGISTER.a must hold keys, got 3"),
        (
            "DATASETS: {REGISTER: {a: {CLASSES: person}}}\n",
            "DATASETS.REGISTER.a.CLASSES: expected a list, got 'person'",
        ),
        ("SOLVER: {OPTIMIZER: Lion}\n", "SOLVER.OPTIMIZER is 'Lion'; allowed: SGD, Adam, AdamW"),
        (
            "SOLVER: {LR_SCHEDULER_NAME: WarmupCosineLR, MAX_ITER: 10}\n",
            "SOLVER.WARMUP_ITERS 1000 leaves nothing of SOLVER.MAX_ITER 10",
        ),
        ("SOLVER: {MAX_ITER: 9, STEPS: [3, 9]}\n", "SOLVER.STEPS [3, 9] has MAX_ITER 9 itself"),
        ("SOLVER: {MAX_ITER: 0}\n", "SOLVER.MAX_ITER is 0; it must be at least 1"),
        ("SOLVER: {BASE_LR: -1.0}\n", "SOLVER.BASE_LR is -1.0; it must be at least 0"),
        ("SOLVER: {BASE_LR: .nan}\n", "SOLVER.BASE_LR is nan; it must be at least 0"),
        ("BEST_CHECKPOINT: {METRIC: [bbox/AP, 50]}\n", "METRIC names 50, which is no metric"),
        ("BEST_CHECKPOINT: {METRIC: ['']}\n", "METRIC names '', which is no metric"),
        ("SOLVER: {BASE_LR: .inf}\n", "SOLVER.BASE_LR is inf; it must be finite"),
        ("DETERMINISTIC: True\nCUDNN_BENCHMARK: True\n", "DETERMINISTIC True wants the same ones"),
        *(
            (f"MODEL: {{SSD: {{{name}: {value}}}}}\n", f"MODEL.SSD.{name} is {shown}; it must be")
            for name, value, shown in (
                ("L2_NORM_SCALE", ".nan", "nan"),
                ("L2_NORM_SCALE", "1.0e+308", "1e+308"),
                ("NEGATIVE_RATIO", "-1.5", "-1.5"),
                ("SMOOTH_L1_BETA", ".inf", "inf"),
                ("BBOX_REG_LOSS_WEIGHT", "-2.0", "-2.0"),
                ("SCORE_THRESH_TEST", "1.5", "1.5"),
                ("SCORE_THRESH_TEST", ".nan", "nan"),
                ("TOPK_CANDIDATES_TEST", "0", "0"),
                ("NMS_THRESH_TEST", ".inf", "inf"),
                ("SOFT_NMS_SIGMA", ".nan", "nan"),
            )
        ),
        ("TEST: {DETECTIONS_PER_IMAGE: 0}\n", "DETECTIONS_PER_IMAGE is 0; it must be at least 1"),
        ("MODEL: {PIXEL_STD: [1.0, 0.0, 1.0]}\n", "PIXEL_STD is [1.0, 0.0, 1.0]; it divides"),
        ("MODEL: {PIXEL_STD: [1.0, -1.0, 1.0]}\n", "PIXEL_STD is [1.0, -1.0, 1.0]; it divides"),
        ("MODEL: {PIXEL_MEAN: [1.0, -5.0, 1.0]}\n", "PIXEL_MEAN is [1.0, -5.0, 1.0]; levels of"),
        *(
            (f"MODEL: {{PIXEL_MEAN: [1.0, {value}, 1.0]}}\n", "must be finite numbers; ")
            for value in (".nan", ".inf", "a", "[1.0]", "null", "true", "1.0e+300")
        ),
        (
            "INPUT: {AUG: {RESIZED_CROP_RATIO: [0.5, 2.0]}}\n",
            "RESIZED_CROP_RATIO is (0.5, 2.0), but INPUT.AUG.RESIZED_CROP_SCALE is ()",
        ),
        ("EARLY_STOPPING: {MIN_DELTA: .inf}\n", "MIN_DELTA is inf; it must be finite"),
        ("DATALOADER: {NUM_WORKERS: -1}\n", "DATALOADER.NUM_WORKERS is -1; it must be at least 0"),
        ("DATASETS: {SYNTHETIC: {NUM_TRAIN: 0}}\n", "NUM_TRAIN is 0; it must be at least 1"),
        ("TEST: {EXPECTED_RESULTS: [[bbox, AP]]}\n", "is not [task, metric, value, tolerance]"),
        ("_BASE_: bad.yaml\n", "its _BASE_ leads back to itself"),
        (
            "SOLVER:\n",
            "...), got a value of type NoneType",
        ),
        ("DATASETS: {REGISTER: a}\n", "DATASETS.REGISTER holds keys, got a value of type str"),
        ("DATASETS: {TRAIN: mine}\n", "DATASETS.TRAIN takes a value of type tuple, got str"),
        (
            "TEST: {AUG: {ENABLED: true}}\n",
            "TEST.AUG.ENABLED is True, but d2pd does not honour it; remove it, or set it back to",
        ),
        (
            "SOLVER: {AMP: {PRECISION: bf16}}\n",
            "SOLVER.AMP.PRECISION is 'bf16', but SOLVER.AMP.ENABLED is False, so that it would",
        ),
        ("EARLY_STOPPING: {PATIENCE: 9}\n", "EARLY_STOPPING.METRIC is '', so that it would"),
        ("SOLVER: {AMP: {PRECISION: fp8}}\n", "SOLVER.AMP.PRECISION is 'fp8'; allowed: fp16, bf16"),
    ],
)
def test_bad_file_is_refused_in_one_line(tmp_path, text, message):
    path = write(tmp_path / "bad.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_with_code_does_not_run_it(tmp_path):
    mark = tmp_path / "ran"
    apply = "!!python/object/apply:pathlib.Path"
    path = write(tmp_path / "bad.yaml", f"SEED: {apply}.touch [{apply} [{mark}]]\n")
    with pytest.raises(ConfigError):
        load_config(path)
    base = write(tmp_path / "child.yaml", f"_BASE_: {path}\nSEED: 1\n")
    with pytest.raises(ConfigError):
        load_config(base)
    assert not mark.exists()


def test_missing_file_and_missing_base_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"no config file .*nowhere\.yaml .*configs/"):
        load_config(tmp_path / "nowhere.yaml")
    path = write(tmp_path / "child.yaml", "_BASE_: nowhere.yaml\nSEED: 1\n")
    with pytest.raises(MissingFileError, match=r"its _BASE_ names .*nowhere\.yaml"):
        load_config(path)


def test_overrides_must_come_in_pairs_and_be_known():
    with pytest.raises(ConfigError, match="overrides come in pairs.*'SEED' has no value"):
        load_config("", ["SEED"])
    with pytest.raises(ConfigError, match="command line: unknown key SOLVER.LR"):
        load_config("", ["SOLVER.LR", "0.1"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["SEED", "1", "--num-gpus", "2"], "--num-gpus stands behind an override"),
        (["SEED", "1", "--resume"], "--resume stands behind an override"),
        (["SEED=1"], "'SEED=1': an override is two words, KEY VALUE"),
        (["SOLVER.MAX_ITER.X", "3"], "unknown key SOLVER.MAX_ITER.X; did you mean SOLVER.MAX_ITER"),
        (["SOLVER", "3"], r"SOLVER holds keys \(.*\), got a value of type int"),
        (
            ["SOLVER.MAX_ITER", "abc"],
            "MAX_ITER takes a value of type int, got str; it is now 40000",
        ),
        (["DATASETS.TRAIN", "mine"], r"on the command line a list of one is \"\('name',\)\""),
    ],
)
def test_overrides_of_the_wrong_form_are_explained(words, message):
    with pytest.raises(ConfigError, match=message):
        load_config("", words)


def test_easydict_reaches_every_key_of_the_table(tmp_path):
    options = EasyDict(
        gpu=False,
        resume=True,
        overwrite=True,
        output=str(tmp_path),
        max_iter=11,
        num_machines=1,
        eval_only=True,
        learning_rate=0.25,
        ims_per_batch=3,
        batch_size_per_image=17,
        num_classes=2,
        eval_period=5,
        mask_on=False,
        mirror=tmp_path / "My Drive",
        checkpoint_minutes=10,
        stop_after_minutes=600,
        datasets=tmp_path / "my data",
        weights="start.pth",
        seed=7,
        warmup_iters=2,
    )
    assert set(options) == set(EASYDICT_KEYS)
    cfg, args = config_from_easydict(options)
    wanted = {
        "MODEL.DEVICE": "cpu",
        "OUTPUT_DIR": str(tmp_path),
        "SOLVER.MAX_ITER": 11,
        "SOLVER.BASE_LR": 0.25,
        "SOLVER.IMS_PER_BATCH": 3,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 17,
        "MODEL.ROI_HEADS.NUM_CLASSES": 2,
        "TEST.EVAL_PERIOD": 5,
        "MODEL.MASK_ON": False,
        "CHECKPOINT.MIRROR_DIR": str(tmp_path / "My Drive"),
        "CHECKPOINT.MINUTES": 10,
        "CHECKPOINT.STOP_AFTER_MINUTES": 600,
        "DATASETS.ROOT": str(tmp_path / "my data"),
        "MODEL.WEIGHTS": "start.pth",
        "SEED": 7,
        "SOLVER.WARMUP_ITERS": 2,
    }
    assert {key: lookup(cfg, key) for key in wanted} == wanted
    assert (args.resume, args.eval_only, args.num_machines) == (True, True, 1)
    assert args.overwrite


@pytest.mark.parametrize(("gpu", "device"), [(True, "cuda"), (False, "cpu"), (1, "cuda:1")])
def test_easydict_gpu_names_the_device(gpu, device):
    assert config_from_easydict(EasyDict(gpu=gpu))[0].MODEL.DEVICE == device
    assert config_from_easydict(EasyDict(gpu=None))[0].MODEL.DEVICE == "auto"


def test_easydict_with_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match="unknown option learning_rte; known: batch_size_per_im"):
        config_from_easydict(EasyDict(learning_rte=0.1))


@pytest.mark.parametrize("key", ["SOLVER.MAX_ITER", "MISS_RATE.IOU_THRESHOLD", "MODEL.DEVICE"])
def test_nothing_in_place_of_a_value_is_refused(tmp_path, key):
    path = tmp_path / "mine.yaml"
    group, name = key.split(".")
    path.write_text(f"{group}:\n  {name}:\n")
    with pytest.raises(ConfigError, match=rf"{key} is empty \(null\); it is .* by default"):
        load_config(path)


@pytest.mark.parametrize("value", ["0.0", "1.5"])
def test_iou_threshold_of_the_miss_rate_has_bounds(value):
    with pytest.raises(ConfigError, match=f"MISS_RATE.IOU_THRESHOLD is {value}; it must be above"):
        load_config("", ["MISS_RATE.IOU_THRESHOLD", value])


def test_settings_of_the_miss_rate_have_names_of_the_users_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "MISS_RATE:\n"
        "  SETTINGS: {tall: {HEIGHT: [80, .inf], OCCLUSION: [0]}}\n"
        "  SPLITS: {rain: [set12]}\n"
    )
    cfg = load_config(path, ["MISS_RATE.SETTINGS.tall.OCCLUSION", "[0, 1]"])
    assert cfg.MISS_RATE.SETTINGS.tall.HEIGHT == [80, math.inf]
    assert cfg.MISS_RATE.SETTINGS.tall.OCCLUSION == [0, 1]
    assert cfg.MISS_RATE.SPLITS.rain == ["set12"]


@pytest.mark.parametrize(
    ("modality", "count"), [("visible", 1), ("visible", 6), ("lwir", 4), ("both", 3)]
)
def test_pixel_means_must_be_as_many_as_a_modality_has_channels(modality, count):
    mean = ["INPUT.MODALITY", modality, "MODEL.PIXEL_MEAN", str([50.0] * count)]
    with pytest.raises(ConfigError, match=f"PIXEL_MEAN has {count} values?, but .*{modality}"):
        load_config(opts=[*mean, "MODEL.PIXEL_STD", str([1.0] * count)])


@pytest.mark.parametrize(
    ("modality", "count"), [("visible", 3), ("lwir", 1), ("lwir", 3), ("both", 4), ("both", 6)]
)
def test_a_thermal_image_counts_as_one_channel_or_as_three(modality, count):
    words = ["MODEL.PIXEL_MEAN", str([50.0] * count), "MODEL.PIXEL_STD", str([1.0] * count)]
    cfg = load_config(opts=["INPUT.MODALITY", modality, *words])
    assert len(cfg.MODEL.PIXEL_MEAN) == count


def test_means_and_deviations_must_be_as_many():
    with pytest.raises(ConfigError, match="PIXEL_MEAN has 3 values, MODEL.PIXEL_STD 1"):
        load_config(opts=["MODEL.PIXEL_STD", "[1.0]"])


def test_keys_of_the_other_model_are_refused():
    with pytest.raises(ConfigError, match=r"SSD\.NEGATIVE_RATIO is 2.0, but .* GeneralizedRCNN"):
        load_config(opts=["MODEL.SSD.NEGATIVE_RATIO", "2.0"])
    ssd = ["MODEL.META_ARCHITECTURE", "SSDSeg"]
    with pytest.raises(ConfigError, match=r"SCORE_THRESH_TEST is 0.3, but .* SSDSeg .* to 0.05"):
        load_config(opts=[*ssd, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.3"])
    words = ["MODEL.SSD.NEGATIVE_RATIO", "2.0", "MODEL.BACKBONE.FREEZE_AT", "0"]
    cfg = load_config(opts=[*ssd, *words, "MODEL.ROI_HEADS.NUM_CLASSES", "1"])
    assert cfg.MODEL.SSD.NEGATIVE_RATIO == 2.0


@pytest.mark.parametrize(
    ("words", "way_out"),
    [
        (["MODEL.SSD.SOFT_NMS_SIGMA", "0.4"], "set MODEL.SSD.NMS_TYPE soft_gaussian"),
        (["MODEL.SSD.SEG.MAPS", "[]", "MODEL.SSD.SEG.PIXEL_REDUCTION", "sum"], "SSD.SEG.MAPS,"),
    ],
)
def test_keys_of_ssd_that_another_one_makes_idle_are_refused(words, way_out):
    with pytest.raises(ConfigError, match=f"no effect: .*{re.escape(way_out)}"):
        load_config(ROOT / "configs/ssd_seg_kaist.yaml", words)
