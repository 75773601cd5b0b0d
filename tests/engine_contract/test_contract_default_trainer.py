"""``DefaultTrainer`` on a toy: what it builds, writes, restores and evaluates."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from contract_recording import Contract
from contract_toys import (
    DATASETS,
    Diary,
    LineStep,
    LineTrainer,
    SumEvaluator,
    class_names,
    key_tree,
    line_cfg,
    raised,
)
from torch import nn

from d2pd.d2 import ENGINE, CfgNode, DefaultTrainer, comm

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def weights(trainer: LineTrainer) -> list[float]:
    return nn.utils.parameters_to_vector(trainer.model.parameters()).tolist()


def files_in(folder: str) -> list[str]:
    return sorted(
        "events" if each.name.startswith("events.") else each.name
        for each in Path(folder).iterdir()
    )


def rows_of(folder: str) -> list[dict[str, Any]]:
    lines = (Path(folder) / "metrics.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


def checkpoint(folder: str, name: str) -> dict[str, Any]:
    return torch.load(Path(folder) / name, weights_only=True)


def test_order_of_building(contract: Contract, cfg: CfgNode) -> None:
    trainer = LineTrainer(line_cfg(cfg))
    assert trainer.built == [
        "model",
        "optimizer",
        "train_loader",
        "lr_scheduler",
        "hooks",
        "writers",
    ]
    contract({"built": trainer.built, "hooks": class_names(trainer._hooks)})


def test_hooks_and_writers(contract: Contract, cfg: CfgNode) -> None:
    trainer = LineTrainer(line_cfg(cfg))
    observed = {
        "hooks": class_names(trainer._hooks),
        "writers": class_names(trainer.build_writers()),
        "attributes": [trainer.start_iter, trainer.max_iter, trainer.iter],
        "kept": [trainer.cfg is not None, type(trainer.checkpointer).__name__],
        "optimizer": type(trainer.optimizer).__name__,
        "checkpointables": list(trainer.checkpointer.checkpointables),
        "training": trainer.model.training,
    }
    assert observed["hooks"][0] == "IterationTimer"
    assert observed["hooks"][-1] == "PeriodicWriter"
    contract(observed)


def test_parts_belong_to_the_inner_trainer(contract: Contract, cfg: CfgNode) -> None:
    trainer = LineTrainer(line_cfg(cfg))
    other = nn.Linear(1, 1)
    trainer.model = other
    assert trainer._trainer.model is other
    observed = {"model": trainer.model is trainer._trainer.model}
    for name in ("data_loader", "optimizer"):
        value = object()
        setattr(trainer, name, value)
        observed[name] = getattr(trainer._trainer, name) is value
    contract(observed)


def test_what_a_run_writes(contract: Contract, cfg: CfgNode) -> None:
    trainer = LineTrainer(line_cfg(cfg))
    trainer.resume_or_load(resume=False)
    returned = trainer.train()
    final = checkpoint(cfg.OUTPUT_DIR, "model_final.pth")
    assert final["iteration"] == 6
    assert weights(trainer) == [
        pytest.approx(each)
        for each in [*final["model"]["linear.weight"][0], *final["model"]["linear.bias"]]
    ]
    contract(
        {
            "returned": returned,
            "files": files_in(cfg.OUTPUT_DIR),
            "last_checkpoint": (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text(),
            "rows": [sorted(row) for row in rows_of(cfg.OUTPUT_DIR)],
            "iterations": [row["iteration"] for row in rows_of(cfg.OUTPUT_DIR)],
            "loss": [row.get("total_loss") for row in rows_of(cfg.OUTPUT_DIR)],
            "weights": weights(trainer),
            "built": trainer.built,
        },
        rtol=1e-5,
    )


def test_keys_of_a_checkpoint(contract: Contract, cfg: CfgNode) -> None:
    trainer = LineTrainer(line_cfg(cfg))
    trainer.train()
    early = checkpoint(cfg.OUTPUT_DIR, "model_0000003.pth")
    assert list(early) == ["model", "trainer", "iteration"]
    assert early["trainer"]["iteration"] == early["iteration"] == 3
    schedule = early["trainer"]["hooks"]["LRScheduler"]
    # The hook of the schedule comes before that of the checkpoints.
    assert schedule["last_epoch"] == 4
    optimizer = early["trainer"]["_trainer"]["optimizer"]
    # Only what the engine sets: each torch adds settings of its own.
    names = ("lr", "momentum", "nesterov", "weight_decay", "foreach", "initial_lr", "params")
    optimizer["param_groups"] = [
        {name: group[name] for name in names} for group in optimizer["param_groups"]
    ]
    contract(
        {
            "keys": key_tree(early),
            "schedule": schedule,
            "groups": optimizer["param_groups"],
            # The inner trainer's counter is set before each step.
            "inner iteration": early["trainer"]["_trainer"]["iteration"],
        }
    )


def test_a_resumed_run_ends_where_an_unbroken_one_does(contract: Contract, cfg: CfgNode) -> None:
    cfg = line_cfg(cfg)
    whole = LineTrainer(cfg)
    whole.train()
    again = LineTrainer(cfg)
    (Path(cfg.OUTPUT_DIR) / "last_checkpoint").write_text("model_0000003.pth")
    again.resume_or_load(resume=True)
    restored = {
        "start_iter": again.start_iter,
        "iter": again.iter,
        "schedule": again.scheduler.last_epoch,
        "momentum": [
            state["momentum_buffer"] for state in again.optimizer.state_dict()["state"].values()
        ],
        "rates": [group["lr"] for group in again.optimizer.param_groups],
    }
    assert restored["start_iter"] == 4
    again._trainer.data_loader.start = again.start_iter
    again.train()
    assert weights(again) == weights(whole)
    contract({**restored, "weights": weights(again)}, rtol=1e-5)


def test_resume_without_a_checkpoint_starts_anew(contract: Contract, cfg: CfgNode) -> None:
    trainer = LineTrainer(line_cfg(cfg))
    before = weights(trainer)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 0
    assert weights(trainer) == before
    contract({"start_iter": trainer.start_iter, "iter": trainer.iter})


def test_without_resume_only_the_weights_are_loaded(contract: Contract, cfg: CfgNode) -> None:
    cfg = line_cfg(cfg)
    LineTrainer(cfg).train()
    file = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    wanted = checkpoint(cfg.OUTPUT_DIR, "model_final.pth")["model"]
    cfg.MODEL.WEIGHTS = file
    trainer = LineTrainer(cfg)
    trainer.resume_or_load(resume=False)
    torch.testing.assert_close(trainer.model.state_dict(), wanted)
    contract(
        {
            "start_iter": trainer.start_iter,
            "iter": trainer.iter,
            "schedule": trainer.scheduler.last_epoch,
            "momentum": len(trainer.optimizer.state_dict()["state"]),
        }
    )


def test_a_failed_run_keeps_its_checkpoints(contract: Contract, cfg: CfgNode) -> None:
    trainer = LineTrainer(line_cfg(cfg))
    trainer._trainer.fail_at = 5
    how = raised(trainer.train)
    assert how == "RuntimeError"
    contract(
        {
            "how": how,
            "files": files_in(cfg.OUTPUT_DIR),
            "iterations": [row["iteration"] for row in rows_of(cfg.OUTPUT_DIR)],
            "evaluated": trainer.built.count(f"evaluator {DATASETS[0]}"),
            "iter": trainer.iter,
        }
    )


def test_a_failing_evaluation_comes_after_the_checkpoint(contract: Contract, cfg: CfgNode) -> None:
    class Failing(LineTrainer):
        @classmethod
        def test(cls, cfg: CfgNode, model: nn.Module, evaluators: Any = None) -> Any:
            raise OSError("on purpose")

    trainer = Failing(line_cfg(cfg, CHECKPOINT_PERIOD=3))
    assert raised(trainer.train) == "OSError"
    files = files_in(cfg.OUTPUT_DIR)
    assert "model_0000002.pth" in files
    contract({"files": files, "iter": trainer.iter})


def test_after_backward_belongs_to_the_inner_trainer(contract: Contract, cfg: CfgNode) -> None:
    trainer = LineTrainer(line_cfg(cfg, MAX_ITER=2))
    outer: list[Any] = []
    inner: list[Any] = []
    trainer.register_hooks([Diary("outer", outer)])
    counting = Diary("inner", inner)
    counting._note = lambda moment: inner.append(moment)  # type: ignore[method-assign]
    trainer._trainer.register_hooks([counting])
    trainer.train()
    assert "after_backward" not in [line[1] for line in outer]
    assert inner == ["after_backward"] * 2
    contract({"outer": outer, "inner": inner})


def test_one_dataset_gives_its_figures(contract: Contract, cfg: CfgNode) -> None:
    trainer = LineTrainer(line_cfg(cfg))
    trainer.model.train()
    results = LineTrainer.test(trainer.cfg, trainer.model)
    assert results["sum"]["count"] == 3
    contract({"results": results, "training": trainer.model.training}, rtol=1e-5)


def test_several_datasets_give_figures_by_name(contract: Contract, cfg: CfgNode) -> None:
    cfg = line_cfg(cfg)
    cfg.DATASETS.TEST = DATASETS
    trainer = LineTrainer(cfg)
    lines: list[Any] = []
    own = [SumEvaluator("first", lines), SumEvaluator("second", lines)]
    built = LineTrainer.test(cfg, trainer.model)
    given = LineTrainer.test(cfg, trainer.model, own)
    assert list(built) == list(DATASETS)
    cfg.DATASETS.TEST = ()
    contract(
        {
            "built": built,
            "given": given,
            "lines": lines,
            "none": LineTrainer.test(cfg, trainer.model),
        },
        rtol=1e-5,
    )


def test_evaluators_must_be_as_many_as_datasets(contract: Contract, cfg: CfgNode) -> None:
    trainer = LineTrainer(line_cfg(cfg))
    one = LineTrainer.test(trainer.cfg, trainer.model, SumEvaluator())
    how = raised(LineTrainer.test, trainer.cfg, trainer.model, [SumEvaluator(), SumEvaluator()])
    assert how == ("AssertionError" if ENGINE == "detectron2" else "ValueError")
    contract(
        {"single": one, "two for one": how},
        rtol=1e-5,
        differences={"two for one": "the embedded engine does not assert for what users do"},
    )


def test_a_dataset_without_evaluator_is_left_out(contract: Contract, cfg: CfgNode) -> None:
    class Without(LineTrainer):
        @classmethod
        def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> Any:
            raise NotImplementedError

    trainer = Without(line_cfg(cfg))
    assert Without.test(trainer.cfg, trainer.model) == {}
    cfg.DATASETS.TEST = DATASETS
    contract({"results": Without.test(cfg, trainer.model)})


def expecting(cfg: CfgNode, value: float) -> tuple[str, Any]:
    """Train with an expected result; return how it ended and what it returned."""
    cfg.TEST.EXPECTED_RESULTS = [["sum", "count", value, 0.5]]
    trainer = LineTrainer(line_cfg(cfg, MAX_ITER=3))
    try:
        return "returned", trainer.train()
    except BaseException as error:
        return next(
            each.__name__ for each in type(error).__mro__ if each.__module__ == "builtins"
        ), None


def test_expected_results_are_checked(contract: Contract, cfg: CfgNode) -> None:
    met, results = expecting(cfg, 3.0)
    missed, _ = expecting(cfg, 4.0)
    assert met == "returned"
    # The process ends under Detectron2; the embedded engine raises UserError.
    assert missed == ("SystemExit" if ENGINE == "detectron2" else "Exception")
    contract(
        {"met": met, "count": results["sum"]["count"], "missed": missed},
        differences={"missed": "a result that is not as expected is an error, not an exit"},
    )


def test_the_step_is_not_on_the_surface(contract: Contract, cfg: CfgNode) -> None:
    class Bare(LineTrainer):
        def __init__(self, cfg: CfgNode) -> None:
            DefaultTrainer.__init__(self, cfg)

    Bare.built = []
    trainer = Bare(line_cfg(cfg, MAX_ITER=1))
    has_own_step = raised(trainer.train) == "returned"
    assert has_own_step == (ENGINE == "detectron2")
    replaced = LineTrainer(line_cfg(cfg, MAX_ITER=1))
    assert isinstance(replaced._trainer, LineStep)
    contract(
        {"own step": has_own_step, "replaced": raised(replaced.train)},
        differences={"own step": "SimpleTrainer and AMPTrainer are not stood in for"},
    )


def test_scaling_for_other_numbers_of_processes(contract: Contract, cfg: CfgNode) -> None:
    def scaled(written_for: int, processes: int) -> dict[str, Any]:
        cfg.SOLVER.REFERENCE_WORLD_SIZE = written_for
        cfg.TEST.EVAL_PERIOD = 2500
        new = DefaultTrainer.auto_scale_workers(cfg, processes)
        names = (
            "IMS_PER_BATCH",
            "BASE_LR",
            "MAX_ITER",
            "WARMUP_ITERS",
            "STEPS",
            "CHECKPOINT_PERIOD",
        )
        return {
            **{name: new.SOLVER[name] for name in names},
            "EVAL_PERIOD": new.TEST.EVAL_PERIOD,
            "REFERENCE_WORLD_SIZE": new.SOLVER.REFERENCE_WORLD_SIZE,
            "same object": new is cfg,
        }

    assert comm.get_world_size() == 1
    observed = {f"{a} to {b}": scaled(a, b) for a, b in ((0, 4), (8, 8), (8, 1), (4, 8))}
    assert observed["8 to 1"]["IMS_PER_BATCH"] == 2
    assert observed["8 to 1"]["MAX_ITER"] == 320000
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 8
    cfg.freeze()
    new = DefaultTrainer.auto_scale_workers(cfg, 4)
    contract({**observed, "frozen": [new.is_frozen(), cfg.is_frozen()]})
