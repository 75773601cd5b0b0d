"""Sets up logging: progress on stdout, everything in ``log.txt``."""

import logging
import os
import sys

from termcolor import colored

_PLAIN = "[%(asctime)s] %(name)s %(levelname)s: %(message)s"
_CLOCK = "%m/%d %H:%M:%S"


class _TerminalHandler(logging.StreamHandler):
    """Writes to what ``sys.stdout`` is at the time of the message."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        # Not by setStream, which flushes the one before: that may be closed by now.
        self.stream = sys.stdout
        super().emit(record)


class _TerminalFormatter(logging.Formatter):
    """Colours the head of a line and shortens the name of the logger."""

    def __init__(self, color: bool, name: str, abbrev_name: str) -> None:
        super().__init__(datefmt=_CLOCK)
        self._color, self._name, self._abbrev_name = color, name, abbrev_name

    def format(self, record: logging.LogRecord) -> str:
        """Return ``[time name]: message``, with the level where it is a warning or worse."""
        name = record.name
        if name == self._name or name.startswith(self._name + "."):
            name = (self._abbrev_name + name[len(self._name) :]).lstrip(".")
        head = f"[{self.formatTime(record, self.datefmt)} {name}]:"
        level = f"{record.levelname} " if record.levelno >= logging.WARNING else ""
        if self._color:
            head = colored(head, "green")
            level = colored(level, "red") if level else ""
        text = f"{head} {level}{record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def setup_logger(
    output: str | None = None,
    distributed_rank: int = 0,
    *,
    color: bool = True,
    name: str = "d2pd",
    abbrev_name: str | None = None,
    enable_propagation: bool = False,
    configure_stdout: bool = True,
) -> logging.Logger:
    """Send a logger and those below it to stdout and to a file; safe to call again.

    Args:
        output: A file ending in .txt or .log, or a folder that gets ``log.txt``; None for no file.
        distributed_rank: Only rank 0 writes to stdout; others add their rank to the file's name.
        color: Colour the head of the lines on stdout.
        name: Name of the logger; Detectron2's default is its own name.
        abbrev_name: What stands for ``name`` on stdout; None means the name itself.
        enable_propagation: Also pass messages on to the loggers above.
        configure_stdout: Write to stdout at all.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = enable_propagation
    if configure_stdout and distributed_rank == 0 and not _has_terminal(logger):
        terminal = _TerminalHandler()
        shown = name if abbrev_name is None else abbrev_name
        terminal.setFormatter(_TerminalFormatter(color, name, shown))
        logger.addHandler(terminal)
    if output:
        _add_file(logger, _log_path(output, distributed_rank))
    return logger


def _has_terminal(logger: logging.Logger) -> bool:
    return any(isinstance(handler, _TerminalHandler) for handler in logger.handlers)


def _log_path(output: str, rank: int) -> str:
    path = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
    return os.path.abspath(f"{path}.rank{rank}" if rank > 0 else path)


def _add_file(logger: logging.Logger, path: str) -> None:
    files = [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
    if any(handler.baseFilename == path for handler in files):
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(_PLAIN, datefmt=_CLOCK))
    logger.addHandler(handler)
