"""The inference core as a graph, for any number of images, and any size where that can be."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from d2pd.errors import ConfigError
from d2pd.modeling.batch_detections import Suppress, suppress_jointly
from d2pd.modeling.build import Core, ListedCore
from d2pd.modeling.network import map_sides
from d2pd.modeling.ssd_core import SSDCore
from d2pd.modeling.torchvision_features import TorchvisionFeatures

Size: TypeAlias = tuple[int, int]

INPUT = "images"
OUTPUTS = ("boxes", "scores", "classes", "counts")
SMALLEST, LARGEST_OF_SMALLEST = 64, 1024  # px; see ``smallest_side``


def check_exportable(core: Core) -> None:
    """Refuse a model of which no graph can say what it does.

    Raises:
        ConfigError: Saying why.
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


def exportable(core: Core, suppress: Suppress = suppress_jointly) -> "PlainOutputs":
    """Return a copy of a core, with its own weights, that a graph can be made of.

    Args:
        core: Of a predictor.
        suppress: What suppresses overlapping boxes in the graph.

    Raises:
        ConfigError: As ``check_exportable``.
    """
    check_exportable(core)
    copied = copy.deepcopy(core).cpu().eval()
    copied.suppress = suppress
    return PlainOutputs(copied)


class PlainOutputs(nn.Module):
    """A core that gives a bare tuple, which any program can take up."""

    def __init__(self, core: Core) -> None:
        super().__init__()
        self.core = core

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give ``boxes``, ``scores``, ``classes`` and ``counts``; see ``BatchDetections``."""
        boxes, scores, classes, counts = self.core(images)
        return boxes, scores, classes, counts


def smallest_side(core: Core) -> int:
    """Return the least height and width, px, of the images that a graph for any size can take.

    Every map of SSD has two positions there: a graph takes a side of one for a case of its own.

    Raises:
        ConfigError: If there is no such size.
    """
    if not isinstance(core, SSDCore):
        return SMALLEST
    for side in range(SMALLEST, LARGEST_OF_SMALLEST + 1):
        if min(map_sides(side, core.extra_layers)) > 1:
            return side
    raise ConfigError(
        f"MODEL.SSD.EXTRA_LAYERS leave nothing of an image of {LARGEST_OF_SMALLEST} x "
        f"{LARGEST_OF_SMALLEST} px: such a model cannot be exported"
    )


def is_for_one_size(core: Core) -> bool:
    """Whether a graph of a core is for images of one size: Swin pads and masks by the size."""
    return any(
        isinstance(module, TorchvisionFeatures) and module.has_shifted_windows
        for module in core.modules()
    )


def example_images(core: nn.Module, size: tuple[int, int, int]) -> Tensor:
    """Return images of noise, (N, C, H, W) uint8: those that are drawn on decide nothing."""
    number, height, width = size
    channels = len(next(tensor for name, tensor in core.named_buffers() if "pixel_mean" in name))
    generator = torch.Generator().manual_seed(0)
    return torch.randint(
        0, 256, (number, channels, height, width), dtype=torch.uint8, generator=generator
    )


def draw_graph(core: PlainOutputs, size: Size | None = None) -> ExportedProgram:
    """Trace a core with a free number of images.

    Args:
        core: What ``exportable`` returned.
        size: (height, width) px of the images; None for any from ``smallest_side`` on.

    Returns:
        A program of one input, (N, C, H, W) uint8.
    """
    sides: dict[int, Dim] = {}
    height, width = size or (256, 320)
    if size is None:
        least = smallest_side(core.core)
        height, width = max(height, least + 32), max(width, least + 96)
        sides = {2: Dim("height", min=least), 3: Dim("width", min=least)}
    with quietly(), torch.no_grad():
        return torch.export.export(
            core,
            (example_images(core, (2, height, width)),),
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
