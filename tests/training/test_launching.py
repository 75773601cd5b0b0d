"""What is refused before any process is started."""

import pytest

from d2pd.errors import ConfigError
from d2pd.training import launching
from d2pd.training.launching import BY_TORCHRUN, launch, told_by_first


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


@pytest.mark.parametrize(("rank", "waits"), [("0", []), ("1", [launching.SECONDS_FOR_FIRST])])
def test_other_processes_of_torchrun_let_the_first_tell(monkeypatch, rank, waits):
    for name in BY_TORCHRUN:
        monkeypatch.setenv(name, rank)
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    with pytest.raises(ConfigError, match="wrong"), told_by_first():
        raise ConfigError("wrong")
    assert waited == waits


def test_nothing_else_lets_another_process_tell(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("time.sleep", None)
    with pytest.raises(ConfigError), told_by_first():
        raise ConfigError


def test_one_process_is_this_one():
    seen = []
    launch(seen.append, 1, args=("here",), on_gpu=False)
    assert seen == ["here"]
