"""A finished run that model cards are written of."""

import pytest
from card_toys import CLASSES, finish, hand_made_config


@pytest.fixture
def cfg(tmp_path):
    return hand_made_config(tmp_path / "data", CLASSES)


@pytest.fixture
def run(cfg):
    """A finished run with both tests evaluated."""
    return finish(cfg)
