"""What a run has left, gathered into the content of its page.

Everything that is absent or cannot be used is told of in words; only a folder without a run, or
with a configuration that cannot be read, is an error.
"""

from datetime import datetime
from pathlib import Path

from d2pd import __version__
from d2pd.d2 import CfgNode
from d2pd.errors import UserError
from d2pd.evaluation.build import predictions_path
from d2pd.reporting.report.cards import Gallery, choose_cases
from d2pd.reporting.report.content import Content, DatasetPart
from d2pd.reporting.report.dataset_part import describe
from d2pd.reporting.report.measured import measure
from d2pd.reporting.report.run_config import (
    CONFIG,
    read_run_config,
    register_datasets,
    tested_datasets,
)
from d2pd.reporting.report.run_facts import absent_words, changes, facts, figures
from d2pd.reporting.report.status import run_status
from d2pd.reporting.report.stored import evaluated, read_records
from d2pd.reporting.report.training import read_history, training_charts

FRAMES = {"lwir": "the thermal frames", "both": "the visible ones of the pairs of frames"}
"""What is shown of what the model saw, where that is not the visible frames alone."""


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
    cfg = read_run_config(output_dir)
    why = register_datasets(cfg)
    trouble = [f"Not all datasets can be shown: {why}"] if why else []
    history = read_history(output_dir)
    status, words = run_status(output_dir, history, cfg.SOLVER.MAX_ITER)
    content = Content(
        name=output_dir.resolve().name,
        folder=str(output_dir.resolve()),
        status=status,
        status_words=words,
        facts=facts(cfg, history, output_dir),
        absent=[*trouble, *absent_words(cfg, history)],
        training=training_charts(history),
        training_absent=history.trouble,
        changes=changes(cfg),
        config_text=(output_dir / CONFIG).read_text(encoding="utf-8"),
        footer=f"Written by d2pd {__version__} on {datetime.now():%Y-%m-%d %H:%M}.",
    )
    names = tested_datasets(cfg, output_dir)
    number_with = sum(predictions_path(output_dir, name).is_file() for name in names)
    for number, name in enumerate(names):
        most = max_pictures // max(number_with, 1)
        part, frames = _dataset(cfg, output_dir, name, f"{number}-", most, quiet)
        content.datasets.append(part)
        content.frames.update(frames)
    content.figures = figures(cfg, history, content.datasets)
    return content


def _dataset(
    cfg: CfgNode, output_dir: Path, name: str, prefix: str, most: int, quiet: bool
) -> tuple[DatasetPart, dict[str, str]]:
    path = predictions_path(output_dir, name)
    if not path.is_file():
        return _empty_part(name, _no_predictions(cfg, output_dir, name)), {}
    try:
        records = read_records(name)
        given = evaluated(cfg, name, path, records)
    except (UserError, OSError, UnicodeDecodeError) as error:
        return _empty_part(name, f"Nothing can be shown: {error}"), {}
    found = measure(given)
    part = describe(given, found)
    no_pictures = "the pictures of this dataset are not where they were" if records.trouble else ""
    gallery = Gallery(
        records.uncleaned, cfg.INPUT.MODALITY, prefix, found.score_threshold, no_pictures
    )
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
        f"No {predictions_path('', name)}: this dataset is evaluated {when}, and the run has "
        f"not got there. To evaluate its newest checkpoint now: python train_net.py --config-file "
        f"{output_dir / CONFIG} --eval-only --resume"
    )


def _gallery_note(shown: int, total: int, gallery: Gallery) -> str:
    if not total:
        return "Not a single error at this score threshold."
    frames = FRAMES.get(gallery.modality, "the frames")
    words = (
        f"{shown} of {total:,} errors, the worst of each reason first: false positives by score, "
        f"misses that nothing occludes by height. These are {frames} that the model saw; choose "
        "one to see the whole frame. d2pd report --max-pictures N shows more."
    )
    if gallery.troubles:
        words += (
            f" {len(gallery.troubles)} pictures cannot be read any more; their boxes are shown."
        )
    return words
