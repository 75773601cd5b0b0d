import importlib
import logging
import sys
import types

import numpy as np
import pytest

from d2pd.config_keys import default_config
from d2pd.d2 import EventStorage
from d2pd.errors import ConfigError, UserError
from d2pd.training.writers.wandb import WandbWriter, check_wandb


class FakeRun:
    def __init__(self, settings, step=0):
        self.settings, self.step = settings, step
        self.rows, self.is_finished, self.failure = [], False, None

    def log(self, row, step):
        if self.failure:
            raise self.failure
        self.rows.append((step, row))

    def finish(self):
        if self.failure:
            raise self.failure
        self.is_finished = True


class FakeWandb(types.ModuleType):
    """Stands in for the package: keeps what it is sent."""

    def __init__(self):
        super().__init__("wandb")
        self.runs, self.failures, self.server_step = [], [], 0
        self.ids_in_use = set()

    def init(self, **settings):
        if settings["id"] in self.ids_in_use:
            raise RuntimeError("run ID is in use")
        if self.failures:
            self.ids_in_use.add(settings["id"])
            raise self.failures.pop(0)
        self.runs.append(FakeRun(settings, self.server_step))
        return self.runs[-1]

    def teardown(self):
        self.ids_in_use.clear()

    @staticmethod
    def Image(pixels):
        return ("image", pixels.shape, pixels.dtype)


@pytest.fixture
def wandb(monkeypatch):
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1")
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def open_writer(folder, keep_through=None, name=""):
    return WandbWriter(
        folder, project="people", name=name, config={"SEED": 1}, keep_through=keep_through
    )


def put(storage, iteration):
    storage.iter = iteration
    storage.put_scalar("total_loss", float(iteration))
    storage.put_scalar("lr", 0.1, smoothing_hint=False)


def test_scalars_go_by_iteration_once_and_smoothed_as_hinted(tmp_path, wandb):
    with EventStorage() as storage:
        writer = open_writer(tmp_path)
        for iteration in range(11):
            put(storage, iteration)
        storage.put_scalar("val/total_loss", 7.0, smoothing_hint=False, cur_iter=4)
        writer.write()
        writer.write()
        writer.close()
    (run,) = wandb.runs
    assert run.rows == [(4, {"val/total_loss": 7.0}), (10, {"total_loss": 5.0, "lr": 0.1})]
    assert run.is_finished


def test_pictures_go_with_their_iteration_as_rows_columns_channels(tmp_path, wandb):
    with EventStorage() as storage:
        writer = open_writer(tmp_path)
        storage.put_image("pictures/train_batch", np.zeros((3, 4, 5), np.uint8))
        put(storage, 9)
        storage.put_image("pictures/curves", np.zeros((3, 6, 7), np.uint8))
        writer.write()
    assert wandb.runs[0].rows == [
        (0, {"pictures/train_batch": ("image", (4, 5, 3), np.uint8)}),
        (9, {"total_loss": 9.0, "lr": 0.1, "pictures/curves": ("image", (6, 7, 3), np.uint8)}),
    ]


def test_run_is_named_and_described(tmp_path, wandb):
    open_writer(tmp_path, name="first try")
    open_writer(tmp_path)
    settings = wandb.runs[0].settings
    assert settings["project"] == "people"
    assert settings["name"] == "first try"
    assert settings["config"] == {"SEED": 1}
    assert settings["dir"] == str(tmp_path)
    assert wandb.runs[1].settings["name"] is None


def test_resume_goes_on_with_the_same_run_and_a_new_training_with_a_new_one(tmp_path, wandb):
    for keep_through in (None, 9, None):
        open_writer(tmp_path, keep_through)
    first, resumed, new = (run.settings for run in wandb.runs)
    assert first["id"] == resumed["id"] != new["id"]
    assert {run.settings["resume"] for run in wandb.runs} == {"allow"}
    assert (tmp_path / "wandb_id").read_text() == new["id"]


def test_what_the_server_has_is_not_sent_again(tmp_path, wandb):
    open_writer(tmp_path)
    wandb.server_step = 15  # it got iteration 14, and the kill took 10 to 14 with it
    with EventStorage(10) as storage:
        writer = open_writer(tmp_path, keep_through=9)
        for iteration in (9, 14, 19):
            put(storage, iteration)
            writer.write()
    assert [step for step, _ in wandb.runs[1].rows] == [19]


def test_network_that_fails_warns_once_and_training_goes_on(tmp_path, wandb, caplog):
    with EventStorage() as storage:
        writer = open_writer(tmp_path)
        wandb.runs[0].failure = ConnectionError("no route\nto host")
        for iteration in range(3):
            put(storage, iteration)
            writer.write()
        wandb.runs[0].failure = None
        put(storage, 3)
        writer.write()
        wandb.runs[0].failure = ConnectionError("gone again")
        writer.close()
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == ["Weights & Biases does not get everything: no route to host"]
    assert [step for step, _ in wandb.runs[0].rows] == [3]


def test_server_that_cannot_be_reached_is_made_up_for_later(tmp_path, wandb, caplog):
    wandb.failures = [RuntimeError("No API key configured")]
    with EventStorage() as storage:
        writer = open_writer(tmp_path)
        put(storage, 0)
        writer.write()
    assert wandb.runs[0].settings["mode"] == "offline"
    assert len(wandb.runs[0].rows) == 1
    assert "cannot be reached (No API key configured)" in caplog.text
    assert "wandb sync" in caplog.text


def test_package_that_does_nothing_at_all_costs_nothing_but_its_log(tmp_path, wandb, caplog):
    wandb.failures = [RuntimeError("one"), RuntimeError("two")]
    with EventStorage() as storage:
        writer = open_writer(tmp_path)
        put(storage, 0)
        writer.write()
        writer.close()
    assert wandb.runs == []
    assert "does not get everything: two" in caplog.text


def test_id_that_cannot_be_kept_is_one_line(tmp_path, wandb, monkeypatch):
    def no_room(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_room)
    with pytest.raises(UserError, match=r"cannot write .*wandb_id \(No space left"):
        open_writer(tmp_path)


def config(enabled):
    cfg = default_config()
    cfg.WANDB.ENABLED = enabled
    return cfg


def test_package_is_needed_only_where_it_is_asked_for(wandb, monkeypatch):
    check_wandb(config(True))
    monkeypatch.setitem(sys.modules, "wandb", None)  # what makes an import fail
    check_wandb(config(False))
    with pytest.raises(ConfigError, match=r"WANDB.ENABLED is True, but .*: pip install wandb, or"):
        check_wandb(config(True))


def test_folder_of_results_is_not_taken_for_the_package(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()
    try:
        with pytest.raises(ConfigError, match=r"wandb is a folder of results and hides"):
            check_wandb(config(True))
    finally:
        sys.modules.pop("wandb", None)
