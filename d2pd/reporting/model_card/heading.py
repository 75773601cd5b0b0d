"""The head of a card: what the weights are, and what to do with them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from d2pd.d2 import CfgNode
from d2pd.data.modality import CAMERAS
from d2pd.reporting.model_card.markdown import code, names, rounded_down, sentence, table
from d2pd.reporting.model_card.saved_weights import SavedWeights, Weights
from d2pd.reporting.report.run_facts import model_words, size_words

PICTURES = {
    "visible": "visible pictures",
    "lwir": "thermal (lwir) pictures",
    "both": "aligned pairs of a visible and a thermal (lwir) picture",
}
ARRAYS = {
    "visible": 'cv2.imread("picture.png")',
    "lwir": 'cv2.imread("picture.png")',
    "both": 'np.dstack([cv2.imread("visible.png"), cv2.imread("lwir.png")])',
}


def model_lines(
    cfg: CfgNode,
    weights: Weights,
    class_names: Sequence[str],
    dates: Sequence[str],
    status: str,
) -> Iterator[str]:
    """Yield the lines on what the model is, without the heading.

    Args:
        cfg: Of the training.
        weights: Those that the run has left.
        class_names: Of class 0, 1, ...
        dates: When the training began and was last heard of; empty where that is not known.
        status: How the training ended.
    """
    run = (weights.last.run if weights.last else None) or {}
    rows = [
        ("detector", sentence(model_words(cfg))),
        ("finds", names(class_names)),
        ("in", f"{PICTURES[cfg.INPUT.MODALITY]}; {size_words(cfg.INPUT)} for the network"),
    ]
    for file in ([weights.last] if weights.last else []) + [*weights.best]:
        rows.append(("weights", _file_words(file)))
    days = " to ".join(dict.fromkeys(dates)) or "when is not written down"
    rows.append(("training", f"{sentence(status.rstrip('.'))} ({days})"))
    rows += list(_origin(run, weights.last))
    yield from table([("", ""), *rows])
    yield from (f"- Not among the weights: {sentence(fault)}" for fault in weights.faults)


def use_lines(
    cfg: CfgNode, weights: Weights, class_names: Sequence[str], score: float | None
) -> Iterator[str]:
    """Yield the lines on what the model is for, without the heading.

    Args:
        cfg: Of the training.
        weights: Those that the run has left.
        class_names: Of class 0, 1, ...
        score: The threshold to work at; None where none was measured.
    """
    yield (
        f"For finding {names(class_names)} in {PICTURES[cfg.INPUT.MODALITY]} like those that it "
        "was tested on, in research and teaching, where a person looks at what it finds. What it "
        "is not for stands under Limits."
    )
    yield ""
    file = weights.last or next(iter(weights.best), None)
    if file is None:
        yield from ("There are no weights to use.", "")
        return
    least = "" if score is None else rounded_down(score)
    options = f"--threshold {least} " if least else ""
    threshold = f", threshold={least}" if least else ""
    yield from (
        "In the folder of this card:",
        "",
        "```sh",
        f"python -m d2pd predict --weights {file.name} {options}PICTURES_OR_VIDEOS",
        "```",
        "",
        "```python",
        f"import cv2, d2pd{', numpy as np' * (len(CAMERAS[cfg.INPUT.MODALITY]) > 1)}",
        "",
        f'detector = d2pd.load("{file.name}")',
        f"found = detector.predict({ARRAYS[cfg.INPUT.MODALITY]}{threshold})",
        "print(found.boxes_xyxy, found.scores, found.classes)",
        "```",
        "",
    )


def _file_words(file: SavedWeights) -> str:
    words = f"{code(file.name)}, {_size(file.num_bytes)}, sha256 {code(file.sha256)}..."
    if file.iteration is not None:
        words += f", after iteration {file.iteration:,} (counted from 0)"
    if file.metric is not None:
        words += f", the best by {code(file.metric[0])}"
    return words


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e5 else f"{num_bytes:,} bytes"


def _origin(run: Mapping[str, Any], file: SavedWeights | None) -> Iterator[tuple[str, str]]:
    """Yield what a checkpoint says of where it was made."""
    versions = run.get("versions")
    if isinstance(versions, Mapping) and versions:
        told = ", ".join(code(f"{name} {version}") for name, version in list(versions.items())[:9])
        yield "with", f"{told}, engine {code(run.get('engine', 'not told'))}"
    elif file is not None:
        yield "with", "not told by the weights, as by those of Detectron2 alone"
    if run.get("device"):
        number = run.get("world_size")
        times = f"{number} x " if type(number) is int and number > 1 else ""
        yield "on", f"{times}{code(run['device'])}"
