"""From a picture file to detections: d2pd and stock Detectron2's ``DefaultPredictor``.

The figures of trained weights on photos come from ``benchmarks/stock_predictor.py``, whose code is
tested here.
"""

import importlib.util
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("detectron2", reason="compares with an installed Detectron2")
from detectron2.engine import DefaultPredictor
from parity_toys import BASE, DETECTRON2, R18, build, make_inputs, stir

import d2pd

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    **{key: value for key, value in {**BASE, **R18}.items() if key != "MODEL.WEIGHTS"},
    "INPUT.MIN_SIZE_TEST": 160,
    "INPUT.MAX_SIZE_TEST": 256,
    "INPUT.FORMAT": "RGB",
}


@pytest.fixture(scope="module")
def bench():
    path = ROOT / "benchmarks/stock_predictor.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[path.stem]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    model = build(DETECTRON2, OPTIONS)
    stir(model, make_inputs("three_images", 1, DETECTRON2))
    path = tmp_path_factory.mktemp("weights") / "model_final.pth"
    torch.save({"model": model.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def pair(bench, weights):
    """Both predictors with one file of weights."""
    words = [str(word) for item in OPTIONS.items() for word in item]
    predictor = d2pd.load(
        weights, config_file=ROOT / "configs/Base-FasterRCNN-FPN.yaml", opts=words, device="cpu"
    )
    cfg = bench.stock_config(predictor.cfg)
    return predictor, DefaultPredictor(cfg)


def draw_pictures(folder, sizes):
    """Write pictures with soft patches, as photos have them, in each kind of file."""
    generator = np.random.default_rng(0)
    paths = []
    for number, (height, width) in enumerate(sizes):
        rough = generator.integers(0, 256, (8, 10, 3), dtype=np.uint8)
        image = cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
        paths.append(folder / f"{number}.{('png', 'jpg')[number % 2]}")
        assert cv2.imwrite(str(paths[-1]), image)
    return paths


def check(bench, pair, pictures, name):
    report = bench.compare(*pair, pictures, 0.3)
    for what in ("whole", "same_pixels"):
        told = dict(zip(bench.HEADER[1:], getattr(report, what).row(), strict=True))
        print(f"\n{name}, {what}: {told}, pixels {report.pixels}")
    assert report.read_alike
    assert report.whole.counts[1] >= 20
    # All but the resize is the same arithmetic.
    same = report.same_pixels
    assert same.counts == (len(same.boxes), len(same.boxes))
    assert max(same.boxes) < 0.01
    assert max(same.scores) < 1e-4
    # Both resize bilinearly with antialiasing, and round differently.
    assert max(mean for mean, _ in report.pixels) < 0.2
    assert max(most for _, most in report.pixels) <= 3
    assert len(report.whole.boxes) >= 0.8 * max(report.whole.counts)
    # These weights are random, with large logits and deltas; of trained ones it is a tenth.
    assert np.median(report.whole.boxes) < 1
    assert np.median(report.whole.scores) < 0.05
    return report


def test_only_the_resize_makes_a_difference(bench, pair, tmp_path):
    report = check(
        bench, pair, draw_pictures(tmp_path, [(211, 317), (240, 200), (130, 145)]), "drawn"
    )
    assert max(most for _, most in report.pixels) > 0
    assert max(report.whole.boxes) > 0


def test_halving_makes_none(bench, pair, tmp_path):
    report = check(bench, pair, draw_pictures(tmp_path, [(320, 400), (320, 400)]), "halved")
    assert report.pixels == [(0, 0), (0, 0)]
    assert max(report.whole.boxes) < 0.01


def test_photos(bench, pair, shared_data):
    pictures = sorted((shared_data / "face_mask/test").glob("*.jpg"))[:3]
    assert len(pictures) == 3
    check(bench, pair, pictures, "photos")


def test_what_has_no_partner_is_no_pair(bench):
    ours = bench.Detections(
        np.array([[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]], dtype=np.float32),
        np.array([0.9, 0.8, 0.7], dtype=np.float32),
        np.array([0, 1, 0]),
        ("a", "b"),
    )
    found = DETECTRON2.instances(
        (100, 100),
        pred_boxes=DETECTRON2.boxes(torch.tensor([[0, 0, 10, 10.5], [50, 50, 60, 70]])),
        scores=torch.tensor([0.6, 0.5]),
        pred_classes=torch.tensor([0, 0]),
    )
    apart = bench.distance(ours, {"instances": found}, 0.5)
    assert (apart.counts, apart.boxes) == ((3, 2), [0.5])
    assert apart.scores == pytest.approx([0.3])
