import json
import logging
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn

from d2pd.embedded import comm
from d2pd.embedded.build import META_ARCH_REGISTRY
from d2pd.embedded.config import get_cfg
from d2pd.embedded.defaults import (
    DefaultTrainer,
    default_argument_parser,
    default_setup,
    default_writers,
)
from d2pd.embedded.env import collect_env_info, seed_all_rng
from d2pd.embedded.evaluator import DatasetEvaluator
from d2pd.embedded.logger import setup_logger
from d2pd.embedded.train_loop import TrainerBase
from d2pd.errors import ConfigError, UserError

ORDER = ["IterationTimer", "LRScheduler", "PeriodicCheckpointer", "EvalHook", "PeriodicWriter"]


@META_ARCH_REGISTRY.register()
class TrainerTestNet(nn.Module):
    """Learns the mean of its inputs."""

    def __init__(self, cfg):
        super().__init__()
        self.guess = nn.Linear(1, 1, bias=False)

    def forward(self, batch):
        guess = self.guess(torch.ones(1, 1))
        return {"loss": (guess - torch.tensor(batch)).square().mean()} if self.training else batch


class Step(TrainerBase):
    def __init__(self, model, data_loader, optimizer):
        super().__init__()
        self.model, self.data_loader, self.optimizer = model, data_loader, optimizer
        model.train()

    def run_step(self):
        loss = self.model(self.data_loader[self.iter % len(self.data_loader)])["loss"]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def state_dict(self):
        return {**super().state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])


class Count(DatasetEvaluator):
    def reset(self):
        self.count = 0

    def process(self, inputs, outputs):
        self.count += len(outputs)

    def evaluate(self):
        return {"bbox": {"AP": float(self.count), "AP-person": 1.0}, "note": 3}


class Trainer(DefaultTrainer):
    def __init__(self, cfg):
        super().__init__(cfg)
        self._trainer = Step(self.model, self.data_loader, self.optimizer)

    @classmethod
    def build_train_loader(cls, cfg):
        return [[1.0, 2.0], [3.0, 4.0]]

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return [[1.0], [2.0], [3.0]]

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return Count()


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "TrainerTestNet"
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.SOLVER.merge_from_list(["MAX_ITER", 6, "STEPS", (), "CHECKPOINT_PERIOD", 3])
    cfg.SOLVER.merge_from_list(["WARMUP_ITERS", 0, "BASE_LR", 0.05])
    cfg.DATASETS.TEST = ("here",)
    return cfg


@pytest.fixture(autouse=True)
def restore_loggers():
    loggers = [logging.getLogger(name) for name in ("d2pd", "fvcore", "d2pd_test")]
    before = [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.setLevel(level)
        logger.propagate, logger.handlers = propagate, handlers


def test_a_resumed_run_ends_where_a_whole_run_ends(cfg, tmp_path):
    whole_cfg = cfg.clone()
    whole_cfg.OUTPUT_DIR = str(tmp_path / "whole")
    torch.manual_seed(0)
    whole = Trainer(whole_cfg)
    whole.train()
    cfg.OUTPUT_DIR = str(tmp_path / "parts")
    torch.manual_seed(0)
    first = Trainer(cfg)
    first.max_iter = 3
    first.train()
    second = Trainer(cfg)
    second.resume_or_load(resume=True)
    assert second.start_iter == 3
    second.train()
    assert torch.equal(second.model.guess.weight, whole.model.guess.weight)
    assert second.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"]
    assert second.scheduler.last_epoch == whole.scheduler.last_epoch == 6


def test_what_it_builds_and_in_which_order(cfg, monkeypatch):
    calls = []
    for name in ("build_model", "build_optimizer", "build_train_loader", "build_lr_scheduler"):
        original = getattr(Trainer, name).__func__

        def note(cls, *args, original=original, name=name):
            calls.append(name)
            return original(cls, *args)

        monkeypatch.setattr(Trainer, name, classmethod(note))
    trainer = Trainer(cfg)
    assert calls == ["build_model", "build_optimizer", "build_train_loader", "build_lr_scheduler"]
    assert [type(hook).__name__ for hook in trainer._hooks] == ORDER
    assert (trainer.cfg, trainer.start_iter, trainer.max_iter) == (cfg, 0, 6)
    assert set(trainer.checkpointer.checkpointables) == {"trainer"}


def test_parts_are_those_of_the_inner_trainer(cfg):
    trainer = Trainer(cfg)
    assert trainer.model is trainer._trainer.model
    for name in ("model", "data_loader", "optimizer"):
        other = object()
        setattr(trainer, name, other)
        assert getattr(trainer._trainer, name) is other


def test_files_of_a_run(cfg, tmp_path):
    Trainer(cfg).train()
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model_0000002.pth", "model_0000005.pth", "model_final.pth", "metrics.json"} <= names
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert set(saved) == {"model", "trainer", "iteration"}
    assert set(saved["trainer"]) == {"iteration", "hooks", "_trainer"}
    assert set(saved["trainer"]["hooks"]) == {"LRScheduler"}
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [5, 6]
    assert rows[-1]["bbox/AP"] == 3.0


def test_weights_alone_start_at_zero(cfg, tmp_path):
    first = Trainer(cfg)
    first.train()
    cfg.MODEL.WEIGHTS = str(tmp_path / "model_final.pth")
    second = Trainer(cfg)
    second.resume_or_load(resume=False)
    assert second.start_iter == 0
    assert torch.equal(second.model.guess.weight, first.model.guess.weight)


def test_results_by_task_or_by_dataset(cfg, caplog):
    trainer = Trainer(cfg)
    caplog.set_level("INFO")
    one = Trainer.test(cfg, trainer.model)
    assert not any("AP" in line for line in caplog.messages)  # an evaluator says it, and once
    assert one == {"bbox": {"AP": 3.0, "AP-person": 1.0}, "note": 3}
    cfg.DATASETS.TEST = ("a", "b")
    both = Trainer.test(cfg, trainer.model, [Count(), Count()])
    assert both == {"a": one, "b": one}
    cfg.DATASETS.TEST = ("a",)
    assert Trainer.test(cfg, trainer.model, Count()) == one
    with pytest.raises(ValueError, match="1 datasets but 2 evaluators"):
        Trainer.test(cfg, trainer.model, [Count(), Count()])


def test_expected_results_are_held_against_the_last_evaluation(cfg):
    cfg.TEST.EXPECTED_RESULTS = [["bbox", "AP", 2.8, 0.3]]
    assert Trainer(cfg).train()["bbox"]["AP"] == 3.0
    cfg.TEST.EXPECTED_RESULTS = [["bbox", "AP", 2.0, 0.5], ["bbox", "AP99", 1.0, 0.1]]
    with pytest.raises(UserError, match=r"bbox/AP is 3\.0, expected 2\.0 \+- 0\.5; bbox/AP99 is n"):
        Trainer(cfg).train()


def test_a_key_that_is_not_honoured_stops_it_before_anything_is_built(cfg):
    cfg.TEST.AUG.ENABLED = True
    with pytest.raises(ConfigError, match=r"TEST\.AUG\.ENABLED True"):
        Trainer(cfg)


def test_what_a_subclass_forgot_is_told(cfg):
    with pytest.raises(NotImplementedError, match="override build_train_loader"):
        DefaultTrainer(cfg)
    with pytest.raises(NotImplementedError, match="override build_test_loader"):
        DefaultTrainer.test(cfg, nn.Identity())

    class WithoutStep(DefaultTrainer):
        build_train_loader = Trainer.build_train_loader
        build_test_loader = Trainer.build_test_loader

    with pytest.raises(NotImplementedError, match=r"set `self\._trainer`"):
        WithoutStep(cfg).train()
    assert WithoutStep.test(cfg, nn.Identity()) == {}


def test_scaling_to_another_number_of_processes(cfg):
    assert DefaultTrainer.auto_scale_workers(cfg, 1) is cfg
    cfg.SOLVER.merge_from_list(["REFERENCE_WORLD_SIZE", 4, "IMS_PER_BATCH", 8, "STEPS", (4, 5)])
    cfg.TEST.EVAL_PERIOD = 2
    cfg.freeze()
    scaled = DefaultTrainer.auto_scale_workers(cfg, 1)
    solver = scaled.SOLVER
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.MAX_ITER) == (2, 0.0125, 24)
    assert (solver.STEPS, solver.CHECKPOINT_PERIOD) == ((16, 20), 12)
    assert (scaled.TEST.EVAL_PERIOD, solver.REFERENCE_WORLD_SIZE) == (8, 1)
    assert scaled.is_frozen()
    assert cfg.SOLVER.IMS_PER_BATCH == 8
    odd = cfg.clone()
    odd.defrost()
    odd.SOLVER.IMS_PER_BATCH = 6
    with pytest.raises(ConfigError, match=r"IMS_PER_BATCH 6 does not divide among"):
        DefaultTrainer.auto_scale_workers(odd, 1)


def test_command_line_of_detectron2():
    args = default_argument_parser().parse_args(
        ["--config-file", "a.yaml", "--resume", "--num-gpus", "0", "SOLVER.BASE_LR", "0.1"]
    )
    assert (args.config_file, args.resume, args.eval_only, args.num_gpus) == (
        "a.yaml",
        True,
        False,
        0,
    )
    assert args.opts == ["SOLVER.BASE_LR", "0.1"]
    assert (args.num_machines, args.machine_rank) == (1, 0)
    assert args.dist_url.startswith("tcp://127.0.0.1:")
    assert default_argument_parser().parse_args([]).opts == []


def test_set_up_of_a_run(cfg, tmp_path, capsys):
    cfg.SEED = 7
    cfg.CUDNN_BENCHMARK = True
    before = torch.backends.cudnn.benchmark
    try:
        default_setup(cfg, SimpleNamespace(config_file="", eval_only=False))
        assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = before
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["SEED"] == 7
    drawn = torch.rand(2)
    seed_all_rng(7)
    assert torch.equal(torch.rand(2), drawn)
    log = (tmp_path / "log.txt").read_text()
    for part in ("torch: ", "Command line: ", "Configuration saved as"):
        assert part in log
        assert part in capsys.readouterr().out or part != "torch: "


def test_two_seeds_differ_and_none_draws_one(caplog):
    with caplog.at_level(logging.INFO):
        seed_all_rng()
    first = torch.rand(4)
    seed_all_rng(3)
    assert not torch.equal(torch.rand(4), first)
    assert "No seed was given, drew" in caplog.text
    assert "python: 3." in collect_env_info()


def test_writers_of_a_run(tmp_path):
    writers = default_writers(str(tmp_path / "new"), 5)
    names = [type(writer).__name__ for writer in writers]
    assert names == ["CommonMetricPrinter", "JSONWriter", "TensorboardXWriter"]
    for writer in writers:
        writer.close()


def test_logger_is_set_up_once_and_names_what_is_wrong(tmp_path, capsys):
    for _ in range(2):
        logger = setup_logger(str(tmp_path), name="d2pd_test", abbrev_name="dt", color=False)
    setup_logger(str(tmp_path / "own.log"), name="d2pd_test")
    logging.getLogger("d2pd_test.part").info("hello")
    logger.warning("careful")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("] ")[-1].split(" ", 2)[-1] for line in lines] == [
        "dt.part]: hello",
        "dt]: WARNING careful",
    ]
    for name in ("log.txt", "own.log"):
        assert len((tmp_path / name).read_text().splitlines()) == 2
    setup_logger(str(tmp_path), 1, name="d2pd_test")
    assert (tmp_path / "log.txt.rank1").is_file()


def test_alone_every_process_is_the_main_one():
    assert (comm.get_world_size(), comm.get_rank(), comm.is_main_process()) == (1, 0, True)
    assert comm.all_gather({"a": 1}) == comm.gather({"a": 1}) == [{"a": 1}]
    assert comm.reduce_dict({"a": torch.ones(())}) == {"a": torch.ones(())}
    assert 0 <= comm.shared_random_seed() < 2**31
    comm.synchronize()
