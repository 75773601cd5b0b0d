"""``d2pd diagnose`` as a user types it, on drawn pictures and on the real labels."""

import itertools
import json
import math
import os
from pathlib import Path

import cv2
import pytest
import torch

from d2pd import cli
from d2pd.config import load_config
from d2pd.d2 import ENGINE, Boxes, Instances, build_model
from d2pd.data.synthetic import draw_dataset
from d2pd.training.checkpoints.checkpointer import Checkpointer
from d2pd.training.culprits.culprit import LOSS, Scene, Suspect, Violation
from d2pd.training.culprits.recorded_step import write_step
from d2pd.training.diagnosis import diagnose
from d2pd.training.precision import Precision
from d2pd.training.run_folder import held_run
from d2pd.training.validation import ImageLosses

ROOT = Path(__file__).resolve().parents[2]
QUICK = str(ROOT / "configs/quick/faster_rcnn_synthetic.yaml")
FOUND = ("degenerate_box", "outside_image")
"""Planted faults that leave nothing of a box in its image."""
REAL_ROWS = [1009, 1475, 2371, 3093, 6522, 7615, 7616, 7617]
"""Of 8,738; see the README of the shared data."""


@pytest.fixture(scope="module")
def faulty_root(tmp_path_factory) -> Path:
    """A dataset root with sixteen drawn training pairs, four of them with a planted fault."""
    root = tmp_path_factory.mktemp("datasets")
    draw_dataset(root / "synthetic", num_train=16, num_test=1, seed=3, faults=True)
    return root


def planted(root: Path) -> list[dict]:
    faults = json.loads((root / "synthetic/faults.json").read_text())
    return [fault for fault in faults if fault["fault"] in FOUND]


def options(root, *more):
    """The words that make the quick config look at the drawn labels, at a small size."""
    key = "DATASETS.REGISTER.synthetic_train"
    return [
        *("DATASETS.ROOT", str(root), f"{key}.FORMAT", "kaist", "INPUT.MIN_SIZE_TEST", "96"),
        *("MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0", *more),
    ]


def look(root, folder, *more, flags=()):
    """Run the command; returns its exit code and what it wrote."""
    words = ["diagnose", "--config-file", QUICK, "--output", str(folder), *flags]
    code = cli.main([*words, *options(root, *more)])
    path = folder / "diagnose.json"
    return code, json.loads(path.read_text()) if path.is_file() else {}


@pytest.fixture(scope="module")
def looked(faulty_root, tmp_path_factory):
    """Folder, exit code and JSON of one look at the drawn pictures."""
    folder = tmp_path_factory.mktemp("look") / "diagnose"
    return folder, *look(faulty_root, folder)


def test_planted_boxes_are_found_and_nothing_else(looked, faulty_root):
    _, code, told = looked
    assert code == 1
    found = {(one["image"], one["dropped_as"], tuple(one["bbox_xyxy"])) for one in told["findings"]}
    expected = set()
    for fault in planted(faulty_root):
        x, y, width, height = fault["bbox"]
        expected.add((fault["im_name"], fault["fault"], (x, y, x + width, y + height)))
    assert len(expected) == 2
    assert found == expected


def test_json_says_how_it_was_looked_and_what_the_losses_are(looked, faulty_root):
    folder, _, told = looked
    assert told["command"].startswith(f"d2pd diagnose --config-file {QUICK} --output {folder} ")
    assert told["command"].endswith(" ".join(options(faulty_root)))
    assert (told["engine"], told["datasets"]) == (ENGINE, ["synthetic_train"])
    assert told["weights"] == "random initial weights, seed 42"
    assert (told["complete"], told["labels_only"]) == (True, False)
    assert told["rows"] == [one["row"] for one in told["images"]]
    totals = [one["losses"]["total_loss"] for one in told["highest_losses"]]
    assert len(totals) == 10
    assert totals == sorted(totals, reverse=True)
    assert all(math.isfinite(total) for total in totals)


def test_second_look_gives_the_same_and_clears_older_pictures_away(looked, faulty_root, tmp_path):
    _, _, told = looked
    for name in ("findings_7.png", "findings_mine.png"):
        (tmp_path / name).write_bytes(b"")
    torch.rand(7)
    _, again = look(faulty_root, tmp_path)
    assert {**again, "command": ""} == {**told, "command": ""}
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["diagnose.json", "findings_1.png", "findings_mine.png"]


def test_picture_shows_each_image_with_a_finding(looked):
    folder, _, _ = looked
    picture = cv2.imread(str(folder / "findings_1.png"))
    assert picture.shape[1] > 2 * 560
    assert ((picture - (75, 75, 255.0)) ** 2).sum(axis=2).min() < 100


def test_terminal_gets_the_table_and_what_training_would_not_have_seen(
    faulty_root, tmp_path, capsys
):
    look(faulty_root, tmp_path, flags=["--labels-only"])
    lines = capsys.readouterr().out.strip().split("\n")
    assert lines[0].split()[:3] == ["row", "image", "rule"]
    assert lines[1].split()[1:3] == ["set00/V000/I00019", "box_without_area"]
    text = "\n".join(lines)
    assert "2 of 16 training images are at fault: box_without_area 2\n" in text
    assert "training would not have seen 2 of these 2 boxes: cleaning drops them (degen" in text
    assert lines[-1] == f"written: {tmp_path}/diagnose.json, {tmp_path}/findings_1.png"


def test_labels_alone_need_neither_model_nor_pictures(
    looked, faulty_root, tmp_path, monkeypatch, capsys
):
    def refuse(*args):
        raise AssertionError("not with --labels-only")

    monkeypatch.setattr(diagnose, "build_model", refuse)
    monkeypatch.setattr(diagnose, "build_diagnosis_loader", refuse)
    code, told = look(faulty_root, tmp_path, flags=["--labels-only"])
    assert code == 1
    assert told["findings"] == looked[2]["findings"]
    assert told["highest_losses"] == []
    assert told["labels_only"]


def test_sound_images_end_with_exit_code_zero_and_without_a_picture(
    drawn_root, quick_opts, tmp_path, capsys
):
    words = ["diagnose", "--config-file", QUICK, "--output", str(tmp_path), *quick_opts]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.startswith("nothing found in ")
    assert [path.name for path in tmp_path.iterdir()] == ["diagnose.json"]


def test_losses_are_those_of_the_weights_that_are_given(looked, faulty_root, tmp_path):
    cfg = load_config(QUICK, options(faulty_root))
    torch.manual_seed(7)
    Checkpointer(build_model(cfg), str(tmp_path)).save("other")
    weights = str(tmp_path / "other.pth")
    _, told = look(faulty_root, tmp_path, "MODEL.WEIGHTS", weights)
    assert told["weights"] == weights
    assert told["highest_losses"] != looked[2]["highest_losses"]
    assert told["findings"] == looked[2]["findings"]


def test_diverged_weights_list_every_image_and_are_suspected(
    faulty_root, tmp_path, monkeypatch, capsys
):
    def build_diverged(cfg):
        model = build_model(cfg)
        torch.nn.init.constant_(model.proposal_generator.rpn_head.conv.bias, math.nan)
        return model

    monkeypatch.setattr(diagnose, "build_model", build_diverged)
    code, told = look(faulty_root, tmp_path)
    assert code == 1
    assert told["rows"] == list(range(16))
    assert {one["rule"] for one in told["findings"]} == {"box_without_area", "loss_not_finite"}
    assert "most losses are not finite: look at the weights first" in capsys.readouterr().out


@pytest.fixture
def broken_root(tmp_path) -> Path:
    """A dataset root with four drawn pairs, the thermal picture of the third cut short."""
    draw_dataset(tmp_path / "synthetic", num_train=4, num_test=1, seed=1)
    names = (tmp_path / "synthetic/train-all-20.txt").read_text().split()
    folder, number = names[2].rsplit("/", 1)
    path = tmp_path / f"synthetic/images/{folder}/lwir/{number}.jpg"
    path.write_bytes(path.read_bytes()[:40])
    return tmp_path


@pytest.mark.parametrize("workers", ["0", "1"])
def test_image_that_cannot_be_read_is_listed_and_gone_past(broken_root, tmp_path, workers):
    more = ["DATALOADER.FILTER_EMPTY_ANNOTATIONS", "False", "DATALOADER.NUM_WORKERS", workers]
    code, told = look(broken_root, tmp_path / "out", *more)
    assert code == 1
    assert [(one["row"], one["rule"]) for one in told["findings"]] == [(2, "unreadable_image")]
    assert "not an image that OpenCV can decode (40 bytes)" in told["findings"][0]["message"]
    assert told["complete"]
    assert {one["row"] for one in told["highest_losses"]} == {0, 1, 3}
    assert (tmp_path / "out/findings_1.png").is_file()


def test_what_was_found_before_ctrl_c_is_written_and_said(
    faulty_root, tmp_path, monkeypatch, capsys
):
    def measure_images(model, samples, seed):
        if samples[0]["row"] == 3:
            raise KeyboardInterrupt
        return [ImageLosses(0, "", {"total_loss": math.inf})]

    monkeypatch.setattr(diagnose, "measure_images", measure_images)
    code, told = look(faulty_root, tmp_path)
    assert code == cli.INTERRUPTED
    assert (told["complete"], told["num_looked_at"], told["rows"]) == (False, 3, [0, 1, 2])
    out, err = capsys.readouterr()
    assert "cut short: 3 training images of 16 were looked at\n3 of 3 training images are" in out
    assert err.endswith("d2pd: interrupted\n")


def test_pictures_are_of_the_first_images_when_many_are_at_fault(
    faulty_root, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(
        diagnose, "measure_images", lambda *_: [ImageLosses(0, "", {"total_loss": math.nan})]
    )
    monkeypatch.setattr(diagnose, "MOST_PICTURES", 9)
    _, told = look(faulty_root, tmp_path)
    assert len(told["rows"]) == 16
    assert len(list(tmp_path.glob("findings_*.png"))) == 2
    last = capsys.readouterr().out.strip().split("\n")[-1]
    assert last.endswith(f", {tmp_path}/findings_1.png to findings_2.png (the first 9 images)")


def test_look_into_a_run_folder_does_not_stand_in_the_way_of_a_run(faulty_root, tmp_path):
    words = ["diagnose", "--config-file", QUICK, "--labels-only", *options(faulty_root)]
    cli.main([*words, "OUTPUT_DIR", str(tmp_path / "run")])
    assert (tmp_path / "run/diagnose/diagnose.json").is_file()
    assert held_run(tmp_path / "run") is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("DATASETS.TRAIN", "()"), "DATASETS.TRAIN is empty: name a dataset"),
        (("DATASETS.ROOT", "/nowhere"), "no file /nowhere/synthetic/train20.json"),
        (("MODEL.ROI_HEADS.NUM_CLASSES", "2"), "NUM_CLASSES is 2, but synthetic_train has 1"),
        (("MODEL.WEIGHTS", "none.pth"), "none.pth"),
        (("MODEL.DEVICE", "gpu"), "MODEL.DEVICE is 'gpu'"),
        (("INPUT.MIN_SIZE_TEST", "-1"), "lengths must be one or more sizes"),
        (("DATASETS.REGISTER.synthetic_train.INCLUDE", "['set07']"), "no image is left by INCLUDE"),
        (("SOLVER.LRR", "1"), "unknown key SOLVER.LRR"),
    ],
)
def test_mistakes_are_told_before_anything_is_looked_at(
    faulty_root, tmp_path, capsys, more, message
):
    code, told = look(faulty_root, tmp_path / "out", *more)
    out, err = capsys.readouterr()
    assert (code, out, told) == (cli.USER_ERROR, "", {})
    assert err.startswith("d2pd: ")
    assert message in err
    assert not (tmp_path / "out").exists()


def test_folder_that_cannot_be_made_is_one_line(faulty_root, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code, _ = look(faulty_root, tmp_path / "file/out", flags=["--labels-only"])
    assert code == cli.USER_ERROR
    assert capsys.readouterr().err.startswith(f"d2pd: the folder {tmp_path}/file/out cannot be")


def test_thermal_pictures_that_are_not_there_are_missed_once_and_not_for_each_image(
    tmp_path, capsys
):
    draw_dataset(tmp_path / "synthetic", num_train=2, num_test=1)
    for path in tmp_path.glob("synthetic/images/*/*/lwir/*.jpg"):
        path.unlink()
    code, _ = look(tmp_path, tmp_path / "out")
    err = capsys.readouterr().err
    assert code == cli.USER_ERROR
    assert "synthetic_train: 2 of 2 frames have no lwir image (set" in err
    assert err.count("\n") == 1


def name_real_pictures(root: Path, labels: Path) -> None:
    """Lay out the names of all real pictures, empty files."""
    for row in json.loads(labels.read_text())["images"]:
        folder, number = row["im_name"].rsplit("/", 1)
        path = root / "images" / folder / "visible" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_real_labels_break_the_contract_in_exactly_the_eight_known_rows(shared_data, tmp_path):
    labels = shared_data / "kaist/train20.json"
    name_real_pictures(tmp_path, labels)
    key = "DATASETS.REGISTER.synthetic_train"
    real = (f"{key}.ANNOTATIONS", str(labels), f"{key}.IMAGES", str(tmp_path / "images"))
    code, told = look(tmp_path, tmp_path / "out", *real, "INPUT.MODALITY", "visible",
                      flags=["--labels-only"])  # fmt: skip
    assert (code, told["num_looked_at"]) == (1, 8738)
    assert told["rows"] == REAL_ROWS
    assert len(told["findings"]) == 10
    assert {one["dropped_as"] for one in told["findings"]} == {"degenerate_box"}


@pytest.fixture(scope="module")
def shared_pictures(shared_data, tmp_path_factory) -> Path:
    """A folder with a drawn pair for every real label row, in the layout of KAIST.

    Drawn are those of the eight rows and of every fortieth image, each with its own labels; the
    others are links to these in turn, which saves five minutes on two cores.
    """
    table = json.loads((shared_data / "kaist/train20.json").read_text())
    root = tmp_path_factory.mktemp("real")
    at_fault = {row["image_id"] for row in table["annotations"] if 0 in row["bbox"][2:]}
    drawn = [
        row for number, row in enumerate(table["images"])
        if number % 40 == 0 or row["id"] in at_fault
    ]  # fmt: skip
    ids = {row["id"] for row in drawn}
    labels = [row for row in table["annotations"] if row["image_id"] in ids]
    (root / "some.json").write_text(json.dumps({**table, "images": drawn, "annotations": labels}))
    draw_dataset(root, boxes=root / "some.json")
    sources = itertools.cycle(sorted({row["im_name"] for row in drawn}))
    for name in {row["im_name"] for row in table["images"]} - {row["im_name"] for row in drawn}:
        source = next(sources)
        for modality in ("visible", "lwir"):
            link = picture(root, name, modality)
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(picture(root, source, modality), link)
    return root / "images"


def picture(root: Path, name: str, modality: str) -> Path:
    folder, number = name.rsplit("/", 1)
    return root / "images" / folder / modality / f"{number}.jpg"


@pytest.mark.slow
def test_real_labels_over_drawn_pictures_partly_shared_list_the_eight_rows_with_losses_too(
    shared_data, shared_pictures, tmp_path
):
    key = "DATASETS.REGISTER.synthetic_train"
    labels = str(shared_data / "kaist/train20.json")
    real = (f"{key}.ANNOTATIONS", labels, f"{key}.IMAGES", str(shared_pictures))
    code, told = look(tmp_path, tmp_path / "out", *real, "INPUT.MIN_SIZE_TEST", "64")
    assert (code, told["num_looked_at"], told["complete"]) == (1, 8738, True)
    assert told["rows"] == REAL_ROWS
    diverged = [one["row"] for one in told["findings"] if one["rule"] == "loss_not_finite"]
    assert 0 < len(diverged) < len(REAL_ROWS)
    assert len(told["highest_losses"]) == 10


def record_step(path: Path, second_box: list[float], bias: float = 0.0) -> None:
    """Write a step of two images as a training does that has met something not finite."""
    cfg = load_config(QUICK, ["MODEL.DEVICE", "cpu"])
    torch.manual_seed(0)
    model = build_model(cfg).train()
    torch.nn.init.constant_(model.roi_heads.box_predictor.cls_score.bias, bias)
    suspects = []
    for number, box in enumerate(([8.0, 8, 30, 60], second_box)):
        instances = Instances((64, 80))
        instances.gt_boxes = Boxes(torch.tensor([box]))
        instances.gt_classes = torch.zeros(1, dtype=torch.int64)
        image = torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8)
        sample = {"file_name": f"{number}.png", "row": 40 + number, "image": image}
        suspects.append(Suspect(number, sample | {"instances": instances}, 7))
    violation = Violation(LOSS, "", suspects, {"loss_cls": math.nan})
    with path.open("wb") as file:
        scene = Scene(12, model, Precision(), 1, None)
        write_step(file, violation, scene, rank=0, text="nan!", config_text=cfg.dump())


@pytest.mark.parametrize("with_config", [False, True], ids=["own config", "given config"])
def test_recorded_step_is_run_again_with_the_losses_of_each_image(tmp_path, capsys, with_config):
    record_step(tmp_path / "step.pt", [20, 20, 30, 40], bias=math.nan)
    words = ["diagnose", "--replay", str(tmp_path / "step.pt")]
    words += ["--config-file", QUICK, "MODEL.DEVICE", "cpu"] if with_config else []
    assert cli.main(words) == 1
    lines = capsys.readouterr().out.strip().split("\n")
    assert lines[0] == "iteration 12, rank 0: nan!"
    assert "loss_cls = nan (in the run: nan)" in lines
    for name in ("0.png (row 40)", "1.png (row 41)"):
        (alone,) = [line for line in lines if line.startswith(f"{name} by itself: ")]
        assert "loss_cls = nan" in alone
        assert "loss_rpn_loc = nan" not in alone


def test_recorded_step_with_a_bad_label_names_it(tmp_path, capsys):
    record_step(tmp_path / "step.pt", [20, 20, 20, 40])
    assert cli.main(["diagnose", "--replay", str(tmp_path / "step.pt")]) == 1
    assert "\n1.png (row 41): target box 0" in capsys.readouterr().out


def test_recorded_step_that_is_finite_now_ends_with_exit_code_zero(tmp_path, capsys):
    record_step(tmp_path / "step.pt", [20, 20, 30, 40])
    assert cli.main(["diagnose", "--replay", str(tmp_path / "step.pt")]) == 0
    first = capsys.readouterr().out
    assert "norm of the gradients = " in first
    cli.main(["diagnose", "--replay", str(tmp_path / "step.pt")])
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name the training: --config-file FILE, or --replay FILE of one step"),
        (["--replay", "none.pt"], "no file none.pt; steps are in OUTPUT_DIR/non_finite/*.pt"),
        (["--replay", QUICK], "is cut off or damaged (it does not end where a pickle ends)"),
        (["--replay", "a.pt", "MODEL.DEVICE", "cpu"], "nothing to override: MODEL.DEVICE"),
    ],
)
def test_mistakes_with_a_recorded_step_are_one_line(capsys, words, message):
    assert cli.main(["diagnose", *words]) == cli.USER_ERROR
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)
