"""The fixture through which a test of the contract compares itself with Detectron2."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from contract_recording import Contract, Recorder

from d2pd.d2 import ENGINE, CfgNode, get_cfg


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Function) -> Iterator[None]:
    """Fail a test that asks for the contract and never calls it."""
    yield
    contract = item.funcargs.get("contract")
    assert contract is None or contract.compared, "the test compared nothing"


@pytest.fixture
def contract(request: pytest.FixtureRequest) -> Contract:
    """Call it with the observation of the test."""
    plugins = request.config.pluginmanager.get_plugins()
    recorder = next((each for each in plugins if isinstance(each, Recorder)), None)
    name = re.sub(r"[^\w.-]+", "-", request.node.name.removeprefix("test_")).strip("-")
    return Contract(name, ENGINE, recorder)


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    """Seed and one thread for every test; the state of before comes back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    """Take away the handlers that a test adds to the loggers of the engines."""
    names = ("detectron2", "d2pd", "fvcore", "contract")
    before = {
        name: (list(log.handlers), log.level, log.propagate)
        for name in names
        for log in [logging.getLogger(name)]
    }
    yield
    for name, (handlers, level, propagate) in before.items():
        log = logging.getLogger(name)
        for handler in [each for each in log.handlers if each not in handlers]:
            log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    """The defaults, on the CPU, with an output folder of the test's own."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    return cfg
