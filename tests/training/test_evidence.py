"""What is left of a step that was not finite: JSON for programs, and what survives trouble."""

import json
from pathlib import Path

import cv2
import pytest
import torch
from step_toys import HEIGHT, NAN, WIDTH, Toy, sample

from d2pd.training.culprits import evidence as evidence_module
from d2pd.training.culprits.culprit import (
    LOSS,
    TARGETS,
    Scene,
    Suspect,
    Verdict,
    Violation,
    isolate,
)
from d2pd.training.culprits.evidence import Evidence
from d2pd.training.culprits.recorded_step import read_step
from d2pd.training.precision import Precision


def write(folder, samples, where=LOSS, model=None, rank=0):
    suspects = [Suspect(index, one, seed=5) for index, one in enumerate(samples)]
    violation = Violation(where, "seen", suspects, {"loss_a": NAN, "loss_b": 0.5})
    scene = Scene(41, model or Toy(), Precision(), 2, None)
    verdict = isolate(violation, scene)
    evidence = Evidence(folder, ("person", "cyclist"), config_text="SEED: 1")
    return evidence.write(violation, verdict, scene, rank=rank, text="all in one line")


def read(path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_json_says_all_that_is_known_and_any_reader_takes_it(tmp_path):
    bad = sample(NAN, name="straße.png", row=9, boxes=((1, 2, 3, 4), (0, 0, 9, 9)), classes=[1, 0])
    path = write(tmp_path / "new/non_finite", [sample(3.0), bad], rank=3)
    assert path == tmp_path / "new/non_finite/iter_0000041_rank3.json"
    told = read(path)
    assert told["images"][1] == {
        "index": 1,
        "row": 9,
        "file_name": "straße.png",
        "is_blamed": True,
        "boxes_xyxy": [[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 9.0, 9.0]],
        "classes": [1, 0],
        "size": [HEIGHT, WIDTH],
        "seed": 5,
        "alone": {"losses": {"loss_a": "nan", "loss_b": 0.0}, "error": "", "gradient_norm": None},
    }
    assert told["images"][0]["is_blamed"] is False
    del told["images"]
    assert told.pop("way_out")
    assert told == {
        "iteration": 41,
        "rank": 3,
        "verdict": "image",
        "text": "all in one line",
        "seen_in": "loss",
        "precision": "fp32",
        "losses": {"loss_a": "nan", "loss_b": 0.5},
        "faults": [],
        "parameters_not_finite": [],
        "largest_weight": {"name": "weight", "value": 2.0},
    }


def test_faults_and_weights_that_are_no_numbers_are_strings(tmp_path):
    bad = sample(boxes=((0, 0, NAN, 4), (0, 0, float("inf"), 4)), row=2)
    told = read(write(tmp_path, [bad], where=TARGETS))
    assert [fault["bbox_xyxy"][2] for fault in told["faults"]] == ["nan", "inf"]
    assert told["images"][0]["boxes_xyxy"][0][2] == "nan"
    model = Toy()
    model.weight.data.fill_(NAN)
    told = read(write(tmp_path, [sample()], model=model))
    assert told["parameters_not_finite"] == ["weight"]
    assert told["largest_weight"] == {"name": "", "value": 0.0}


def test_picture_shows_the_blamed_image_first(tmp_path):
    white = torch.full((3, HEIGHT, WIDTH), 255, dtype=torch.uint8)
    samples = [sample(), sample(NAN, image=white, boxes=())]
    write(tmp_path, samples)
    drawn = cv2.imread(str(tmp_path / "iter_0000041_rank0.png"))
    left, right = drawn[-40, drawn.shape[1] // 4], drawn[-40, 3 * drawn.shape[1] // 4]
    assert left.tolist() == [255] * 3
    assert right.tolist() == [0] * 3


@pytest.mark.parametrize("channels", [4, 6])
def test_pair_is_drawn_side_by_side_and_both_files_are_named(tmp_path, channels):
    image = torch.zeros(channels, HEIGHT, WIDTH, dtype=torch.uint8)
    image[3:] = 200
    bad = sample(NAN, image=image, name="v.png", boxes=(), lwir_file_name="t.png")
    told = read(write(tmp_path, [bad]))
    assert (told["images"][0]["file_name"], told["images"][0]["lwir_file_name"]) == (
        "v.png",
        "t.png",
    )
    drawn = cv2.imread(str(tmp_path / "iter_0000041_rank0.png"))
    left, right = drawn[-40, drawn.shape[1] // 4], drawn[-40, 3 * drawn.shape[1] // 4]
    assert (left.tolist(), right.tolist()) == ([0] * 3, [200] * 3)
    (suspect,) = read_step(tmp_path / "iter_0000041_rank0.pt").suspects
    assert torch.equal(suspect.sample["image"], image)
    assert suspect.sample["lwir_file_name"] == "t.png"


def test_picture_that_cannot_be_drawn_leaves_json_and_replay(tmp_path, monkeypatch, caplog):
    def fail(*_args):
        raise ValueError("no font")

    monkeypatch.setattr(evidence_module, "draw_suspects", fail)
    path = write(tmp_path, [sample(NAN)])
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".pt"]
    assert path.suffix == ".json"
    assert "iter_0000041_rank0.png: no font" in caplog.text


def test_disk_that_fills_leaves_no_half_file_and_is_no_error(tmp_path, monkeypatch, caplog):
    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    monkeypatch.setattr(Path, "replace", fail)
    assert write(tmp_path, [sample(NAN)]) is None
    assert list(tmp_path.iterdir()) == []
    assert caplog.text.count("No space left on device") == 3


def test_nothing_is_written_before_there_is_something_to_tell(tmp_path):
    Evidence(tmp_path / "non_finite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["whole batch"])
def test_verdict_without_images_tried_has_none_in_the_json(tmp_path, kind):
    suspects = [Suspect(0, sample(), seed=5)]
    violation = Violation(LOSS, "seen", suspects, {})
    scene = Scene(0, Toy(), Precision(), 2, None)
    told = read(Evidence(tmp_path).write(violation, Verdict(kind, "", ""), scene, rank=0, text=""))
    assert told["images"][0]["alone"] is None
