"""What the folder of a run tells: whether it is this run, and how far it came."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from d2pd.errors import UserError
from d2pd.json_file import write_json
from d2pd.training.checkpoints.checkpoint_folder import find_checkpoints
from d2pd.training.results import read_results
from d2pd.training.run_folder import held_run

NAME = "ablation_run.json"
LOG = "output.log"

WITHOUT_EFFECT = (
    "OUTPUT_DIR",
    "VERSION",
    "MODEL.DEVICE",
    "DATALOADER.NUM_WORKERS",
    "SOLVER.CHECKPOINT_PERIOD",
    "CHECKPOINT.*",
    "WANDB.*",
)
"""Keys that may be others when a run is gone on with: its figures do not come from them."""

STOPPED = (75, 130, 143)
"""Exit codes of a run that saved first: its time limit, Ctrl-C, SIGTERM."""

SKIP, START, RESUME, RESTART, REFUSE = "skip", "start", "resume", "restart", "refuse"

_MOST_DIFFERENCES = 3
_LONGEST_REASON = 300


@dataclass
class Attempt:
    """A process that worked on a run.

    Attributes:
        started: Seconds since 1970.
        seconds: That it took; None while it runs, or where nobody saw its end.
        exit_code: None as above.
    """

    started: float
    seconds: float | None = None
    exit_code: int | None = None


@dataclass
class RunRecord:
    """What ``ablation_run.json`` holds.

    Attributes:
        config: key -> value that the run was started with.
        attempts: Oldest first.
    """

    config: Mapping[str, Any]
    attempts: list[Attempt] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write it; the folder is made.

        Raises:
            UserError: If it cannot be written.
        """
        write_json(folder / NAME, asdict(self), indent=1)

    def seconds(self, folder: Path) -> float:
        """Return the time of all attempts; one whose end nobody saw lasted till its last word."""
        return sum(_duration(attempt, folder) for attempt in self.attempts)


@dataclass(frozen=True)
class Standing:
    """How far a run came, and what is to be done about it.

    Attributes:
        step: ``SKIP``, ``START``, ``RESUME``, ``RESTART`` or ``REFUSE``.
        why: What is amiss; empty where it is finished and all is well.
        results: task -> metric -> value; None where it is not finished.
        seconds: Of all its attempts.
    """

    step: str
    why: str = ""
    results: Mapping[str, Any] | None = None
    seconds: float = 0.0


def read_record(folder: Path) -> RunRecord | None:
    """Return the record of a folder; None where there is none.

    Raises:
        UserError: If there is one that cannot be read: nobody knows then what run it is.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        attempts = [Attempt(**attempt) for attempt in content["attempts"]]
        return RunRecord(dict(content["config"]), attempts)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}): delete the folder to run it anew"
        ) from None


def begin_attempt(folder: Path, config: Mapping[str, Any]) -> tuple[RunRecord, Attempt]:
    """Record that a process is about to start; its log is begun.

    Args:
        folder: Of the run.
        config: Replaces the one recorded, from which it differs by ``WITHOUT_EFFECT`` alone, or
            which nothing has come of.

    Raises:
        UserError: If the record is broken or cannot be written.
    """
    known = read_record(folder)
    record = RunRecord(config, known.attempts if known else [])
    for attempt in record.attempts:
        attempt.seconds = _duration(attempt, folder)
    attempt = Attempt(started=time.time())
    record.attempts.append(attempt)
    record.write(folder)
    return record, attempt


def standing_of(folder: Path, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> Standing:
    """Tell how far a run came.

    Args:
        folder: Of the run; need not be there.
        config: key -> value it is to have.
        defaults: key -> value of a key that an older record lacks.
    """
    try:
        record = read_record(folder)
    except UserError as error:
        return Standing(REFUSE, str(error))
    held = held_run(folder)
    if held and record is None:
        return Standing(
            REFUSE,
            f"{folder} holds a run that d2pd ablate did not start ({held}): move it away, or give "
            "another --output",
        )
    if record is None:
        return Standing(START, "not run yet")
    seconds = record.seconds(folder)
    changes = differences(record.config, config, defaults) if held else []
    if changes:
        return Standing(
            REFUSE,
            f"{folder} holds a run of another configuration ({_some(changes)}): delete it to run "
            "this one, or give another --output",
            seconds=seconds,
        )
    results = read_results(folder)
    if results is not None:
        return Standing(SKIP, _end(record, folder, "finished"), results, seconds)
    step = RESUME if find_checkpoints(folder) else RESTART if held else START
    return Standing(step, _end(record, folder, "not finished") or "not finished", seconds=seconds)


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]
) -> list[str]:
    """Return ``KEY: old -> new`` of each key whose change gives other figures."""
    found = []
    for key in dict.fromkeys([*now, *before]):
        old, new = (side.get(key, defaults.get(key)) for side in (before, now))
        if old != new and not any(fnmatchcase(key, pattern) for pattern in WITHOUT_EFFECT):
            found.append(f"{key}: {json.dumps(old)} -> {json.dumps(new)}")
    return found


def _some(changes: Sequence[str]) -> str:
    more = len(changes) - _MOST_DIFFERENCES
    told = "; ".join(changes[:_MOST_DIFFERENCES])
    return f"{told}; and {more} more" if more > 0 else told


def _end(record: RunRecord, folder: Path, state: str) -> str:
    """Say how the last attempt ended; empty where it ended well."""
    code = record.attempts[-1].exit_code if record.attempts else None
    if not code:
        return ""
    if code in STOPPED:
        return f"{state}: stopped; the same command goes on with it"
    return f"{state}, exit code {code}: {_reason(folder / LOG)}"


def _reason(log: Path) -> str:
    """Return what a process said last: from its line for the user on, or its last line."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"no {log}"
    lines = [line for line in text.splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line.startswith("d2pd: ")]
    told = " ".join(lines[starts[-1] :] if starts else lines[-1:])
    told = " ".join(told.removeprefix("d2pd: ").split())
    return told if len(told) <= _LONGEST_REASON else f"{told[: _LONGEST_REASON - 3]}..."


def _duration(attempt: Attempt, folder: Path) -> float:
    if attempt.seconds is not None:
        return attempt.seconds
    log = folder / LOG
    return max(0.0, log.stat().st_mtime - attempt.started) if log.is_file() else 0.0
