"""``d2pd evaluate``: miss rates of result files of any detector, side by side."""

import argparse
import hashlib
import logging
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from d2pd import __version__
from d2pd.data.annotations.any_format import NamedLabels, read_any_labels
from d2pd.errors import ConfigError
from d2pd.evaluation.arrays import DetectionArrays, LabelArrays, label_arrays
from d2pd.evaluation.comparison import Comparison, as_plain_data, compare, with_images
from d2pd.evaluation.comparison_text import format_comparison
from d2pd.evaluation.result_files.result_file import read_result_file
from d2pd.evaluation.subsets import KAIST, Protocol
from d2pd.json_file import write_json
from d2pd.output_files import check_outputs, real_path
from d2pd.printable import printable

KEY = re.compile(r"[A-Z_]+(\.[A-Za-z0-9_]+)+")
"""Of a configuration, such as MISS_RATE.MODE."""

PROTOCOLS = {"kaist": KAIST}

LOW_RECALL = 10.0
"""Percent of the labels of a subset; a detector of these images finds more."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How to measure: ``compare`` takes these."""

    protocol: Protocol
    mode: str
    iou_threshold: float


def main(args: argparse.Namespace) -> int:
    """Run the command.

    Args:
        args: ``annotations``, ``detections``, ``protocol``, ``mode``, ``iou``, ``json``, ``plot``,
            ``config_file``, ``opts``, as ``d2pd.cli`` parses them; None where not given.

    Returns:
        Exit code 0.

    Raises:
        UserError: If a file or an option cannot be used; nothing is written then.
    """
    inputs = [args.annotations, *args.detections, *_given(args.config_file)]
    outputs = [path for path in (args.json, args.plot) if path]
    check_outputs(outputs, inputs)
    if len({real_path(path) for path in outputs}) < len(outputs):
        raise ConfigError(f"{outputs[0]}: --json and --plot name the same file; name two")
    if args.plot:
        from d2pd.reporting.miss_rate_plot import check_plot_path

        check_plot_path(args.plot)
    names = name_methods(args.detections)
    options = _options(args)
    known = read_any_labels(args.annotations)
    labels = label_arrays(known.labels.records, known.labels.class_names)
    methods = _read_methods(names, labels, known)
    comparison = _compare(labels, methods, options)
    _warn_of_other_images(labels, methods, comparison)
    # First the files: who reads the table may stop early, as head does.
    if args.json:
        about = _about(args.annotations, labels, names)
        write_json(args.json, about | as_plain_data(comparison), indent=1)
    if args.plot:
        _plot(comparison, args.plot)
    print(f"{args.annotations}: {len(labels.image_ids):,} images")
    print(format_comparison(comparison))
    written = [f"written to {path}" for path in (args.json, args.plot) if path]
    if written:
        print("", *written, sep="\n")
    return 0


def name_methods(paths: Sequence[Path]) -> dict[str, Path]:
    """Name each result file: its stem without ``_result``, with folders where two would be equal.

    What a run of d2pd wrote, ``RUN/inference/<dataset>/predictions.json``, is named by the run.

    Raises:
        ConfigError: If a file is given twice.
    """
    files = [real_path(path) for path in paths]
    for path, times in Counter(files).items():
        if times > 1:
            raise ConfigError(f"{path}: this result file is given {times} times; name it once")
    stems = [file.stem.removesuffix("_result") or file.stem for file in files]
    places = Counter((file.parent, stem) for file, stem in zip(files, stems, strict=True))
    runs = Counter(_run_parts(file) for file in files)
    parts = [
        [*run]
        if (run := _run_parts(file)) and runs[run] == 1
        # Where a.txt lies beside a.json, the suffix tells them apart.
        else [*file.parent.parts[1:], stem if places[file.parent, stem] == 1 else file.name]
        for file, stem in zip(files, stems, strict=True)
    ]
    names = [printable(_shortest(own, parts)) for own in parts]
    return dict(zip(names, paths, strict=True))


def _given(path: str | None) -> list[Path]:
    return [Path(path)] if path else []


def _run_parts(file: Path) -> tuple[str, ...]:
    """Give the folders down to that of the run that wrote a file; none for other files."""
    is_of_run = file.name == "predictions.json" and file.parent.parent.name == "inference"
    return file.parents[2].parts[1:] if is_of_run else ()


def _shortest(own: list[str], all_parts: Sequence[list[str]]) -> str:
    """Give the end of a path that no other path ends in."""
    for length in range(1, len(own) + 1):
        if sum(parts[-length:] == own[-length:] for parts in all_parts) == 1:
            return "/".join(own[-length:])
    return "/".join(own)


def _options(args: argparse.Namespace) -> Options:
    """Take what the command line says, else the configuration, else KAIST's protocol."""
    protocol, mode, iou_threshold = KAIST, "strict", 0.5
    if args.config_file or args.opts:
        from d2pd.config import load_config
        from d2pd.evaluation.build import miss_rate_protocol

        cfg = load_config(args.config_file or "", args.opts)
        protocol = miss_rate_protocol(cfg)
        mode, iou_threshold = cfg.MISS_RATE.MODE, cfg.MISS_RATE.IOU_THRESHOLD
    return Options(
        PROTOCOLS[args.protocol] if args.protocol else protocol,
        args.mode or mode,
        iou_threshold if args.iou is None else args.iou,
    )


def _read_methods(
    names: Mapping[str, Path], labels: LabelArrays, known: NamedLabels
) -> dict[str, DetectionArrays]:
    for path in names.values():
        if KEY.fullmatch(str(path)) and not path.exists():
            raise ConfigError(
                f"{path}: no such result file; KEY VALUE overrides go last, after another option "
                "such as --config-file FILE"
            )
    return {
        name: read_result_file(path, labels, known.category_ids) for name, path in names.items()
    }


def _compare(
    labels: LabelArrays, methods: Mapping[str, DetectionArrays], options: Options
) -> Comparison:
    present = with_images(labels, options.protocol)
    num_subsets = len(present.settings) * len(present.splits)
    with tqdm(
        total=num_subsets * len(methods) * len(labels.class_names),
        desc="miss rates",
        unit="subset",
        delay=1,
        leave=False,
        disable=None,  # where nobody watches
    ) as bar:
        return compare(
            labels,
            methods,
            options.protocol,
            mode=options.mode,
            iou_threshold=options.iou_threshold,
            on_subset=bar.update,
        )


def _warn_of_other_images(
    labels: LabelArrays, methods: Mapping[str, DetectionArrays], comparison: Comparison
) -> None:
    """Warn of detections that look as if made on other images, or read as other boxes."""
    subset = next(iter(comparison.results[0].subsets))
    num_images = len(labels.image_ids)
    for name, detections in methods.items():
        found = [r.subsets[subset].rate.recall for r in comparison.results if r.method == name]
        recall = max((value for value in found if not math.isnan(value)), default=100.0)
        num_empty = num_images - np.unique(detections.image_index).size
        if recall < LOW_RECALL or num_empty > num_images / 2:
            logger.warning(
                "%s: finds %.1f %% of the labels of %s, and leaves %s of %s images without a "
                "detection: was it run on all of these images, in this order of ids, and are its "
                "boxes x, y, w, h in pixels of the labelled images?",
                *(name, recall, subset, f"{num_empty:,}", f"{num_images:,}"),
            )


def _about(annotations: Path, labels: LabelArrays, names: Mapping[str, Path]) -> dict[str, Any]:
    return {
        "d2pd": __version__,
        "annotations": _identify(annotations)
        | {"num_images": len(labels.image_ids), "num_labels": labels.classes.size},
        "class_names": list(labels.class_names),
        "detections": {name: _identify(path) for name, path in names.items()},
    }


def _identify(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"file": str(path), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _plot(comparison: Comparison, path: Path) -> None:
    """Draw the first setting: a panel for each class and split, splits beside each other."""
    from d2pd.reporting.miss_rate_plot import Panel, draw_miss_rates

    setting = comparison.protocol.settings[0].name
    grouped, splits = comparison.by_class(), comparison.protocol.splits
    panels = []
    for class_name, results in grouped.items():
        prefix = f"{class_name}: " if len(grouped) > 1 else ""
        for split in splits:
            rates = {r.method: r.subsets[f"{setting}/{split.name}"].rate for r in results}
            count = max(rate.num_labels for rate in rates.values())
            title = f"{prefix}{setting.capitalize()}, {split.name} ({count:,} labels)"
            panels.append(Panel(title, rates))
    columns = len(splits) if len(splits) > 1 else min(len(panels), 3)
    title = f"Log-average miss rate ({comparison.mode}, IoU {comparison.iou_threshold:g})"
    draw_miss_rates(panels, columns, title, path)
