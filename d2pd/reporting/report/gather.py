"""What a run has left, gathered into the content of its page; the one part that knows Detectron2.

Everything that is absent or cannot be used is told of in words; only a folder without a run, or
with a configuration that cannot be read, is an error.
"""

import json
import logging
import statistics
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from d2pd import __version__
from d2pd.config import load_config
from d2pd.config_keys import default_config
from d2pd.config_words import flatten
from d2pd.d2 import CfgNode, DatasetCatalog, MetadataCatalog
from d2pd.data.records import load_records
from d2pd.data.registration import missing_files, register_from_config
from d2pd.errors import MissingFileError, UserError
from d2pd.evaluation.arrays import DetectionArrays, LabelArrays, arrays_of_predictions, label_arrays
from d2pd.evaluation.build import has_miss_rate, miss_rate_protocol
from d2pd.evaluation.coco import evaluate_boxes, explain_nan
from d2pd.evaluation.label_convention import explain_low_ap
from d2pd.evaluation.result_files import read_result_file
from d2pd.evaluation.subsets import has_unknown_occlusion
from d2pd.reporting.report.cards import Gallery, choose_cases
from d2pd.reporting.report.content import Content, DatasetPart, Figure
from d2pd.reporting.report.dataset_part import describe
from d2pd.reporting.report.measured import Evaluated, measure
from d2pd.reporting.report.status import run_status
from d2pd.reporting.report.training import History, read_history, training_charts

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"


def gather(output_dir: Path, *, max_pictures: int, quiet: bool = False) -> Content:
    """Gather all that the page of a run shows.

    Args:
        output_dir: ``OUTPUT_DIR`` of the run.
        max_pictures: Errors in the gallery at most, over all datasets.
        quiet: No progress bar.

    Raises:
        MissingFileError: If the folder holds no run.
        ConfigError: If its configuration cannot be used.
    """
    path = output_dir / CONFIG
    if not path.is_file():
        what = "no config.yaml in it" if output_dir.is_dir() else "no such folder"
        raise MissingFileError(
            f"{output_dir}: {what}, so it holds no run; give the OUTPUT_DIR of one that "
            "train_net.py has started"
        )
    cfg = load_config(path)
    register_from_config(cfg)
    history = read_history(output_dir)
    status, words = run_status(output_dir, history, cfg.SOLVER.MAX_ITER)
    content = Content(
        name=output_dir.resolve().name,
        folder=str(output_dir.resolve()),
        status=status,
        status_words=words,
        facts=_facts(cfg, history, output_dir),
        absent=_absent(cfg, history),
        training=training_charts(history),
        changes=_changes(cfg),
        config_text=path.read_text(encoding="utf-8"),
        footer=f"Written by d2pd {__version__} on {datetime.now():%Y-%m-%d %H:%M}.",
    )
    names = _dataset_names(cfg, output_dir)
    for number, name in enumerate(names):
        share = max_pictures // len(names)
        part, frames = _dataset(cfg, output_dir, name, f"{number}-", share, quiet)
        content.datasets.append(part)
        content.frames.update(frames)
    content.figures = _figures(cfg, history, content.datasets)
    return content


def _dataset_names(cfg: CfgNode, output_dir: Path) -> list[str]:
    """Return the datasets to show: those of the configuration, then any others with detections."""
    found = sorted(path.parent.name for path in output_dir.glob("inference/*/predictions.json"))
    return list(dict.fromkeys([*cfg.DATASETS.TEST, *cfg.DATASETS.FINAL_TEST, *found]))


def _dataset(
    cfg: CfgNode, output_dir: Path, name: str, prefix: str, most: int, quiet: bool
) -> tuple[DatasetPart, dict[str, str]]:
    path = output_dir / "inference" / name / "predictions.json"
    if not path.is_file():
        return _empty_part(name, _no_predictions(cfg, output_dir, name)), {}
    try:
        given = _evaluated(cfg, name, path)
    except (UserError, OSError, UnicodeDecodeError) as error:
        return _empty_part(name, f"Nothing can be shown: {error}"), {}
    found = measure(given)
    part = describe(given, found)
    records = load_records(name, cleaned=False)
    gallery = Gallery(records, cfg.INPUT.MODALITY, prefix, found.score_threshold)
    chosen = choose_cases(found.cases, most)
    part.cards = gallery.draw(chosen, given, quiet=quiet)
    part.gallery_note = _gallery_note(len(chosen), len(found.cases), gallery)
    return part, gallery.frames


def _empty_part(name: str, why: str) -> DatasetPart:
    return DatasetPart(
        name,
        "No detections of this dataset can be shown.",
        absent=[why],
        gallery_note="It is drawn from stored detections, and there are none.",
    )


def _no_predictions(cfg: CfgNode, output_dir: Path, name: str) -> str:
    when = "after training" if name in cfg.DATASETS.FINAL_TEST else "at the end of training"
    if cfg.TEST.EVAL_PERIOD and name in cfg.DATASETS.TEST:
        when = f"every {cfg.TEST.EVAL_PERIOD} iterations (TEST.EVAL_PERIOD) and {when}"
    return (
        f"No inference/{name}/predictions.json: this dataset is evaluated {when}, and the run has "
        f"not got there. To evaluate its newest checkpoint now: python train_net.py --config-file "
        f"{output_dir / CONFIG} --eval-only --resume"
    )


def _evaluated(cfg: CfgNode, name: str, path: Path) -> Evaluated:
    """Read labels and detections of a dataset.

    Raises:
        UserError: If one of them cannot be used.
    """
    _check_labels(cfg, name)
    records = load_records(name, cleaned=False)
    class_names = list(MetadataCatalog.get(name).thing_classes)
    labels = label_arrays(records, class_names)
    detections = read_predictions(path, labels)
    cleaned = load_records(name, quiet=True)
    precision = evaluate_boxes(cleaned, _rows(detections, labels), class_names)
    warnings = []
    why = explain_low_ap(labels, detections, precision)
    if why:
        warnings.append(why)
    protocol = miss_rate_protocol(cfg) if has_miss_rate(cfg, name) else None
    if protocol is not None and has_unknown_occlusion(labels):
        warnings.append(
            "Labels that do not state their occlusion are judged on height and bounds alone."
        )
    return Evaluated(
        name=name,
        labels=labels,
        detections=detections,
        precision=precision,
        reasons=explain_nan(precision, cleaned, class_names),
        protocol=protocol,
        mode=cfg.MISS_RATE.MODE,
        iou_threshold=cfg.MISS_RATE.IOU_THRESHOLD,
        warnings=warnings,
    )


def _check_labels(cfg: CfgNode, name: str) -> None:
    """Refuse a dataset that is not there any more, rather than draw or register it anew."""
    if name not in DatasetCatalog:
        raise MissingFileError(
            f"no dataset {name!r} is registered: config.yaml does not name it in DATASETS.REGISTER"
        )
    source = MetadataCatalog.get(name).get("source")
    is_drawn = source is None or source.drawing is None or source.annotations.is_file()
    problems = missing_files(cfg, [name])
    if not is_drawn:
        problems.append(f"no file {source.annotations}")
    if problems:
        raise MissingFileError(
            f"{'; '.join(problems)}; make the report where the training ran, or set D2PD_DATASETS"
        )


def read_predictions(path: Path, labels: LabelArrays) -> DetectionArrays:
    """Read what an evaluation has stored; a file without a single detection is one of these.

    Raises:
        ResultFileError: If it cannot be used.
    """
    try:
        content: Any = json.loads(path.read_bytes())
    except ValueError:
        content = None  # the reader says what is wrong with it
    rows = content.get("predictions") if isinstance(content, dict) else content
    return arrays_of_predictions([], labels) if rows == [] else read_result_file(path, labels)


def _rows(detections: DetectionArrays, labels: LabelArrays) -> list[dict[str, Any]]:
    columns = zip(
        detections.image_index.tolist(),
        detections.classes.tolist(),
        detections.boxes_xywh.tolist(),
        detections.scores.tolist(),
        strict=True,
    )
    return [
        {"image_id": labels.image_ids[image], "category_id": index, "bbox": box, "score": score}
        for image, index, box, score in columns
    ]


def _gallery_note(shown: int, total: int, gallery: Gallery) -> str:
    if not total:
        return "Not a single error at this score threshold."
    frames = "the thermal frames" if gallery.modality == "lwir" else "the frames"
    words = (
        f"{shown} of {total:,} errors, the worst of each reason first: false positives by score, "
        f"misses that nothing occludes by height. These are {frames} that the model saw; choose "
        "one to see the whole frame. --max-pictures shows more."
    )
    if gallery.troubles:
        words += (
            f" {len(gallery.troubles)} pictures cannot be read any more; their boxes are shown."
        )
    return words


def _facts(cfg: CfgNode, history: History, output_dir: Path) -> list[tuple[str, str]]:
    solver, pictures = cfg.SOLVER, cfg.INPUT
    train = ", ".join(f"{name} ({_image_count(cfg, name)})" for name in cfg.DATASETS.TRAIN)
    facts = [
        ("Model", _model(cfg)),
        ("Began from", cfg.MODEL.WEIGHTS or "random weights"),
        ("Training data", train or "none"),
        ("Test data", ", ".join((*cfg.DATASETS.TEST, *cfg.DATASETS.FINAL_TEST)) or "none"),
        (
            "Pictures",
            f"{pictures.MODALITY}, short side {_sides(pictures.MIN_SIZE_TEST)} px in tests",
        ),
        ("Optimizer", f"{solver.OPTIMIZER}, rate {solver.BASE_LR:g}, {solver.LR_SCHEDULER_NAME}"),
        ("Length", f"{solver.MAX_ITER:,} iterations of {solver.IMS_PER_BATCH} images"),
        ("Seed", str(cfg.SEED)),
        ("Device", cfg.MODEL.DEVICE),
    ]
    times = [value for _, value in history.series.get("time", [])]
    if times:
        facts.append(("Speed", f"{statistics.median(times):.3g} s an iteration (median)"))
    return [*facts, ("Folder", str(output_dir.resolve()))]


def _model(cfg: CfgNode) -> str:
    model, backbone = cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME
    if (model, cfg.MODEL.ROI_HEADS.NAME) == ("GeneralizedRCNN", "StandardROIHeads"):
        model = "Mask R-CNN" if cfg.MODEL.MASK_ON else "Faster R-CNN"
    if backbone == "build_resnet_fpn_backbone":
        backbone = f"ResNet-{cfg.MODEL.RESNETS.DEPTH} with FPN"
    return f"{model}, {backbone}"


def _sides(value: Any) -> str:
    return "as they are:" if value == 0 else str(value)


def _image_count(cfg: CfgNode, name: str) -> str:
    try:
        _check_labels(cfg, name)
        return f"{len(load_records(name, quiet=True)):,} images"
    except UserError:
        return "labels not here any more"


def _absent(cfg: CfgNode, history: History) -> list[str]:
    absent = [history.trouble] if history.trouble else []
    has_validation = any(name.startswith("val/") for name in history.series)
    if history.series and not has_validation:
        absent.append(
            "No validation loss: metrics.json holds none; VALIDATION.PERIOD says when it is "
            "measured, on VALIDATION.DATASET or the first of DATASETS.TEST."
        )
    if not cfg.DATASETS.TEST:
        absent.append(
            "No evaluation: DATASETS.TEST is empty; name a dataset there, and train or evaluate "
            "(--eval-only --resume) again."
        )
    return absent


def _figures(cfg: CfgNode, history: History, datasets: Sequence[DatasetPart]) -> list[Figure]:
    """Choose the numbers for the head: how far, the best watched values, then the datasets'."""
    last = history.last_iteration()
    figures = []
    if last is not None:
        done = min(last + 1, cfg.SOLVER.MAX_ITER)
        figures.append(Figure("Iterations", f"{done:,}", f"of {cfg.SOLVER.MAX_ITER:,}"))
    for name, (iteration, value) in sorted(history.best.items()):
        figures.append(Figure(f"Best {name}", f"{value:.4g}", f"at iteration {iteration:,}"))
    for part in datasets:
        for figure in part.figures[:3]:
            figures.append(Figure(figure.label, figure.value, f"{part.name} · {figure.detail}"))
    return figures[:10]


def _changes(cfg: CfgNode) -> list[tuple[str, str, str]]:
    defaults = dict(flatten(default_config()))
    return [
        (key, str(_plain(value)), str(_plain(defaults[key])) if key in defaults else "not there")
        for key, value in flatten(cfg)
        if key not in defaults or _plain(value) != _plain(defaults[key])
        if not (key.startswith("DATASETS.REGISTER.") and value in ("", [], ()))
    ]


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
