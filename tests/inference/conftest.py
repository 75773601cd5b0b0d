"""A run as a training leaves it, of a tiny model that was never trained."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from d2pd.config import load_config
from d2pd.modeling.build import build_model
from d2pd.training.checkpoints.checkpointer import Checkpointer

ROOT = Path(__file__).resolve().parents[2]
QUICK = ROOT / "configs" / "quick" / "faster_rcnn_synthetic.yaml"
QUICK_CASCADE = ROOT / "configs" / "quick" / "cascade_rcnn_synthetic.yaml"
QUICK_SSD = ROOT / "configs" / "quick" / "ssd_seg_synthetic.yaml"
NUM_IMAGES = 4
SMALL = ["INPUT.MIN_SIZE_TEST", 128, "INPUT.MAX_SIZE_TEST", 160]


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """An OUTPUT_DIR with config.yaml and weights; its dataset ``tiny_test`` lies beside it."""
    return make_run(tmp_path_factory.mktemp("tiny"), QUICK, SMALL)


@pytest.fixture(scope="session")
def tiny_cascade_run(tmp_path_factory) -> Path:
    """As ``tiny_run``, of Cascade R-CNN."""
    return make_run(tmp_path_factory.mktemp("tiny_cascade"), QUICK_CASCADE, SMALL)


@pytest.fixture(scope="session")
def tiny_swin_run(tmp_path_factory) -> Path:
    """As ``tiny_run``, on a Swin-T of torchvision."""
    opts = ["MODEL.BACKBONE.NAME", "build_torchvision_fpn_backbone", "MODEL.FPN.NORM", ""]
    opts += ["MODEL.TORCHVISION.NAME", "swin_t", "MODEL.FPN.OUT_CHANNELS", 16]
    opts += ["MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.RESNETS.DEPTH", 50]
    opts += ["MODEL.RESNETS.RES2_OUT_CHANNELS", 256, "MODEL.RESNETS.STRIDE_IN_1X1", True]
    opts += ["MODEL.RESNETS.NORM", "FrozenBN"]
    sizes = ["INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 96]
    return make_run(tmp_path_factory.mktemp("tiny_swin"), QUICK, [*opts, *sizes])


@pytest.fixture(scope="session")
def tiny_ssd_run(tmp_path_factory) -> Path:
    """As ``tiny_run``, of SSD-seg."""
    values = [50.0, 50.0, 50.0]
    opts = ["INPUT.FIXED_SIZE", [128, 160], "MODEL.PIXEL_MEAN", values, "MODEL.PIXEL_STD", values]
    return make_run(tmp_path_factory.mktemp("tiny_ssd"), QUICK_SSD, opts)


def make_run(folder: Path, config: Path, opts: list) -> Path:
    draw_dataset(folder / "images")
    cfg = load_config(config)
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "INPUT.MODALITY", "visible", *opts])
    cfg.DATASETS.ROOT = str(folder)
    entry = cfg.DATASETS.REGISTER.synthetic_val.clone()
    entry.merge_from_list(["FORMAT", "csv", "ANNOTATIONS", "labels.csv", "IMAGES", "images"])
    entry.CLASSES = ["person"]
    cfg.DATASETS.REGISTER.clear()
    cfg.DATASETS.REGISTER.tiny_test = entry
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), ("tiny_test",)
    cfg.OUTPUT_DIR = str(folder / "run")
    torch.manual_seed(0)
    Checkpointer(build_model(cfg), cfg.OUTPUT_DIR).save("model_final")
    Path(cfg.OUTPUT_DIR, "config.yaml").write_text(cfg.dump(), encoding="utf-8")
    return Path(cfg.OUTPUT_DIR)


def draw_dataset(images: Path) -> None:
    """Noise with a bright box each; the last picture is tall, the others are wide."""
    images.mkdir()
    rng = np.random.default_rng(0)
    rows = ["filename,x1,y1,x2,y2,class"]
    for number in range(NUM_IMAGES):
        shape = (160, 120, 3) if number == NUM_IMAGES - 1 else (120, 160, 3)
        image = rng.integers(0, 90, shape, dtype=np.uint8)
        image[30:90, 40:64] += 140
        cv2.imwrite(str(images / f"{number}.png"), image)
        rows.append(f"{number}.png,40,30,64,90,person")
    (images.parent / "labels.csv").write_text("\n".join(rows) + "\n")
