"""Whole runs that meet a bad label, a bad transform or a rate too high: the culprit is named."""

import copy
import json
from itertools import islice

import cv2
import pytest
import torch
from run_toys import (
    QUICK,
    THIN,
    all_rows,
    assert_same_files,
    copied_before_steps,
    read,
    rows,
    run_main,
)

from d2pd import cli
from d2pd.config import SEED
from d2pd.d2 import Boxes, DatasetCatalog, GeneralizedRCNN, Instances, MetadataCatalog
from d2pd.data.annotations.kaist import read_kaist_json
from d2pd.data.augmentation import build_augmentation
from d2pd.data.sampler import TrainingSampler
from d2pd.training.culprits.sample_faults import TargetError

pytestmark = pytest.mark.usefixtures("without_pictures")

SMUGGLED = "smuggled_train"
BATCH, IMAGES = 2, 12


def iteration_of(row):
    """Return the first iteration whose batch has this row of the training set."""
    stream = islice(TrainingSampler(IMAGES, SEED), IMAGES)
    return next(place for place, (_, index) in enumerate(stream) if index == row) // BATCH


# Two rows that come late, so that good steps go before.
ROW, LATER = sorted(range(IMAGES), key=iteration_of)[5], sorted(range(IMAGES), key=iteration_of)[8]


@pytest.fixture(scope="module")
def opts(quick_opts):
    few = ["SOLVER.MAX_ITER", "6", "SOLVER.CHECKPOINT_PERIOD", "2", "DATASETS.TEST", "()"]
    return [*quick_opts, *THIN, *few]


@pytest.fixture
def records(drawn_root):
    """The training records as their file has them, registered by hand: nobody cleans them."""
    folder = drawn_root / "synthetic"
    found = read_kaist_json(folder / "train20.json", folder / "images").records
    assert len(found) == IMAGES
    DatasetCatalog.register(SMUGGLED, lambda: copy.deepcopy(found))
    MetadataCatalog.get(SMUGGLED).set(thing_classes=["person"])
    yield found
    DatasetCatalog.remove(SMUGGLED)
    MetadataCatalog.remove(SMUGGLED)


@pytest.fixture
def unfiltered(monkeypatch):
    """Let boxes reach the model as the transforms leave them."""

    def make_targets(image, boxes, annotations, *rules):
        instances = Instances(tuple(image.shape[-2:]))
        is_region = torch.tensor([bool(a.get("ignore", 0)) for a in annotations], dtype=torch.bool)
        instances.gt_boxes = Boxes(boxes[~is_region])
        instances.gt_classes = torch.zeros(int((~is_region).sum()), dtype=torch.int64)
        return {"instances": instances, "ignore_boxes": boxes[is_region]}

    monkeypatch.setattr("d2pd.data.mapper.make_targets", make_targets)


def flatten_first_box(record):
    x1, y1, _, y2 = record["annotations"][0]["bbox"]
    record["annotations"][0] |= {"bbox": [x1, y1, x1, y2], "ignore": 0}


def evidence(output, iteration):
    """Return what was written of a step, once it is seen to be all there and the picture drawn."""
    stem = output / f"non_finite/iter_{iteration:07d}_rank0"
    assert sorted(path.name for path in stem.parent.glob(f"{stem.name}*")) == [
        f"{stem.name}.{kind}" for kind in ("json", "png", "pt")
    ]
    assert cv2.imread(f"{stem}.png").std() > 10
    told = json.loads(stem.with_suffix(".json").read_text())
    assert told["iteration"] == iteration
    return told, stem.with_suffix(".pt")


def replayed(path, capsys):
    capsys.readouterr()
    code = cli.main(["diagnose", "--replay", str(path)])
    return code, capsys.readouterr().out


def test_a_degenerate_box_smuggled_past_cleaning_is_named(
    opts, records, unfiltered, capsys, tmp_path
):
    flatten_first_box(records[ROW])
    with pytest.raises(TargetError) as caught:
        run_main(tmp_path, [*opts, "DATASETS.TRAIN", f"('{SMUGGLED}',)"])
    iteration, name = iteration_of(ROW), records[ROW]["file_name"]
    assert iteration > 0
    told = str(caught.value)
    assert "\n" not in told
    assert told.startswith(f"iteration {iteration}: labels or pixels break the contract; verdict: ")
    assert "verdict: data: " in told
    assert f"(row {ROW}): target box 0 [" in told
    assert "has no area" in told
    assert "`d2pd diagnose` lists all such images" in told

    case, recorded = evidence(tmp_path, iteration)
    assert case["verdict"] == "data"
    (fault,) = case["faults"]
    assert (fault["rule"], fault["row"], fault["box"]) == ("box_without_area", ROW, 0)
    assert name.split("/")[-1].split(".")[0] in fault["file_name"]
    blamed = [image["row"] for image in case["images"] if image["is_blamed"]]
    assert (blamed, len(case["images"])) == ([ROW], BATCH)

    code, out = replayed(recorded, capsys)
    assert code == 1
    assert f"iteration {iteration}, rank 0: " in out
    assert "verdict: data: " in out
    assert f"(row {ROW}): target box 0 [" in out.splitlines()[1]


def test_a_centre_outside_after_a_rotation_is_named(
    opts, records, unfiltered, monkeypatch, capsys, tmp_path
):
    def build(cfg, is_train):
        resize = build_augmentation(cfg, is_train=is_train)
        victim = torch.tensor(records[ROW]["annotations"][0]["bbox"], dtype=torch.float32)

        def rotate(sample):
            """Turn one box about the upper left corner by 90 degrees, and clip none."""
            is_victim = bool((sample["boxes"][:1] == victim).all())
            out = resize(sample)
            if is_victim:
                x1, y1, x2, y2 = out["boxes"][0].tolist()
                out["boxes"][0] = torch.tensor([-y2, x1, -y1, x2])
            return out

        return rotate

    monkeypatch.setattr("d2pd.data.loader.build_augmentation", build)
    records[ROW]["annotations"][0]["ignore"] = 0
    with pytest.raises(TargetError) as caught:
        run_main(tmp_path, [*opts, "DATASETS.TRAIN", f"('{SMUGGLED}',)"])
    told = str(caught.value)
    assert told.startswith(f"iteration {iteration_of(ROW)}: ")
    assert f"(row {ROW}): target box 0 [-" in told
    assert "has its centre outside its image of " in told
    case, recorded = evidence(tmp_path, iteration_of(ROW))
    assert [fault["rule"] for fault in case["faults"]] == ["box_outside_image"]
    code, out = replayed(recorded, capsys)
    assert code == 1
    assert "has its centre outside its image" in out


def test_an_exploding_rate_is_a_divergence_and_singles_out_no_image(opts, capsys, tmp_path):
    rate = ["SOLVER.BASE_LR", "1000.0", "SOLVER.OPTIMIZER", "SGD", "SOLVER.WARMUP_ITERS", "0"]
    unclipped = ["SOLVER.CLIP_GRADIENTS.ENABLED", "False", "OUTPUT_DIR", str(tmp_path / "run")]
    code = cli.train(["--config-file", QUICK, *opts, *rate, *unclipped])
    assert code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("d2pd: iteration ")
    iteration = int(error.split()[2].rstrip(":"))
    assert 0 < iteration < 6
    assert "verdict: divergence: " in error
    assert "a lower SOLVER.BASE_LR" in error

    case, recorded = evidence(tmp_path / "run", iteration)
    assert case["verdict"] == "divergence"
    assert case["faults"] == []
    assert len({image["is_blamed"] for image in case["images"]}) == 1
    code, out = replayed(recorded, capsys)
    assert code == 1
    assert "verdict: divergence: " in out
    for name, value in case["losses"].items():
        assert f"{name} = {float(value):.6g} (in the run: {float(value):.6g})" in out

    log = (tmp_path / "run/log.txt").read_text()
    assert "Traceback" not in log  # a mistake, not a fault of ours
    told = (tmp_path / "run/run.log").read_text()
    assert f"ended by DivergedError in iteration {iteration}" in told


def test_skipping_goes_on_to_the_end_and_counts(opts, records, unfiltered, monkeypatch, tmp_path):
    for row in (ROW, LATER):
        flatten_first_box(records[row])
    bad = sorted(iteration_of(row) for row in (ROW, LATER))
    skip = ["DATASETS.TRAIN", f"('{SMUGGLED}',)", "NON_FINITE.POLICY", "skip"]
    whole = tmp_path / "whole"
    budget = ["NON_FINITE.BUDGET", "2"]
    with copied_before_steps(monkeypatch, whole, tmp_path / "copies"):
        run_main(whole, [*opts, *skip, *budget])
    assert all_rows(whole)[-1]["skipped_steps"] == 2
    cases = sorted(whole.rglob("iter_*.json"))
    assert [json.loads(path.read_text())["iteration"] for path in cases] == bad
    assert "Skipped (2 of 2)" in (whole / "log.txt").read_text()

    # Resumed between the two: the first one still counts.
    assert bad[0] < 4 <= bad[1]
    resumed = tmp_path / "copies/4/whole"
    run_main(resumed, [*opts, *skip, *budget], "--resume")
    assert read(resumed / "model_final.pth")["trainer"]["_trainer"]["skipped_steps"] == 2
    assert_same_files(resumed, whole, "model_final.pth")
    assert rows(resumed) == rows(whole)

    with pytest.raises(TargetError, match="BUDGET is used up: 1 steps were skipped") as caught:
        run_main(tmp_path / "short", [*opts, *skip, "NON_FINITE.BUDGET", "1"])
    assert str(caught.value).startswith(f"iteration {bad[1]}: ")


def test_an_image_that_makes_the_loss_nan_is_skipped_and_leaves_no_trace(
    opts, monkeypatch, tmp_path
):
    forward = GeneralizedRCNN.forward

    def spoilt(model, batch):
        losses = forward(model, batch)  # batch norm has counted the batch by now
        if any(sample["row"] == ROW for sample in batch):
            losses["loss_cls"] = losses["loss_cls"] * float("nan")
        return losses

    monkeypatch.setattr(GeneralizedRCNN, "forward", spoilt)
    saved = ["SOLVER.CHECKPOINT_PERIOD", "1", "CHECKPOINT.KEEP", "0"]
    run_main(tmp_path, [*opts, *saved, "NON_FINITE.POLICY", "skip"])
    at = iteration_of(ROW)
    case, _ = evidence(tmp_path, at)
    assert (case["verdict"], case["seen_in"]) == ("image", "loss")
    assert [image["row"] for image in case["images"] if image["is_blamed"]] == [ROW]
    before, after, later = (
        read(tmp_path / f"model_{number:07d}.pth")["model"] for number in (at - 1, at, at + 1)
    )
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert [name for name in before if not torch.equal(later[name], after[name])]
