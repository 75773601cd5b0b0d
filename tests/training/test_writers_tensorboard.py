from collections import Counter

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from d2pd.d2 import EventStorage
from d2pd.errors import UserError
from d2pd.training.writers.tensorboard import TensorboardEvents


def train(storage, writer, iterations, run):
    for iteration in iterations:
        storage.iter = iteration
        storage.put_scalar("lr", iteration + 1000.0 * run, smoothing_hint=False)
        if (iteration + 1) % 5 == 0:
            storage.put_image("pictures/curves", np.full((3, 4, 5), iteration, np.uint8))
            writer.write()


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def test_resume_leaves_every_step_once(tmp_path):
    with EventStorage() as storage:
        train(storage, TensorboardEvents(tmp_path, keep_through=None), range(20), run=1)
    # Killed: nothing was closed. The checkpoint is of iteration 11, the last row of 9.
    with EventStorage(12) as storage:
        storage.put_scalar("lr", 9.0, smoothing_hint=False, cur_iter=9)
        writer = TensorboardEvents(tmp_path, keep_through=9)
        writer.write()
        train(storage, writer, range(12, 25), run=2)
        writer.close()

    events = read(tmp_path)
    told = [(event.step, event.value) for event in events.Scalars("lr")]
    assert told == [(4, 1004), (9, 1009), (14, 2014), (19, 2019), (24, 2024)]
    steps = Counter(event.step for event in events.Images("pictures/curves"))
    assert steps == Counter([4, 9, 14, 19, 24])


def test_what_is_written_is_on_the_disk_before_anything_is_closed(tmp_path):
    with EventStorage() as storage:
        writer = TensorboardEvents(tmp_path, keep_through=None)
        train(storage, writer, range(5), run=0)
        assert [event.step for event in read(tmp_path).Scalars("lr")] == [4]
        assert storage._vis_data == []
        writer.close()


def test_run_that_writes_nothing_leaves_no_file(tmp_path):
    with EventStorage():
        writer = TensorboardEvents(tmp_path, keep_through=None)
        writer.write()
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_one_line(tmp_path, monkeypatch):
    def no_room(_self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.flush", no_room)
    with EventStorage() as storage:
        writer = TensorboardEvents(tmp_path, keep_through=None)
        with pytest.raises(UserError, match="No space left on device"):
            train(storage, writer, range(5), run=0)
    monkeypatch.undo()
    writer.close()  # its thread would write on when the folder is gone
