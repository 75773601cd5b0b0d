"""Files that PyTorch itself runs, without d2pd: exported programs, and TorchScript of old."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from d2pd.inference.export.graph import Size, draw_graph, example_images, exportable, quietly
from d2pd.modeling.batch_detections import BatchDetections
from d2pd.modeling.build import Core

FACTS = "d2pd.json"
"""Name of the facts inside of the file."""


def write_exported(core: Core, path: Path, facts: Mapping[str, str], size: Size | None) -> None:
    """Write a core as a program of ``torch.export``, for any number of images.

    Args:
        core: Of a predictor; stays as it is.
        path: File to write.
        facts: Stored in the file as ``d2pd.json``.
        size: (height, width) of the images, px; None for any.

    Raises:
        ConfigError: If the model cannot be exported.
    """
    content = io.BytesIO()  # torch ends the process where a disk is full
    with quietly():
        torch.export.save(
            draw_graph(exportable(core), size),
            content,
            extra_files={FACTS: json.dumps(dict(facts))},
        )
    path.write_bytes(content.getbuffer())


def read_exported(path: Path) -> "TorchDetector":
    """Read what ``write_exported`` wrote."""
    with path.open("rb") as file, quietly():
        return TorchDetector(torch.export.load(file).module())


def write_script(core: Core, path: Path, facts: Mapping[str, str], size: Size) -> None:
    """Write a core as TorchScript, for one image of one size.

    Args:
        core: Of a predictor; stays as it is.
        path: File to write.
        facts: Stored in the file as ``d2pd.json``.
        size: (height, width) of the image, px.

    Raises:
        ConfigError: If the model cannot be exported.
    """
    copied, content = exportable(core), io.BytesIO()
    with quietly(), torch.no_grad():
        script = torch.jit.trace(copied, example_images(copied, (1, *size)), check_trace=False)
        torch.jit.save(script, content, _extra_files={FACTS: json.dumps(dict(facts))})
    path.write_bytes(content.getbuffer())


def read_script(path: Path) -> "TorchDetector":
    """Read what ``write_script`` wrote."""
    with quietly():
        return TorchDetector(torch.jit.load(str(path)))


class TorchDetector(nn.Module):
    """A file of PyTorch as the core it was made of.

    Args:
        module: Takes (N, C, H, W) uint8 images.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> BatchDetections:
        """Detect."""
        return BatchDetections(*self.module(images))
