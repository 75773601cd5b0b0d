"""Runs that move between stock Detectron2 and d2pd's embedded engine.

Both train on the same batches and draw the same samples of anchors and regions, so a run that
moves must end where one that stays does. d2pd runs in a process of its own, as an engine is chosen
once.
"""

import json
import os
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
import torch

pytest.importorskip("detectron2", reason="compares with an installed Detectron2")
from detectron2.engine import DefaultTrainer
from parity_toys import (
    BASE,
    DETECTRON2,
    EMBEDDED,
    NARROW,
    TRAINED,
    batch_of,
    build,
    config,
    relative,
)
from parity_weights import check_detections

from d2pd.training.checkpoints.optimizer_state import track_parameter_names

SCRIPT = Path(__file__).with_name("embedded_run.py")
ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    **NARROW,
    **TRAINED,
    "SOLVER.BASE_LR": 0.02,
    "SOLVER.WARMUP_ITERS": 2,
    "SOLVER.STEPS": [4],
    "SOLVER.BIAS_LR_FACTOR": 2.0,
    "SOLVER.MAX_ITER": 6,
    "SOLVER.CHECKPOINT_PERIOD": 3,
    "SOLVER.IMS_PER_BATCH": 2,
    "TEST.EVAL_PERIOD": 0,
}
SEED = 5
HALFWAY, FINAL = "model_0000002.pth", "model_final.pth"


class StockTrainer(DefaultTrainer):
    """Stock Detectron2, but for its data, and seeded before each step as d2pd does."""

    start = 0

    @classmethod
    def build_train_loader(cls, cfg):
        classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
        return (batch_of(at, classes, DETECTRON2) for at in count(cls.start))

    def run_step(self):
        torch.manual_seed(SEED * 1_000_003 + self.iter)
        super().run_step()


def stock_config(folder):
    cfg = config(DETECTRON2, OPTIONS)
    cfg.OUTPUT_DIR, cfg.DATASETS.TEST = str(folder), ()
    return cfg


def train_stock(folder, resume=False):
    torch.manual_seed(7)
    StockTrainer.start = 3 if resume else 0
    trainer = StockTrainer(stock_config(folder))
    trainer.resume_or_load(resume=resume)
    assert trainer.start_iter == StockTrainer.start
    trainer.train()
    return folder


def train_embedded(folder, resume=False):
    folder.mkdir(exist_ok=True)
    plan = folder / "run.json"
    options = {**BASE, **OPTIONS, "SEED": SEED, "DATASETS.TEST": "()", "DATASETS.FINAL_TEST": "()"}
    plan.write_text(json.dumps({"folder": str(folder), "options": options, "resume": resume}))
    environment = os.environ | {"D2PD_ENGINE": "embedded", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SCRIPT), str(plan)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def moved(run, to):
    """Copy a run as it was after half of its iterations."""
    to.mkdir()
    shutil.copy(run / HALFWAY, to)
    (to / "last_checkpoint").write_text(HALFWAY)
    return to


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def stock(folder):
    return train_stock(folder / "stock")


@pytest.fixture(scope="module")
def embedded(folder):
    return train_embedded(folder / "embedded")


def read(path):
    return torch.load(path, map_location="cpu", weights_only=True)


def optimizer_of(path):
    return read(path)["trainer"]["_trainer"]["optimizer"]


def assert_same_weights(ours, reference, bar=1e-4):
    ours, reference = read(ours)["model"], read(reference)["model"]
    assert list(ours) == list(reference)
    apart = {name: relative(ours[name].float(), reference[name].float()) for name in reference}
    print(f"\nweights at most {max(apart.values()):.1e} apart")
    assert {name: value for name, value in apart.items() if not value < bar} == {}


def test_the_same_run_in_both_engines_ends_at_the_same_weights(stock, embedded):
    assert_same_weights(embedded / HALFWAY, stock / HALFWAY)
    assert_same_weights(embedded / FINAL, stock / FINAL)
    start, end = read(stock / HALFWAY)["model"], read(stock / FINAL)["model"]
    changed = max(relative(end[name].float(), value.float()) for name, value in start.items())
    assert changed > 1e-2


def test_a_run_of_stock_detectron2_goes_on_in_d2pd(stock, folder):
    run = train_embedded(moved(stock, folder / "stock to d2pd"), resume=True)
    state = read(run / "state.pth")
    assert state["start_iter"] == 3
    saved = optimizer_of(stock / HALFWAY)
    assert all("param_names" not in group for group in saved["param_groups"])
    # torch numbers the parameters group by group.
    model = build(DETECTRON2, OPTIONS)
    optimizer = StockTrainer.build_optimizer(stock_config(folder), model)
    names = {id(p): name for name, p in model.named_parameters()}
    ordered = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    for number, name in enumerate(ordered):
        expected = saved["state"][number]["momentum_buffer"]
        torch.testing.assert_close(state["momenta"][name], expected, rtol=0, atol=0)
    log = (run / "log.txt").read_text()
    assert "no parameter names (Detectron2 stores none)" in log
    assert_same_weights(run / FINAL, stock / FINAL)


def test_a_run_of_d2pd_goes_on_in_stock_detectron2(embedded, folder):
    run = train_stock(moved(embedded, folder / "d2pd to stock"), resume=True)
    assert_same_weights(run / FINAL, embedded / FINAL)


def test_without_its_momenta_a_run_ends_elsewhere(stock, folder):
    run = moved(stock, folder / "no momenta")
    content = read(run / HALFWAY)
    state = content["trainer"]["_trainer"]["optimizer"]["state"]
    for entry in state.values():
        entry["momentum_buffer"].zero_()
    torch.save(content, run / HALFWAY)
    train_stock(run, resume=True)
    with pytest.raises(AssertionError):
        assert_same_weights(run / FINAL, stock / FINAL)


@pytest.mark.parametrize("source", ["stock", "embedded"])
@pytest.mark.parametrize("name", [HALFWAY, FINAL])
def test_a_checkpoint_gives_the_same_detections_in_both(source, name, request):
    check_detections(request.getfixturevalue(source) / name, OPTIONS)


def test_momenta_follow_the_names_in_a_detector_of_another_order(embedded):
    saved = optimizer_of(embedded / HALFWAY)
    names = [name for group in saved["param_groups"] for name in group["param_names"]]
    model = build(EMBEDDED, OPTIONS)
    parameters = [p for _, p in reversed(list(model.named_parameters()))]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    track_parameter_names(optimizer, model)
    optimizer.load_state_dict(saved)
    loaded = {name: optimizer.state[p]["momentum_buffer"] for name, p in model.named_parameters()}
    assert set(loaded) == set(names)
    for number, name in enumerate(names):
        assert torch.equal(loaded[name], saved["state"][number]["momentum_buffer"]), name
    # By position at least one would have got the momentum of another of its shape.
    backwards = [name for name, _ in reversed(list(model.named_parameters()))]
    assert any(
        loaded[name].shape == saved["state"][number]["momentum_buffer"].shape
        and not torch.equal(loaded[name], saved["state"][number]["momentum_buffer"])
        for number, name in enumerate(backwards)
    )
