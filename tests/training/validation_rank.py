"""One of two processes that validate together; see ``two_ranks``."""

from hook_toys import FakeTrainer
from torch.nn.parallel import DistributedDataParallel
from two_ranks import answer
from validation_toys import Mean, Noisy, make_loader, with_values

from d2pd.d2 import comm
from d2pd.errors import ConfigError
from d2pd.training.deciding.patience import Patience
from d2pd.training.deciding.watched_metric import WatchedMetric
from d2pd.training.hooks.early_stopping import EarlyStopping
from d2pd.training.interruption import StopTraining
from d2pd.training.validation import validation_losses


class NeedsMore(Exception):
    """Cannot be unpickled."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def share(loader):
    return loader[comm.get_rank() :: comm.get_world_size()]


def words(call):
    """Return the error that a call ends with, as class and text."""
    try:
        call()
    except BaseException as error:
        return [type(error).__name__, str(error)]
    return None


def losses_in_hex(model, loader):
    found = validation_losses(model, share(loader), seed=42)
    return {name: value.hex() for name, value in found.items()}


def stop_on_rank_0():
    if comm.get_rank() == 0:
        raise StopTraining("SIGTERM")


def early_stopping(folder):
    """Stop by a metric that the main process alone logs; return the iteration and the reasons."""
    metric = WatchedMetric("bbox/AP", 1, "EARLY_STOPPING.METRIC")
    trainer = FakeTrainer(folder)
    values = [3.0, 1.0, 4.0, 2.0, 2.0, 9.0, 9.0]
    rows = [{"bbox/AP": v} if comm.get_rank() == 0 else None for v in values]
    hook = EarlyStopping(metric, Patience(mode="max", patience=2))
    trainer.run([hook], rows)
    return [trainer.iter, trainer.reasons, hook.state_dict()]


def absent_metric(folder):
    metric = WatchedMetric("bbox/AP", 1, "EARLY_STOPPING.METRIC")
    hook = EarlyStopping(metric, Patience(mode="max", patience=2))
    try:
        FakeTrainer(folder).run([hook], [{"bbox/AP50": 1.0} if comm.get_rank() == 0 else None])
    except ConfigError as error:
        return str(error)
    return None


def scenarios(folder):
    detector_like = DistributedDataParallel(Noisy())
    bad_image = with_values([1.0, 2.0, 3.0, ValueError("boom"), 5.0])
    unpicklable = with_values([NeedsMore(1, 2), 1.0])
    refused = with_values([1.0, FloatingPointError("Inf/NaN"), 2.0])
    return {
        "five": losses_in_hex(detector_like, make_loader(5)),
        "one": losses_in_hex(detector_like, make_loader(1)),
        "none": words(lambda: validation_losses(Mean(), [], seed=0)),
        "error": words(lambda: validation_losses(Mean(), share(bad_image), seed=0)),
        "unpicklable": words(lambda: validation_losses(Mean(), share(unpicklable), seed=0)),
        "stop": words(
            lambda: validation_losses(
                Mean(), share(with_values([1.0] * 4)), seed=0, check_stop=stop_on_rank_0
            )
        ),
        "refused": losses_in_hex(Mean(), refused),
        "early stopping": early_stopping(folder),
        "absent metric": absent_metric(folder),
    }


if __name__ == "__main__":
    answer(scenarios)
