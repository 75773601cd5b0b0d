import random
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from d2pd.d2 import EventStorage, comm
from d2pd.training.hooks.pictures import MOST_WIDTH, Pictures, read_rgb
from d2pd.training.writers.metrics_file import MetricsFile


def write_picture(path, width=40, height=30):
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = 200  # blue, as OpenCV writes it
    cv2.imwrite(str(path), image)
    return path


@pytest.fixture
def storage():
    with EventStorage() as storage:
        yield storage


def hook_at(folder, storage, iteration=9, is_due=True, stop_reason=None, draw=dict, start_iter=0):
    hook = Pictures(folder, draw)
    storage.iter = iteration
    hook.trainer = SimpleNamespace(
        iter=iteration,
        start_iter=start_iter,
        storage=storage,
        stop_reason=stop_reason,
        is_evaluation_due=lambda: is_due,
    )
    return hook


def shown(storage):
    return {name: (image.shape, iteration) for name, image, iteration in storage._vis_data}


def test_evaluation_draws_curves_and_detections_and_shows_both(tmp_path, storage):
    def draw():
        return {"detections on toys": write_picture(tmp_path / "detections_toys.png")}

    storage.put_scalars(total_loss=1.0, cur_iter=9)
    hook_at(tmp_path, storage, draw=draw).after_step()

    assert shown(storage)["pictures/detections_toys"] == ((3, 30, 40), 9)
    shape, iteration = shown(storage)["pictures/curves"]
    assert iteration == 9
    assert shape == cv2.imread(str(tmp_path / "curves.png")).transpose(2, 0, 1).shape


def test_other_iterations_draw_nothing(tmp_path, storage):
    storage.put_scalars(total_loss=1.0)
    hook_at(tmp_path, storage, is_due=False).after_step()
    assert shown(storage) == {}
    assert list(tmp_path.iterdir()) == []


def test_curves_hold_this_evaluation_and_the_stop_before_they_are_written(
    tmp_path, storage, monkeypatch
):
    drawn = {}
    monkeypatch.setattr(
        "d2pd.training.hooks.pictures.draw_curves",
        lambda metrics_json, path, **rest: drawn.update(rest) or write_picture(path),
    )
    metrics = MetricsFile(tmp_path / "metrics.json", keep_through=None)
    storage.put_scalars(total_loss=1.0, cur_iter=4)
    metrics.write()
    storage.put_scalars(total_loss=3.0, cur_iter=9)
    storage.put_scalars(**{"bbox/AP": 20.0}, smoothing_hint=False, cur_iter=9)
    hook_at(tmp_path, storage, stop_reason="no patience left").after_step()
    assert drawn["latest"] == {"total_loss": (2.0, 9), "bbox/AP": (20.0, 9)}
    assert drawn["stopped"] == (9, "no patience left")


def test_what_the_model_gets_to_see_is_shown_once_a_run(tmp_path, storage):
    write_picture(tmp_path / "train_batch.png")
    hook_at(tmp_path, storage, iteration=10, start_iter=10).before_train()
    assert shown(storage) == {}
    hook_at(tmp_path, storage, iteration=0).before_train()
    assert shown(storage) == {"pictures/train_batch": ((3, 30, 40), 0)}


def test_failure_to_draw_warns_and_leaves_the_rest(tmp_path, storage, caplog):

    def fail():
        raise KeyError("no such dataset")

    storage.put_scalars(total_loss=1.0)
    hook_at(tmp_path, storage, draw=fail).after_step()
    assert set(shown(storage)) == {"pictures/curves"}
    assert "detections cannot be drawn: KeyError: 'no such dataset'" in caplog.text


def test_broken_files_warn_and_do_not_end_the_run(tmp_path, storage, caplog):
    (tmp_path / "metrics.json").mkdir()  # cannot be read as a file
    (tmp_path / "curves.png").mkdir()  # nor written
    (tmp_path / "train_batch.png").write_bytes(b"no picture")
    storage.put_scalars(total_loss=1.0)
    hook = hook_at(tmp_path, storage)
    hook.before_train()
    hook.after_step()
    assert shown(storage) == {}
    assert "curves cannot be drawn" in caplog.text
    assert "train_batch.png cannot be drawn: ValueError" in caplog.text


def test_only_the_main_process_draws(tmp_path, storage, monkeypatch):
    write_picture(tmp_path / "train_batch.png")
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    hook = hook_at(tmp_path, storage)
    hook.before_train()
    hook.after_step()
    assert shown(storage) == {}
    assert not (tmp_path / "curves.png").exists()


def test_drawing_leaves_random_numbers_and_scalars_alone(tmp_path, storage):
    def state():
        numpy = np.random.get_state()[1].tolist()
        return random.getstate(), numpy, torch.get_rng_state().tolist(), dict(storage.latest())

    storage.put_scalars(total_loss=1.0)
    before = state()
    hook_at(tmp_path, storage).after_step()
    assert state() == before


def test_wide_pictures_are_made_smaller_and_channels_are_red_green_blue(tmp_path):
    image = read_rgb(write_picture(tmp_path / "wide.png", width=2 * MOST_WIDTH, height=100))
    assert image.shape == (3, 50, MOST_WIDTH)
    assert image.dtype == np.uint8
    assert image[:, 0, 0].tolist() == [0, 0, 200]
    assert read_rgb(write_picture(tmp_path / "small.png")).shape == (3, 30, 40)
