"""The inference core as a graph, for any number and size of images."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from d2pd.errors import ConfigError
from d2pd.modeling.batch_detections import Suppress, suppress_jointly
from d2pd.modeling.build import Core, ListedCore
from d2pd.modeling.ssd_core import SSDCore

INPUT = "images"
OUTPUTS = ("boxes", "scores", "classes", "counts")
SMALLEST, EXAMPLE = 64, (2, 256, 320)  # px; (N, H, W) of the images that the graph is drawn with


def exportable(core: Core, suppress: Suppress = suppress_jointly) -> nn.Module:
    """Return a copy of a core, with its own weights, that a graph can be made of.

    Args:
        core: Of a predictor.
        suppress: What suppresses overlapping boxes in the graph.

    Raises:
        ConfigError: If no graph can say what the model does; the message says why.
    """
    if isinstance(core, ListedCore):
        raise ConfigError(
            f"only Detectron2 has this model, and what is exported is d2pd's own ({core.why}): "
            "--format torchserve takes it as it is"
        )
    if isinstance(core, SSDCore) and core.detection.nms_type != "hard":
        raise ConfigError(
            f"MODEL.SSD.NMS_TYPE {core.detection.nms_type} cannot be exported as a graph: it picks "
            "box after box, each time by the scores it has just changed; export with "
            "MODEL.SSD.NMS_TYPE hard behind the command, or with --format torchserve"
        )
    copied = copy.deepcopy(core).cpu().eval()
    copied.suppress = suppress
    return PlainOutputs(copied)


class PlainOutputs(nn.Module):
    """A core that gives a bare tuple, which any program can take up."""

    def __init__(self, core: nn.Module) -> None:
        super().__init__()
        self.core = core

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give ``boxes``, ``scores``, ``classes`` and ``counts``; see ``BatchDetections``."""
        boxes, scores, classes, counts = self.core(images)
        return boxes, scores, classes, counts


def example_images(core: nn.Module, size: tuple[int, int, int] = EXAMPLE) -> Tensor:
    """Return images of noise, (N, C, H, W) uint8: those that are drawn on decide nothing."""
    number, height, width = size
    channels = len(next(tensor for name, tensor in core.named_buffers() if "pixel_mean" in name))
    generator = torch.Generator().manual_seed(0)
    return torch.randint(
        0, 256, (number, channels, height, width), dtype=torch.uint8, generator=generator
    )


def draw_graph(core: nn.Module) -> ExportedProgram:
    """Trace a core with a free number, height and width of images.

    Args:
        core: What ``exportable`` returned.

    Returns:
        A program of one input, (N, C, H, W) uint8, at least ``SMALLEST`` px high and wide.
    """
    sides = {2: Dim("height", min=SMALLEST), 3: Dim("width", min=SMALLEST)}
    with quietly(), torch.no_grad():
        return torch.export.export(
            core,
            (example_images(core),),
            dynamic_shapes={INPUT: {0: Dim("number", min=1), **sides}},
            # Sizes in a feature pyramid fit because of the padding, which is checked when it runs.
            prefer_deferred_runtime_asserts_over_guards=True,
        )


@contextmanager
def quietly() -> Iterator[None]:
    """Keep what torch's exporters tell their developers from the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
