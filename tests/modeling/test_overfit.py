"""The whole of SSDSeg learns: four drawn pictures by heart, measured as a run measures."""

from pathlib import Path

import pytest
import torch

from d2pd.config import load_config
from d2pd.d2 import EventStorage, inference_on_dataset
from d2pd.data.drawn_on_first_use import DrawingSize, ensure_drawn
from d2pd.data.loader import build_test_loader, build_train_loader
from d2pd.data.registration import register_from_config
from d2pd.evaluation.evaluators import CocoEvaluator
from d2pd.modeling.build import build_model

QUICK = Path(__file__).resolve().parents[2] / "configs/quick/ssd_seg_synthetic.yaml"
STEPS = 70


@pytest.fixture
def cfg(tmp_path):
    """Four thermal pictures at a quarter of their size; people from 7 to 60 px high."""
    ensure_drawn(tmp_path / "synthetic/train20.json", DrawingSize(4, 1, 0))
    settings = {
        "DATASETS.ROOT": tmp_path,
        "DATASETS.SYNTHETIC.NUM_TRAIN": 4,
        "DATASETS.SYNTHETIC.NUM_TEST": 1,
        "SOLVER.IMS_PER_BATCH": 4,
        "INPUT.FIXED_SIZE": (128, 160),
        "INPUT.RANDOM_FLIP": "none",
        "MODEL.ANCHOR_GENERATOR.SIZES": [[8.0, 12.0], [20.0, 30.0], [45.0, 64.0]],
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[2.4], [2.4], [2.4]],
        "MODEL.SSD.EXTRA_LAYERS": [[64, 128, 2, 1]],
        "MODEL.SSD.SEG.MAPS": [True, True, False],
        "MODEL.DEVICE": "cpu",
    }
    cfg = load_config(QUICK, [str(word) for pair in settings.items() for word in pair])
    register_from_config(cfg)
    return cfg


@pytest.mark.slow
def test_four_pictures_are_learnt_by_heart(cfg):
    torch.manual_seed(0)
    model = build_model(cfg).train()
    batch = next(iter(build_train_loader(cfg)))
    assert sorted(len(sample["instances"]) for sample in batch) == [1, 2, 2, 5]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    seg_losses = []
    for _ in range(STEPS):
        with EventStorage(0):
            losses = model(batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()
        schedule.step()
        seg_losses.append(losses["loss_seg"].item())
    loader = build_test_loader(cfg, "synthetic_train")
    results = inference_on_dataset(model.eval(), loader, CocoEvaluator("synthetic_train"))
    assert results["bbox"]["AP50"] == pytest.approx(100)
    assert seg_losses[-1] < 0.1 * seg_losses[0]
