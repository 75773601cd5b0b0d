"""Small stand-ins: a trainer, hooks and evaluators that write down how they are called."""

import builtins
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from d2pd.d2 import (
    META_ARCH_REGISTRY,
    CfgNode,
    DatasetEvaluator,
    DefaultTrainer,
    EventWriter,
    HookBase,
    TrainerBase,
    get_event_storage,
)

DATASETS = ("contract_first", "contract_second")


def raised(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Call a function; return the built-in type of its error, or ``returned``.

    The embedded engine's errors also are built-in ones, which is what callers can rely on.
    """
    try:
        function(*args, **kwargs)
    except Exception as error:
        return next(
            each.__name__ for each in type(error).__mro__ if hasattr(builtins, each.__name__)
        )
    return "returned"


class Diary(HookBase):
    """Writes down every call: name, moment, the trainer's iteration, the storage's."""

    def __init__(self, name: str, lines: list[Any], fail: dict[str, BaseException] | None = None):
        self.name, self.lines, self.fail = name, lines, fail or {}

    def _note(self, moment: str) -> None:
        self.lines.append([self.name, moment, self.trainer.iter, self.trainer.storage.iter])
        if moment in self.fail:
            raise self.fail[moment]

    def before_train(self) -> None:
        self._note("before_train")

    def after_train(self) -> None:
        self._note("after_train")

    def before_step(self) -> None:
        self._note("before_step")

    def after_backward(self) -> None:
        self._note("after_backward")

    def after_step(self) -> None:
        self._note("after_step")


class OtherDiary(Diary):
    """Another class, so that its state has another name."""


class EmptyLoop(TrainerBase):
    """Steps that do nothing, or what the test asks for."""

    def __init__(self, step: Callable[["EmptyLoop"], None] | None = None) -> None:
        super().__init__()
        self.step = step

    def run_step(self) -> None:
        if self.step is not None:
            self.step(self)


class NotingWriter(EventWriter):
    """Writes down at which iteration it is called."""

    def __init__(self, lines: list[Any]) -> None:
        self.lines = lines

    def write(self) -> None:
        self.lines.append(["write", get_event_storage().iter])

    def close(self) -> None:
        self.lines.append(["close", get_event_storage().iter])


@META_ARCH_REGISTRY.register()
class ContractToy(nn.Module):
    """A line through numbers: its loss is the mean squared error."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.norm = nn.BatchNorm1d(1, affine=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[0.5, -0.25]]))
            self.linear.bias.fill_(0.125)

    def forward(self, batch: list[dict[str, Tensor]]) -> Any:
        x = torch.stack([each["x"] for each in batch])
        predicted = self.linear(x)[:, 0]
        if not self.training:
            return [{"predicted": float(value)} for value in predicted]
        y = torch.stack([each["y"] for each in batch])
        return {"loss_line": ((predicted - y) ** 2).mean()}


def line_sample(k: int) -> dict[str, Tensor]:
    """Return the k-th point of the line y = 2a - b + 1."""
    a, b = (k % 5) / 4, (k % 3) / 2
    return {"x": torch.tensor([a, b]), "y": torch.tensor(2 * a - b + 1)}


class LineLoader:
    """Endless batches of two, from a position."""

    def __init__(self, start: int = 0) -> None:
        self.start = start

    def __iter__(self) -> Iterator[list[dict[str, Tensor]]]:
        k = 2 * self.start
        while True:
            yield [line_sample(k), line_sample(k + 1)]
            k += 2


class LineStep(TrainerBase):
    """What d2pd's step is to a trainer: next batch, losses, backward, optimizer."""

    def __init__(self, model: nn.Module, data_loader: Any, optimizer: Any) -> None:
        super().__init__()
        model.train()
        self.model, self.data_loader, self.optimizer = model, data_loader, optimizer
        self.batches: Any = None
        self.fail_at: int | None = None

    def run_step(self) -> None:
        if self.iter == self.fail_at:
            raise RuntimeError("the step was told to fail")
        self.batches = self.batches or iter(self.data_loader)
        losses = self.model(next(self.batches))
        total = sum(losses.values())
        self.optimizer.zero_grad()
        total.backward()
        self.after_backward()
        self.optimizer.step()
        get_event_storage().put_scalars(total_loss=float(total.detach()))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])


class SumEvaluator(DatasetEvaluator):
    """Adds up what the model predicts; writes down how it is called."""

    def __init__(self, name: str = "sum", lines: list[Any] | None = None) -> None:
        self.name = name
        self.lines: list[Any] = [] if lines is None else lines
        self.total, self.count = 0.0, 0

    def reset(self) -> None:
        self.lines.append([self.name, "reset"])
        self.total, self.count = 0.0, 0

    def process(self, inputs: Any, outputs: Any) -> None:
        self.lines.append([self.name, "process", len(inputs), len(outputs)])
        self.total += sum(each["predicted"] for each in outputs)
        self.count += len(outputs)

    def evaluate(self) -> dict[str, dict[str, float]]:
        self.lines.append([self.name, "evaluate"])
        return {self.name: {"total": self.total, "count": self.count}}


class LineTrainer(DefaultTrainer):
    """A ``DefaultTrainer`` on the toy, built as d2pd's trainer is."""

    built: list[str]

    def __init__(self, cfg: CfgNode) -> None:
        type(self).built = []
        super().__init__(cfg)
        self._trainer = LineStep(self.model, self.data_loader, self.optimizer)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        cls.built.append("model")
        return super().build_model(cfg)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        cls.built.append("optimizer")
        return super().build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> LineLoader:
        cls.built.append("train_loader")
        return LineLoader()

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        cls.built.append("lr_scheduler")
        return super().build_lr_scheduler(cfg, optimizer)

    def build_hooks(self) -> list[HookBase | None]:
        self.built.append("hooks")
        return super().build_hooks()

    def build_writers(self) -> list[EventWriter]:
        self.built.append("writers")
        return super().build_writers()

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> list[list[dict[str, Tensor]]]:
        cls.built.append(f"test_loader {dataset_name}")
        return [[line_sample(k)] for k in range(3)]

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        cls.built.append(f"evaluator {dataset_name}")
        return SumEvaluator()


def line_cfg(cfg: CfgNode, **solver: Any) -> CfgNode:
    """Set a configuration up for ``LineTrainer``: 7 iterations, evaluated every 3."""
    cfg.MODEL.META_ARCHITECTURE = "ContractToy"
    cfg.DATASETS.TEST = DATASETS[:1]
    cfg.TEST.EVAL_PERIOD = 3
    settings = {
        "MAX_ITER": 7,
        "STEPS": (5,),
        "WARMUP_ITERS": 2,
        "BASE_LR": 0.1,
        "CHECKPOINT_PERIOD": 4,
        **solver,
    }
    for name, value in settings.items():
        cfg.SOLVER[name] = value
    return cfg


def class_names(things: Sequence[Any]) -> list[str]:
    """Return the names of the classes of objects."""
    return [type(thing).__name__ for thing in things]


def key_tree(value: Any) -> Any:
    """Return the keys of nested dictionaries, with the type or shape of what they hold."""
    if isinstance(value, dict):
        return {str(key): key_tree(item) for key, item in value.items()}
    if isinstance(value, Tensor):
        return f"tensor {list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, list | tuple):
        return [key_tree(item) for item in value]
    return type(value).__name__


FPN = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_HEADS.NUM_CLASSES": 2,
}


def with_model(cfg: CfgNode, settings: dict[str, Any]) -> CfgNode:
    """Set a configuration up for a narrow FPN detector, with further settings."""
    pairs = {**FPN, "MODEL.ROI_BOX_HEAD.FC_DIM": 16, "MODEL.FPN.OUT_CHANNELS": 32, **settings}
    cfg.merge_from_list([each for pair in pairs.items() for each in pair])
    return cfg
