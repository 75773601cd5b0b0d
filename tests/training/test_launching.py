"""What is refused before any process is started."""

import pytest

from d2pd.errors import ConfigError
from d2pd.training.launching import BY_TORCHRUN, launch


def unreached():
    raise AssertionError("nothing was to be started")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"num_machines": 2, "machine_rank": 2}, r"--machine-rank 2 is not in \[0, 2\)"),
        ({"num_machines": 2, "machine_rank": -1}, r"--machine-rank -1 is not in \[0, 2\)"),
        ({"num_machines": 2}, "--num-machines 2 needs --dist-url tcp://HOST:PORT"),
        ({"dist_url": "tcp://nowhere.invalid:1"}, "no host nowhere.invalid is known here"),
    ],
)
def test_arguments_that_cannot_be_used_are_told_at_once(arguments, told):
    with pytest.raises(ConfigError, match=told):
        launch(unreached, 2, on_gpu=False, **arguments)


def test_torchrun_says_how_many_processes_there_are(monkeypatch):
    for name in BY_TORCHRUN:
        monkeypatch.setenv(name, "0")
    with pytest.raises(ConfigError, match="leave --num-gpus and --num-machines out"):
        launch(unreached, 2, on_gpu=False)


def test_one_process_is_this_one():
    seen = []
    launch(seen.append, 1, args=("here",), on_gpu=False)
    assert seen == ["here"]
