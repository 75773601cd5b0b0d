import ast
import importlib.util
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from d2pd import d2

ROOT = Path(__file__).resolve().parent.parent
SURFACE = [
    "BACKBONE_REGISTRY",
    "Backbone",
    "BoxMode",
    "Boxes",
    "CfgNode",
    "CommonMetricPrinter",
    "DatasetCatalog",
    "DatasetEvaluator",
    "DatasetEvaluators",
    "DefaultTrainer",
    "DetectionCheckpointer",
    "ENGINE",
    "EventStorage",
    "EventWriter",
    "FPN",
    "GeneralizedRCNN",
    "HookBase",
    "ImageList",
    "Instances",
    "JSONWriter",
    "LastLevelMaxPool",
    "META_ARCH_REGISTRY",
    "MetadataCatalog",
    "ShapeSpec",
    "TensorboardXWriter",
    "TrainerBase",
    "batched_nms",
    "build_lr_scheduler",
    "build_model",
    "comm",
    "default_argument_parser",
    "default_setup",
    "detector_postprocess",
    "get_cfg",
    "get_default_optimizer_params",
    "get_event_storage",
    "hooks",
    "inference_on_dataset",
    "maybe_add_gradient_clipping",
    "pairwise_iou",
    "seed_all_rng",
    "setup_logger",
]
HOOKS = [
    "CallbackHook",
    "EvalHook",
    "IterationTimer",
    "LRScheduler",
    "PeriodicCheckpointer",
    "PeriodicWriter",
]
COMM = [
    "all_gather",
    "gather",
    "get_rank",
    "get_world_size",
    "is_main_process",
    "reduce_dict",
    "shared_random_seed",
    "synchronize",
]


def branches() -> tuple[list[str], list[str]]:
    """Names imported for each of the two engines."""
    tree = ast.parse((ROOT / "d2pd" / "d2.py").read_text())
    (choice,) = [node for node in tree.body if isinstance(node, ast.If) and node.orelse]
    return tuple(
        sorted(
            name.asname or name.name
            for node in body
            if isinstance(node, ast.ImportFrom)
            for name in node.names
        )
        for body in (choice.body, choice.orelse)
    )


def test_both_engines_bring_the_same_names():
    detectron2, embedded = branches()
    assert detectron2 == embedded
    assert sorted([*embedded, "ENGINE"]) == sorted(d2.__all__) == sorted(SURFACE)


def test_every_name_is_there():
    assert [name for name in SURFACE if not hasattr(d2, name)] == []
    assert [name for name in HOOKS if not hasattr(d2.hooks, name)] == []
    assert [name for name in COMM if not hasattr(d2.comm, name)] == []


def parameters(function):
    return list(inspect.signature(function).parameters)


@pytest.mark.skipif(
    importlib.util.find_spec("detectron2") is None, reason="needs Detectron2 to compare with"
)
def test_signatures_are_detectron2s():
    import detectron2.engine as theirs
    import detectron2.evaluation
    import detectron2.solver.build
    import detectron2.utils.events

    from d2pd.embedded import defaults, evaluator, events, hooks, solver, writers

    for ours, real in [
        *((getattr(hooks, name), getattr(theirs.hooks, name)) for name in HOOKS[:4] + HOOKS[5:]),
        (defaults.default_setup, theirs.default_setup),
        (defaults.default_argument_parser, theirs.default_argument_parser),
        (evaluator.inference_on_dataset, detectron2.evaluation.inference_on_dataset),
        (solver.get_default_optimizer_params, detectron2.solver.build.get_default_optimizer_params),
        (solver.build_lr_scheduler, detectron2.solver.build_lr_scheduler),
        *((getattr(writers, n), getattr(detectron2.utils.events, n)) for n in ("JSONWriter",)),
        (events.EventStorage, detectron2.utils.events.EventStorage),
    ]:
        assert parameters(ours) == parameters(real), ours
    for method in ("resume_or_load", "build_hooks", "test", "auto_scale_workers", "train"):
        ours, real = (getattr(x, method) for x in (defaults.DefaultTrainer, theirs.DefaultTrainer))
        assert parameters(ours) == parameters(real), method
    flags = [
        {action.dest: (action.default, action.nargs) for action in parser._actions}
        for parser in (defaults.default_argument_parser(), theirs.default_argument_parser())
    ]
    flags[0].pop("dist_url"), flags[1].pop("dist_url")
    assert flags[0] == flags[1]


def engine_in_a_new_process(wish: str, cwd: Path) -> tuple[int, str]:
    env = {**os.environ, "D2PD_ENGINE": wish, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "from d2pd.d2 import ENGINE; print(ENGINE)"],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (result.stdout + result.stderr).strip().splitlines()
    return result.returncode, lines[-1]


def test_engine_follows_the_environment(tmp_path):
    here = "embedded" if importlib.util.find_spec("detectron2") is None else "detectron2"
    assert engine_in_a_new_process("auto", tmp_path) == (0, here)


def test_a_shadowed_detectron2_is_never_passed_over(tmp_path):
    if importlib.util.find_spec("detectron2") is not None:
        pytest.skip("an installed package is not hidden by an empty folder")
    (tmp_path / "detectron2").mkdir()
    code, line = engine_in_a_new_process("auto", tmp_path)
    assert code == 1
    assert "EngineError: Detectron2 is shadowed" in line
    assert engine_in_a_new_process("embedded", tmp_path) == (0, "embedded")
