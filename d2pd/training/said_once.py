"""Lets what is said at every evaluation of a run be said when it is new."""

import logging


class SaidOnce(logging.Filter):
    """Drops a warning that came before in the same words; lets everything else pass."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is to be logged."""
        if record.levelno != logging.WARNING:
            return True
        text = record.getMessage()
        is_new = text not in self._said
        self._said.add(text)
        return is_new
