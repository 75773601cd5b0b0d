"""``d2pd export`` as a user types it: files that detect what the predictor detects."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from d2pd import cli
from d2pd.errors import ConfigError
from d2pd.inference.export.command import FORMATS
from d2pd.inference.export.graph import exportable
from d2pd.inference.export.torch_files import FACTS
from d2pd.inference.predictor import load
from d2pd.modeling.build import ListedCore

GRAPHS = [
    pytest.param("tiny_ssd_run", "onnx", marks=pytest.mark.slow),
    pytest.param("tiny_ssd_run", "torch_export", marks=pytest.mark.slow),
    pytest.param("tiny_ssd_run", "torchscript"),
    pytest.param("tiny_run", "onnx", marks=pytest.mark.slow),
    pytest.param("tiny_run", "torch_export", marks=pytest.mark.slow),
    pytest.param("tiny_run", "torchscript"),
    pytest.param("tiny_cascade_run", "onnx", marks=pytest.mark.slow),
    pytest.param("tiny_cascade_run", "torch_export", marks=pytest.mark.slow),
    pytest.param("tiny_cascade_run", "torchscript"),
]


def export(*words):
    return cli.main(["export", "--weights", *(str(word) for word in words)])


@pytest.mark.parametrize(("run", "name"), GRAPHS)
def test_file_detects_what_the_predictor_detects(run, name, tmp_path, request, capsys):
    if name == "onnx":
        pytest.importorskip("onnxruntime", reason="`pip install onnx onnxscript onnxruntime`")
    folder = request.getfixturevalue(run)
    path = tmp_path / f"deep/model{FORMATS[name].suffix}"

    assert export(folder, "--format", name, "--output", path) == 0

    said = capsys.readouterr().out
    num_images = 3 if name == "torchscript" and run != "tiny_ssd_run" else 4
    num_images *= 1 if name == "torchscript" else 3  # alone, and beside the mirror image
    assert f"in {num_images} images: boxes within" in said
    assert ("this size alone" if name == "torchscript" else "any size from 64 x 64 px on") in said
    assert "resize pictures as the model was trained: {" in said
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    detector = load(folder, device="cpu")
    expected = detector.predict(image := noise(), threshold=0)
    detector.core = FORMATS[name].read(path)
    found = detector.predict(image, threshold=0)
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, atol=0.01)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    if name != "torchscript":  # other sizes and numbers than it was drawn with
        images = np.stack([noise(shape=(192, 96))] * 3)
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        ours, theirs = load(folder, device="cpu").core(pixels), detector.core(pixels)
        assert ours.counts.tolist() == theirs.counts.tolist()
        torch.testing.assert_close(ours.boxes, theirs.boxes, atol=0.01, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_real_photos_are_detected_alike(tiny_ssd_run, shared_data, tmp_path, name, capsys):
    if name == "onnx":
        pytest.importorskip("onnxruntime", reason="`pip install onnx onnxscript onnxruntime`")
    photos = sorted((shared_data / "face_mask/test").glob("*.jpg"))[:3]
    words = ["--format", name, "--output", tmp_path / "m", "--images", *photos]
    words += [shared_data / "kaist/images"]
    assert export(tiny_ssd_run, *words) == 0
    # Three photos and the visible pictures of five pairs; alone, and beside the mirror image.
    num_images = 8 * (1 if name == "torchscript" else 3)
    assert f"in {num_images} images: boxes within" in capsys.readouterr().out


def noise(shape=(120, 160)):
    return np.random.default_rng(7).integers(0, 255, (*shape, 3), dtype=np.uint8)


@pytest.mark.slow
def test_a_file_runs_without_d2pd_and_says_what_it_takes(tiny_run, tmp_path):
    path = tmp_path / "m.pt2"
    export(tiny_run, "--format", "torchscript", "--output", path)
    code = (
        "import sys, json, torch, torchvision\n"
        f"extra = {{{FACTS!r}: ''}}\n"
        f"model = torch.jit.load({str(path)!r}, _extra_files=extra)\n"
        "boxes, scores, classes, counts = model(torch.zeros(1, 3, 120, 160, dtype=torch.uint8))\n"
        "assert 'd2pd' not in sys.modules\n"
        f"print(extra[{FACTS!r}].decode())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert json.loads(facts["class_names"]) == ["person"]
    assert facts["input"] == "images (N, 3, H, W) uint8: blue, green, red of the visible picture"
    assert json.loads(facts["resize"]) == {"shortest_edge": 128, "longest_edge_at_most": 160}
    assert facts["interpolation"].startswith("bilinear with antialiasing, as Pillow's")


def test_a_file_that_detects_something_else_is_not_kept(tiny_run, tmp_path, monkeypatch, capsys):
    path = tmp_path / "m.pt"
    kind = FORMATS["torchscript"]

    class Moved(torch.nn.Module):
        def forward(self, images):
            found = kind.read(path.with_name(f".{path.name}.part"))(images)
            return found._replace(boxes=found.boxes + 0.1)

    monkeypatch.setitem(
        FORMATS, "torchscript", type(kind)(kind.suffix, kind.write, lambda _: Moved())
    )
    assert export(tiny_run, "--format", "torchscript", "--output", path) == cli.USER_ERROR
    assert "does not detect the same" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_replaced_unasked(tiny_run, tmp_path, capsys):
    path = tmp_path / "m.pt"
    path.write_text("mine")
    assert export(tiny_run, "--format", "torchscript", "--output", path) == cli.USER_ERROR
    assert "m.pt exists; name another file, or add --force" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert export(tiny_run, "--format", "torchscript", "--output", path, "--force") == 0
    assert path.stat().st_size > 1000


def test_weights_are_not_written_over(tiny_run, tmp_path, capsys):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    weights = run / "model_final.pth"
    words = ["--format", "torchscript", "--output", weights, "--force"]
    assert export(weights, *words) == cli.USER_ERROR
    assert "one of the files to read" in capsys.readouterr().err


def test_soft_suppression_is_refused_with_the_reason(tiny_ssd_run, tmp_path, capsys):
    words = ["--format", "torch_export", "--output", tmp_path / "m.pt2"]
    assert export(tiny_ssd_run, *words, "MODEL.SSD.NMS_TYPE", "soft_linear") == cli.USER_ERROR
    said = capsys.readouterr().err
    assert "MODEL.SSD.NMS_TYPE soft_linear cannot be exported as a graph: it picks box" in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_only_detectron2_has_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match=r"\(it has no cascades\): --format torchserve"):
        exportable(ListedCore(nn.Identity(), "it has no cascades"))


def test_missing_packages_are_named_with_the_line_that_installs_them(
    tiny_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert export(tiny_run, "--format", "onnx") == cli.USER_ERROR
    assert "needs onnx, onnxscript, onnxruntime: pip install onnx" in capsys.readouterr().err


def test_pictures_may_be_named(tiny_run, tmp_path, capsys):
    words = ["--format", "torchscript", "--output", tmp_path / "m.pt", "--images"]
    pictures = tiny_run.parent / "images"
    assert export(tiny_run, *words, pictures / "0.png", pictures / "1.png") == 0
    assert "in 2 images: boxes within" in capsys.readouterr().out
    assert export(tiny_run, "--force", *words, pictures) == 0
    assert "in 3 images: boxes within" in capsys.readouterr().out  # the fourth has another size
    assert export(tiny_run, "--force", *words, tmp_path / "none.png") == cli.USER_ERROR
    assert "none.png: no such file or folder" in capsys.readouterr().err
    (tmp_path / "text.png").write_text("text")
    assert export(tiny_run, "--force", *words, tmp_path / "text.png") == cli.USER_ERROR
    assert "not an image that OpenCV can decode" in capsys.readouterr().err


def test_card_is_written_anew(tiny_run, tmp_path, capsys):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    assert export(run / "model_final.pth", "--card") == 0
    assert capsys.readouterr().out.strip() == str(run / "model_card.md")
    assert "## " in (run / "model_card.md").read_text()
    assert export(tmp_path, "--card") == cli.USER_ERROR
    assert "holds no run" in capsys.readouterr().err


def test_without_pictures_to_check_on_nothing_is_written(tiny_run, tmp_path, capsys):
    words = ["--format", "torchscript", "--output", tmp_path / "m.pt"]
    gone = ["DATASETS.ROOT", tmp_path / "gone"]
    assert export(tiny_run, *words, *gone) == cli.USER_ERROR
    said = capsys.readouterr().err
    assert "the test data of this model are not here" in said
    assert "--images FILE" in said
    assert list(tmp_path.iterdir()) == []
