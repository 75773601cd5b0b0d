"""``d2pd audit``: look a label file through, and its pictures, before training."""

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from d2pd.data.audit.audit import audit_table, with_picture_sizes
from d2pd.data.audit.findings import Audit, Finding
from d2pd.data.audit.summary import summarise
from d2pd.data.audit.suspicious import find_suspects, write_suspects
from d2pd.data.label_table.read import read_label_table
from d2pd.errors import ConfigError
from d2pd.json_file import write_json
from d2pd.output_files import check_outputs, real_path

AUDIT_FILE = "audit.json"
PAGE_FILE = "index.html"
SUSPICIOUS_FILE = "suspicious.csv"

Paths = Sequence[Mapping[str, str]]
"""(I,) files of each image by camera; empty where pictures were not looked at."""


def main(args: argparse.Namespace) -> int:
    """Run the command.

    Args:
        args: ``annotations``, ``format``, ``classes``, ``box_format``, ``columns``, ``images``,
            ``out``, ``write_clean``, ``force``, ``min_box_size``, ``max_pictures``,
            ``config_file`` and ``weights``, as ``d2pd.cli`` parses them; None where not given.

    Returns:
        Exit code: 0 nothing found, 1 findings.

    Raises:
        UserError: If a file or an option cannot be used.
    """
    _check(args)
    audit, paths = _audit(args)
    written: list[str] = []
    try:
        written += _write(audit, paths, args)
    finally:  # what was found is told even if it cannot be kept
        where_all = f"{args.out / AUDIT_FILE}" if args.out else "--out DIR writes all of them"
        print(summarise(audit, where_all), *written, sep="\n")
    return 1 if audit.findings else 0


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot work before anything is read."""
    if not (math.isfinite(args.min_box_size) and args.min_box_size >= 0):
        raise ConfigError(
            f"--min-box-size must be a number of pixels from 0 on, got {args.min_box_size:g}"
        )
    if bool(args.weights) != bool(args.config_file):
        raise ConfigError(
            "--weights and --config-file go together: the checkpoint, and the training it is of"
        )
    if args.weights and not args.out:
        raise ConfigError("--weights adds to DIR/suspicious.csv: name the folder with --out DIR")
    names = (AUDIT_FILE, PAGE_FILE, SUSPICIOUS_FILE) if args.out else ()
    outputs = [args.out / name for name in names]
    others = [Path(file) for file in (args.weights, args.config_file) if file]
    check_outputs(outputs, [args.annotations, *others])
    if args.write_clean:
        from d2pd.data.audit.clean_copy import check_target

        check_target(args.annotations, args.write_clean, force=args.force)
        check_outputs([args.write_clean], others)
        if real_path(args.write_clean) in map(real_path, outputs):
            raise ConfigError(f"{args.write_clean} is written by --out too; name another file")


def _audit(args: argparse.Namespace) -> tuple[Audit, Paths]:
    """Return what was found, and the files of each image where pictures were looked at."""
    table = read_label_table(
        args.annotations,
        args.format,
        classes=args.classes,
        box_format=args.box_format,
        columns=args.columns,
    )
    of_pictures: Sequence[Finding] = ()
    paths: Paths = ()
    if args.images:
        from d2pd.data.audit.pictures import look_at_pictures

        pictures = look_at_pictures(table, args.images)
        table = with_picture_sizes(table, pictures.sizes)
        of_pictures, paths = pictures.findings, pictures.paths
    audit = audit_table(
        table,
        min_box_size=args.min_box_size,
        of_pictures=of_pictures,
        conditions=_conditions(args),
    )
    return audit, paths


def _conditions(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "images": None if args.images is None else str(args.images),
        "classes": args.classes,
        "box_format": args.box_format,
        "columns": args.columns,
    }


def _write(audit: Audit, paths: Paths, args: argparse.Namespace) -> Iterator[str]:
    """Write what was asked for; yield a line on each."""
    yield ""
    if args.out:
        write_json(args.out / AUDIT_FILE, audit.as_json())
        yield f"written: {args.out / AUDIT_FILE}"
        yield _write_suspicious(audit, args)
        yield f"written: {_write_page(audit, paths, args)}"
    if args.write_clean:
        from d2pd.data.audit.clean_copy import write_clean_copy

        copy = write_clean_copy(
            audit.table,
            audit.findings,
            args.write_clean,
            force=args.force,
            min_box_size=args.min_box_size,
        )
        yield copy.summary()
    if not (args.out or args.write_clean):
        yield "nothing is written: --out DIR keeps this, with a page of pictures and distributions"


def _write_page(audit: Audit, paths: Paths, args: argparse.Namespace) -> Path:
    from d2pd.reporting.audit_page.write import write_audit_page

    return write_audit_page(audit, args.out, paths, max_pictures=args.max_pictures)


def _write_suspicious(audit: Audit, args: argparse.Namespace) -> str:
    losses = None
    if args.weights:
        from d2pd.training.diagnosis.label_losses import measure_label_losses

        losses = measure_label_losses(args.annotations, args.config_file, args.weights)
    suspects = find_suspects(audit.table, losses)
    write_suspects(args.out / SUSPICIOUS_FILE, suspects)
    num_images = sum(suspect.box is None for suspect in suspects)
    told = f"{len(suspects) - num_images} boxes"
    if args.weights:
        told += f" and {num_images} images of high loss"
    return f"written: {args.out / SUSPICIOUS_FILE}, {told} to look through"
