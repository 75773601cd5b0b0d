"""The folder for TorchServe: its handler is called as the server calls it."""

import importlib.util
import json
import sys
import zipfile
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml

from d2pd import cli
from d2pd.inference.export.torchserve import archive_name
from d2pd.inference.predictor import load


def export(*words):
    return cli.main(["export", "--format", "torchserve", *(str(word) for word in words)])


def load_handler(path):
    spec = importlib.util.spec_from_file_location("handler", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(folder, **properties):
    handler = load_handler(folder / "handler.py").DetectionHandler()
    properties = {"model_dir": str(folder), "gpu_id": None, **properties}
    handler.initialize(SimpleNamespace(system_properties=properties))
    return handler


def encoded(image, suffix=".png"):
    return cv2.imencode(suffix, image)[1].tobytes()


@pytest.fixture(scope="module")
def served(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "torchserve"
    assert export("--weights", tiny_run, "--output", folder) == 0
    return folder


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(1).integers(0, 255, (96, 128, 3), dtype=np.uint8)


def test_folder_holds_weights_configuration_as_text_and_handler(served, tiny_run):
    assert {"weights.pth", "config.yaml", "handler.py"} <= {path.name for path in served.iterdir()}
    config = yaml.safe_load((served / "config.yaml").read_text())
    assert config["MODEL"]["WEIGHTS"] == "weights.pth"
    assert config["INPUT"]["MIN_SIZE_TEST"] == 128
    ours, theirs = (
        torch.load(path, weights_only=True)["model"]
        for path in (served / "weights.pth", tiny_run / "model_final.pth")
    )
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_handler_module_is_what_torchserve_takes(served):
    module = load_handler(served / "handler.py")
    # The server takes the one class that the module itself defines.
    own = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and each.__module__ == module.__name__
    ]
    assert own == [module.DetectionHandler]


def test_worker_without_a_gpu_of_its_own_takes_none(served, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert str(started(served, gpu_id=None).detector.device) == "cpu"


def test_answers_are_plain_json(served, image, monkeypatch):
    monkeypatch.setenv("D2PD_THRESHOLD", "0.3")
    answers = started(served).handle([{"data": bytearray(encoded(image))}, {}], None)
    assert answers[0]["detections"]
    assert json.loads(json.dumps(answers)) == answers


def test_handler_answers_what_the_predictor_finds(served, tiny_run, image, monkeypatch):
    monkeypatch.setenv("D2PD_THRESHOLD", "0.3")
    found = load(tiny_run, device="cpu").predict(image, threshold=0.3)

    answers = started(served).handle([{"body": encoded(image)}, {"data": encoded(image)}], None)

    assert answers[0] == answers[1]
    assert (answers[0]["width"], answers[0]["height"]) == (128, 96)
    rows = answers[0]["detections"]
    assert [row["box"] for row in rows] == found.boxes_xyxy.tolist()
    assert [row["score"] for row in rows] == found.scores.tolist()
    assert {row["class"] for row in rows} == {"person"}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"body": b"no picture"}, "can decode (10 bytes); send a JPEG or PNG"),
        ({"body": b""}, "holds no visible picture"),
        ({}, "holds no visible picture"),
        ({"body": "text"}, "holds no visible picture"),
        (None, "holds no visible picture"),
    ],
)
def test_bad_request_is_told_and_costs_the_others_nothing(served, image, request_, message):
    answers = started(served).handle([request_, {"body": encoded(image)}], None)

    assert message in answers[0]["error"]
    assert "detections" in answers[1]


def test_pair_comes_as_two_parts(tiny_run, tmp_path, image):
    values = "[50.0,50.0,50.0,50.0]"
    opts = ["INPUT.MODALITY", "both", "MODEL.PIXEL_MEAN", values, "MODEL.PIXEL_STD", values]
    assert export("--weights", tiny_run, "--output", tmp_path / "pair", *opts) == 0
    handler = started(tmp_path / "pair")
    grey = image[:, :, 0]

    whole, half, odd = handler.handle(
        [
            {"visible": encoded(image), "lwir": encoded(grey)},
            {"visible": encoded(image)},
            {"visible": encoded(image), "lwir": encoded(grey[:50])},
        ],
        None,
    )

    pair = np.dstack([image, grey, grey, grey])
    found = handler.detector.predict(pair, threshold=0.5)
    assert [row["score"] for row in whole["detections"]] == found.scores.tolist()
    assert "holds no lwir picture" in half["error"]
    assert "a pair has one size" in odd["error"]


def test_archive_holds_all_and_its_handler_works(served, image, tmp_path):
    pytest.importorskip("model_archiver", reason="`pip install torch-model-archiver`")
    (archive,) = served.glob("*.mar")
    with zipfile.ZipFile(archive) as file:
        assert {"weights.pth", "config.yaml", "handler.py", "MAR-INF/MANIFEST.json"} <= set(
            file.namelist()
        )
        file.extractall(tmp_path)
    assert "detections" in started(tmp_path).handle([{"body": encoded(image)}], None)[0]


def test_without_the_archiver_the_folder_is_enough(tiny_run, tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "d2pd.inference.export.torchserve.importlib.util.find_spec",
        lambda name: None if name == "model_archiver" else find(name),
    )
    assert export("--weights", tiny_run, "--output", tmp_path / "served") == 0
    assert not list((tmp_path / "served").glob("*.mar"))
    assert "pip install torch-model-archiver" in capsys.readouterr().out


def test_archiver_that_fails_is_told(tiny_run, tmp_path, monkeypatch, capsys):
    fake = tmp_path / "model_archiver"
    fake.mkdir()
    (fake / "__init__.py").touch()
    (fake / "model_packaging.py").write_text("raise SystemExit('no room')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("model_archiver", None)
    assert export("--weights", tiny_run, "--output", tmp_path / "served") == cli.USER_ERROR
    said = capsys.readouterr().err
    assert "could not make" in said
    assert "(no room)" in said


def test_folder_with_something_in_it_is_left_alone(tiny_run, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert export("--weights", tiny_run, "--output", tmp_path) == cli.USER_ERROR
    assert "is there already: name another --output, or add --force" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("text", "name"), [("my run/1", "my_run_1"), ("..", "d2pd"), ("-x.", "x"), ("demo", "demo")]
)
def test_names_of_archives(text, name):
    assert archive_name(text) == name
