"""``d2pd split``: the images of a label file in folds, and a table of what each holds."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from d2pd.data.fold_assignment import UNKNOWN_DAYTIME, assign_folds, daytime_of, video_of
from d2pd.data.folds import Folds, read_folds
from d2pd.data.label_table.read import read_label_table
from d2pd.data.label_table.table import LabelTable
from d2pd.errors import AnnotationError, ConfigError, UserError
from d2pd.markdown_table import cell, markdown_table
from d2pd.output_files import check_outputs


def main(args: argparse.Namespace) -> int:
    """Write the folds and print their table.

    Args:
        args: ``annotations``, ``format``, ``classes``, ``box_format``, ``columns``, ``folds``,
            ``by``, ``stratify``, ``seed`` and ``output``.

    Returns:
        Exit code 0.

    Raises:
        UserError: If the labels cannot be read or divided so, or the file cannot be written.
    """
    check_outputs([args.output], [args.annotations])
    table = read_label_table(
        args.annotations,
        args.format,
        classes=args.classes,
        box_format=args.box_format,
        columns=args.columns,
    )
    _check_readable(table)
    fold_of_row = assign_folds(
        table, args.folds, by=args.by, is_stratified=args.stratify, seed=args.seed
    )
    folds = Folds(
        table.path.name,
        table.num_images,
        table.num_boxes,
        args.folds,
        args.by,
        args.stratify,
        args.seed,
        dict(zip(table.image_names, fold_of_row.tolist(), strict=True)),
    )
    _write(folds, args.output)
    print("\n".join(markdown_table(count_folds(table, fold_of_row, args.folds))))
    print(f"\nwritten: {args.output}")
    return 0


def count_folds(table: LabelTable, fold_of_row: np.ndarray, num_folds: int) -> list[list[str]]:
    """Return rows of a table: heads, each fold, all of them; with shares of the whole.

    Args:
        table: The labels.
        fold_of_row: (I,) fold of each image.
        num_folds: K.
    """
    columns = [["fold", *map(str, range(num_folds)), "all"]]
    columns.append(_column("images", fold_of_row, num_folds))
    if len({video_of(name) for name in table.image_names}) > 1:
        columns.append(["videos", *_count_videos(table, fold_of_row, num_folds)])
    daytimes = np.array([daytime_of(name) for name in table.image_names])
    for daytime in sorted(set(daytimes) - {UNKNOWN_DAYTIME}):
        columns.append(_column(daytime, fold_of_row[daytimes == daytime], num_folds))
    fold_of_box = fold_of_row[table.box_images]
    is_object = (table.categories >= 0) & ~table.is_region
    for category, name in enumerate(table.class_names):
        chosen = is_object & (table.categories == category)
        columns.append(_column(cell(name), fold_of_box[chosen], num_folds))
    if table.is_region.any():
        columns.append(_column("regions", fold_of_box[table.is_region], num_folds))
    return [list(row) for row in zip(*columns, strict=True)]


def _check_readable(table: LabelTable) -> None:
    """Refuse what training would refuse: the image of such a row may be in none of the folds."""
    if table.malformed:
        number = len(table.malformed)
        what = "a row" if number == 1 else f"{number} rows"
        raise AnnotationError(
            f"{table.path}: {what} cannot be read, first: {table.malformed[0].message}; mend the "
            "file, or split a copy that d2pd audit --write-clean has written"
        )


def _write(folds: Folds, output: Path) -> None:
    """Write the folds; runs may rest on those of a file that is there."""
    if output.exists() and not _holds(output, folds):
        raise ConfigError(
            f"{output} is there already and holds something else: delete it, or give another "
            "--output"
        )
    folds.write(output)


def _holds(path: Path, folds: Folds) -> bool:
    try:
        return read_folds(path) == folds
    except UserError:
        return False


def _column(head: str, fold_of_each: np.ndarray, num_folds: int) -> list[str]:
    counts = np.bincount(fold_of_each, minlength=num_folds)
    total = int(counts.sum())
    cells = [f"{count} ({100 * count / max(total, 1):.1f}%)" for count in counts]
    return [head, *cells, str(total)]


def _count_videos(table: LabelTable, fold_of_row: np.ndarray, num_folds: int) -> Sequence[str]:
    """Count the videos that a fold has a frame of; by image, one may be in several folds."""
    pairs = {
        (video_of(name), fold)
        for name, fold in zip(table.image_names, fold_of_row.tolist(), strict=True)
    }
    counts = np.bincount([fold for _, fold in pairs], minlength=num_folds)
    return [*map(str, counts), str(len({video for video, _ in pairs}))]
