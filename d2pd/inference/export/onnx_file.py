"""ONNX: the graph with standard operators alone, run by ONNX Runtime and others."""

import contextlib
import importlib.util
import io
import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from d2pd.errors import ConfigError
from d2pd.inference.export.graph import INPUT, OUTPUTS, Size, draw_graph, exportable, quietly
from d2pd.modeling.batch_detections import BatchDetections, suppress_jointly
from d2pd.modeling.build import Core

OPSET = 18
NEEDS = ("onnx", "onnxscript", "onnxruntime")
_LOWEST = -1e30


def check_onnx() -> None:
    """See that what writes and checks ONNX is installed.

    Raises:
        ConfigError: Naming what is missing and the line that installs it.
    """
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--format onnx needs {', '.join(missing)}: pip install {' '.join(missing)}"
        )


def write_onnx(core: Core, path: Path, facts: Mapping[str, str], size: Size | None) -> None:
    """Write a core as ONNX, weights inside.

    Args:
        core: Of a predictor; stays as it is.
        path: File to write.
        facts: Stored as the model's metadata.
        size: (height, width) of the images, px; None for any.

    Raises:
        ConfigError: If the model cannot be exported.
    """
    op = _suppression_op()

    def suppress(*arguments: Any) -> Tensor:
        kept: Tensor = op(*arguments, core.num_groups)
        return kept

    graph = draw_graph(exportable(core, suppress), size)
    table: Any = {
        torch.ops.d2pd.suppress.default: _onnx_suppress,
        torch.ops.aten.sort.stable: _onnx_sort,
    }
    logging.getLogger("onnxscript").setLevel(logging.WARNING)
    with quietly(), contextlib.redirect_stdout(io.StringIO()):
        program = torch.onnx.export(
            graph,
            dynamo=True,
            opset_version=OPSET,
            custom_translation_table=table,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    program.model.metadata_props.update(facts)
    program.save(str(path), external_data=False)


class OnnxDetector(nn.Module):
    """An ONNX file as the core it was made of: runs on ONNX Runtime's CPU provider.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def forward(self, images: Tensor) -> BatchDetections:
        """Detect on (N, C, H, W) uint8 images on the CPU."""
        found = self.session.run(list(OUTPUTS), {INPUT: images.numpy()})
        return BatchDetections(*(torch.from_numpy(np.asarray(part)) for part in found))


@cache
def _suppression_op() -> Any:
    """Give the suppression a name in the graph, by which it is translated as a whole."""

    @torch.library.custom_op("d2pd::suppress", mutates_args=())
    def suppress(
        boxes: Tensor,
        scores: Tensor,
        groups: Tensor,
        is_candidate: Tensor,
        iou_threshold: float,
        num_groups: int,
    ) -> Tensor:
        return suppress_jointly(boxes, scores, groups, is_candidate, iou_threshold)

    @suppress.register_fake
    def _(boxes: Tensor, scores: Tensor, groups: Tensor, is_candidate: Tensor, *_: Any) -> Tensor:
        return torch.empty_like(is_candidate)

    return suppress


def _onnx_suppress(
    boxes: Any, scores: Any, groups: Any, is_candidate: Any, iou_threshold: float, num_groups: int
) -> Any:
    """Suppress with ONNX's operator, which knows images and groups: no box has to be moved."""
    ir, op = _onnx_words()
    numbers = op.Constant(value_ints=list(range(num_groups)))
    of_groups = op.Equal(op.Unsqueeze(groups, [1]), op.Unsqueeze(numbers, [0, 2]))  # (N, G, T)
    is_of_group = op.And(of_groups, op.Unsqueeze(is_candidate, [1]))
    lowest = op.Constant(value_float=_LOWEST)
    found = op.NonMaxSuppression(
        boxes,
        op.Where(is_of_group, op.Unsqueeze(scores, [1]), lowest),
        op.Shape(scores, start=1, end=2),
        op.Constant(value_float=iou_threshold),
        op.Constant(value_float=_LOWEST / 2),
    )
    places = op.Gather(found, op.Constant(value_ints=[0, 2]), axis=1)  # image and row
    nothing = ir.tensor(np.zeros(1, dtype=np.int64))
    ones = op.Expand(op.Constant(value_int=1), op.Shape(places, start=0, end=1))
    kept = op.ScatterND(op.ConstantOfShape(op.Shape(scores), value=nothing), places, ones)
    return op.Cast(kept, to=ir.DataType.BOOL)


def _onnx_sort(values: Any, stable: bool = False, dim: int = -1, descending: bool = False) -> Any:
    """Sort with ONNX's TopK, which by its definition puts the first of equal values first."""
    _, op = _onnx_words()
    size = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]))
    return op.TopK(values, size, axis=dim, largest=int(descending), sorted=1)


def _onnx_words() -> tuple[Any, Any]:
    """Return onnxscript's types and operators; installed for the export alone."""
    import onnxscript

    return onnxscript.ir, onnxscript.opset18
