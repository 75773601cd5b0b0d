"""What stands in the way of a run is listed at once, each with its cure, and nothing is written."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from d2pd.config import load_config
from d2pd.d2 import ENGINE, build_model
from d2pd.data.registration import register_from_config
from d2pd.errors import ConfigError, DeviceError
from d2pd.training import preflight, starting_model
from d2pd.training.preflight import (
    PreflightError,
    check_gpu_count,
    check_run,
    resolve_device,
)

BASE = Path(__file__).resolve().parents[2] / "configs/Base-FasterRCNN-FPN.yaml"


@pytest.fixture
def make_cfg(tmp_path):
    """Return a function: a one-image dataset, trained from scratch on the CPU, with overrides."""
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), np.zeros((40, 60, 3), np.uint8))
    (tmp_path / "labels.csv").write_text("a.png,1,2,30,35,person\n")
    register = {"FORMAT": "csv", "ANNOTATIONS": "labels.csv", "IMAGES": "images"}
    config = {
        "_BASE_": str(BASE),
        "MODEL": {
            "DEVICE": "cpu",
            "WEIGHTS": "",
            "BACKBONE": {"FREEZE_AT": 0},
            "RESNETS": {"NORM": "BN", "DEPTH": 18, "RES2_OUT_CHANNELS": 64},
            "FPN": {"OUT_CHANNELS": 16},
            "ROI_HEADS": {"NUM_CLASSES": 1},
            "ROI_BOX_HEAD": {"FC_DIM": 32},
        },
        "DATASETS": {
            "ROOT": str(tmp_path),
            "TRAIN": ["preflight"],
            "REGISTER": {"preflight": {**register, "CLASSES": ["person"]}},
        },
        "OUTPUT_DIR": str(tmp_path / "output"),
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))

    def make(*opts):
        cfg = load_config(tmp_path / "config.yaml", opts)
        register_from_config(cfg)
        return cfg

    return make


def problems_of(cfg, **kwargs):
    with pytest.raises(PreflightError) as caught:
        check_run(cfg, **kwargs)
    head, *lines = str(caught.value).split("\n")
    return head, lines


def test_sound_run_passes_and_writes_nothing(make_cfg, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    check_run(make_cfg())
    assert sorted(tmp_path.rglob("*")) == before


def test_everything_that_is_missing_is_listed_at_once(make_cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    cfg = make_cfg(
        *("MODEL.DEVICE", "cuda", "MODEL.WEIGHTS", str(tmp_path / "none.pth")),
        *("DATASETS.REGISTER.preflight.ANNOTATIONS", "none.csv"),
        *("DATASETS.REGISTER.preflight.IMAGES", "nowhere"),
        *("OUTPUT_DIR", str(tmp_path / "labels.csv")),
    )
    head, lines = problems_of(cfg)
    assert head == "5 things are in the way of this run:"
    assert [line.split(".")[0].strip() for line in lines] == ["1", "2", "3", "4", "5"]
    wanted = [
        ("MODEL.DEVICE is 'cuda'", "sees 0 GPUs", "use MODEL.DEVICE auto or cpu"),
        (str(tmp_path / "none.csv"), "ANNOTATIONS of preflight", "D2PD_DATASETS"),
        (str(tmp_path / "nowhere"), "IMAGES of preflight", "D2PD_DATASETS"),
        (str(tmp_path / "none.pth"),),
        (str(tmp_path / "labels.csv"), "cannot be made:"),
    ]
    for line, parts in zip(lines, wanted, strict=True):
        for part in parts:
            assert part in line


@pytest.mark.parametrize(
    ("opts", "cure"),
    [
        (("MODEL.BACKBONE.FREEZE_AT", "2"), "set MODEL.BACKBONE.FREEZE_AT 0, as the"),
        (("MODEL.RESNETS.NORM", "FrozenBN"), "set MODEL.RESNETS.NORM BN (or GN), as the"),
        (
            ("MODEL.RESNETS.NORM", "FrozenBN", "MODEL.BACKBONE.FREEZE_AT", "1"),
            "set MODEL.BACKBONE.FREEZE_AT 0 and MODEL.RESNETS.NORM BN (or GN), as the",
        ),
    ],
)
def test_frozen_random_layers_are_refused_with_the_keys_to_change(make_cfg, opts, cure):
    head, lines = problems_of(make_cfg(*opts))
    assert head == "one thing is in the way of this run:"
    assert cure in lines[0]


def test_frozen_random_layers_of_ssd_are_those_of_its_backbone():
    ssd = load_config()
    ssd.MODEL.META_ARCHITECTURE = "SSDSeg"
    assert ssd.MODEL.RESNETS.NORM == "FrozenBN"  # which SSDSeg does not read
    assert ssd.MODEL.BACKBONE.FREEZE_AT == 2
    with pytest.raises(
        ConfigError, match=r"set MODEL\.BACKBONE\.FREEZE_AT 0, or give MODEL.W"
    ) as e:
        starting_model.check_scratch(ssd)
    assert "RESNETS" not in str(e.value)
    ssd.MODEL.BACKBONE.FREEZE_AT = 0
    starting_model.check_scratch(ssd)


@pytest.mark.parametrize(("flag", "word"), [("resume", "--resume"), ("eval_only", "--eval-only")])
def test_what_is_gone_on_from_or_evaluated_is_not_deleted(make_cfg, flag, word):
    _, lines = problems_of(make_cfg(), overwrite=True, **{flag: True})
    assert any(f"{word} and --overwrite contradict each other" in line for line in lines)


@pytest.mark.parametrize("place", ["output", "mirror"])
def test_weights_that_a_run_starts_from_are_not_deleted(make_cfg, tmp_path, place):
    cfg = make_cfg("CHECKPOINT.MIRROR_DIR", str(tmp_path / "mirror"))
    path = tmp_path / place / "model_best.pth"
    path.parent.mkdir()
    torch.save({"model": build_model(cfg).state_dict()}, path)
    cfg.MODEL.WEIGHTS = str(path)
    _, lines = problems_of(cfg, overwrite=True)
    assert len(lines) == 1
    assert f"--overwrite would delete MODEL.WEIGHTS {path}" in lines[0]
    moved = path.rename(tmp_path / "best.pth")
    cfg.MODEL.WEIGHTS = str(moved)
    check_run(cfg, overwrite=True)


def test_folder_that_holds_a_run_is_taken_only_to_resume_evaluate_or_overwrite(make_cfg, tmp_path):
    (tmp_path / "output").mkdir()
    (tmp_path / "output/metrics.json").write_text("")
    check_run(make_cfg())
    (tmp_path / "output/model_0000009.pth").write_bytes(b"weights")
    _, lines = problems_of(make_cfg())
    assert "already holds a run (model_0000009.pth); --resume goes on with it" in lines[0]
    assert "--overwrite deletes it" in lines[0]
    check_run(make_cfg(), overwrite=True)
    weight = nn.Parameter(torch.zeros(1))
    inner = {"iteration": 9, "optimizer": torch.optim.SGD([weight], lr=0.1).state_dict()}
    state = {"iteration": 9, "_trainer": inner}
    checkpoint = {"model": {"w": weight.detach()}, "trainer": state, "iteration": 9}
    torch.save(checkpoint, tmp_path / "output/model_0000009.pth")
    choice = check_run(make_cfg(), resume=True)
    assert (choice.path.name, choice.iteration) == ("model_0000009.pth", 9)


def test_mirror_is_checked_like_the_folder_itself(make_cfg, tmp_path):
    mirror = tmp_path / "drive/run"
    opts = ("CHECKPOINT.MIRROR_DIR", str(mirror))
    assert "there is no folder" in problems_of(make_cfg(*opts))[1][0]
    mirror.mkdir(parents=True)
    check_run(make_cfg(*opts))
    (mirror / "model_final.pth").write_bytes(b"weights")
    assert "CHECKPOINT.MIRROR_DIR" in problems_of(make_cfg(*opts))[1][0]
    assert "already holds a run (model_final.pth)" in problems_of(make_cfg(*opts))[1][0]


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("EARLY_STOPPING.METRIC", "val/total_loss"), "needs labelled images that are not trained"),
        (("BEST_CHECKPOINT.METRIC", "('speed',)"), "MODE"),
        (("VALIDATION.DATASET", "nowhere"), "dataset 'nowhere' is not registered"),
        (("SOLVER.ACCUMULATE", "3"), "SOLVER.ACCUMULATE is 3, which does not divide"),
        (
            ("SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "0.0"),
            "CLIP_VALUE is 0; it must be above 0",
        ),
        (
            ("DATASETS.TEST", "('a', 'b')", "BEST_CHECKPOINT.METRIC", "('bbox/AP50',)"),
            "name a/bbox/AP50 or b/bbox/AP50",
        ),
    ],
)
def test_what_is_to_be_decided_by_is_checked_before_training(make_cfg, opts, message):
    assert any(message in line for line in problems_of(make_cfg(*opts))[1])


def test_folder_below_a_file_or_without_permission_is_refused(make_cfg, tmp_path, monkeypatch):
    file = tmp_path / "labels.csv"
    _, lines = problems_of(make_cfg("OUTPUT_DIR", f"{file}/x/y"))
    assert f"OUTPUT_DIR {file}/x/y cannot be made: {file} is a file" in lines[0]
    monkeypatch.setattr(preflight.os, "access", lambda path, mode: False)
    for ending in (".log", ".txt"):  # Detectron2 would write its log there
        _, lines = problems_of(make_cfg("OUTPUT_DIR", f"{tmp_path}/run{ending}"))
        assert f"a name with {ending} is taken for the file of the log" in lines[0]
    _, lines = problems_of(make_cfg("OUTPUT_DIR", f"{tmp_path}/{'x' * 300}"))
    assert "cannot be made: File name too long" in lines[0]
    _, lines = problems_of(make_cfg("OUTPUT_DIR", f"{tmp_path}/a\0b"))
    assert lines[0].endswith("a\\x00b' cannot be made: no name holds a NUL")
    _, lines = problems_of(make_cfg("OUTPUT_DIR", str(tmp_path / "new/x")))
    assert f"new/x cannot be written: no permission in {tmp_path}" in lines[0]


def test_weights_of_another_model_are_refused_before_anything_is_written(make_cfg, tmp_path):
    torch.save({"layer.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    _, lines = problems_of(make_cfg("MODEL.WEIGHTS", str(tmp_path / "other.pth")))
    assert f"{tmp_path / 'other.pth'} does not fit the model: 0 of " in lines[0]
    assert not (tmp_path / "output").exists()


@pytest.mark.skipif(ENGINE == "detectron2", reason="Detectron2 has masks")
def test_key_that_the_engine_cannot_honour_is_refused_before_anything_is_written(
    make_cfg, tmp_path
):
    _, lines = problems_of(make_cfg("MODEL.MASK_ON", "True"))
    assert "does not do MODEL.MASK_ON True" in lines[0]
    assert not (tmp_path / "output").exists()


def test_evaluation_needs_a_model(make_cfg):
    _, lines = problems_of(make_cfg("DATASETS.TEST", "('preflight',)"), eval_only=True)
    assert "--eval-only needs a trained model: MODEL.WEIGHTS PATH, or --resume" in lines[0]


@pytest.mark.parametrize(
    ("opts", "told"),
    [
        ((), None),
        (("MODEL.SSD.SEG.KERNEL_SIZE", "3"), None),  # in no detection
        (
            ("MODEL.ANCHOR_GENERATOR.SIZES", "[[12.0], [34.0, 46.0], [62.0, 84.0]]"),
            "(network.heads.cls_logits.conv4_3.weight (8x96x3x3 in the file, 2x96x3x3 here)",
        ),
    ],
)
def test_half_a_model_is_not_evaluated(tmp_path, opts, told):
    quick = BASE.parent / "quick/ssd_seg_synthetic.yaml"
    cpu = ("MODEL.DEVICE", "cpu")
    torch.save(build_model(load_config(quick, cpu)).state_dict(), tmp_path / "a.pth")
    weights = (*cpu, "MODEL.WEIGHTS", str(tmp_path / "a.pth"), "DATASETS.TEST", "()")
    _, lines = problems_of(load_config(quick, [*weights, *opts]), eval_only=True)
    about = [line for line in lines if "lacks what this model detects with" in line]
    assert len(about) == (told is not None)
    assert all(told in line and "config.yaml in its folder)" in line for line in about)


def test_backbone_alone_is_not_evaluated(make_cfg, tmp_path):
    model = build_model(make_cfg())
    torch.save(model.backbone.bottom_up.state_dict(), tmp_path / "backbone.pth")
    weights = ("MODEL.WEIGHTS", str(tmp_path / "backbone.pth"), "DATASETS.TEST", "('preflight',)")
    _, lines = problems_of(make_cfg(*weights), eval_only=True)
    assert "lacks what this model detects with (all but backbone.bottom_up)" in lines[0]
    check_run(make_cfg(*weights))


def test_number_of_classes_must_be_that_of_the_labels(make_cfg):
    _, lines = problems_of(make_cfg("MODEL.ROI_HEADS.NUM_CLASSES", "80"))
    assert "NUM_CLASSES is 80, but preflight has 1 classes (person); set MODEL.ROI" in lines[0]


def test_datasets_must_agree_on_their_classes(make_cfg):
    other = "DATASETS.REGISTER.preflight_other"
    cfg = make_cfg(
        *(f"{other}.FORMAT", "csv", f"{other}.ANNOTATIONS", "labels.csv"),
        *(f"{other}.IMAGES", "images", f"{other}.CLASSES", "['person', 'cyclist']"),
        *("DATASETS.TEST", "('preflight_other',)"),
    )
    _, lines = problems_of(cfg)
    assert "datasets disagree on classes: preflight has ['person'], preflight_other" in lines[0]


def test_dataset_without_a_description_and_no_dataset_at_all(make_cfg):
    _, lines = problems_of(make_cfg("DATASETS.TEST", "('unheard_of',)"))
    assert "'unheard_of' is not registered; describe it under DATASETS.REGISTER.unh" in lines[0]
    _, lines = problems_of(make_cfg("DATASETS.TRAIN", "()"))
    assert "DATASETS.TRAIN is empty" in lines[0]


def test_fault_in_a_label_file_is_heard_of_before_the_run(make_cfg, tmp_path):
    (tmp_path / "labels.csv").write_text("a.png,1,2,thirty,35,person\n")
    _, lines = problems_of(make_cfg())
    assert "labels.csv" in lines[0]
    assert "thirty" in lines[0]


@pytest.mark.parametrize(("count", "device"), [(0, "cpu"), (1, "cuda")])
def test_auto_takes_a_gpu_where_there_is_one(monkeypatch, count, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    assert resolve_device("auto") == device


def test_devices_that_are_not_there_or_not_devices(monkeypatch):
    monkeypatch.setattr(preflight.torch.cuda, "device_count", lambda: 1)
    assert resolve_device("cuda:0") == "cuda:0"
    with pytest.raises(DeviceError, match="'cuda:1', but torch .* sees 1 GPUs"):
        resolve_device("cuda:1")
    with pytest.raises(DeviceError, match="'gpu'; allowed: auto, cpu, cuda, cuda:N"):
        resolve_device("gpu")
    for known_to_torch in ("mps", "meta"):
        with pytest.raises(DeviceError, match="allowed: auto, cpu, cuda, cuda:N"):
            resolve_device(known_to_torch)


def test_training_needs_a_training_set_though_there_is_one_to_test_on(make_cfg):
    cfg = make_cfg("DATASETS.TRAIN", "()", "DATASETS.TEST", "('preflight',)")
    assert "DATASETS.TRAIN is empty" in problems_of(cfg)[1][0]


def test_evaluation_alone_needs_a_test_set(make_cfg, tmp_path):
    torch.save({"model": {"a": torch.ones(1)}}, tmp_path / "a.pth")
    cfg = make_cfg("MODEL.WEIGHTS", str(tmp_path / "a.pth"))
    assert "DATASETS.TEST is empty" in problems_of(cfg, eval_only=True)[1][0]


@pytest.mark.parametrize(
    "opts",
    [
        ("INPUT.FIXED_SIZE", "[7, 96]"),
        ("INPUT.FIXED_SIZE", "[64, 96]", "INPUT.AUG.SCALE_JITTER", "[0.1, 1.0]"),
    ],
)
def test_size_that_the_maps_have_no_room_for_is_heard_of_once_and_before_training(opts):
    quick = BASE.parent / "quick/ssd_seg_synthetic.yaml"
    cfg = load_config(quick, ["DATASETS.TRAIN", "()", "DATASETS.TEST", "()", *opts])
    _, lines = problems_of(cfg)
    about_size = [line for line in lines if "are too small: map " in line]
    assert len(about_size) == 1
    assert "raise INPUT.FIXED_SIZE" in about_size[0]
    assert "INPUT.AUG.SCALE_JITTER" in about_size[0]


def test_value_that_two_checks_trip_over_is_listed_once():
    quick = BASE.parent / "quick/ssd_seg_synthetic.yaml"
    cfg = load_config(quick, ["MODEL.SSD.EXTRA_LAYERS", "[[1, 2, 3]]"])
    _, lines = problems_of(cfg)
    assert len([line for line in lines if "EXTRA_LAYERS has [1, 2, 3]" in line]) == 1


def test_test_time_size_is_checked_before_training(make_cfg):
    _, lines = problems_of(make_cfg("INPUT.MIN_SIZE_TEST", "-3"))
    assert "lengths must be one or more sizes in pixels, got (-3,)" in lines[0]


@pytest.mark.parametrize(("modality", "channels"), [("lwir", 1), ("lwir", 3), ("both", 6)])
def test_thermal_images_are_not_looked_for_among_photos(make_cfg, modality, channels):
    values = str([100.0] * channels)
    cfg = make_cfg(
        *("INPUT.MODALITY", modality, "MODEL.PIXEL_MEAN", values, "MODEL.PIXEL_STD", values)
    )
    _, lines = problems_of(cfg)
    assert f"INPUT.MODALITY is {modality}, but preflight has no lwir folders" in lines[0]


def test_resume_where_there_is_nothing_is_an_error_and_not_a_start(make_cfg, tmp_path):
    (tmp_path / "output").mkdir()
    (tmp_path / "output/last_checkpoint").write_text("")
    lines = problems_of(make_cfg(), resume=True)[1]
    assert "cannot resume: no model_<iteration>.pth or model_final.pth in OUTPUT_DIR" in lines[0]


@pytest.mark.parametrize(("wanted", "count"), [(1, 0), (1, 4), (4, 4)])
def test_processes_find_their_gpus(monkeypatch, wanted, count):
    monkeypatch.setattr(preflight.torch.cuda, "device_count", lambda: count)
    check_gpu_count(wanted)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(preflight.torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match="--num-gpus is 2, but torch .* sees 1 GPUs"):
        check_gpu_count(2)


def test_a_number_of_processes_below_zero_is_refused():
    with pytest.raises(DeviceError, match="--num-gpus is -1: a number of processes"):
        check_gpu_count(-1, "cpu")


def test_several_processes_share_the_cpu_and_not_one_gpu(monkeypatch):
    monkeypatch.setattr(preflight.torch.cuda, "device_count", lambda: 2)
    check_gpu_count(3, "cpu")
    with pytest.raises(DeviceError, match="cuda:0, one GPU for 2 processes: use MODEL.DEVICE cuda"):
        check_gpu_count(2, "cuda:0")


def test_label_file_without_an_image_is_heard_of_before_training(make_cfg, tmp_path):
    table = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    (tmp_path / "empty.json").write_text(json.dumps(table))
    key = "DATASETS.REGISTER.preflight_empty"
    opts = [f"{key}.FORMAT", "coco", f"{key}.ANNOTATIONS", "empty.json"]
    cfg = make_cfg(*opts, f"{key}.IMAGES", "images", "DATASETS.TEST", "('preflight_empty',)")
    _, lines = problems_of(cfg)
    assert lines[0].endswith("empty.json: not a single image in it (preflight_empty)")
