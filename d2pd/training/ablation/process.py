"""A run as a process of its own: a fault of one run, or its memory, is none of the next."""

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from d2pd.errors import MissingFileError, RunInterrupted
from d2pd.training.ablation.plan import PlannedRun
from d2pd.training.ablation.record import LOG, RESTART, RESUME, begin_attempt
from d2pd.training.interruption import Interruption, StopRequest

TRAIN_NET = Path(__file__).resolve().parents[3] / "train_net.py"

_FLAGS = {RESUME: ["--resume"], RESTART: ["--overwrite"]}
_PAUSE = 0.2  # s between two looks at the process


def perform(run: PlannedRun, step: str) -> int:
    """Start a run, or go on with it, and wait for its end; its words go to ``output.log``.

    Args:
        run: Its folder is made.
        step: ``START``, ``RESUME`` or ``RESTART``.

    Returns:
        Exit code of the process.

    Raises:
        UserError: If the folder cannot be written.
        RunInterrupted: On SIGTERM or Ctrl-C, once the process has saved and ended.
    """
    if not TRAIN_NET.is_file():
        raise MissingFileError(f"no {TRAIN_NET}: run d2pd from its source folder")
    words = [str(TRAIN_NET), "--config-file", str(run.config_file), *_FLAGS.get(step, [])]
    record, attempt = begin_attempt(run.folder, run.config)
    begin = time.monotonic()
    try:
        code, request = _wait_for([sys.executable, *words, *run.opts], run.folder / LOG)
        attempt.exit_code = code
    finally:
        attempt.seconds = time.monotonic() - begin
        record.write(run.folder)
    if request is not None:
        raise RunInterrupted(
            f"{request.reason} at {run}: the same command again goes on there", request.exit_code
        )
    return code


def _wait_for(command: Sequence[str], path: Path) -> tuple[int, StopRequest | None]:
    """Return the exit code, and what has asked for a stop meanwhile."""
    with path.open("ab") as log, Interruption() as interruption:
        log.write(f"$ {shlex.join(command)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        request = None
        while (code := process.poll()) is None:
            if request is None and (request := interruption.request()) is not None:
                _pass_on(request, process)
            time.sleep(_PAUSE)
        return code, request or interruption.request()


def _pass_on(request: StopRequest, process: "subprocess.Popen[bytes]") -> None:
    """Ask the run to save and stop; a terminal's Ctrl-C has reached it already."""
    if request.exit_code == 128 + signal.SIGTERM:
        process.terminate()
