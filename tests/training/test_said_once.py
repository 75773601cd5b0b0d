"""A warning comes once in the same words."""

import logging

from d2pd.training.said_once import SaidOnce


def test_a_warning_comes_again_when_its_words_change_and_other_lines_always(caplog):
    logger = logging.getLogger("d2pd.tests.said_once")
    once = SaidOnce()
    logger.addFilter(once)
    with caplog.at_level(logging.INFO):
        for reason in ("no label", "no label", "no detection"):
            logger.warning("AP is NaN: %s", reason)
            logger.info("AP %g", 1.5)
    logger.removeFilter(once)
    assert caplog.messages == [
        *("AP is NaN: no label", "AP 1.5", "AP 1.5"),
        *("AP is NaN: no detection", "AP 1.5"),
    ]
