"""Views of an image, and several detectors as one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_trained_model import rewrite, run_of

import d2pd
from d2pd.config import load_config
from d2pd.errors import ConfigError
from d2pd.inference.ensemble import Ensemble
from d2pd.inference.fusion import fuse
from d2pd.inference.predictor import Predictor, load
from d2pd.inference.views import View, views_of
from d2pd.modeling.batch_detections import BatchDetections

FLIPPED = View(flip=True)
QUICK = Path(__file__).resolve().parents[2] / "configs/quick"
SSD, RCNN = QUICK / "ssd_seg_synthetic.yaml", QUICK / "faster_rcnn_synthetic.yaml"


@pytest.fixture(scope="module")
def predictor(tiny_run) -> Predictor:
    return load(tiny_run, device="cpu")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (96, 128, 3), dtype=np.uint8)


def assert_same(found, expected):
    assert np.array_equal(found.boxes_xyxy, expected.boxes_xyxy)
    assert np.array_equal(found.scores, expected.scores)
    assert np.array_equal(found.classes, expected.classes)


def find_bright(pixels):
    """The inference of a model that finds all that is bright, however an image is turned."""
    boxes = []
    for each in pixels.amax(dim=1) > 200:
        rows, columns = each.any(dim=1).nonzero(), each.any(dim=0).nonzero()
        ends = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        boxes.append(torch.stack(ends).float()[None])
    count = len(boxes)
    return BatchDetections(
        boxes=torch.stack(boxes),
        scores=torch.full((count, 1), 0.75),
        classes=torch.zeros(count, 1, dtype=torch.int64),
        counts=torch.ones(count, dtype=torch.int64),
    )


@given(st.data())
def test_the_flip_changes_nothing_for_a_model_that_left_and_right_are_the_same_to(predictor, data):
    x1, y1 = data.draw(st.integers(0, 159)), data.draw(st.integers(0, 119))
    x2, y2 = data.draw(st.integers(x1 + 1, 160)), data.draw(st.integers(y1 + 1, 120))
    image = np.zeros((120, 160, 3), np.uint8)
    image[y1:y2, x1:x2] = 255
    plain = predictor.looking(View())
    plain.core = find_bright

    found = Ensemble([plain, plain.looking(FLIPPED)]).predict(image)

    assert found.boxes_xyxy.tolist() == [[x1, y1, x2, y2]]
    assert_same(found, plain.predict(image))


def test_the_flipped_view_finds_what_the_model_finds_in_the_mirror_image(predictor, image):
    mirrored = predictor.predict(np.ascontiguousarray(image[:, ::-1]), threshold=0)

    found = predictor.looking(FLIPPED).predict(image, threshold=0)

    x1, y1, x2, y2 = mirrored.boxes_xyxy.T
    assert np.array_equal(found.boxes_xyxy, np.stack([128 - x2, y1, 128 - x1, y2], axis=1))
    assert np.array_equal(found.scores, mirrored.scores)
    assert found.image is image
    assert len(found) > 0


def test_a_mirror_image_seen_flipped_is_mirrored_back(predictor, image):
    plain = predictor.predict(image, threshold=0)

    found = predictor.looking(FLIPPED).predict(image[:, ::-1], threshold=0)

    x1, y1, x2, y2 = found.boxes_xyxy.T
    back = np.stack([128 - x2, y1, 128 - x1, y2], axis=1)
    np.testing.assert_allclose(back, plain.boxes_xyxy, rtol=0, atol=1e-4)
    assert np.array_equal(found.scores, plain.scores)


@pytest.mark.parametrize(
    ("scale", "shape"), [(1.0, (120, 160)), (0.5, (60, 80)), (1.33, (160, 213)), (4, (480, 640))]
)
def test_a_scale_is_a_factor_on_the_size_that_the_configuration_gives(predictor, scale, shape):
    prepared = predictor.looking(View(scale=scale)).prepare(np.zeros((240, 320, 3), np.uint8))

    assert tuple(prepared.pixels.shape) == (3, *shape)


def test_a_side_has_at_least_one_pixel(predictor):
    prepared = predictor.looking(View(scale=0.25)).prepare(np.zeros((1, 400, 3), np.uint8))

    assert tuple(prepared.pixels.shape) == (3, 1, 40)


def test_boxes_at_another_scale_are_in_pixels_of_the_image_given(predictor):
    image = np.zeros((240, 320, 3), np.uint8)
    image[40:120, 80:160] = 255
    plain = predictor.looking(View())
    plain.core = find_bright

    found = plain.looking(View(flip=True, scale=0.5)).predict(image)

    np.testing.assert_allclose(found.boxes_xyxy, [[80, 40, 160, 120]], atol=4)


def test_the_plain_view_is_the_predictor(predictor, image):
    assert_same(predictor.looking(View()).predict(image), predictor.predict(image))


def test_views_share_the_model(predictor):
    assert predictor.looking(FLIPPED).core is predictor.core
    assert predictor.view == View()


def test_an_ensemble_fuses_what_its_members_find(predictor, image):
    members = [predictor.looking(view) for view in views_of(flip=True, scales=(1.0, 1.25))]
    alone = [member.predict(image, threshold=0) for member in members]

    found = Ensemble(members).predict(image, threshold=0)

    boxes, scores, classes = fuse([(each.boxes_xyxy, each.scores, each.classes) for each in alone])
    assert np.array_equal(found.boxes_xyxy, boxes.astype(np.float32))
    assert np.array_equal(found.scores, scores.astype(np.float32))
    assert np.array_equal(found.classes, classes)
    assert found.boxes_xyxy.dtype == found.scores.dtype == np.float32
    assert found.image is image
    assert 0 < len(found) < sum(map(len, alone))


def test_the_threshold_is_of_the_fused_scores(predictor, image):
    ensemble = Ensemble([predictor, predictor.looking(FLIPPED)])
    every = ensemble.predict(image, threshold=0)
    middle = float(every.scores[len(every) // 2])

    found = ensemble.predict(image, threshold=middle)

    assert np.array_equal(found.scores, every.scores[every.scores >= middle])
    assert 0 < len(found) < len(every)


def test_images_computed_together_stay_in_order(predictor):
    rng = np.random.default_rng(3)
    shapes = [(96, 128), (96, 128), (128, 96)]
    images = [rng.integers(0, 255, (*shape, 3), dtype=np.uint8) for shape in shapes]
    ensemble = Ensemble([predictor, predictor.looking(View(flip=True, scale=0.5))])
    prepared = [ensemble.prepare(each) for each in images]
    alone = [ensemble.predict(each, threshold=0.2) for each in images]

    found = ensemble.predict(images, threshold=0.2, batch=2)

    assert prepared[0].batch_key == prepared[1].batch_key != prepared[2].batch_key
    assert hash(prepared[0].batch_key) == hash(prepared[1].batch_key)
    assert [each.image is image for each, image in zip(found, images, strict=True)] == [True] * 3
    for ours, theirs in zip(found, alone, strict=True):
        np.testing.assert_allclose(ours.boxes_xyxy, theirs.boxes_xyxy, atol=1e-3)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)


def test_members_may_differ_in_architecture_size_and_channels_of_a_thermal_image(tiny_run):
    record = {
        "image_id": 7,
        "file_name": str(tiny_run.parent / "images" / "0.png"),
        "lwir_file_name": str(tiny_run.parent / "images" / "1.png"),
    }
    members = []
    for config, channels in ((RCNN, 3), (SSD, 1)):
        values = str([50.0] * channels)
        words = ["MODEL.PIXEL_MEAN", values, "MODEL.PIXEL_STD", values, "MODEL.DEVICE", "cpu"]
        cfg = load_config(config, [*words, "MODEL.WEIGHTS", ""])
        members.append(Predictor(cfg, class_names=["person"]))
    image = members[0].read(record)

    ensemble = Ensemble(members)
    rows = ensemble.predict_records([record])

    alone = [len(member.predict(image, threshold=0)) for member in members]
    assert min(alone) > 0
    assert max(alone) <= len(rows) <= sum(alone)
    assert {row["image_id"] for row in rows} == {7}
    assert len(set(ensemble.prepare(image).batch_key)) == 2


def test_a_scale_that_leaves_too_little_for_the_model_is_told():
    words = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "INPUT.FIXED_SIZE", "(40, 48)"]
    predictor = Predictor(load_config(SSD, words))
    image = np.zeros((64, 64, 3), np.uint8)
    predictor.predict(image)

    with pytest.raises(ConfigError, match="images of 10 x 12 px .* are too small"):
        Ensemble([predictor.looking(View(scale=0.25))]).predict(image)


def test_an_ensemble_is_timed_as_a_predictor_is(predictor, image):
    timing = Ensemble([predictor]).time([image, image], warm_up=0)

    assert len(timing.seconds) == 2
    assert timing.device == "cpu"


def test_what_is_no_image_is_refused(predictor):
    with pytest.raises(ValueError, match=r"got \(4, 4\) uint8"):
        Ensemble([predictor]).predict(np.zeros((4, 4), np.uint8))


def test_weights_of_the_same_classes_load_as_one(tiny_run, tmp_path):
    cfg = load_config(tiny_run / "config.yaml")
    other = rewrite(tiny_run / "model_final.pth", tmp_path / "m.pth", run=run_of(cfg, ["person"]))

    ensemble = d2pd.load([tiny_run, other], flip=True, scales=(1.0, 0.5), device="cpu")

    assert isinstance(ensemble, Ensemble)
    assert [member.view for member in ensemble.members] == 2 * [
        View(),
        FLIPPED,
        View(scale=0.5),
        View(flip=True, scale=0.5),
    ]
    assert ensemble.name == f"{tiny_run / 'model_final.pth'}, {other}"
    assert ensemble.class_names == ("person",)


def test_one_model_that_looks_once_is_a_predictor(tiny_run):
    assert isinstance(load([tiny_run], device="cpu"), Predictor)
    assert isinstance(load(tiny_run, scales=(0.5,), device="cpu"), Ensemble)
    assert isinstance(load(tiny_run, flip=True, device="cpu"), Ensemble)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": ()}, "no scale to detect at"),
        ({"scales": (1.0, 2, 1)}, "the scale 1 is given 2 times"),
        ({"scales": (0.2,)}, "0.25 to 4; got 0.2"),
        ({"scales": (4.1,)}, "0.25 to 4; got 4.1"),
        ({"scales": (float("nan"),)}, "0.25 to 4; got nan"),
        ({"scales": ("x", "x")}, "0.25 to 4; got 'x'"),
    ],
)
def test_scales_that_cannot_be_used_are_told_before_anything_is_read(options, message):
    with pytest.raises(ConfigError, match=message):
        load("nowhere", **options)


def test_weights_are_named_and_each_once(tiny_run):
    with pytest.raises(ConfigError, match="no weights to load"):
        load([])
    with pytest.raises(ConfigError, match="run: these weights are given 2 times"):
        load([tiny_run, str(tiny_run)])
    with pytest.raises(ConfigError, match="at least one detector"):
        Ensemble([])


def test_other_classes_are_refused_with_both_files(tiny_run, tmp_path):
    cfg = load_config(tiny_run / "config.yaml")
    other = rewrite(tiny_run / "model_final.pth", tmp_path / "m.pth", run=run_of(cfg, ["walker"]))

    with pytest.raises(ConfigError, match="classes are person and walker") as error:
        load([tiny_run, other], device="cpu")

    assert f"{tiny_run / 'model_final.pth'} and {other} cannot be used together" in str(error.value)
    assert "\n" not in str(error.value)


def test_other_cameras_are_refused_with_both_files(tiny_run, tmp_path):
    cfg = load_config(tiny_run / "config.yaml")
    cfg.INPUT.MODALITY = "lwir"
    other = rewrite(tiny_run / "model_final.pth", tmp_path / "m.pth", run=run_of(cfg, ["person"]))

    with pytest.raises(ConfigError, match=r"final\.pth and .*m\.pth .*visible and lwir"):
        load([tiny_run, other], device="cpu")
