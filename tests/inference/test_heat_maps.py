"""``d2pd show --heat-maps`` as a user types it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from d2pd import cli
from d2pd.config import load_config
from d2pd.errors import ConfigError
from d2pd.inference.predictor import Predictor
from d2pd.inference.views import View
from d2pd.modeling.build import build_model
from d2pd.training.checkpoints.checkpointer import Checkpointer
from d2pd.training.weights.matching import WeightsFile

QUICK = Path(__file__).resolve().parents[2] / "configs/quick"
SSD, RCNN = QUICK / "ssd_seg_synthetic.yaml", QUICK / "faster_rcnn_synthetic.yaml"


@pytest.fixture(scope="module")
def opts(drawn_root, tmp_path_factory):
    """Overrides of a run whose weights nobody trained."""
    output = tmp_path_factory.mktemp("heat") / "run"
    words = [
        *("DATASETS.ROOT", str(drawn_root), "MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(output)),
        *("DATASETS.SYNTHETIC.NUM_TRAIN", "12", "DATASETS.SYNTHETIC.NUM_TEST", "4"),
    ]
    torch.manual_seed(0)
    cfg = load_config(SSD, words)
    Checkpointer(build_model(cfg), cfg.OUTPUT_DIR).save("model_final")
    return words


def show(config, opts):
    return cli.main(["show", "--heat-maps", "--config-file", str(config), *opts])


def test_picture_has_labels_detections_and_a_heat_map_of_each_layer(opts, capsys):
    output = Path(opts[opts.index("OUTPUT_DIR") + 1])
    assert show(SSD, opts) == 0
    assert capsys.readouterr().out.strip() == str(output / "heat_maps.png")
    picture = cv2.imread(str(output / "heat_maps.png"))
    assert picture.shape[1] > 4 * 560
    quarters = [picture[200:600, 20 + i * 572 : 560 + i * 572].astype(int) for i in range(4)]
    colours = [abs(part[:, :, 0] - part[:, :, 2]).max() for part in quarters]
    assert min(colours[2:]) > 50  # the heat; thermal pictures below it have no colours


def test_weights_that_are_named_are_taken(opts, tmp_path, capsys):
    weights = Path(opts[opts.index("OUTPUT_DIR") + 1]) / "model_final.pth"
    other = [*opts, "OUTPUT_DIR", str(tmp_path)]
    assert show(SSD, other) == cli.USER_ERROR
    err = capsys.readouterr().err
    assert f"no weights in {tmp_path}: model_final.pth is not there" in err
    assert "give the OUTPUT_DIR of a run that has some" in err
    assert show(SSD, [*other, "MODEL.WEIGHTS", str(weights)]) == 0
    assert (tmp_path / "heat_maps.png").is_file()


@pytest.mark.parametrize(
    ("config", "more"), [(SSD, ["MODEL.SSD.SEG.MAPS", "[]"]), (RCNN, [])], ids=["SSD", "R-CNN"]
)
def test_model_without_segmentation_layers_says_how_to_get_one(
    opts, tmp_path, capsys, config, more
):
    words = [*opts, *more, "OUTPUT_DIR", str(tmp_path)]
    cfg = load_config(config, words)
    Checkpointer(build_model(cfg), str(tmp_path)).save("model_final")
    assert show(config, words) == cli.USER_ERROR
    err = capsys.readouterr().err
    assert "has no segmentation layers, and so no heat maps: train SSDSeg with MODEL.SSD" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("total", [1, 6])
def test_heat_maps_are_probabilities_of_the_whole_image(opts, total):
    values = str([50.0] * total)
    cfg = load_config(
        SSD,
        [
            *(*opts, "MODEL.WEIGHTS", "", "INPUT.MODALITY", "lwir" if total == 1 else "both"),
            *("MODEL.PIXEL_MEAN", values, "MODEL.PIXEL_STD", values),
        ],
    )
    predictor = Predictor(cfg)
    image = torch.randint(0, 256, (100, 130, 3 if total == 1 else 6), dtype=torch.uint8).numpy()
    heat = predictor.heat_maps(image)
    assert {name: each.shape for name, each in heat.items()} == {
        "conv4_3": (32, 40),
        "conv7": (16, 20),
    }
    assert all((each >= 0).all() and (each <= 1).all() for each in heat.values())
    with pytest.raises(ValueError, match="uint8 array"):
        predictor.heat_maps(image[:, :, :2])


def test_heat_maps_of_a_flipped_view_lie_on_the_image_given(opts):
    predictor = Predictor(load_config(SSD, [*opts, "MODEL.WEIGHTS", ""]))
    image = torch.randint(0, 256, (100, 130, 3), dtype=torch.uint8).numpy()
    mirrored = predictor.heat_maps(image[:, ::-1])
    for name, heat in predictor.looking(View(flip=True)).heat_maps(image).items():
        assert np.array_equal(heat, mirrored[name][:, ::-1])


def test_detections_are_those_of_a_model_without_layers(opts):
    torch.manual_seed(1)
    cfg = load_config(SSD, [*opts, "MODEL.WEIGHTS", ""])
    with_layers = Predictor(cfg)
    cfg.MODEL.SSD.SEG.MAPS = []
    without = Predictor(cfg)
    state = with_layers.model.state_dict()
    kept = {name: state[name] for name in without.model.state_dict()}
    without.model.load_state_dict(kept)
    image = torch.randint(0, 256, (100, 130, 3), dtype=torch.uint8).numpy()
    scores = [each.predict(image, threshold=0).scores for each in (with_layers, without)]
    assert len(scores[0]) > 0
    assert np.array_equal(*scores)
    with pytest.raises(ConfigError, match="no heat maps"):
        without.heat_maps(image)


def test_weights_without_these_layers_give_no_heat_maps_and_detect(opts):
    cfg = load_config(SSD, opts)
    state = build_model(cfg).state_dict()
    kept = {name: part for name, part in state.items() if not name.startswith("seg_heads.")}
    predictor = Predictor(cfg, WeightsFile(kept, "d2pd", Path("old.pth"), {}))
    image = np.zeros((96, 128, 3), dtype=np.uint8)

    assert len(predictor.predict(image, threshold=0)) > 0
    with pytest.raises(ConfigError, match="old.pth lacks the segmentation layers"):
        predictor.heat_maps(image)
