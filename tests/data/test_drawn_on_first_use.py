import json

import pytest

from d2pd.data import drawn_on_first_use
from d2pd.data.drawn_on_first_use import DrawingSize, ensure_drawn
from d2pd.errors import ConfigError

SIZE = DrawingSize(num_train=3, num_test=2, seed=5)
STAMP = '{"num_train": 3, "num_test": 2, "seed": 5}'


@pytest.fixture
def drawn(monkeypatch):
    """Stands in for the drawing, which is tested by itself; returns the calls."""
    calls = []

    def draw(output, **size):
        calls.append(size)
        output.mkdir(parents=True)
        (output / "train20.json").write_text("{}")

    monkeypatch.setattr("d2pd.data.synthetic.draw_dataset", draw, raising=False)
    return calls


def test_a_dataset_is_drawn_once(tmp_path, drawn):
    annotations = tmp_path / "deep" / "synthetic" / "train20.json"
    ensure_drawn(annotations, SIZE)
    ensure_drawn(annotations, SIZE)
    assert drawn == [{"num_train": 3, "num_test": 2, "seed": 5}]
    stamp = annotations.parent / drawn_on_first_use.STAMP
    assert json.loads(stamp.read_text()) == drawn[0]
    assert [path.name for path in annotations.parent.parent.iterdir()] == ["synthetic"]


def test_a_dataset_of_the_users_own_is_left_alone(tmp_path, drawn):
    (tmp_path / "train20.json").write_text("mine")
    ensure_drawn(tmp_path / "train20.json", SIZE)
    assert not drawn
    assert [path.name for path in tmp_path.iterdir()] == ["train20.json"]


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def draw(output, **size):
        output.mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr("d2pd.data.synthetic.draw_dataset", draw, raising=False)
    with pytest.raises(KeyboardInterrupt):
        ensure_drawn(tmp_path / "synthetic" / "train20.json", SIZE)
    assert list(tmp_path.iterdir()) == []


def test_the_slower_of_two_processes_takes_what_the_other_drew(tmp_path, monkeypatch):
    folder = tmp_path / "synthetic"

    def draw(output, **size):
        for path in (output, folder):
            path.mkdir(parents=True)
            (path / "train20.json").write_text("{}")

    monkeypatch.setattr("d2pd.data.synthetic.draw_dataset", draw, raising=False)
    ensure_drawn(folder / "train20.json", SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["synthetic"]


def test_another_size_than_the_one_drawn_is_refused(tmp_path, drawn):
    folder = tmp_path / "synthetic"
    ensure_drawn(folder / "train20.json", SIZE)
    with pytest.raises(ConfigError) as caught:
        ensure_drawn(folder / "train20.json", DrawingSize(3, 2, 6))
    assert str(caught.value) == (
        f"{folder} was drawn with {STAMP}, DATASETS.SYNTHETIC asks for "
        f"{STAMP.replace('5', '6')}; delete {folder}, or name another folder with DATASETS.ROOT"
    )
    assert len(drawn) == 1


def test_a_folder_with_other_files_is_not_drawn_over(tmp_path, drawn):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError) as caught:
        ensure_drawn(tmp_path / "train20.json", SIZE)
    assert str(caught.value) == (
        f"{tmp_path} holds other files and no train20.json to use or draw; delete {tmp_path}, or "
        "name another folder with DATASETS.ROOT"
    )
    assert not drawn
