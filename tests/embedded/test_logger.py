"""The log on the terminal, wherever that is at the time."""

import io
import logging
import sys

import pytest

from d2pd.embedded.logger import setup_logger


@pytest.fixture
def logger():
    name = "a_logger_of_its_own"
    yield setup_logger(name=name)
    logging.getLogger(name).handlers.clear()


def test_messages_follow_the_standard_output_though_the_one_before_is_closed(logger, monkeypatch):
    # As in a notebook, or where a caller captures what is printed.
    for text in ("one", "two"):
        with io.StringIO() as terminal:
            monkeypatch.setattr(sys, "stdout", terminal)
            logger.info(text)
            assert terminal.getvalue().endswith(f"{text}\n")
