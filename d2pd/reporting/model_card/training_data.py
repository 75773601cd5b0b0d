"""What a run was trained on, read again from its labels, or as far as its checkpoint says."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from d2pd.d2 import CfgNode, MetadataCatalog
from d2pd.data.cleaning import RULES, CleaningReport, clean_records
from d2pd.data.dataset_source import DatasetSource
from d2pd.data.records import Record
from d2pd.errors import UserError
from d2pd.reporting.model_card.image_facts import ImageFacts, image_facts
from d2pd.reporting.model_card.markdown import counted
from d2pd.reporting.report.run_facts import trained_on
from d2pd.reporting.report.stored import Records, read_records
from d2pd.training.checkpoints.run_identity import digest_labels


@dataclass(frozen=True)
class TrainingSet:
    """A dataset that was trained on.

    Attributes:
        name: Of the dataset.
        labels: The label file as the configuration names it, and its format.
        images: What its images are that are trained on; None where its labels are not here.
        num_listed: Images of the label file, or of its part.
        num_labels: Class -> labels to learn, cleaned.
        num_regions: Regions to ignore.
        left_out: What cleaning has done, and which images are not trained on.
        folds: What it takes of a file of folds; empty where there is none.
        trouble: Why the labels, or the pictures, are not here; empty where they are.
    """

    name: str
    labels: tuple[str, str]
    images: ImageFacts | None = None
    num_listed: int = 0
    num_labels: Mapping[str, int] | None = None
    num_regions: int = 0
    left_out: tuple[str, ...] = ()
    folds: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class TrainingData:
    """All that was trained on.

    Attributes:
        sets: In the order of ``DATASETS.TRAIN``.
        num_images: As the checkpoint says, else as counted; None where neither is possible.
        is_the_same: Whether the labels here are those of the training; None where that cannot
            be told.
        digest: First digits of what the checkpoint says of its labels; empty where nothing.
    """

    sets: tuple[TrainingSet, ...]
    num_images: int | None
    is_the_same: bool | None
    digest: str


def read_training_data(cfg: CfgNode, run: Mapping[str, Any]) -> TrainingData:
    """Read the labels again that a run was trained on.

    Args:
        cfg: Of the training, its datasets registered.
        run: What its checkpoint says of it; may be empty.
    """
    read = [_read(cfg, name) for name in cfg.DATASETS.TRAIN]
    sets = tuple(one for one, _ in read)
    counts = [one.images.num_images for one in sets if one.images]
    num_counted = sum(counts) if sets and len(counts) == len(sets) else None
    saved, digest = run.get("num_images"), run.get("labels")
    is_the_same = None
    if isinstance(digest, str) and num_counted is not None and not any(one.trouble for one in sets):
        is_the_same = digest == digest_labels([record for _, used in read for record in used])
    return TrainingData(
        sets,
        saved if type(saved) is int else num_counted,
        is_the_same,
        digest[:12] if isinstance(digest, str) else "",
    )


def _read(cfg: CfgNode, name: str) -> tuple[TrainingSet, list[Record]]:
    entry = cfg.DATASETS.REGISTER.get(name, {})
    labels = (entry.get("ANNOTATIONS", ""), entry.get("FORMAT", ""))
    source = MetadataCatalog.get(name).get("source")
    try:
        records = read_records(name)
    except UserError as error:
        return TrainingSet(name, labels, folds=_folds(source), trouble=str(error)), []
    used, empty = trained_on(cfg, records)
    class_names = MetadataCatalog.get(name).get("thing_classes") or []
    boxes = [box for record in used for box in record["annotations"]]
    objects = Counter(box["category_id"] for box in boxes if not _is_region(box))
    found = TrainingSet(
        name,
        labels,
        images=image_facts(used, source, has_pictures=not records.trouble),
        num_listed=len(records.uncleaned),
        num_labels={name: objects[index] for index, name in enumerate(class_names)},
        num_regions=len(boxes) - objects.total(),
        left_out=tuple(_left_out(_cleaning(records, source) + empty)),
        folds=_folds(source),
        trouble=records.trouble,
    )
    return found, used


def _cleaning(records: Records, source: DatasetSource | None) -> CleaningReport:
    """Return what cleaning did; what d2pd did not register is not cleaned."""
    if source is None:
        return CleaningReport()
    return clean_records(records.uncleaned, min_size=source.min_box_size)[1]


def _left_out(report: CleaningReport) -> Iterator[str]:
    """Say what a report has found, by rule."""
    for rule, count in report.counts.items():
        if rule == "duplicate_image":
            yield f"{counted(count, 'row')} of images that the file names more than once, kept"
            continue
        regions = sum(drop.rule == rule and drop.ignore for drop in report.drops)
        what = "image" if rule == "no_object" else "label"
        of_them = f", {regions:,} of them regions to ignore" if regions else ""
        yield f"{counted(count, what)} left out{of_them} ({RULES[rule]})"
    if report.num_clipped:
        yield f"{counted(report.num_clipped, 'label')} cut at the border of their image"


def _folds(source: DatasetSource | None) -> str:
    part = source.fold_part if source is not None else None
    if part is None:
        return ""
    try:
        return part.describe()
    except UserError:
        which = f"fold {part.fold}" if part.part == "test" else f"all folds but {part.fold}"
        return f"{which} in {part.path}, which is not here"


def _is_region(box: Mapping[str, Any]) -> bool:
    is_flagged = bool(box.get("ignore", 0) or box.get("iscrowd", 0))
    return is_flagged or box["category_id"] < 0
