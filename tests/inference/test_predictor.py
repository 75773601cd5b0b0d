import math

import numpy as np
import pytest
import torch

from d2pd.config import load_config
from d2pd.d2 import DatasetCatalog
from d2pd.data.images import read_image
from d2pd.data.loader import build_test_loader
from d2pd.data.mapper import Mapper
from d2pd.data.modality import channels_of
from d2pd.data.registration import register_from_config
from d2pd.errors import DeviceError
from d2pd.inference.detector import Timing
from d2pd.inference.predictor import Predictor, load


@pytest.fixture(scope="module")
def predictor(tiny_run) -> Predictor:
    return load(tiny_run, device="cpu")


def assert_same(found, instances):
    """Compare with ``Instances`` to the bit."""
    assert np.array_equal(found.boxes_xyxy, instances.pred_boxes.tensor.numpy())
    assert np.array_equal(found.scores, instances.scores.numpy())
    assert np.array_equal(found.classes, instances.pred_classes.numpy())


@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_it_detects_what_evaluation_detects_bit_for_bit(tiny_run, image_format):
    predictor = load(tiny_run, opts=["INPUT.FORMAT", image_format], device="cpu")
    register_from_config(predictor.cfg)
    count = 0

    for batch in build_test_loader(predictor.cfg, "tiny_test"):
        with torch.no_grad():
            expected = predictor.model(batch)[0]["instances"]
        found = predictor.predict(read_image(batch[0]["file_name"]), threshold=0)
        assert_same(found, expected)
        count += len(found)

    assert count > 0


@pytest.mark.parametrize(("modality", "channels"), [("lwir", 1), ("both", 4), ("both", 6)])
def test_it_takes_thermal_images_and_pairs_as_evaluation_does(tiny_run, modality, channels):
    cfg = load_config(tiny_run / "config.yaml")
    register_from_config(cfg)
    record = DatasetCatalog.get("tiny_test")[0]
    record["lwir_file_name"] = str(tiny_run.parent / "images" / "1.png")
    values = [50.0] * channels
    cfg.merge_from_list(["INPUT.MODALITY", modality, "INPUT.FORMAT", "RGB"])
    cfg.merge_from_list(["MODEL.PIXEL_MEAN", values, "MODEL.PIXEL_STD", values])
    predictor = Predictor(cfg)
    mapper = Mapper(
        channels=channels_of(modality, channels),
        image_format="RGB",
        transforms=predictor.transforms,
        is_train=False,
        seed=0,
    )

    with torch.no_grad():
        expected = predictor.model([mapper(record, 0)])[0]["instances"]
    found = predictor.predict(predictor.read(record), threshold=0)

    assert_same(found, expected)
    assert len(found) > 0
    rows = predictor.predict_records([record])
    assert [row["score"] for row in rows] == expected.scores.tolist()


def test_pair_is_the_visible_image_and_the_thermal_one_behind_it(tiny_run):
    cfg = load_config(tiny_run / "config.yaml")
    values = [50.0] * 4
    cfg.merge_from_list(["INPUT.MODALITY", "both"])
    cfg.merge_from_list(["MODEL.PIXEL_MEAN", values, "MODEL.PIXEL_STD", values])
    predictor = Predictor(cfg)
    visible, lwir = np.zeros((2, 96, 128, 3), np.uint8)

    predictor.predict(np.dstack([visible, lwir]))

    with pytest.raises(ValueError, match=r"\(H, W, 6\) .* np\.dstack.*; got \(96, 128, 3\) uint8"):
        predictor.predict(visible)


def test_records_become_coco_results_of_their_images(predictor):
    register_from_config(predictor.cfg)
    records = DatasetCatalog.get("tiny_test")[:2]

    rows = predictor.predict_records(records)

    instances = predictor.predict(predictor.read(records[0]), threshold=0)
    x1, y1, x2, y2 = instances.boxes_xyxy[0].tolist()
    assert rows[0]["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=1e-3)
    assert rows[0]["score"] == instances.scores[0].item()
    assert [row["image_id"] for row in rows].count(records[0]["image_id"]) == len(instances)
    assert {row["image_id"] for row in rows} == {record["image_id"] for record in records}


def test_detections_are_in_pixels_of_the_image_given_best_first(predictor):
    image = np.random.default_rng(1).integers(0, 255, (90, 200, 3), dtype=np.uint8)

    found = predictor.predict(image, threshold=0)

    assert found.image is image
    assert len(found) > 1
    assert (found.boxes_xyxy >= 0).all()
    assert (found.boxes_xyxy <= [200, 90, 200, 90]).all()
    assert (np.diff(found.scores) <= 0).all()


def test_a_view_with_negative_strides_is_an_image_too(predictor):
    image = np.random.default_rng(1).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    mirrored = image[:, ::-1]

    found = predictor.predict(mirrored, threshold=0)

    copied = predictor.predict(mirrored.copy(), threshold=0)
    assert np.array_equal(found.scores, copied.scores)


def test_the_configuration_given_stays_as_it_is(tiny_run):
    cfg = load_config(tiny_run / "config.yaml")
    cfg.MODEL.DEVICE = "auto"

    predictor = Predictor(cfg)

    assert cfg.MODEL.DEVICE == "auto"
    assert predictor.cfg.MODEL.DEVICE in ("cpu", "cuda")


def test_time_measures_each_image_once_after_warming_up(predictor, monkeypatch):
    seen = []
    monkeypatch.setattr(Predictor, "predict", lambda self, image: seen.append(image))

    timing = predictor.time(["a", "b"], warm_up=3)

    assert seen == ["a", "b", "a", "a", "b"]
    assert len(timing.seconds) == 2


def test_mean_time_and_fps_by_hand():
    timing = Timing(seconds=(0.1, 0.2, 0.3), device="cpu")

    assert timing.mean == pytest.approx(0.2)
    assert timing.fps == pytest.approx(5.0)
    assert str(timing) == "200.0 ms an image, 5.0 FPS (3 images, one at a time, on cpu)"


def test_nothing_to_time_is_an_error(predictor):
    with pytest.raises(ValueError, match="at least one image"):
        predictor.time([])


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (np.zeros((4, 4), np.uint8), r"\(4, 4\) uint8"),
        (np.zeros((4, 4, 3), np.float32), r"\(4, 4, 3\) float32"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\) uint8"),
        (np.array(None), r"\(\) object"),
        (None, "got None, as cv2.imread gives for a file it cannot read"),
    ],
)
def test_what_is_no_image_is_refused_with_what_was_got(predictor, image, got):
    with pytest.raises(ValueError, match=got):
        predictor.predict(image)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"threshold": 50}, "0 to 1, got 50"),
        ({"threshold": math.nan}, "nan"),
        ({"batch": 0}, "1 or"),
    ],
)
def test_options_out_of_range_are_refused(predictor, option, message):
    with pytest.raises(ValueError, match=message):
        predictor.predict([], **option)


def test_images_in_a_row_are_computed_together_and_stay_in_order(predictor, monkeypatch):
    rng = np.random.default_rng(3)
    shapes = [(96, 128), (96, 128), (96, 128), (128, 96), (96, 128)]
    images = [rng.integers(0, 255, (*shape, 3), dtype=np.uint8) for shape in shapes]
    alone = [predictor.predict(image, threshold=0.2) for image in images]
    sizes = []
    core = predictor.core
    monkeypatch.setattr(predictor, "core", lambda x: (sizes.append(len(x)), core(x))[1])

    found = predictor.predict(images, threshold=0.2, batch=2)

    assert sizes == [2, 1, 1, 1]
    assert [each.image is image for each, image in zip(found, images, strict=True)] == [True] * 5
    for ours, theirs in zip(found, alone, strict=True):
        assert len(ours) == len(theirs)
        np.testing.assert_allclose(ours.boxes_xyxy, theirs.boxes_xyxy, atol=1e-3)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)


def test_a_batch_of_no_image_is_refused(predictor):
    with pytest.raises(ValueError, match="batch is a number of images, 1 or more, got 0"):
        predictor.predict([], batch=0)


def test_a_threshold_leaves_out_lower_scores_and_keeps_equal_ones(predictor):
    image = np.random.default_rng(1).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    every = predictor.predict(image, threshold=0)
    middle = float(every.scores[len(every) // 2])

    found = predictor.predict(image, threshold=middle)

    assert np.array_equal(found.scores, every.scores[every.scores >= middle])
    assert len(predictor.predict([], threshold=0)) == 0


def test_half_precision_finds_about_the_same(tiny_run, predictor):
    half = load(tiny_run, device="cpu", half=True)
    image = np.random.default_rng(1).integers(0, 255, (96, 128, 3), dtype=np.uint8)

    ours, theirs = (each.predict(image, threshold=0) for each in (half, predictor))

    assert ours.scores.dtype == np.float32
    assert not np.array_equal(ours.scores, theirs.scores)
    np.testing.assert_allclose(ours.scores[:3], theirs.scores[:3], atol=0.02)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_an_error(tiny_run):
    with pytest.raises(DeviceError, match="sees 0 GPUs"):
        load(tiny_run, device="cuda")


def test_the_score_floor_is_what_no_detection_lies_under(tiny_run, predictor):
    image = np.random.default_rng(1).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    scores = predictor.predict(image, threshold=0).scores
    floor = float(np.median(scores))

    higher = load(tiny_run, opts=["MODEL.ROI_HEADS.SCORE_THRESH_TEST", str(floor)], device="cpu")

    assert predictor.score_floor == predictor.cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST
    assert higher.score_floor == floor
    assert higher.predict(image, threshold=0).scores.min() >= floor > scores.min()
