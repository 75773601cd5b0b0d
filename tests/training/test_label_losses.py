"""The losses by which suspicious labels are found."""

import json
import math
from pathlib import Path

import pytest
import torch

from d2pd.config import load_config
from d2pd.d2 import build_model
from d2pd.errors import ConfigError
from d2pd.training.checkpoints.checkpointer import Checkpointer
from d2pd.training.diagnosis.label_losses import measure_label_losses

ROOT = Path(__file__).resolve().parents[2]
QUICK = ROOT / "configs/quick/faster_rcnn_synthetic.yaml"


@pytest.fixture(scope="module")
def setting(drawn_root, tmp_path_factory):
    """A configuration of the drawn labels at a small size, and weights for it."""
    folder = tmp_path_factory.mktemp("losses")
    config = folder / "small.yaml"
    config.write_text(
        json.dumps(
            {
                "_BASE_": str(QUICK),
                "DATASETS": {
                    "ROOT": str(drawn_root),
                    "SYNTHETIC": {"NUM_TRAIN": 12, "NUM_TEST": 4},
                },
                "INPUT": {"MIN_SIZE_TEST": 96},
                "MODEL": {"DEVICE": "cpu"},
                "DATALOADER": {"NUM_WORKERS": 0},
            }
        )
    )
    torch.manual_seed(0)
    model = build_model(load_config(str(config), []))
    Checkpointer(model, str(folder)).save("model")
    (weights,) = folder.glob("*.pth")
    return drawn_root / "synthetic/train20.json", str(config), weights


def test_every_image_of_the_file_has_a_loss_by_its_id(setting):
    annotations, config, weights = setting

    losses = measure_label_losses(annotations, config, weights)

    images = json.loads(annotations.read_text())["images"]
    assert set(losses) == {image["id"] for image in images}
    assert all(math.isfinite(loss) and loss > 0 for loss in losses.values())
    assert measure_label_losses(annotations, config, weights) == losses


def test_a_configuration_of_other_labels_is_refused(setting, tmp_path):
    _, config, weights = setting
    other = tmp_path / "other.json"
    other.write_text("{}")

    with pytest.raises(ConfigError, match="no dataset of DATASETS.REGISTER is read from .*other"):
        measure_label_losses(other, config, weights)
