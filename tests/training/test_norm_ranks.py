"""Batch norm over two processes is that of one with all images."""

from pathlib import Path

import pytest
import torch
from norm_rank import CUTS, images, model_with, outputs_of
from torch import nn
from two_ranks import run_ranks

from d2pd.sync_batch_norm import SyncBatchNorm, synchronised


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return run_ranks(Path(__file__).with_name("norm_rank.py"), tmp_path_factory.mktemp("norm"))


@pytest.fixture(scope="module")
def whole():
    return outputs_of(model_with(nn.BatchNorm2d(4)), images(), share=1.0)


def close(ours, theirs):
    ours, theirs = torch.tensor(ours), torch.tensor(theirs)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))


def test_outputs_are_those_of_the_whole_batch(ranks, whole):
    for rank, (first, last) in zip(ranks, CUTS, strict=True):
        close(rank["outputs"], whole["outputs"][first:last])


def test_running_numbers_are_those_of_the_whole_batch(ranks, whole):
    for rank in ranks:
        assert rank["state"].keys() == whole["state"].keys()
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            close(rank["state"][name], whole["state"][name])


def test_gradients_are_those_of_the_whole_batch(ranks, whole):
    largest = max(torch.tensor(g).abs().max() for g in whole["gradients"].values())
    for rank in ranks:
        for name, gradient in whole["gradients"].items():
            difference = torch.tensor(rank["gradients"][name]) - torch.tensor(gradient)
            assert difference.abs().max() <= 2e-6 * largest, name


def test_alone_it_is_the_plain_norm(whole):
    assert outputs_of(model_with(SyncBatchNorm(4)), images(), share=1.0) == whole


def test_norms_are_replaced_with_their_numbers():
    model = model_with(nn.BatchNorm2d(4, eps=1e-3))
    before = model.state_dict()
    assert isinstance(synchronised(model)[1], SyncBatchNorm)
    assert model[1].eps == 1e-3
    torch.testing.assert_close(model.state_dict(), before)
