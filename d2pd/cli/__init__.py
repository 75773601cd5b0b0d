"""The ``d2pd`` command and ``train_net.py``: argument parsing only.

Each command imports what it needs when it runs, so that ``doctor`` works where torch does not.
"""

import argparse
import errno
import io
import os
import sys
from collections.abc import Callable, Sequence

from d2pd import __version__
from d2pd.cli.data_commands import add_data_commands
from d2pd.cli.run_commands import add_run_commands
from d2pd.cli.use_commands import add_use_commands
from d2pd.errors import AnnotationError, MissingFileError, RunInterrupted, UserError
from d2pd.printable import printable

USER_ERROR = 2
INTERRUPTED = 130
OUTPUT_CLOSED = 141
REFUSED_BY_SYSTEM = (
    errno.EACCES,
    errno.EDQUOT,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``d2pd`` command.

    Args:
        argv: Words after the command's name; None for those of this process.

    Returns:
        Exit code: 0 done, 1 findings or, of ``predict``, some inputs that could not be used, 2 a
            mistake of the user's or nothing that could be used, 75 stopped by the time limit, 130
            interrupted, 141 output closed by its reader, 143 terminated.
    """
    args = _parser().parse_args(argv)
    return _guarded(lambda: args.run(args))


def train(argv: Sequence[str] | None = None) -> int:
    """Run ``train_net.py``: Detectron2's arguments, ``--overwrite``, ``KEY VALUE`` overrides.

    Returns:
        Exit code, as for ``main``.
    """
    return _guarded(lambda: _train(argv), "; --resume goes on from the newest checkpoint")


def _train(argv: Sequence[str] | None) -> int:
    from d2pd.config import load_config, train_parser
    from d2pd.training.launching import is_under_torchrun, launch, told_by_first
    from d2pd.training.preflight import check_gpu_count, resolve_device
    from d2pd.training.run import main as run

    args = train_parser().parse_args(argv)
    device = "auto"
    with told_by_first():
        if args.num_gpus > 1 or args.num_machines > 1 or is_under_torchrun():
            device = load_config(args.config_file, args.opts).MODEL.DEVICE
        check_gpu_count(args.num_gpus, device)
        on_gpu = resolve_device(device) != "cpu"
    launch(
        run,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
        on_gpu=on_gpu,
    )
    return 0


def _guarded(command: Callable[[], int], after_interrupt: str = "") -> int:
    """Show the mistakes a user can mend as one line, without a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name may hold what its encoding does not
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = command()
        sys.stdout.flush()
    except UserError as error:
        print(f"d2pd: {_message(error)}", file=sys.stderr)
        return USER_ERROR
    except RunInterrupted as stop:
        print(f"d2pd: {stop}", file=sys.stderr)
        return stop.exit_code
    except BrokenPipeError:  # whoever read the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OUTPUT_CLOSED
    except OSError as error:
        if error.errno not in REFUSED_BY_SYSTEM:
            raise
        print(f"d2pd: the system refuses: {error}; make room, or write elsewhere", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"d2pd: interrupted{after_interrupt}", file=sys.stderr)
        return INTERRUPTED
    return code


def _message(error: UserError) -> str:
    """Return what happened; what a name in a file would do to the terminal, is told as code."""
    text = str(error)
    lines = [text] if isinstance(error, AnnotationError | MissingFileError) else text.split("\n")
    return "\n".join(map(printable, lines))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="d2pd", description="Pedestrian detectors.")
    parser.add_argument("--version", action="version", version=f"d2pd {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="what is installed, what is missing, the cures")
    doctor.set_defaults(run=_doctor)
    add_data_commands(commands)
    add_run_commands(commands)
    add_use_commands(commands)
    return parser


def _doctor(args: argparse.Namespace) -> int:
    from d2pd import doctor

    return doctor.main()
