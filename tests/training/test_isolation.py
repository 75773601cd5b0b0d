"""Modes, generators and states are set back, whatever happens in between."""

import contextlib
import random

import numpy as np
import pytest
import torch
from torch import nn
from validation_toys import DropPath

from d2pd.training.isolation import (
    ForwardState,
    cuda_devices,
    kept_random_state,
    loss_mode,
    seed_generators,
    unwrap,
    without_other_processes,
)


class DerivedDropPath(DropPath):
    pass


QUIET = {
    "bn": nn.BatchNorm2d(2),
    "sync": nn.SyncBatchNorm(2),
    "instance": nn.InstanceNorm2d(2),
    "dropout": nn.Dropout(0.1),
    "dropout2d": nn.Dropout2d(0.1),
    "alpha": nn.AlphaDropout(0.1),
    "path": DerivedDropPath(),
    "attention": nn.MultiheadAttention(4, 2, dropout=0.1),
    "lstm": nn.LSTM(2, 2, num_layers=2, dropout=0.1),
}
LOUD = {"conv": nn.Conv2d(2, 2, 1), "group": nn.GroupNorm(1, 2), "layer": nn.LayerNorm(2)}


def test_norms_and_dropout_are_quiet_and_the_rest_is_in_training():
    model = nn.ModuleDict({**QUIET, **LOUD}).train()
    with loss_mode(model):
        assert model.training
        assert {name for name, module in model.items() if not module.training} == set(QUIET)
    assert all(module.training for module in model.modules())


def test_stochastic_depth_of_torchvision_is_quiet():
    ops = pytest.importorskip("torchvision.ops")
    model = nn.Sequential(ops.StochasticDepth(0.5, "row"), ops.DropBlock2d(0.5, 3)).train()
    with loss_mode(model):
        assert [module.training for module in model.modules()] == [True, False, False]


@pytest.mark.parametrize("norm", ["BN", "FrozenBN", "SyncBN"])
def test_norms_of_the_engine_are_quiet_in_a_whole_detector(build_detector, norm):
    model = build_detector(norm=norm)
    model.train()
    with loss_mode(model):
        for name, module in model.named_modules():
            assert module.training != ("BatchNorm" in type(module).__name__), name


def test_norms_of_detectron2_that_derive_from_batch_norm_are_quiet():
    layers = pytest.importorskip("detectron2.layers")
    norms = [layers.NaiveSyncBatchNorm(2), layers.CycleBatchNormList(2, num_features=2)]
    model = nn.Sequential(*norms).train()
    with loss_mode(model):
        kinds = [m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert kinds == [False] * 3


def test_a_part_that_training_holds_in_evaluation_mode_stays_there():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sequential(nn.ReLU()), nn.BatchNorm2d(1)).train()
    model[1].eval()
    with loss_mode(model):
        assert [m.training for m in model.modules()] == [True, True, False, False, False]
    assert [m.training for m in model.modules()] == [True, True, False, False, True]


def test_a_model_in_evaluation_mode_goes_to_training_and_back_after_an_error_too():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).eval()
    with contextlib.suppress(RuntimeError), loss_mode(model):
        assert [m.training for m in model.modules()] == [True, True, False]
        raise RuntimeError
    assert not any(m.training for m in model.modules())


def draws():
    return torch.rand(2).tolist(), np.random.rand(2).tolist(), [random.random(), random.gauss(0, 1)]


def test_generators_are_set_back_after_an_error_too():
    seed_generators(5, [])
    np.random.randn()  # leaves a second number for the next call
    with kept_random_state():
        expected = draws()
    with contextlib.suppress(RuntimeError), kept_random_state():
        seed_generators(2**63 - 1, [])
        draws()
        raise RuntimeError
    assert draws() == expected


def test_seeding_sets_every_generator():
    with kept_random_state():
        seed_generators(2**40 + 1, [])
        first = draws()
        seed_generators(2**40 + 1, [])
        assert draws() == first
        seed_generators(2, [])
        for mine, theirs in zip(draws(), first, strict=True):
            assert mine != theirs


class Changing(nn.Module):
    """Changes itself in all ways that count."""

    def __init__(self):
        super().__init__()
        self.register_buffer("in_place", torch.arange(3.0))
        self.register_buffer("rebound", torch.arange(3.0))
        self.register_buffer("absent", None)
        self.inner = nn.BatchNorm1d(3)
        self.position = 0

    def forward(self, x):
        self.in_place.data.mul_(2)
        self.rebound = self.rebound + 1
        self.absent = torch.ones(1)
        self.position = self.position + 1
        self.new = "set for the first time"
        return self.inner(x)


def test_forward_state_sets_back_buffers_and_what_was_rebound():
    model = Changing().train()
    names = set(vars(model))
    buffers = dict(model.named_buffers())
    values = {name: buffer.clone() for name, buffer in buffers.items()}
    state = ForwardState(model)
    for _ in range(2):
        model(torch.randn(4, 3))
        assert (model.position, model.absent.shape) == (1, (1,))
        state.restore()
        assert set(vars(model)) == names
        assert (model.position, model.absent) == (0, None)
        after = dict(model.named_buffers())
        assert after.keys() == buffers.keys()
        for name, buffer in after.items():
            assert buffer is buffers[name]
            assert torch.equal(buffer, values[name])


def test_a_model_on_the_cpu_has_no_gpu_and_no_wrapper():
    model = nn.Linear(1, 1)
    assert cuda_devices(model) == []
    assert unwrap(model) is model
    assert unwrap(nn.DataParallel(model)) is model


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_generator_of_the_gpu_is_seeded_and_set_back():
    model = nn.Linear(1, 1).cuda()
    devices = cuda_devices(model)
    before = torch.cuda.get_rng_state()
    with kept_random_state():
        seed_generators(7, devices)
        first = torch.rand(3, device="cuda")
        seed_generators(7, devices)
        assert torch.equal(torch.rand(3, device="cuda"), first)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_batch_norm_that_talks_to_other_processes_is_silent_meanwhile():
    class NaiveSyncBatchNorm(nn.BatchNorm2d):
        def forward(self, rows):
            raise TimeoutError("nobody listens")

    model = nn.Sequential(NaiveSyncBatchNorm(2), nn.SyncBatchNorm(2), nn.BatchNorm2d(2))
    kinds = [type(module) for module in model]
    with without_other_processes(model):
        assert model(torch.rand(1, 2, 3, 3)).shape == (1, 2, 3, 3)
    assert [type(module) for module in model] == kinds


def test_module_that_counts_with_its_peers_is_told_to_count_alone_meanwhile():
    class Counting(nn.Module):
        has_peers = True

    model = nn.Sequential(Counting(), nn.Linear(1, 1))
    with without_other_processes(model):
        assert not model[0].has_peers
    assert model[0].has_peers
