"""The section on metrics: each dataset apart, with what its numbers rest on."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from d2pd.d2 import CfgNode
from d2pd.evaluation.arrays import LabelArrays, labels_to_find
from d2pd.reporting.model_card.markdown import code, counted, listed, names, sentence, table
from d2pd.reporting.model_card.saved_weights import SavedWeights, Weights
from d2pd.reporting.model_card.tested_set import FINAL_TEST, TestedSet, Written
from d2pd.reporting.report.measured import Evaluated, Measured
from d2pd.reporting.report.metric_tables import (
    NOT_COMPUTED,
    PRECISION_WORDS,
    interval,
    number,
)
from d2pd.reporting.report.training import History
from d2pd.training.deciding.decisions import best_metrics, datasets_behind

MOST_ROWS = 60
LOWER_IS_BETTER = "Log-average miss rate, lower is better."
NOT_MEASURED = "Not measured: no evaluation of this run has left a number."


def metric_lines(
    cfg: CfgNode, tests: Sequence[TestedSet], weights: Weights, history: History
) -> Iterator[str]:
    """Yield the section's lines, without its heading.

    Args:
        cfg: Of the training.
        tests: All sets that it was tested on.
        weights: Those that it has left.
        history: Its numbers over the iterations.
    """
    if not tests:
        yield from ("Not measured: the configuration names no dataset to test on.", "")
    for one in tests:
        yield from (f"### On {code(one.name)}", "")
        yield from _bullets(cfg, one, weights, history)
        yield ""
        if one.given is not None and one.found is not None:
            yield from _precision(one.given.precision, one.given.reasons)
            if one.found.rates.own:
                yield from _rates(one.given, one.found)
        elif one.written is not None:
            yield from _as_written(one.written)


def _bullets(cfg: CfgNode, one: TestedSet, weights: Weights, history: History) -> Iterator[str]:
    if one.given is not None:
        labels = one.given.labels
        is_object = labels_to_find(labels)
        yield (
            f"- Rests on {counted(len(labels.image_ids), 'image')} with "
            f"{_objects(labels, is_object)} to find and "
            f"{counted(int(np.count_nonzero(~is_object)), 'region')} to ignore; on "
            f"{counted(len(one.given.detections.scores), 'detection')}."
        )
    elif one.written is not None:
        yield (
            f"- As {code(one.written.file)} has it. On how many images and labels it rests cannot "
            f"be told, nor intervals or thresholds: {sentence(one.trouble)}"
        )
    else:
        why = f" {sentence(one.trouble)[:1].upper()}{sentence(one.trouble)[1:]}" * bool(one.trouble)
        yield f"- {NOT_MEASURED}{why}"
        return
    yield f"- {_of_which_weights(one, weights)}"
    yield f"- {_chosen_by(cfg, one, weights, history)}"
    yield from (f"- {sentence(note)}" for note in one.notes)


def _objects(labels: LabelArrays, is_object: np.ndarray) -> str:
    counts = np.bincount(labels.classes[is_object], minlength=len(labels.class_names)).tolist()
    pairs = zip(labels.class_names, counts, strict=True)
    return listed([f"{count:,} {code(name)}" for name, count in pairs])


def _of_which_weights(one: TestedSet, weights: Weights) -> str:
    """Say which file the numbers are of, as far as that is written down."""
    file = weights.of_iteration(one.iteration)
    if file is not None:
        return f"The numbers are of {code(file.name)} (after iteration {one.iteration:,})."
    if one.iteration is not None:
        return (
            f"The numbers are of the weights after iteration {one.iteration:,}, which are not "
            "among the files above."
        )
    return (
        "Of which weights the numbers are is not known: neither `results.json` nor `metrics.json` "
        "has them, as after an evaluation alone (`--eval-only`), of any weights, or of labels that "
        "have changed since."
    )


def _chosen_by(cfg: CfgNode, one: TestedSet, weights: Weights, history: History) -> str:
    """Say whether something was chosen by the set that it is measured on."""
    chosen = [best for best in weights.best if best.metric and _is_behind(cfg, best.metric[0], one)]
    watched = cfg.EARLY_STOPPING.METRIC
    said = [_best_words(best, one) for best in chosen]
    if history.stop is not None and _is_behind(cfg, watched, one):
        said.append(
            f"when to stop was chosen by {code(watched)} on this very set: every number on it is "
            "optimistic"
        )
    if not said:
        metrics = [name for name in best_metrics(cfg) if _is_behind(cfg, name, one)]
        if metrics:
            return f"The best model is chosen by {names(metrics)} on this very set."
        once = ", and it was evaluated once, after the training" * (one.role == FINAL_TEST)
        return f"Nothing was chosen by this set in this run{once}."
    words = "; ".join(said)
    return f"{words[0].upper()}{words[1:]}."


def _best_words(best: SavedWeights, one: TestedSet) -> str:
    metric, value = best.metric or ("", math.nan)
    its = "its numbers here are" if best.iteration == one.iteration else "its value there is"
    after = "" if best.iteration is None else f", after iteration {best.iteration:,}"
    return (
        f"{code(best.name)} was chosen by {code(metric)} on this very set ({value:.4g}{after}): "
        f"{its} optimistic"
    )


def _is_behind(cfg: CfgNode, metric: str, one: TestedSet) -> bool:
    """Tell whether a metric is measured on a set; those of the loop have no slash."""
    return "/" in metric and one.name in datasets_behind(cfg, metric)


def _precision(values: Mapping[str, float], reasons: Mapping[str, str]) -> Iterator[str]:
    """Lay out COCO AP.

    Args:
        values: Metric -> 0..100 or NaN.
        reasons: Metric -> why it is NaN.
    """
    rows = [
        (code(name), number(value), sentence(reasons.get(name, "")) or _meaning(name))
        for name, value in values.items()
    ]
    yield from table([("COCO AP, of 100", "value", ""), *rows[:MOST_ROWS]])
    yield from _left_out(len(rows))


def _meaning(metric: str) -> str:
    return PRECISION_WORDS.get(metric, "this class alone")


def _rates(given: Evaluated, found: Measured) -> Iterator[str]:
    """Lay out the miss rates of every subset, with intervals and numbers of labels."""
    rates = found.rates.own
    images = {name.rpartition("/")[2]: rate.num_images for name, rate in rates.items()}
    heads = {split: f"{split}, {counted(size, 'image')}" for split, size in images.items()}
    yield from _grid({name: _rate(found, name) for name in rates}, heads)
    yield from (
        f"{LOWER_IS_BETTER} By the {given.mode} rules, IoU {given.iou_threshold:g}. In brackets: "
        "95 % interval over images drawn again. In parentheses: labels to find. –: there are none.",
        "",
    )


def _rate(found: Measured, name: str) -> str:
    rate, between = found.rates.own[name], interval(found.rates, name)
    return f"{number(rate.value)}{f' [{between}]' * bool(between)} ({rate.num_labels:,})"


def _as_written(written: Written) -> Iterator[str]:
    """Lay out what a run wrote down of one dataset."""
    if "bbox" in written.metrics:
        yield from _precision(written.metrics["bbox"], {})
    if "MR" in written.metrics:
        rates = written.metrics["MR"]
        splits = dict.fromkeys(name.rpartition("/")[2] for name in rates)
        heads = {split: code(split) for split in [*splits][:MOST_ROWS]}
        yield from _grid({name: number(value) for name, value in rates.items()}, heads)
        yield from (LOWER_IS_BETTER, "")


def _grid(cells: Mapping[str, str], heads: Mapping[str, str]) -> Iterator[str]:
    """Lay out miss rates, a row for each setting and a column for each split.

    Args:
        cells: ``setting/split`` -> what stands there.
        heads: Split -> the head of its column.
    """
    settings = list(dict.fromkeys(name.rpartition("/")[0] for name in cells))
    rows = [
        [code(setting), *(cells.get(f"{setting}/{split}", NOT_COMPUTED) for split in heads)]
        for setting in settings
    ]
    yield from table([["miss rate, %", *heads.values()], *rows[:MOST_ROWS]])
    yield from _left_out(len(rows))


def _left_out(number_of_rows: int) -> Iterator[str]:
    if number_of_rows > MOST_ROWS:
        yield from (f"The first {MOST_ROWS} of {number_of_rows:,} rows are shown.", "")
