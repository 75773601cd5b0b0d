"""``d2pd ablate``: a list of configurations, each with each fold and seed, and one table."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from d2pd.atomic_file import atomic_file
from d2pd.errors import RunInterrupted, UserError
from d2pd.json_file import write_json
from d2pd.training.ablation.plan import PlannedRun, overrides_of_file, plain_defaults, plan_runs
from d2pd.training.ablation.process import perform
from d2pd.training.ablation.record import (
    LOG,
    REFUSE,
    RESTART,
    RESUME,
    SKIP,
    START,
    Standing,
    differences,
    standing_of,
)
from d2pd.training.ablation.table import (
    Row,
    format_duration,
    format_table,
    make_row,
    shown_columns,
    summarise,
)

TABLE = "ablations.md"
NUMBERS = "ablations.json"

_SAID = {
    START: "starts",
    RESUME: "goes on from its newest checkpoint",
    RESTART: "starts anew, having been stopped before its first checkpoint",
}


def main(args: argparse.Namespace) -> int:
    """Run what is not finished yet, in turn, then print and write the table.

    Args:
        args: ``config_files``, ``seeds`` and ``folds`` (None: those of the configurations),
            ``output``, ``overrides`` (a file or None), ``opts`` and ``table``: whether nothing is
            to be run.

    Returns:
        Exit code: 0 all runs are finished and well, 1 some are not; the table names them.

    Raises:
        UserError: If a configuration or the output folder cannot be used.
        RunInterrupted: On SIGTERM or Ctrl-C, once the run has saved; the table is written.
    """
    words = overrides_of_file(args.overrides) if args.overrides else []
    opts = [*words, *args.opts]
    runs = plan_runs(args.config_files, args.seeds or [], opts, args.output, args.folds or [])
    if not args.table:
        try:
            run_all(runs)
        except RunInterrupted:
            write_table(runs, args.output)
            raise
    return 0 if write_table(runs, args.output) else 1


def run_all(runs: Sequence[PlannedRun]) -> None:
    """Run in turn what is not finished; what fails is said and the others go on.

    Raises:
        RunInterrupted: See ``main``.
    """
    for number, run in enumerate(runs, start=1):
        head = f"[{number}/{len(runs)}] {run}"
        before = standing(run)
        if before.step in (SKIP, REFUSE):
            print(f"{head}: {before.why or 'finished before, not run again'}", flush=True)
            continue
        print(f"{head}: {_SAID[before.step]}; its log: {run.folder / LOG}", flush=True)
        try:
            perform(run, before.step)
        except UserError as error:
            print(f"{head}: {error}", flush=True)
            continue
        print(f"{head}: {_outcome(run)}", flush=True)


def write_table(runs: Sequence[PlannedRun], output: Path) -> bool:
    """Print the table of runs as they stand, and write it with all numbers beside it.

    Returns:
        Whether all runs are finished and well.

    Raises:
        UserError: If it cannot be written.
    """
    rows = [_row(run, standing(run)) for run in runs]
    parts = [_caption(runs, rows), format_table(rows), *_changes(runs)]
    text = "\n\n".join(parts)
    write_json(output / NUMBERS, _numbers(runs, rows), indent=1)
    with atomic_file(output / TABLE) as file:
        file.write(f"{text}\n".encode(errors="backslashreplace"))
    print(f"\n{text}\n\n{output / TABLE}\n{output / NUMBERS}")
    return not any(row.why for row in rows)


def standing(run: PlannedRun) -> Standing:
    """Tell how far a run came."""
    return standing_of(run.folder, run.config, plain_defaults())


def measured_on(config: Mapping[str, Any]) -> str:
    """Return the dataset that figures are of: the first final one, where there is one."""
    names = config["DATASETS.FINAL_TEST"] or config["DATASETS.TEST"]
    return str(names[0]) if names else "no dataset"


def results_of_one_dataset(results: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    """Return task -> metric -> value on the dataset that ``measured_on`` names."""
    if config["DATASETS.FINAL_TEST"]:
        results = results.get("final", {})
    return results.get(measured_on(config), results)  # one dataset alone is no level of its own


def _row(run: PlannedRun, stands: Standing) -> Row:
    results = stands.results
    if results is not None:
        results = results_of_one_dataset(results, run.config)
    return make_row(run.name, run.seed, results, stands.seconds, stands.why, run.fold)


def _outcome(run: PlannedRun) -> str:
    """Return the figures of a run that has just ended, and what is amiss."""
    stands = standing(run)
    values = [f"{column} {value:.2f}" for column, value in _row(run, stands).values.items()]
    return "; ".join(filter(None, [stands.why, ", ".join(values), format_duration(stands.seconds)]))


def _caption(runs: Sequence[PlannedRun], rows: Sequence[Row]) -> str:
    places = dict.fromkeys(measured_on(run.config) for run in runs)
    modes = dict.fromkeys(run.config["MISS_RATE.MODE"] for run in runs)
    has_folds = any(run.fold is not None for run in runs)
    over = "folds, of which each counts with the mean of its seeds" if has_folds else "seeds"
    rate = (
        f"log-average miss rate (MR) of the reasonable labels ({', '.join(modes)}), lower is "
        "better, and "
    )
    if not any(column.startswith("MR") for column in shown_columns(rows)):
        rate = ""
    return (
        f"On {', '.join(places)}: {rate}COCO AP, all in %; mean ± standard deviation (n - 1) "
        f"over {over}. Time: of the whole process, evaluations included."
    )


def _changes(runs: Sequence[PlannedRun]) -> list[str]:
    """Return a paragraph on what makes each configuration differ from the one most like it."""
    of_name: dict[str, Mapping[str, Any]] = {}
    lines = []
    for run in runs:
        if run.name in of_name:
            continue
        changes = {name: differences(config, run.config, {}) for name, config in of_name.items()}
        if changes:
            nearest = min(changes, key=lambda name: len(changes[name]))
            lines.append(f"- {run.name}: {nearest}; {'; '.join(changes[nearest]) or 'the same'}")
        of_name[run.name] = run.config
    title = "What differs, from the run above that is most like it:"
    return [title, "\n".join(lines)] if lines else []


def _numbers(runs: Sequence[PlannedRun], rows: Sequence[Row]) -> dict[str, Any]:
    listed = [
        {"folder": str(run.folder), "config_file": str(run.config_file), **asdict(row)}
        for run, row in zip(runs, rows, strict=True)
    ]
    means = {
        name: {column: asdict(mean) for column, mean in columns.items()}
        for name, columns in summarise(rows).items()
    }
    return {"caption": _caption(runs, rows), "runs": listed, "means": means}
