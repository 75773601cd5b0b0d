"""What a run has measured on a dataset: from its detections, else as it wrote it down."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2pd.d2 import CfgNode, MetadataCatalog
from d2pd.errors import UserError
from d2pd.evaluation.build import predictions_path
from d2pd.reporting.model_card.image_facts import ImageFacts, image_facts
from d2pd.reporting.report.measured import Evaluated, Measured, measure
from d2pd.reporting.report.run_config import tested_datasets
from d2pd.reporting.report.stored import evaluated, read_records
from d2pd.reporting.report.training import History
from d2pd.training.results import NAME as RESULTS
from d2pd.training.results import read_results, results_iteration

Metrics = Mapping[str, Mapping[str, float]]
"""task, ``bbox`` or ``MR`` -> metric -> value."""

TEST, FINAL_TEST, OTHER = "DATASETS.TEST", "DATASETS.FINAL_TEST", ""
TASKS = ("bbox", "MR")
CLOSE = 1e-6
"""Numbers of one evaluation differ by less, however they were written."""


@dataclass(frozen=True)
class Written:
    """Numbers of an evaluation as the run wrote them down.

    Attributes:
        metrics: Of one dataset.
        iteration: The last one that was trained before it, from 0.
        file: Where they stand.
    """

    metrics: Metrics
    iteration: int
    file: str


@dataclass(frozen=True)
class TestedSet:
    """A dataset that was tested on, or was to be.

    Attributes:
        name: Of the dataset.
        role: ``DATASETS.TEST``, ``DATASETS.FINAL_TEST``, or empty where neither names it.
        given: Labels and detections; None where they cannot be used together.
        found: What was measured on them.
        images: What its images are; None where its labels are not here.
        written: Numbers that the run wrote down, the newest; None where there are none.
        iteration: The last one that was trained before the numbers were measured; None where
            nothing tells.
        trouble: Why there is no ``given``.
        notes: What is to be known of the labels.
    """

    name: str
    role: str
    given: Evaluated | None = None
    found: Measured | None = None
    images: ImageFacts | None = None
    written: Written | None = None
    iteration: int | None = None
    trouble: str = ""
    notes: tuple[str, ...] = ()


def read_tested_sets(cfg: CfgNode, output_dir: Path, history: History) -> list[TestedSet]:
    """Measure on every dataset that a run was tested on, those of the configuration first.

    Args:
        cfg: Of the training, its datasets registered.
        output_dir: Of the run.
        history: Its numbers over the iterations.
    """
    return [_read(cfg, output_dir, history, name) for name in tested_datasets(cfg, output_dir)]


def _read(cfg: CfgNode, output_dir: Path, history: History, name: str) -> TestedSet:
    role = TEST if name in cfg.DATASETS.TEST else OTHER
    role = FINAL_TEST if not role and name in cfg.DATASETS.FINAL_TEST else role
    written = list(_written(cfg, output_dir, history, name, role))
    newest = written[0] if written else None
    iteration = newest.iteration if newest else None
    path, images = predictions_path(output_dir, name), None
    try:
        records = read_records(name)
        source = MetadataCatalog.get(name).get("source")
        images = image_facts(records.uncleaned, source, has_pictures=not records.trouble)
        if not path.is_file():
            why = "its detections are not stored in this folder"
            return TestedSet(name, role, None, None, images, newest, iteration, why)
        given = evaluated(cfg, name, path, records)
    except (UserError, OSError, UnicodeDecodeError) as error:
        return TestedSet(name, role, None, None, images, newest, iteration, str(error))
    iteration = next((one.iteration for one in written if _is_same(given.precision, one)), None)
    notes = tuple(words for words in given.warnings if words != records.trouble)
    return TestedSet(name, role, given, measure(given), images, newest, iteration, "", notes)


def _written(
    cfg: CfgNode, output_dir: Path, history: History, name: str, role: str
) -> list[Written]:
    """Return what was written down of a dataset: the result, then the evaluations, newest first."""
    found = []
    results, iteration = read_results(output_dir), results_iteration(output_dir)
    if results is not None and iteration is not None:
        group = results.get("final", {}) if role == FINAL_TEST else results
        of_group = cfg.DATASETS.FINAL_TEST if role == FINAL_TEST else cfg.DATASETS.TEST
        metrics = _metrics(group if len(of_group) == 1 else _mapping(group).get(name))
        found += [Written(metrics, iteration, RESULTS)] if metrics and role else []
    if role == TEST:
        prefix = "" if len(cfg.DATASETS.TEST) == 1 else f"{name}/"
        found += _evaluations(history, prefix)
    return found


def _evaluations(history: History, prefix: str) -> list[Written]:
    """Return the evaluations during training, the newest first."""
    at: dict[int, dict[str, dict[str, float]]] = {}
    for task in TASKS:
        for name, points in history.series.items():
            start = f"{prefix}{task}/"
            for iteration, value in points if name.startswith(start) else ():
                at.setdefault(iteration, {}).setdefault(task, {})[name.removeprefix(start)] = value
    return [Written(at[iteration], iteration, "metrics.json") for iteration in sorted(at)[::-1]]


def _metrics(group: Any) -> dict[str, dict[str, float]]:
    """Return the numbers of the tasks that are known; a file may hold anything."""
    found = {}
    for task in TASKS:
        values = _mapping(_mapping(group).get(task))
        numbers = {str(key): value for key, value in values.items() if isinstance(value, float)}
        if numbers:
            found[task] = numbers
    return found


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_same(precision: Mapping[str, float], written: Written) -> bool:
    """Tell whether what was measured here is what was written down; NaN is not written always."""
    known = {
        name: value
        for name, value in written.metrics.get("bbox", {}).items()
        if not math.isnan(value)
    }
    return bool(known) and all(
        abs(value - precision.get(name, math.nan)) < CLOSE for name, value in known.items()
    )
