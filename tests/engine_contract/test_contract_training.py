"""Five steps of training and the detections of detectors of each kind, as Detectron2 computes them.

Weights and images follow from formulas and no sample is drawn: the numbers depend on the engine
alone. They hold the embedded engine to Detectron2 where that is not installed.
"""

import math
from typing import Any

import pytest
import torch
from contract_detector import inputs, tiny
from contract_recording import Contract
from torch import nn

from d2pd.d2 import CfgNode, DefaultTrainer, EventStorage, build_lr_scheduler

STEPS = 5
R18 = {"MODEL.RESNETS.DEPTH": 18, "MODEL.RESNETS.RES2_OUT_CHANNELS": 64}
WIDE = {  # of which the 32 groups of a group norm divide the channels
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 32,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 32,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 32,
    "MODEL.FPN.OUT_CHANNELS": 32,
}
DETECTORS: dict[str, dict[str, Any]] = {
    "R18": R18,
    "R18-BN": {**R18, "MODEL.RESNETS.NORM": "BN", "MODEL.BACKBONE.FREEZE_AT": 0},
    "R50-1x1": {"MODEL.RESNETS.STRIDE_IN_1X1": True},
    "R50-3x3-one-class": {
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.ROI_HEADS.NUM_CLASSES": 1,
    },
    "R50-GN": {
        **WIDE,
        "MODEL.RESNETS.NORM": "GN",
        "MODEL.BACKBONE.FREEZE_AT": 0,
        "MODEL.FPN.NORM": "GN",
        "MODEL.ROI_BOX_HEAD.NORM": "GN",
        "MODEL.ROI_BOX_HEAD.NUM_CONV": 1,
        "MODEL.ROI_BOX_HEAD.CONV_DIM": 32,
        "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
    },
    "X50-8x4": {
        "MODEL.RESNETS.NUM_GROUPS": 8,
        "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
    },
    "R50-cascade": {
        "MODEL.ROI_HEADS.NAME": "CascadeROIHeads",
        "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
    },
}
SETTINGS = {
    # All anchors and proposals: each image has some 1,500 and 200 of them.
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 2_000,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 300,
    "MODEL.RPN.POSITIVE_FRACTION": 1.0,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 1.0,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.01,
    "SOLVER.CLIP_GRADIENTS.ENABLED": True,
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm",
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 1.0,
    "SOLVER.BASE_LR": 0.003,
    "SOLVER.WARMUP_ITERS": 2,
    "SOLVER.STEPS": [3],
    "SOLVER.MAX_ITER": STEPS,
    "SOLVER.BIAS_LR_FACTOR": 2.0,
}


def labelled(cfg: CfgNode) -> list[dict[str, Any]]:
    """Return the two images, with no class that the model has not."""
    batch = inputs()
    for each in batch:
        each["instances"].gt_classes.clamp_(max=cfg.MODEL.ROI_HEADS.NUM_CLASSES - 1)
    return batch


def observed_training(model: nn.Module, cfg: CfgNode) -> dict[str, Any]:
    """Take a few steps; return losses, scalars, norms of gradients and of what was learnt."""
    model.train()
    optimizer = DefaultTrainer.build_optimizer(cfg, model)
    schedule = build_lr_scheduler(cfg, optimizer)
    start = {name: each.detach().clone() for name, each in model.named_parameters()}
    losses, norms = [], []
    for _ in range(STEPS):
        with EventStorage() as storage:
            of_step = model(labelled(cfg))
        optimizer.zero_grad()
        sum(of_step.values()).backward()
        gradients = [each.grad for each in model.parameters() if each.grad is not None]
        norms.append(float(nn.utils.get_total_norm(gradients)))
        optimizer.step()
        schedule.step()
        losses.append({name: float(each.detach()) for name, each in of_step.items()})
    learnt = {
        name: float((each.detach() - start[name]).norm()) for name, each in model.named_parameters()
    }
    assert all(math.isfinite(each) for each in [*norms, *learnt.values()])
    assert max(learnt.values()) > 0
    return {
        "losses": losses,
        "scalars of the last step": {
            name: value for name, (value, _) in sorted(storage.latest().items())
        },
        "norms of all gradients": norms,
        "learnt": {name: learnt[name] for name in learnt if ".res" not in name or ".0." in name},
    }


@pytest.mark.parametrize("name", DETECTORS)
def test_five_steps_of(contract: Contract, cfg: CfgNode, name: str) -> None:
    model = tiny(cfg, **SETTINGS, **DETECTORS[name])
    observed = observed_training(model, cfg)
    totals = [sum(each.values()) for each in observed["losses"]]
    assert totals[-1] < totals[0]
    contract(observed, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", DETECTORS)
def test_detections_of(contract: Contract, cfg: CfgNode, name: str) -> None:
    model = tiny(cfg, **SETTINGS, **DETECTORS[name]).eval()
    with torch.no_grad():
        found = [each["instances"] for each in model(inputs(labels=False))]
    assert all(len(each) >= 5 for each in found)
    contract(
        {
            "counts": [len(each) for each in found],
            "boxes": [each.pred_boxes.tensor[:5] for each in found],
            "scores": [each.scores[:5] for each in found],
            "classes": [each.pred_classes[:5] for each in found],
        },
        rtol=1e-3,
        atol=1e-3,
    )
