"""The loaders, d2pd's own under both engines: sample k depends on (seed, k) alone."""

import ctypes
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import cv2
from torch.utils.data import DataLoader, Dataset

from d2pd.d2 import CfgNode, comm
from d2pd.data.augmentation import build_augmentation, least_visible_share
from d2pd.data.mapper import Mapper
from d2pd.data.modality import channels_of
from d2pd.data.records import Record, load_records, load_train_records
from d2pd.data.sampler import TrainingSampler
from d2pd.errors import AnnotationError, ConfigError, UserError

logger = logging.getLogger(__name__)

Sample = dict[str, Any]

GRACE = 20
"""Seconds that a worker lives on after a SIGTERM."""

PR_SET_PDEATHSIG = 1
"""Of Linux's ``prctl``: the signal that a process gets when the one that started it ends."""

FEW_IMAGES = 20
"""A mean loss over fewer images than this warns."""


class MappedRecords(Dataset[Sample]):
    """Records seen through a mapper; item ``(k, index)`` is record ``index`` as sample k.

    A sample also has ``row``: ``index``, by which messages name its record.
    """

    def __init__(self, records: Sequence[Record], mapper: Mapper) -> None:
        """Keep both, neither copied nor changed."""
        self.records = records
        self.mapper = mapper

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        k, index = item
        return {**self.mapper(self.records[index], k), "row": index}


class ErrorsAsItems(Dataset[Sample | UserError]):
    """Hands a user's error over as an item.

    A ``DataLoader`` would rewrite what a worker raises: its traceback becomes the message.
    """

    def __init__(self, dataset: MappedRecords) -> None:
        """Wrap a dataset."""
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: tuple[int, int]) -> Sample | UserError:
        try:
            return self.dataset[item]
        except UserError as error:
            return error


class SampleLoader:
    """Batches of samples from a ``DataLoader``, errors raised where they are met."""

    def __init__(self, loader: DataLoader[Sample | UserError]) -> None:
        """Wrap a loader over ``ErrorsAsItems``."""
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[Sample]]:
        for batch in self.loader:
            for item in batch:
                if isinstance(item, UserError):
                    raise item
            yield batch


class Batches:
    """Groups what a sampler yields; a batch sampler for ``DataLoader`` that never ends."""

    def __init__(self, sampler: TrainingSampler, batch_size: int) -> None:
        """Group ``batch_size`` items of this rank's stream at a time."""
        self.sampler = sampler
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        stream = iter(self.sampler)
        while True:
            yield list(islice(stream, self.batch_size))


class TrainingLoader(SampleLoader):
    """Batches without end, from the first or from those of a later iteration."""

    def __init__(
        self, loader: DataLoader[Sample | UserError], dataset: MappedRecords, total_batch: int
    ) -> None:
        """Wrap a loader whose batch sampler is ``Batches``.

        Args:
            loader: Over ``ErrorsAsItems`` of ``dataset``.
            dataset: The training images.
            total_batch: Images of an iteration over all processes.
        """
        super().__init__(loader)
        self.dataset = dataset
        self._total_batch = total_batch

    def start_at(self, iteration: int) -> None:
        """Begin with the batch that an uninterrupted run would have at this iteration."""
        batches: Any = self.loader.batch_sampler
        batches.sampler.start = iteration * self._total_batch


def build_train_dataset(cfg: CfgNode) -> MappedRecords:
    """Return the training records with training augmentation and targets."""
    mapper = Mapper(
        channels=channels_of(cfg.INPUT.MODALITY, len(cfg.MODEL.PIXEL_MEAN)),
        image_format=cfg.INPUT.FORMAT,
        transforms=build_augmentation(cfg, is_train=True),
        is_train=True,
        seed=cfg.SEED,
        min_visible=least_visible_share(cfg),
    )
    return MappedRecords(load_train_records(cfg), mapper)


def build_train_loader(cfg: CfgNode) -> TrainingLoader:
    """Build the endless training loader.

    Args:
        cfg: Read here and not below: DATASETS.TRAIN, DATALOADER, INPUT, SEED and
            SOLVER.IMS_PER_BATCH, the batch size over all processes.

    Returns:
        Batches without end, lists of samples as ``Mapper`` makes them; the same ones for any
        number of workers.

    Raises:
        ConfigError: If the batch cannot be divided among the processes, or see
            ``load_train_records``.
    """
    dataset = build_train_dataset(cfg)
    logger.info("Training on %d images of %s", len(dataset), ", ".join(cfg.DATASETS.TRAIN))
    world_size, total = comm.get_world_size(), cfg.SOLVER.IMS_PER_BATCH
    if total % world_size:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH {total} cannot be divided among {world_size} processes"
        )
    sampler = TrainingSampler(
        len(dataset),
        dataset.mapper.seed,
        rank=comm.get_rank(),
        world_size=world_size,
    )
    loader = DataLoader(
        ErrorsAsItems(dataset),
        batch_sampler=Batches(sampler, total // world_size),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=_as_list,
        worker_init_fn=_calm_worker,
        pin_memory=_goes_to_gpu(cfg),
    )
    return TrainingLoader(loader, dataset, total)


def build_test_loader(cfg: CfgNode, dataset_name: str) -> SampleLoader:
    """Build the loader of a dataset's images in file order, one at a time, without targets.

    Returns:
        This process's share: every image in turn goes to the next process.
    """
    mapper = _mapper_without_chance(cfg, is_train=False)
    dataset = MappedRecords(load_records(dataset_name), mapper)
    share = range(comm.get_rank(), len(dataset), comm.get_world_size())
    return SampleLoader(one_by_one(dataset, cfg.DATALOADER.NUM_WORKERS, share))


def build_validation_loader(cfg: CfgNode, dataset_name: str, max_images: int = 0) -> SampleLoader:
    """Build the loader of images as in testing, one at a time, with their targets.

    Args:
        cfg: Read here: INPUT and DATALOADER.NUM_WORKERS.
        dataset_name: Registered; images without an object count too.
        max_images: Take this many, evenly spread over the dataset; 0 for all.

    Returns:
        This process's share: every image in turn goes to the next process. ``k`` of a sample is
        its index in the dataset.

    Raises:
        AnnotationError: If the dataset has no image.
    """
    mapper = _mapper_without_chance(cfg, is_train=True)
    dataset = MappedRecords(load_records(dataset_name), mapper)
    chosen = evenly_spread(len(dataset), max_images)
    if not chosen:
        raise AnnotationError(f"{dataset_name} has no image to measure a validation loss on")
    if len(chosen) < FEW_IMAGES:
        logger.warning(
            "the validation loss on %s: a loss over %d images says little; take %d or more",
            *(dataset_name, len(chosen), FEW_IMAGES),
        )
    share = chosen[comm.get_rank() :: comm.get_world_size()]
    return SampleLoader(one_by_one(dataset, cfg.DATALOADER.NUM_WORKERS, share))


def evenly_spread(total: int, most: int) -> list[int]:
    """Return indices of [0, total), ``most`` at most, in equal steps from the first; 0: all."""
    count = min(most, total) if most else total
    return [number * total // count for number in range(count)]


def build_diagnosis_loader(
    cfg: CfgNode, records: Sequence[Record]
) -> DataLoader[Sample | UserError]:
    """Build the loader of images as in testing, with every box that is no region as a target.

    Boxes are clipped to their image; those without area stay.

    Args:
        cfg: Read here: INPUT and DATALOADER.NUM_WORKERS.
        records: Given in their order, one at a time.

    Returns:
        Lists of one item: the sample, or the error of one whose picture cannot be used.
    """
    mapper = _mapper_without_chance(cfg, is_train=True, min_box_size=None)
    return one_by_one(MappedRecords(records, mapper), cfg.DATALOADER.NUM_WORKERS)


def one_by_one(
    dataset: MappedRecords, num_workers: int, indices: Sequence[int] | None = None
) -> DataLoader[Sample | UserError]:
    """Return a loader of records one at a time, errors of the user as items.

    Args:
        dataset: Record ``index`` becomes sample k = ``index``.
        num_workers: Processes that read; 0 for this one.
        indices: Of the records, in this order; None for all in theirs.
    """
    indices = range(len(dataset)) if indices is None else indices
    return DataLoader(
        ErrorsAsItems(dataset),
        sampler=[(index, index) for index in indices],
        batch_size=1,
        num_workers=num_workers,
        collate_fn=_as_list,
        worker_init_fn=_calm_worker,
    )


def first_samples(dataset: MappedRecords, count: int) -> list[Sample]:
    """Return the samples that a training begins with, made in this process.

    Args:
        dataset: Of ``build_train_dataset``.
        count: Number of samples.
    """
    sampler = TrainingSampler(len(dataset), dataset.mapper.seed)
    return [dataset[item] for item in islice(sampler, count)]


def _mapper_without_chance(
    cfg: CfgNode, *, is_train: bool, min_box_size: float | None = 1.0
) -> Mapper:
    """Build a mapper with the transforms of testing, with targets or without."""
    return Mapper(
        channels=channels_of(cfg.INPUT.MODALITY, len(cfg.MODEL.PIXEL_MEAN)),
        image_format=cfg.INPUT.FORMAT,
        transforms=build_augmentation(cfg, is_train=False),
        is_train=is_train,
        seed=0,
        min_box_size=min_box_size,
    )


def _goes_to_gpu(cfg: CfgNode) -> bool:
    """Tell whether batches are copied to a GPU: from pinned memory that goes on beside its work."""
    return str(cfg.MODEL.DEVICE).startswith("cuda")


def _as_list(items: list[Sample | UserError]) -> list[Sample | UserError]:
    return items


def _calm_worker(_worker_id: int) -> None:
    """Keep OpenCV to one thread, as the workers are the parallelism, and outlive a signal.

    Ctrl-C reaches every process of the terminal, and a scheduler's SIGTERM often every one of the
    job. The main process then finishes its step, for which it needs its workers. Where that one is
    killed, they end with it at once: torch's own look for it can wait for ever.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
