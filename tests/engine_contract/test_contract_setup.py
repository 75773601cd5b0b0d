"""Command line, set-up of a run, seeds, loggers, one process."""

import argparse
import logging
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from contract_recording import Contract

from d2pd.d2 import (
    ENGINE,
    CfgNode,
    comm,
    default_argument_parser,
    default_setup,
    get_cfg,
    seed_all_rng,
    setup_logger,
)


@pytest.fixture(autouse=True)
def _random_state() -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), os.environ.get("PYTHONHASHSEED")
    benchmark = torch.backends.cudnn.benchmark
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    if states[2] is None:
        os.environ.pop("PYTHONHASHSEED", None)
    else:
        os.environ["PYTHONHASHSEED"] = states[2]
    torch.backends.cudnn.benchmark = benchmark


ARGUMENTS = {
    "none": [],
    "usual": ["--config-file", "a.yaml", "--resume", "SOLVER.MAX_ITER", "5"],
    "evaluate": ["--eval-only", "MODEL.WEIGHTS", "x.pth"],
    "machines": [
        "--num-gpus",
        "2",
        "--num-machines",
        "3",
        "--machine-rank",
        "1",
        "--dist-url",
        "auto",
    ],
    # All that follows the first override belongs to the overrides.
    "late flag": ["SEED", "3", "--resume"],
}


def test_arguments(contract: Contract) -> None:
    port = 2**15 + 2**14 + os.getuid() % 2**14
    observed = {}
    for name, words in ARGUMENTS.items():
        given = vars(default_argument_parser().parse_args(words))
        assert given["dist_url"] in ("auto", f"tcp://127.0.0.1:{port}")
        observed[name] = {key: given[key] for key in given if key != "dist_url"}
    assert observed["late flag"]["opts"] == ["SEED", "3", "--resume"]
    assert observed["none"]["num_gpus"] == 1
    contract(observed)


def test_arguments_that_are_refused(contract: Contract, capsys: pytest.CaptureFixture[str]) -> None:
    def ends(words: list[str]) -> Any:
        with pytest.raises(SystemExit) as error:
            default_argument_parser().parse_args(words)
        return error.value.code

    observed = {
        "unknown": ends(["--no-such-flag"]),
        "number": ends(["--num-gpus", "two"]),
        "help": ends(["--help"]),
    }
    assert observed == {"unknown": 2, "number": 2, "help": 0}
    text = capsys.readouterr().out
    contract({**observed, "epilog": "own words" in text})
    assert default_argument_parser("own words").epilog == "own words"


def test_the_same_seed_gives_the_same_numbers(contract: Contract) -> None:
    seed_all_rng(42)
    numbers = [random.random(), float(np.random.rand()), float(torch.rand(1))]
    # Python's first number after seed 42, known everywhere.
    assert numbers[0] == pytest.approx(0.6394267984578837)
    seed_all_rng(42)
    assert numbers == [random.random(), float(np.random.rand()), float(torch.rand(1))]
    contract({"numbers": numbers, "hash seed": os.environ.get("PYTHONHASHSEED")})


def test_without_a_seed_numbers_differ(contract: Contract) -> None:
    draws = []
    for _ in range(2):
        seed_all_rng()
        draws.append(random.random())
    assert draws[0] != draws[1]
    contract({"differ": draws[0] != draws[1]})


def test_setup_of_a_run(contract: Contract, cfg: CfgNode) -> None:
    cfg.SEED = 7
    cfg.CUDNN_BENCHMARK = True
    benchmarks = []
    for eval_only in (True, False):
        torch.backends.cudnn.benchmark = False
        default_setup(cfg, argparse.Namespace(config_file="", eval_only=eval_only))
        benchmarks.append(torch.backends.cudnn.benchmark)
    first = random.random()
    written = get_cfg()
    written.merge_from_file(str(Path(cfg.OUTPUT_DIR) / "config.yaml"))
    assert yaml.safe_load(written.dump()) == yaml.safe_load(cfg.dump())
    assert benchmarks == [False, True]
    assert first == pytest.approx(random.Random(7).random())
    contract(
        {
            "files": sorted(each.name for each in Path(cfg.OUTPUT_DIR).iterdir()),
            "benchmarks": benchmarks,
            "first number": first,
        }
    )


def test_loggers(contract: Contract, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = setup_logger(str(tmp_path), name="contract", color=False)
    logger.info("hello %d", 5)
    logging.getLogger("contract.below").warning("careful")
    setup_logger(str(tmp_path / "own.log"), name="contract", configure_stdout=False)
    logger.debug("again")
    for handler in logger.handlers:
        handler.flush()
    text = (tmp_path / "log.txt").read_text().splitlines()
    words = [line.split("] ", 1)[1] for line in text]
    assert words[0] == "contract INFO: hello 5"
    contract(
        {
            "words": words,
            "own": [
                line.split("] ", 1)[1] for line in (tmp_path / "own.log").read_text().splitlines()
            ],
            "terminal": "hello 5" in capsys.readouterr().out,
            "level": logger.level,
            "propagate": logger.propagate,
        }
    )


def test_other_ranks_log_into_files_of_their_own(contract: Contract, tmp_path: Path) -> None:
    logger = setup_logger(str(tmp_path), distributed_rank=2, name="contract")
    logger.info("hello")
    for handler in logger.handlers:
        handler.flush()
    files = [each.name for each in tmp_path.iterdir()]
    assert files == ["log.txt.rank2"]
    contract({"files": files})


def test_the_name_of_the_root_logger(contract: Contract) -> None:
    name = setup_logger().name
    assert name == ("detectron2" if ENGINE == "detectron2" else "d2pd")
    contract({"name": name}, differences={"name": "each engine logs under its own name"})


def test_a_process_alone(contract: Contract) -> None:
    losses = {"a": torch.tensor(1.0), "b": torch.tensor(2.0)}
    np.random.seed(3)
    seed = comm.shared_random_seed()
    np.random.seed(3)
    assert seed == comm.shared_random_seed()
    contract(
        {
            "rank": comm.get_rank(),
            "size": comm.get_world_size(),
            "main": comm.is_main_process(),
            "gather": comm.gather({"x": 1}),
            "all_gather": comm.all_gather("y"),
            "reduce": comm.reduce_dict(losses),
            "synchronize": comm.synchronize(),
            "seed": seed,
        }
    )
