import copy
import os
import pickle

import pytest
import torch
from checkpoint_toys import Run, stock_content

from d2pd.errors import WeightsError
from d2pd.training.checkpoints.checkpoint_choice import choose_checkpoint
from d2pd.training.checkpoints.training_state import iteration_of, read_training


@pytest.fixture
def content(tmp_path):
    return {**stock_content(Run(tmp_path / "x").train(2)), "pending": False, "run": {"a": 1}}


def written(tmp_path, content):
    path = tmp_path / "model_0000005.pth"
    torch.save(content, path)
    return path


def test_a_whole_state_is_returned_with_the_weights(tmp_path, content):
    file, rest = read_training(written(tmp_path, content))
    assert list(rest) == ["trainer", "iteration", "pending", "run"]
    assert iteration_of(rest) == 1
    assert torch.equal(file.state["a.weight"], content["model"]["a.weight"])


def put(content, keys, value):
    """Replace or, for None, remove what lies under the keys."""
    node = content
    for key in keys[:-1]:
        node = node[key]
    if value is None:
        del node[keys[-1]]
    else:
        node[keys[-1]] = value


OPTIMIZER = ("trainer", "_trainer", "optimizer")
GROUP = (*OPTIMIZER, "param_groups", 0)


@pytest.mark.parametrize(
    ("keys", "value", "text"),
    [
        (("trainer",), [1, 2], "trainer is a list, not a dict"),
        (("trainer",), "x", "trainer is a str, not a dict"),
        (("trainer", "iteration"), None, "trainer.iteration is None, not a number from 0 up"),
        (("trainer", "iteration"), "7", "trainer.iteration is '7', not a number"),
        (("trainer", "iteration"), -1, "trainer.iteration is -1, not a number"),
        (("trainer", "iteration"), True, "trainer.iteration is True, not a number"),
        (("trainer", "iteration"), 2.0, "trainer.iteration is 2.0, not a number"),
        (("trainer", "iteration"), 10**30, "trainer.iteration is 1000"),
        (("trainer", "iteration"), "x\ny" * 999, "trainer.iteration is 'x"),
        (("iteration",), [3], r"iteration is \[3\], not a number"),
        (("trainer", "hooks"), [1], "trainer.hooks is a list, not a dict"),
        (("trainer", "hooks", "LRScheduler"), 3, "trainer.hooks.LRScheduler is a int, not a dict"),
        (("trainer", "hooks", "LRScheduler", "base_lrs"), "ab", "base_lrs are not numbers"),
        (("trainer", "hooks", "LRScheduler", "last_epoch"), "x", "last_epoch is 'x', not a number"),
        (("trainer", "_trainer"), None, "trainer._trainer is a NoneType, not a dict"),
        (OPTIMIZER, None, "optimizer is a NoneType, not a dict"),
        ((*OPTIMIZER, "state"), [1], "optimizer.state is a list, not a dict"),
        ((*OPTIMIZER, "state", 0), 5, "optimizer.state.0 is a int, not a dict"),
        ((*OPTIMIZER, "param_groups"), None, "param_groups is a NoneType, not a list"),
        (GROUP, 7, r"param_groups\[0\] is a int, not a dict"),
        ((*GROUP, "params"), None, r"param_groups\[0\].params is a NoneType, not a list"),
        ((*GROUP, "param_names"), ["a"], "param_names are not the names of its parameters"),
        ((*GROUP, "param_names"), "abc", "param_names is a str, not a list"),
        (("trainer", "hooks", "Odd"), {"dtype": torch.float32}, "Odd.dtype is a dtype, which a"),
    ],
)
def test_a_state_of_another_kind_is_one_line_and_passed_over(tmp_path, content, keys, value, text):
    put(content, keys, value)
    with pytest.raises(WeightsError, match=text) as caught:
        read_training(written(tmp_path, content))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    Run(tmp_path).train(1).save()
    assert choose_checkpoint(tmp_path).iteration == 0


def test_the_iteration_of_a_file_is_the_trainers(tmp_path):
    assert iteration_of({"iteration": 3}) == 3
    assert iteration_of({"iteration": 3, "trainer": {"iteration": 4}}) == 4
    assert iteration_of({"iteration": "3"}) is None
    assert iteration_of({}) is None


def test_marks_of_another_kind_count_as_absent(tmp_path, content):
    content |= {"pending": "yes", "run": [1]}
    written(tmp_path, content)
    choice = choose_checkpoint(tmp_path)
    assert (choice.is_pending, choice.run) == (False, None)


def test_a_state_without_end_is_refused(tmp_path, content):
    hooks = content["trainer"]["hooks"]
    hooks["Odd"] = {"itself": hooks}
    with pytest.raises(WeightsError, match="it is nested without end"):
        read_training(written(tmp_path, content))


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("keys", [("trainer",), ("run",), ("pending",), (*GROUP, "lr"), ("x",)])
@pytest.mark.parametrize("kind", ["zip", "old", "pickle"])
def test_code_anywhere_in_a_file_is_not_run(tmp_path, content, keys, kind):
    mark = tmp_path / "touched"
    put(content, keys, Touch(mark))
    path = written(tmp_path, content)
    if kind == "old":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    elif kind == "pickle":
        arrays = {name: tensor.numpy() for name, tensor in content["model"].items()}
        path.write_bytes(pickle.dumps({"model": arrays, "trainer": Touch(mark)}))
    with pytest.raises(WeightsError, match="could run code, so nothing was loaded"):
        read_training(path)
    assert not mark.exists()


def test_attributes_of_tensors_do_no_harm(tmp_path, content):
    tensor = torch.ones(3, 3)
    tensor.detach = tensor.isfinite = tensor.is_floating_point = "no function"
    content["model"]["a.weight"] = tensor
    content["trainer"]["hooks"]["Odd"] = {"tensor": tensor}
    path = written(tmp_path, content)
    assert torch.load(path, weights_only=True)["model"]["a.weight"].isfinite == "no function"
    file, rest = read_training(path)
    assert torch.equal(file.state["a.weight"], torch.ones(3, 3))
    assert rest["trainer"]["hooks"]["Odd"]["tensor"].isfinite().all()


def test_a_tensor_far_larger_than_its_file_is_refused(tmp_path, content):
    for keys in (("model", "huge"), ("trainer", "hooks", "huge")):
        changed = copy.deepcopy(content)
        put(changed, keys, torch.zeros(1).expand(10**12))
        with pytest.raises(WeightsError, match=r"asks for 4,000,\d{3},\d{3},\d{3} bytes of memory"):
            read_training(written(tmp_path, changed))


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(2, device="meta"), torch.eye(2).to_sparse()],
    ids=["without numbers", "sparse"],
)
def test_tensors_of_other_kinds_are_refused(tmp_path, content, tensor):
    content["model"]["odd"] = tensor
    with pytest.raises(WeightsError, match="not one of numbers in memory|cut off or damaged"):
        read_training(written(tmp_path, content))
