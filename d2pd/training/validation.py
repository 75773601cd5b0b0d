"""The loss on a validation set, measured so that the training does not notice.

Detectron2's models return losses only in training mode, where they draw samples, count batches and
report to an event storage. Here all of that happens aside and is set back.
"""

import logging
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from d2pd.d2 import EventStorage, comm
from d2pd.data.sampler import sample_seed
from d2pd.training.culprits.model_check import MODEL_CHECKS, told
from d2pd.training.isolation import (
    ForwardState,
    cuda_devices,
    kept_random_state,
    loss_mode,
    seed_generators,
    unwrap,
    without_other_processes,
)
from d2pd.training.processes import share_buffers, transportable

logger = logging.getLogger(__name__)

Sample = dict[str, Any]
Losses = dict[str, float]
Autocast = Callable[[], AbstractContextManager[Any]]

IMAGES_NAMED = 3
"""Images whose loss is not finite that a warning names."""


def _never() -> None:
    """Ask for no stop."""


@dataclass(frozen=True)
class ImageLosses:
    """What one image gave.

    Attributes:
        index: Of the image in its dataset.
        file_name: The image.
        losses: By the model's names, and ``total_loss``, their sum. Empty where the model refused.
        refusal: What the model's own check said instead of a loss, in a line; empty otherwise.
    """

    index: int
    file_name: str
    losses: Losses = field(default_factory=dict)
    refusal: str = ""

    def is_finite(self) -> bool:
        """Tell whether there is a loss and it is a number."""
        return not self.refusal and all(math.isfinite(v) for v in self.losses.values())


def measure_images(
    model: nn.Module,
    samples: Iterable[Sample],
    seed: int,
    autocast: Autocast = nullcontext,
    check_stop: Callable[[], None] = _never,
) -> list[ImageLosses]:
    """Measure the losses of samples one by one, and leave no trace.

    The model is in training mode, its normalisation and dropout in evaluation mode. What it draws
    depends on (seed, ``k`` of the sample) alone. Weights, gradients, buffers, modes, random
    generators and the open event storage are afterwards what they were before; a sample does not
    see what the one before it left.

    Args:
        model: Takes a list with one sample, returns a dict of scalar losses.
        samples: With their targets, ``k`` and ``file_name``.
        seed: Of the run, at least 0.
        autocast: Makes the context of a forward pass.
        check_stop: Called before each sample; what it raises ends the measurement.

    Returns:
        What each sample gave, in their order. A model that refuses numbers that are not finite
        is no error.
    """
    model = unwrap(model)
    devices = cuda_devices(model)
    found = []
    with (
        kept_random_state(),
        loss_mode(model),
        torch.no_grad(),
        EventStorage(0),  # models report to the open one
        without_other_processes(model),  # each has as many images as its share
    ):
        before = ForwardState(model)
        for sample in samples:
            check_stop()
            seed_generators(sample_seed(seed, sample["k"]), devices)
            try:
                found.append(_measure_image(model, sample, autocast))
            finally:
                before.restore()
    return found


def _measure_image(model: nn.Module, sample: Sample, autocast: Autocast) -> ImageLosses:
    index, name = sample["k"], sample["file_name"]
    try:
        with autocast():
            losses = model([sample])
    except MODEL_CHECKS as error:
        return ImageLosses(index, name, refusal=told(error))
    values = {loss_name: float(loss) for loss_name, loss in losses.items()}
    return ImageLosses(index, name, {"total_loss": exact_sum([*values.values()]), **values})


def validation_losses(
    model: nn.Module,
    data_loader: Iterable[list[Sample]],
    *,
    seed: int,
    autocast: Autocast = nullcontext,
    check_stop: Callable[[], None] = _never,
) -> Losses:
    """Measure the mean loss of a dataset, one image at a time.

    Leaves no trace, see ``measure_images``.

    Args:
        model: Takes a list with one sample, returns a dict of scalar losses.
        data_loader: This process's share of the dataset, samples with ``k``, their index in the
            dataset, and ``file_name``. Every process has to call this; shares may be empty.
        seed: Of the run, at least 0.
        autocast: Makes the context of a forward pass: that of the training's precision.
        check_stop: Called before each image; what it raises ends the measurement. It must not
            communicate with other processes.

    Returns:
        ``total_loss`` and the losses by the model's names, the mean over all images of all
        processes; the same number, to the bit, for any number of processes. Not finite where the
        loss of an image is not: a warning names it. A loss that an image lacks counts as 0.

    Raises:
        ValueError: If there is no image.
        BaseException: What any process met, on every process.
    """
    share: list[ImageLosses] = []
    caught: BaseException | None = None
    try:
        share_buffers(model)
        samples = (sample for batch in _with_progress_bar(data_loader) for sample in batch)
        share = measure_images(model, samples, seed, autocast, check_stop)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a request to stop is no Exception, and all have to learn of it
        caught = error
    gathered = comm.all_gather((share, caught and transportable(caught)))
    if caught is not None:
        raise caught
    for rank, (_, elsewhere) in enumerate(gathered):
        if elsewhere is not None:
            elsewhere.add_note(f"This happened on process {rank}.")
            raise elsewhere
    images = sorted((one for share, _ in gathered for one in share), key=lambda one: one.index)
    _warn_of_images(images)
    return mean_losses(images)


def _with_progress_bar(data_loader: Iterable[list[Sample]]) -> Iterable[list[Sample]]:
    """Show a person at a terminal how far it is."""
    is_watched = sys.stderr.isatty() and comm.is_main_process()
    return tqdm(data_loader, "validation", unit="img", leave=False, disable=not is_watched)


def mean_losses(images: Sequence[ImageLosses]) -> Losses:
    """Return the mean of every loss, ``total_loss`` first; whatever the order of the images.

    Raises:
        ValueError: If there is no image.
    """
    if not images:
        raise ValueError("there is no image to measure a validation loss on")
    names = sorted({name for one in images for name in one.losses} - {"total_loss"})
    means = {}
    for name in ("total_loss", *names):
        values = [one.losses.get(name, math.nan if one.refusal else 0.0) for one in images]
        means[name] = exact_sum(values) / len(values)
    return means


def exact_sum(values: Sequence[float]) -> float:
    """Return the sum, rounded once, so that it does not depend on the order."""
    try:
        return math.fsum(values)
    except (ValueError, OverflowError):  # both infinities, or beyond the largest number
        return sum(values)


def _warn_of_images(images: Sequence[ImageLosses]) -> None:
    bad = [one for one in images if not one.is_finite()]
    if not bad or not comm.is_main_process():
        return
    named = "; ".join(f"{one.file_name} ({_fault(one)})" for one in bad[:IMAGES_NAMED])
    more = f"; and {len(bad) - IMAGES_NAMED} more" if len(bad) > IMAGES_NAMED else ""
    logger.warning(
        "the validation loss is not finite on %d of %d images: %s%s",
        *(len(bad), len(images), named, more),
    )


def _fault(one: ImageLosses) -> str:
    values = {name: value for name, value in one.losses.items() if not math.isfinite(value)}
    return one.refusal or ", ".join(
        f"{name} {value}"
        for name, value in values.items()
        if name != "total_loss" or len(values) < 2
    )
