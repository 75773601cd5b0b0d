import shutil

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
from d2pd.errors import DeviceError, MissingFileError
from d2pd.inference import Predictor, Timing, load_predictor


@pytest.fixture(scope="module")
def predictor(tiny_run) -> Predictor:
    return load_predictor(tiny_run, device="cpu")


@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_it_detects_what_evaluation_detects_bit_for_bit(tiny_run, image_format):
    cfg = load_config(tiny_run / "config.yaml", ["INPUT.FORMAT", image_format])
    cfg.MODEL.WEIGHTS = str(tiny_run / "model_final.pth")
    register_from_config(cfg)
    predictor = Predictor(cfg)
    count = 0

    for batch in build_test_loader(cfg, "tiny_test"):
        with torch.no_grad():
            expected = predictor.model(batch)[0]["instances"]
        found = predictor(read_image(batch[0]["file_name"]))
        assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
        assert torch.equal(found.scores, expected.scores)
        assert torch.equal(found.pred_classes, expected.pred_classes)
        count += len(found)

    assert count > 0


@pytest.mark.parametrize(("modality", "channels"), [("lwir", 1), ("both", 4), ("both", 6)])
def test_it_takes_thermal_images_and_pairs_as_evaluation_does(tiny_run, modality, channels):
    cfg = load_config(tiny_run / "config.yaml")
    register_from_config(cfg)
    record = DatasetCatalog.get("tiny_test")[0]
    record["lwir_file_name"] = str(tiny_run.parent / "images" / "1.png")
    values = [50.0] * channels
    cfg.merge_from_list(["INPUT.MODALITY", modality, "INPUT.FORMAT", "RGB", "MODEL.WEIGHTS", ""])
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
    found = predictor(predictor.read(record))

    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(found.scores, expected.scores)
    assert len(found) > 0
    rows = predictor.predict_records([record])
    assert [row["score"] for row in rows] == expected.scores.tolist()


def test_pair_is_the_visible_image_and_the_thermal_one_behind_it(tiny_run):
    cfg = load_config(tiny_run / "config.yaml")
    values = [50.0] * 4
    cfg.merge_from_list(["INPUT.MODALITY", "both", "MODEL.WEIGHTS", ""])
    cfg.merge_from_list(["MODEL.PIXEL_MEAN", values, "MODEL.PIXEL_STD", values])
    predictor = Predictor(cfg)
    visible, lwir = np.zeros((2, 96, 128, 3), np.uint8)

    predictor(np.dstack([visible, lwir]))

    with pytest.raises(ValueError, match=r"\(H, W, 6\) .* np\.dstack.*; got \(96, 128, 3\) uint8"):
        predictor(visible)


def test_records_become_coco_results_of_their_images(predictor):
    register_from_config(predictor.cfg)
    records = DatasetCatalog.get("tiny_test")[:2]

    rows = predictor.predict_records(records)

    instances = predictor(predictor.read(records[0]))
    x1, y1, x2, y2 = instances.pred_boxes.tensor[0].tolist()
    assert rows[0]["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=1e-3)
    assert rows[0]["score"] == instances.scores[0].item()
    assert [row["image_id"] for row in rows].count(records[0]["image_id"]) == len(instances)
    assert {row["image_id"] for row in rows} == {record["image_id"] for record in records}


def test_detections_are_in_pixels_of_the_image_given_best_first(predictor):
    image = np.random.default_rng(1).integers(0, 255, (90, 200, 3), dtype=np.uint8)

    found = predictor(image)

    assert found.image_size == (90, 200)
    boxes = found.pred_boxes.tensor
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([200.0, 90.0, 200.0, 90.0])).all()
    assert (found.scores.diff() <= 0).all()


def test_a_view_with_negative_strides_is_an_image_too(predictor):
    image = np.random.default_rng(1).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    mirrored = image[:, ::-1]

    found = predictor(mirrored)

    assert torch.equal(found.scores, predictor(mirrored.copy()).scores)


def test_the_configuration_given_stays_as_it_is(tiny_run):
    cfg = load_config(tiny_run / "config.yaml")
    cfg.MODEL.WEIGHTS = str(tiny_run / "model_final.pth")
    cfg.MODEL.DEVICE = "auto"

    predictor = Predictor(cfg)

    assert cfg.MODEL.DEVICE == "auto"
    assert predictor.cfg.MODEL.DEVICE in ("cpu", "cuda")


def test_time_measures_each_image_once_after_warming_up(predictor, monkeypatch):
    seen = []
    monkeypatch.setattr(Predictor, "__call__", lambda self, image: seen.append(image))

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
        (None, "NoneType"),
    ],
)
def test_what_is_no_image_is_refused_with_what_was_got(predictor, image, got):
    with pytest.raises(ValueError, match=got):
        predictor(image)


def test_a_run_gives_its_newest_weights(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run" / "last_checkpoint").write_text("model_0000009.pth")

    with pytest.raises(MissingFileError, match=r"model_0000009\.pth is not there"):
        load_predictor(tmp_path / "run")

    (tmp_path / "run" / "last_checkpoint").unlink()
    weights = load_predictor(tmp_path / "run").cfg.MODEL.WEIGHTS
    assert weights == str(tmp_path / "run" / "model_final.pth")


def test_weights_given_go_before_those_of_the_run(tiny_run, tmp_path):
    other = str(shutil.copy(tiny_run / "model_final.pth", tmp_path / "other.pth"))

    assert load_predictor(tiny_run, other).cfg.MODEL.WEIGHTS == other
    assert load_predictor(tiny_run / "config.yaml", other).cfg.MODEL.WEIGHTS == other


def test_a_folder_without_a_run_is_told_with_the_way_out(tmp_path):
    with pytest.raises(
        MissingFileError, match=r"config\.yaml is not there; train one \(`make demo`"
    ):
        load_predictor(tmp_path)


def test_a_config_without_weights_is_told_with_the_way_out(tiny_run):
    with pytest.raises(MissingFileError, match=r"names no weights \(MODEL\.WEIGHTS\)"):
        load_predictor(tiny_run / "config.yaml")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_an_error(tiny_run):
    with pytest.raises(DeviceError, match="sees 0 GPUs"):
        load_predictor(tiny_run, device="cuda")
