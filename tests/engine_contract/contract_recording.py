"""Recorded observations: written under real Detectron2, compared under either engine."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).resolve().parent / "recorded"
DIGITS = 7


class Recorder:
    """Pytest plugin whose presence makes the tests write instead of compare."""

    def __init__(self, version: str, commit: str) -> None:
        self.engine = {"version": version, "commit": commit}
        self.written: set[Path] = set()

    def write(self, path: Path, observation: Any) -> None:
        assert path not in self.written, f"two tests would write {path.name}: rename one"
        self.written.add(path)
        document = {
            "detectron2": self.engine,
            "torch": torch.__version__,
            "observation": as_json(observation),
        }
        path.write_text(json.dumps(document, indent=0) + "\n", encoding="utf-8")


class Contract:
    """Compares the observation of one test with what Detectron2 did."""

    def __init__(self, name: str, engine: str, recorder: Recorder | None) -> None:
        self.path = FOLDER / f"{name}.json"
        self.engine = engine
        self.recorder = recorder
        self.compared = False

    def __call__(
        self,
        observation: Mapping[str, Any],
        *,
        rtol: float = 1e-6,
        atol: float = 1e-9,
        differences: Mapping[str, str] | None = None,
    ) -> None:
        """Hold an observation against the recorded one, or record it.

        Args:
            observation: Numbers, strings, lists and tensors by name.
            rtol: Relative tolerance of floats.
            atol: Absolute tolerance of floats.
            differences: Names under which the embedded engine is meant to differ, with the reason.
                One that does not differ is a failure, so that no stale one is left.
        """
        self.compared = True
        if self.recorder is not None:
            self.recorder.write(self.path, observation)
            return
        assert self.path.is_file(), f"{self.path.name} was not recorded: make record-contract"
        recorded = json.loads(self.path.read_text(encoding="utf-8"))["observation"]
        observed = as_json(observation)
        wanted = set(differences or {}) if self.engine == "embedded" else set()
        for name in wanted:
            assert compare(recorded[name], observed[name], rtol, atol), (
                f"{name} is listed as a difference and does not differ"
            )
        kept, seen = (
            {name: value for name, value in tree.items() if name not in wanted}
            for tree in (recorded, observed)
        )
        wrong = compare(kept, seen, rtol, atol)
        assert not wrong, "\n".join(["not as Detectron2 does:", *wrong[:20]])


def as_json(value: Any) -> Any:
    """Turn tensors, tuples and keys into what JSON holds; round floats to ``DIGITS`` digits."""
    if isinstance(value, torch.Tensor):
        return as_json(value.detach().tolist())
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"an observation cannot hold {type(value).__name__}: {value!r}")


def compare(recorded: Any, observed: Any, rtol: float, atol: float, path: str = "") -> list[str]:
    """List where two trees differ; the order of keys counts, NaN equals NaN."""
    if isinstance(recorded, dict) and isinstance(observed, dict):
        if list(recorded) != list(observed):
            return [_keys_differ(recorded, observed, path)]
        pairs = [(f"{path}.{key}", recorded[key], observed[key]) for key in recorded]
    elif isinstance(recorded, list) and isinstance(observed, list):
        if len(recorded) != len(observed):
            return [f"{path}: recorded {_short(recorded)}, here {_short(observed)}"]
        pairs = [
            (f"{path}[{index}]", *both)
            for index, both in enumerate(zip(recorded, observed, strict=True))
        ]
    else:
        same = _same_leaf(recorded, observed, rtol, atol)
        return [] if same else [f"{path}: recorded {_short(recorded)}, here {_short(observed)}"]
    return [line for name, old, new in pairs for line in compare(old, new, rtol, atol, name)]


def _keys_differ(recorded: dict, observed: dict, path: str) -> str:
    missing = [key for key in recorded if key not in observed]
    added = [key for key in observed if key not in recorded]
    if missing or added:
        return f"{path}: keys missing here {missing}, only here {added}"
    return f"{path}: keys in another order, recorded {list(recorded)}, here {list(observed)}"


def _same_leaf(recorded: Any, observed: Any, rtol: float, atol: float) -> bool:
    if isinstance(recorded, float) and isinstance(observed, float):
        if math.isnan(recorded) or math.isnan(observed):
            return math.isnan(recorded) and math.isnan(observed)
        return math.isclose(recorded, observed, rel_tol=rtol, abs_tol=atol)
    return type(recorded) is type(observed) and recorded == observed


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 160 else f"{text[:160]}..."
