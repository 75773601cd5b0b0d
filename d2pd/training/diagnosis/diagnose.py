"""``d2pd diagnose``: every training image once, in order, for labels and losses that ruin it."""

import argparse
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from d2pd import __version__
from d2pd.config import load_config
from d2pd.d2 import ENGINE, CfgNode, MetadataCatalog
from d2pd.data.cleaning import clean_records, drop_images_without_objects
from d2pd.data.images import image_paths
from d2pd.data.loader import build_diagnosis_loader
from d2pd.data.records import load_train_records
from d2pd.data.registration import register_from_config
from d2pd.errors import ConfigError, UserError
from d2pd.json_file import write_json
from d2pd.modeling.build import build_model
from d2pd.reporting.gallery import draw_faults
from d2pd.training.checkpoints.checkpointer import Checkpointer
from d2pd.training.culprits.replay import replay
from d2pd.training.diagnosis.diagnosis import Diagnosis
from d2pd.training.diagnosis.examination import Measure, Sample, examine, label_sample
from d2pd.training.preflight import check_datasets, resolve_device
from d2pd.training.validation import ImageLosses, measure_images

Record = dict[str, Any]

MOST_PICTURES = 96
STEM = "findings"


def main(args: argparse.Namespace) -> int:
    """Look at all training images, write what was found and print it; or run a step again.

    Args:
        args: ``config_file``, ``opts``, ``labels_only``, ``output``, of which None is
            ``OUTPUT_DIR/diagnose``, and ``replay``, a recorded step or None.

    Returns:
        Exit code: 0 nothing found, 1 findings.

    Raises:
        UserError: If something is missing; the message says what, where and the way out.
        KeyboardInterrupt: On Ctrl-C, once what was found so far is written and printed.
    """
    if args.replay:
        return run_again(args.replay, args.config_file, args.opts)
    if not args.config_file:
        raise ConfigError("name the training: --config-file FILE, or --replay FILE of one step")
    cfg = load_config(args.config_file, args.opts)
    register_from_config(cfg)
    return 1 if look(cfg, args).findings else 0


def look(cfg: CfgNode, args: argparse.Namespace) -> Diagnosis:
    """Look at all training images, write what was found and print it.

    Args:
        cfg: Its datasets registered; ``MODEL.DEVICE`` "auto" is resolved in place.
        args: See ``main``.

    Raises:
        UserError: See ``main``; nothing was written.
        KeyboardInterrupt: See ``main``.
    """
    check_datasets(cfg, cfg.DATASETS.TRAIN)
    records = load_train_records(cfg, cleaned=False)
    image_paths(records[0], cfg.INPUT.MODALITY)  # what none has is to be said once, not for each
    measure = None if args.labels_only else build_measure(cfg)
    items = _items(cfg, records, args.labels_only)
    folder = _make_folder(Path(args.output or Path(cfg.OUTPUT_DIR) / "diagnose"))
    diagnosis = start_diagnosis(cfg, records, _conditions(cfg, args))
    results = examine(
        records,
        items,
        num_classes=cfg.MODEL.ROI_HEADS.NUM_CLASSES,
        min_box_size=cfg.DATASETS.MIN_BOX_SIZE,
        measure=measure,
    )
    try:
        progress = {"total": len(records), "desc": "Looking", "unit": "image", "disable": None}
        for result in tqdm(results, **progress):
            diagnosis.images.append(result)
    finally:  # at Ctrl-C too, what was found so far is worth having
        path = folder / "diagnose.json"
        write_json(path, diagnosis.as_json(), indent=1)
        print(diagnosis.report())
        sheets = draw_findings(diagnosis, records, cfg, folder)
        print(_written(path, sheets, len(diagnosis.listed)))
    return diagnosis


def run_again(path: Path, config_file: str | None, opts: Sequence[str]) -> int:
    """Run a step again that a training has recorded as not finite, and print what comes out.

    Args:
        path: A ``.pt`` file of ``OUTPUT_DIR/non_finite``.
        config_file: Builds the model, on its device, in place of the recorded configuration.
        opts: Overrides of ``config_file``.

    Returns:
        Exit code: 0 it is finite now, 1 it is not.

    Raises:
        UserError: If the file is not such a step, or of another model.
    """
    if config_file:
        cfg = load_config(config_file, opts)
        cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
        again = replay(path, lambda _recorded: build_model(cfg))
    elif opts:
        raise ConfigError(f"--replay without --config-file has nothing to override: {opts[0]}")
    else:
        again = replay(path)
    print(again.report())
    return 0 if again.is_finite else 1


def build_measure(cfg: CfgNode) -> Measure:
    """Build the model with ``MODEL.WEIGHTS``, or its initial ones, for the losses of samples.

    Args:
        cfg: ``MODEL.DEVICE`` "auto" is resolved in place.

    Returns:
        Gives the losses of a sample, the same ones each time.

    Raises:
        UserError: If there is no such device, or the weights cannot be used.
    """
    cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
    torch.manual_seed(cfg.SEED)
    model = build_model(cfg)
    Checkpointer(model).load(cfg.MODEL.WEIGHTS)
    seed = cfg.SEED

    def measure(sample: Sample) -> ImageLosses:
        return measure_images(model, [sample], seed)[0]

    return measure


def start_diagnosis(
    cfg: CfgNode, records: Sequence[Record], conditions: Mapping[str, Any]
) -> Diagnosis:
    """Return a diagnosis of images that are still to be looked at, and what cleaning does to them.

    Args:
        cfg: Read here: DATASETS.MIN_BOX_SIZE and DATALOADER.FILTER_EMPTY_ANNOTATIONS.
        records: Uncleaned.
        conditions: For the JSON.
    """
    left, cleaning = clean_records(records, min_size=cfg.DATASETS.MIN_BOX_SIZE)
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        left, _ = drop_images_without_objects(left)
    return Diagnosis(len(records), len(left), cleaning, conditions)


def draw_findings(
    diagnosis: Diagnosis, records: Sequence[Record], cfg: CfgNode, folder: Path
) -> list[Path]:
    """Draw the images with findings, ``MOST_PICTURES`` at most, in place of earlier ones.

    Args:
        diagnosis: Whole, or what there is of it.
        records: All, by row.
        cfg: Read here: DATASETS.TRAIN and INPUT.MODALITY.
        folder: Must exist; ``findings_1.png`` and so on are written here.

    Returns:
        The files.
    """
    for old in folder.glob(f"{STEM}_[0-9]*.png"):
        old.unlink()
    faulty = []
    for image in diagnosis.listed[:MOST_PICTURES]:
        at_boxes: dict[int, str] = {}
        for finding in image.findings:
            if finding.box is not None:
                before = f"{at_boxes[finding.box]}, " if finding.box in at_boxes else ""
                at_boxes[finding.box] = before + (finding.dropped_as or finding.rule)
        others = [finding.rule for finding in image.findings if finding.box is None]
        caption = "  ".join([f"row {image.row}", image.image, *others])
        faulty.append((records[image.row], caption, at_boxes))
    classes = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).thing_classes
    return draw_faults(faulty, classes, folder, STEM, cfg.INPUT.MODALITY)


def _written(path: Path, sheets: Sequence[Path], num_listed: int) -> str:
    text = f"written: {path}"
    if sheets:
        text += f", {sheets[0]}" + (f" to {sheets[-1].name}" if len(sheets) > 1 else "")
    return text + (f" (the first {MOST_PICTURES} images)" if num_listed > MOST_PICTURES else "")


def _items(
    cfg: CfgNode, records: Sequence[Record], labels_only: bool
) -> Iterable[Sample | UserError]:
    if labels_only:
        return (label_sample(record, row) for row, record in enumerate(records))
    return (item for (item,) in build_diagnosis_loader(cfg, records))


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the folder {folder} cannot be made: {error}") from error
    return folder


def _conditions(cfg: CfgNode, args: argparse.Namespace) -> dict[str, Any]:
    words = ["d2pd", "diagnose", "--config-file", args.config_file]
    words += ["--output", str(args.output)] if args.output else []
    words += ["--labels-only"] if args.labels_only else []
    return {
        "command": shlex.join([*words, *args.opts]),
        "d2pd": __version__,
        "engine": ENGINE,
        "torch": torch.__version__,
        "datasets": list(cfg.DATASETS.TRAIN),
        "labels_only": args.labels_only,
        "weights": cfg.MODEL.WEIGHTS or f"random initial weights, seed {cfg.SEED}",
        "seed": cfg.SEED,
    }
