"""``DetectionCheckpointer``: files, keys, what is loaded and what is refused."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from contract_recording import Contract
from contract_toys import key_tree, raised
from torch import nn

from d2pd.d2 import ENGINE, DetectionCheckpointer


def model() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    with torch.no_grad():
        for index, parameter in enumerate(net.parameters()):
            parameter.fill_(index + 0.5)
    return net


class Counter:
    """Something with a state."""

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.value = state["value"]


def test_keys_of_a_file(contract: Contract, tmp_path: Path) -> None:
    checkpointer = DetectionCheckpointer(model(), str(tmp_path), counter=Counter(7))
    checkpointer.save("first", iteration=3, note="hello")
    saved = torch.load(tmp_path / "first.pth", weights_only=True)
    assert list(saved) == ["model", "counter", "iteration", "note"]
    contract({"keys": key_tree(saved), "files": sorted(each.name for each in tmp_path.iterdir())})


def test_loading_gives_back_what_was_saved(contract: Contract, tmp_path: Path) -> None:
    DetectionCheckpointer(model(), str(tmp_path), a=Counter(7), b=Counter(8)).save("x", iteration=3)
    net, a, b = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), Counter(), Counter()
    checkpointer = DetectionCheckpointer(net, str(tmp_path), a=a, b=b)
    rest = checkpointer.load(checkpointer.get_checkpoint_file())
    torch.testing.assert_close(net.state_dict(), model().state_dict())
    assert (a.value, b.value) == (7, 8)
    contract({"rest": key_tree(rest), "iteration": rest["iteration"]})


def test_some_of_the_checkpointables(contract: Contract, tmp_path: Path) -> None:
    DetectionCheckpointer(model(), str(tmp_path), a=Counter(7), b=Counter(8)).save("x")
    observed: dict[str, Any] = {}
    for name, wanted in {"all": None, "one": ["b"], "none": []}.items():
        a, b = Counter(), Counter()
        checkpointer = DetectionCheckpointer(model(), str(tmp_path), a=a, b=b)
        rest = checkpointer.load(str(tmp_path / "x.pth"), checkpointables=wanted)
        observed[name] = [a.value, b.value, sorted(rest)]
    assert observed["one"][:2] == [0, 8]
    contract(observed)


def test_last_checkpoint(contract: Contract, tmp_path: Path) -> None:
    checkpointer = DetectionCheckpointer(model(), str(tmp_path))
    before = [checkpointer.has_checkpoint(), checkpointer.get_checkpoint_file()]
    checkpointer.save("first")
    checkpointer.save("second")
    (tmp_path / "first.txt").touch()
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "second.pth")
    contract(
        {
            "before": before,
            "has": checkpointer.has_checkpoint(),
            "last": Path(checkpointer.get_checkpoint_file()).name,
            "all": sorted(Path(each).name for each in checkpointer.get_all_checkpoint_files()),
        }
    )


def test_resume_or_load(contract: Contract, tmp_path: Path) -> None:
    DetectionCheckpointer(model(), str(tmp_path), counter=Counter(5)).save("old", iteration=9)
    observed = {}
    for name, folder, resume in (
        ("resume", tmp_path, True),
        ("load", tmp_path, False),
        ("nothing to resume", tmp_path / "empty", True),
    ):
        folder.mkdir(exist_ok=True)
        counter = Counter()
        checkpointer = DetectionCheckpointer(model(), str(folder), counter=counter)
        rest = checkpointer.resume_or_load(str(tmp_path / "old.pth"), resume=resume)
        observed[name] = [counter.value, rest.get("iteration"), sorted(rest)]
    assert observed["resume"][0] == 5
    assert observed["load"][0] == 0
    contract(observed)


def test_no_path_loads_nothing(contract: Contract) -> None:
    net = model()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    rest = DetectionCheckpointer(net).load("")
    torch.testing.assert_close(net.state_dict(), before)
    contract({"rest": rest})


def test_not_saving_to_disk(contract: Contract, tmp_path: Path) -> None:
    DetectionCheckpointer(model(), str(tmp_path), save_to_disk=False).save("x")
    DetectionCheckpointer(model(), "").save("y")
    files = [each.name for each in tmp_path.iterdir()]
    assert files == []
    contract({"files": files})


def test_a_plain_state_dict(contract: Contract, tmp_path: Path) -> None:
    torch.save(model().state_dict(), tmp_path / "plain.pth")
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    rest = DetectionCheckpointer(net).load(str(tmp_path / "plain.pth"))
    torch.testing.assert_close(net.state_dict(), model().state_dict())
    contract({"rest": key_tree(rest)})


def test_other_shapes_and_names_are_left_out(contract: Contract, tmp_path: Path) -> None:
    state = model().state_dict()
    state["0.weight"] = torch.zeros(4, 4)
    state["extra.weight"] = torch.zeros(1)
    del state["1.bias"]
    torch.save({"model": state}, tmp_path / "other.pth")
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    untouched = net[0].weight.detach().clone()
    rest = DetectionCheckpointer(net).load(str(tmp_path / "other.pth"))
    torch.testing.assert_close(net[0].weight.detach(), untouched)
    contract({"loaded": net[0].bias, "rest": key_tree(rest)})


def test_prefix_of_data_parallel(contract: Contract, tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in model().state_dict().items()}
    torch.save({"model": state}, tmp_path / "parallel.pth")
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    DetectionCheckpointer(net).load(str(tmp_path / "parallel.pth"))
    torch.testing.assert_close(net.state_dict(), model().state_dict())
    contract({"bias": net[0].bias})


def test_files_that_are_not_there(contract: Contract, tmp_path: Path) -> None:
    how = raised(DetectionCheckpointer(model()).load, str(tmp_path / "absent.pth"))
    assert how == ("AssertionError" if ENGINE == "detectron2" else "FileNotFoundError")
    contract(
        {"absent": how},
        differences={"absent": "MissingFileError, which is a FileNotFoundError"},
    )


class _Trap:
    """Leaves a mark where a pickle of it is loaded."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.mark),)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_code_in_a_pickle(contract: Contract, tmp_path: Path) -> None:
    ran = {}
    for name in ("weights.pkl", "weights.pth"):
        mark = tmp_path / f"{name}.mark"
        content = {"model": {}, "__author__": "somebody", "trap": _Trap(str(mark))}
        if name.endswith("pkl"):
            (tmp_path / name).write_bytes(pickle.dumps(content))
        else:
            torch.save(content, tmp_path / name)
        raised(DetectionCheckpointer(model()).load, str(tmp_path / name))
        ran[name] = mark.exists()
    # torch reads its own files safely by default, whichever engine asks.
    assert ran == {"weights.pkl": ENGINE == "detectron2", "weights.pth": False}
    contract(ran, differences={"weights.pkl": "the embedded engine never unpickles freely"})
