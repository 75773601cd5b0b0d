import json
import logging
import random

import pytest
import torch

from d2pd.config_keys import default_config
from d2pd.config_words import flatten
from d2pd.d2 import ENGINE, MetadataCatalog
from d2pd.errors import WeightsError
from d2pd.training.checkpoints.plain_data import plain
from d2pd.training.checkpoints.run_identity import (
    check_same_run,
    compare_runs,
    describe_run,
    device_model,
    digest_labels,
    log_comparison,
)

DATASET = "identity_toy"


def record(name, boxes=((1.0, 2.0, 3.0, 4.0),), classes=(0,), ignored=(0,), **more):
    annotations = [
        {"bbox": list(box), "bbox_mode": 0, "category_id": c, "ignore": i, "iscrowd": i, "row": 7}
        for box, c, i in zip(boxes, classes, ignored, strict=True)
    ]
    return {"file_name": name, "image_id": 1, "annotations": annotations, **more}


RECORDS = [record("/data/set/a/1.png"), record("/data/set/b/2.png", classes=(1,))]


@pytest.fixture
def cfg():
    MetadataCatalog.get(DATASET).set(thing_classes=["person", "rider"])
    cfg = default_config()
    cfg.MODEL.DEVICE = "cpu"
    cfg.DATASETS.TRAIN = (DATASET,)
    return cfg


@pytest.fixture
def run(cfg):
    return describe_run(cfg, RECORDS)


def test_a_run_is_described_in_plain_data(run, cfg):
    assert plain(run, "run") == run
    assert run["classes"] == ["person", "rider"]
    assert (run["num_images"], run["engine"], run["world_size"]) == (2, ENGINE, 1)
    assert run["versions"]["torch"] == torch.__version__
    assert run["threads"] == torch.get_num_threads()
    assert run["device"].startswith("cpu: ")
    assert run["config"].keys() == dict(flatten(cfg)).keys()
    assert run["config"]["SOLVER.STEPS"] == "[30000]"
    assert run["config"]["DETERMINISTIC"] == "false"


def test_a_run_is_the_same_as_itself_also_after_a_checkpoint(run, tmp_path):
    torch.save(plain(run, "run"), tmp_path / "run.pth")
    saved = torch.load(tmp_path / "run.pth", weights_only=True)
    differences = compare_runs(saved, run)
    assert (differences.refused, differences.changed, differences.decisions) == ((), (), ())


REFUSED = {
    "MODEL.META_ARCHITECTURE": "Other",
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.ROI_HEADS.NUM_CLASSES": 3,
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.PIXEL_MEAN": [1.0, 2.0, 3.0],
    "MODEL.RPN.NMS_THRESH": 0.6,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 100,
    "SOLVER.OPTIMIZER": "Adam",
    "DATASETS.FOLD": 1,
}
CHANGED = {
    "SOLVER.MAX_ITER": 50000,
    "SOLVER.BASE_LR": 0.5,
    "SOLVER.STEPS": (1, 2),
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.ACCUMULATE": 2,
    "SOLVER.AMP.ENABLED": True,
    "SOLVER.AMP.PRECISION": "bf16",
    "SOLVER.WEIGHT_DECAY_NORM": 0.5,
    "SOLVER.CLIP_GRADIENTS.ENABLED": True,
    "SEED": 1,
    "DETERMINISTIC": True,
    "DATASETS.TRAIN": ("other",),
    "DATASETS.MIN_BOX_SIZE": 2.0,
    "INPUT.MIN_SIZE_TRAIN": (512,),
    "INPUT.RANDOM_FLIP": "none",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False,
    "NON_FINITE.POLICY": "skip",
}
DECISIONS = {
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.5,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.4,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 100,
    "TEST.EVAL_PERIOD": 7,
    "INPUT.MIN_SIZE_TEST": 320,
    "VALIDATION.PERIOD": 7,
    "VALIDATION.DATASET": "v",
    "EARLY_STOPPING.PATIENCE": 9,
    "BEST_CHECKPOINT.METRIC": ("bbox/AP",),
    "SOLVER.CHECKPOINT_PERIOD": 9,
    "DATASETS.TEST": ("t",),
    "DATASETS.FINAL_TEST": ("t",),
}
HARMLESS = {
    "OUTPUT_DIR": "elsewhere",
    "DATASETS.ROOT": "/elsewhere",
    "DATALOADER.NUM_WORKERS": 1,
    "MODEL.WEIGHTS": "w.pth",
    "MODEL.DEVICE": "cuda:1",
    "CHECKPOINT.KEEP": 9,
    "CHECKPOINT.MIRROR_DIR": "/drive",
    "WANDB.ENABLED": True,
}


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        (key, value, kind)
        for kind, table in (
            ("refused", REFUSED), ("changed", CHANGED), ("decisions", DECISIONS), (None, HARMLESS)
        )
        for key, value in table.items()
    ],
)  # fmt: skip
def test_what_another_value_of_a_key_means(run, key, value, kind):
    assert key in run["config"]
    now = {**run, "config": {**run["config"], key: json.dumps(value)}}
    old = run["config"][key]
    expected = {"refused": (), "changed": (), "decisions": ()}
    if kind is not None:
        expected[kind] = (f"{key}: {old} -> {json.dumps(value)}",)
    assert vars(compare_runs(run, now)) == expected


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"classes": ["person"]}, "refused", 'classes: ["person", "rider"] -> ["person"]'),
        ({"labels": "x"}, "changed", "training labels: "),
        ({"num_images": 3}, "changed", "training images: 2 -> 3"),
        ({"engine": "other"}, "changed", "engine: "),
        ({"device": "cuda: NVIDIA H200"}, "changed", "device: "),
        ({"threads": 99}, "changed", "threads: "),
        ({"world_size": 2}, "changed", "processes: 1 -> 2"),
        ({"versions": {"torch": "9"}}, "changed", "torch version: "),
    ],
)
def test_what_another_surrounding_means(run, change, kind, text):
    if "versions" in change:
        change = {"versions": {**run["versions"], **change["versions"]}}
    differences = vars(compare_runs(run, {**run, **change}))
    assert [key for key, lines in differences.items() if lines] == [kind]
    assert len(differences[kind]) == 1
    assert differences[kind][0].startswith(text)


def test_the_spelling_of_a_value_does_not_matter(run):
    config = {**run["config"], "SOLVER.BASE_LR": "1e-3", "MODEL.PIXEL_STD": "[1, 1, 1]"}
    other = {**config, "SOLVER.BASE_LR": "0.001", "MODEL.PIXEL_STD": "[1.0, 1.0, 1.0]"}
    assert not any(vars(compare_runs({**run, "config": config}, {**run, "config": other})).values())


def test_a_key_that_one_version_does_not_have_is_no_other_model(run):
    config = dict(run["config"])
    del config["MODEL.RESNETS.DEPTH"], config["SEED"]
    for old, new, text in ((config, run["config"], "(not there) -> 50"),
                           (run["config"], config, "50 -> (not there)")):  # fmt: skip
        differences = compare_runs({**run, "config": old}, {**run, "config": new})
        assert differences.refused == ()
        assert f"MODEL.RESNETS.DEPTH: {text}" in differences.changed


def test_the_device_is_compared_by_its_model():
    assert device_model("cpu") == device_model("cpu")
    assert device_model("cpu").startswith("cpu: ")
    assert len(device_model("cpu")) > len("cpu: , ")


@pytest.mark.parametrize("root", ["/data/set", "/elsewhere/very/deep", "relative"])
def test_the_digest_does_not_depend_on_where_the_dataset_lies(root):
    moved = [
        {**r, "file_name": r["file_name"].replace("/data/set", root), "image_id": 9, "height": 5}
        for r in RECORDS
    ]
    assert digest_labels(moved) == digest_labels(RECORDS)


def test_the_digest_of_one_image_or_none():
    assert digest_labels([record("/a/b/1.png")]) == digest_labels([record("/c/1.png")])
    assert digest_labels([record("/a/b/1.png")]) != digest_labels([record("/a/b/2.png")])
    assert digest_labels([]) == digest_labels([])


def test_kaists_own_names_count_whichever_picture_is_there():
    visible = [record("/r/set00/visible/1.jpg", im_name="set00/V000/I1")]
    thermal = [record("/r/set00/lwir/1.jpg", im_name="set00/V000/I1")]
    assert digest_labels(visible) == digest_labels(thermal)


CHANGES = {
    "order": lambda rs: rs[::-1],
    "one fewer": lambda rs: rs[:1],
    "a name": lambda rs: [record("/data/set/a/9.png"), rs[1]],
    "a corner": lambda rs: [record("/data/set/a/1.png", boxes=((1.0, 2.0, 3.0, 4.001),)), rs[1]],
    "a class": lambda rs: [record("/data/set/a/1.png", classes=(1,)), rs[1]],
    "an ignore flag": lambda rs: [record("/data/set/a/1.png", ignored=(1,)), rs[1]],
    "no box": lambda rs: [record("/data/set/a/1.png", (), (), ()), rs[1]],
    "a box twice": lambda rs: [
        record("/data/set/a/1.png", ((1.0, 2.0, 3.0, 4.0),) * 2, (0, 0), (0, 0)), rs[1]
    ],
}  # fmt: skip


def test_the_digest_is_another_one_for_all_that_training_sees():
    digests = [digest_labels(change(RECORDS)) for change in CHANGES.values()]
    assert len({digest_labels(RECORDS), *digests}) == len(CHANGES) + 1


def test_numbers_of_numpy_and_python_digest_the_same():
    import numpy as np

    corners = np.float64([1.0, 2.0, 3.0, 4.0])
    arrays = [record("/a/1.png", (corners,), (np.int64(1),), (np.bool_(True),))]
    numbers = [record("/a/1.png", (corners.tolist(),), (1,), (1,))]
    assert digest_labels(arrays) == digest_labels(numbers)


def test_another_model_is_refused_with_every_difference_and_the_way_out(run):
    config = {**run["config"], "MODEL.RESNETS.DEPTH": "18", "MODEL.MASK_ON": "true"}
    now = {**run, "config": {**config, "SEED": "1"}, "classes": ["person"]}
    with pytest.raises(WeightsError) as caught:
        check_same_run(run, now, "out/model_0000009.pth")
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("cannot resume: out/model_0000009.pth is of another model (")
    for part in ("DEPTH: 50 -> 18", "MASK_ON: false -> true", "classes: ", "another OUTPUT_DIR"):
        assert part in text
    assert "SEED" not in text


def test_another_fold_is_refused_since_it_would_be_tested_on_what_it_has_learnt(run):
    now = {**run, "config": {**run["config"], "DATASETS.FOLD": "1"}}
    with pytest.raises(WeightsError) as caught:
        check_same_run(run, now, "model_0000009.pth")
    assert str(caught.value) == (
        "cannot resume: model_0000009.pth has learnt from images that it would be tested on "
        "(DATASETS.FOLD: 0 -> 1): resume with the fold of the run, or start a new run in another "
        "OUTPUT_DIR, not from these weights"
    )


def test_images_that_moved_to_other_folds_are_refused_too(run):
    before, after = ({**run, "folds": {"cv": digest}} for digest in ("a1", "b2"))
    check_same_run(before, before, "a.pth")
    with pytest.raises(WeightsError, match=r'tested on \(folds of cv: "a1" -> "b2"\)'):
        check_same_run(before, after, "a.pth")


@pytest.mark.parametrize(
    "saved", [None, {}, {"config": 5}, {"config": ["a"]}, {"classes": ["x"], "config": "text"}]
)
def test_a_checkpoint_that_does_not_say_is_one_line(run, saved, caplog):
    differences = check_same_run(saved, run, "x")
    assert differences is None
    log_comparison(differences, run)
    assert len(caplog.records) == 1
    assert "configuration and labels could not be compared" in caplog.text


def test_any_plain_data_can_be_compared(run):
    rng = random.Random(0)
    odd = [None, 5, "x\ny", [1, [2]], {"a": {"b": 1}}, 1.5, b"raw", torch.ones(2), ""]
    for _ in range(40):
        saved = {key: rng.choice(odd) if rng.random() < 0.5 else run[key] for key in run}
        saved["config"] = {key: rng.choice(odd) for key in run["config"]} | {"new": odd[-2]}
        differences = compare_runs(saved, run)
        assert differences.changed
        assert not any("\n" in line for line in (*differences.changed, *differences.refused))
        assert max(map(len, differences.changed)) < 400


def messages(caplog, differences, current):
    with caplog.at_level(logging.INFO):
        log_comparison(differences, current)
    return [(r.levelname, r.getMessage()) for r in caplog.records]


def test_what_is_no_longer_exact_is_listed(run, caplog):
    config = {**run["config"], "SOLVER.MAX_ITER": "9", "SEED": "1", "TEST.EVAL_PERIOD": "5"}
    now = {**run, "config": config}
    found = messages(caplog, check_same_run(run, now, "x"), now)
    assert found == [
        (
            "INFO",
            "Changes what is measured and decided from here on, no weights: "
            "TEST.EVAL_PERIOD: 0 -> 5",
        ),
        ("WARNING", "No longer exact: SOLVER.MAX_ITER: 40000 -> 9"),
        ("WARNING", "No longer exact: SEED: 42 -> 1"),
    ]


@pytest.mark.parametrize(
    ("device", "deterministic", "text"),
    [
        ("cpu: x", "false", "goes on exactly"),
        ("cuda: x", "true", "goes on exactly"),
        ("cuda: x", "false", "Order, samples, states and random numbers go on exactly; only the"),
    ],
)
def test_how_exact_the_run_goes_on_is_said(run, caplog, device, deterministic, text):
    now = {**run, "device": device, "config": {**run["config"], "DETERMINISTIC": deterministic}}
    found = messages(caplog, check_same_run(now, now, "x"), now)
    assert len(found) == 1
    assert text in found[0][1]
