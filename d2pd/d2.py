"""The only place where d2pd meets Detectron2: the names it uses, from the engine in use.

``D2PD_ENGINE`` chooses: ``auto`` (the default) takes Detectron2 where it is installed and the
embedded engine otherwise, ``detectron2`` and ``embedded`` insist. An installed Detectron2 that
cannot be imported is an error under ``auto`` and is never passed over in silence.

Both lists below hold the same names; the embedded engine gives them Detectron2's signatures, call
order and meaning. Type checkers see the embedded ones.
"""

import os
import warnings
from typing import TYPE_CHECKING, Any

from d2pd.engine_state import choose_engine

if TYPE_CHECKING:
    from torch.nn import Module

# Detectron2 imports fvcore's scripted losses, which nobody here calls.
warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", FutureWarning)

ENGINE: str = choose_engine(os.environ.get("D2PD_ENGINE") or "auto")

if not TYPE_CHECKING and ENGINE == "detectron2":
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import CfgNode, get_cfg
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.engine import (
        DefaultTrainer,
        HookBase,
        TrainerBase,
        default_argument_parser,
        default_setup,
        hooks,
    )
    from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, inference_on_dataset
    from detectron2.layers import ShapeSpec, batched_nms
    from detectron2.modeling import (
        BACKBONE_REGISTRY,
        FPN,
        META_ARCH_REGISTRY,
        Backbone,
        GeneralizedRCNN,
        build_model,
        detector_postprocess,
    )
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool
    from detectron2.solver import build_lr_scheduler
    from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
    from detectron2.structures import Boxes, BoxMode, ImageList, Instances, pairwise_iou
    from detectron2.utils import comm
    from detectron2.utils.env import seed_all_rng
    from detectron2.utils.events import (
        CommonMetricPrinter,
        EventStorage,
        EventWriter,
        JSONWriter,
        TensorboardXWriter,
        get_event_storage,
    )
    from detectron2.utils.logger import setup_logger
else:
    from d2pd.embedded import comm, hooks
    from d2pd.embedded.backbone import BACKBONE_REGISTRY, Backbone
    from d2pd.embedded.boxes import Boxes, BoxMode, pairwise_iou
    from d2pd.embedded.build import META_ARCH_REGISTRY, build_model
    from d2pd.embedded.catalog import DatasetCatalog, MetadataCatalog
    from d2pd.embedded.checkpoint import DetectionCheckpointer
    from d2pd.embedded.config import CfgNode, get_cfg
    from d2pd.embedded.defaults import DefaultTrainer, default_argument_parser, default_setup
    from d2pd.embedded.env import seed_all_rng
    from d2pd.embedded.evaluator import DatasetEvaluator, DatasetEvaluators, inference_on_dataset
    from d2pd.embedded.events import EventStorage, get_event_storage
    from d2pd.embedded.fpn import FPN, LastLevelMaxPool
    from d2pd.embedded.image_list import ImageList
    from d2pd.embedded.instances import Instances
    from d2pd.embedded.logger import setup_logger
    from d2pd.embedded.nms import batched_nms
    from d2pd.embedded.postprocessing import detector_postprocess
    from d2pd.embedded.rcnn import GeneralizedRCNN
    from d2pd.embedded.shape_spec import ShapeSpec
    from d2pd.embedded.solver import (
        build_lr_scheduler,
        get_default_optimizer_params,
        maybe_add_gradient_clipping,
    )
    from d2pd.embedded.train_loop import HookBase, TrainerBase
    from d2pd.embedded.writers import (
        CommonMetricPrinter,
        EventWriter,
        JSONWriter,
        TensorboardXWriter,
    )

__all__ = [
    "BACKBONE_REGISTRY",
    "ENGINE",
    "FPN",
    "META_ARCH_REGISTRY",
    "Backbone",
    "BoxMode",
    "Boxes",
    "CfgNode",
    "CommonMetricPrinter",
    "DatasetCatalog",
    "DatasetEvaluator",
    "DatasetEvaluators",
    "DefaultTrainer",
    "DetectionCheckpointer",
    "EventStorage",
    "EventWriter",
    "GeneralizedRCNN",
    "HookBase",
    "ImageList",
    "Instances",
    "JSONWriter",
    "LastLevelMaxPool",
    "MetadataCatalog",
    "ShapeSpec",
    "TensorboardXWriter",
    "TrainerBase",
    "batched_nms",
    "build_lr_scheduler",
    "build_model",
    "comm",
    "default_argument_parser",
    "default_setup",
    "detector_postprocess",
    "get_cfg",
    "get_default_optimizer_params",
    "get_event_storage",
    "hooks",
    "inference_on_dataset",
    "maybe_add_gradient_clipping",
    "pairwise_iou",
    "seed_all_rng",
    "setup_logger",
]


def build_embedded_model(cfg: CfgNode) -> "Module":
    """Build a model of the embedded engine, under either engine: what is exported.

    Raises:
        ConfigError: If the embedded engine has no such model, or does not honour a changed key.
    """
    from d2pd.embedded import rcnn  # noqa: F401  registers GeneralizedRCNN
    from d2pd.embedded.build import build_model as build

    return build(cfg)


def embedded_backbone_parts() -> tuple[Any, tuple[Any, Any, Any]]:
    """Return the embedded engine's list of backbones and, for one more, what it is made of.

    Under either engine: ``build_embedded_model`` takes its backbones from that list.

    Returns:
        ``BACKBONE_REGISTRY``, and ``Backbone``, ``FPN`` and ``LastLevelMaxPool``.
    """
    from d2pd.embedded import backbone, fpn

    parts = (backbone.Backbone, fpn.FPN, fpn.LastLevelMaxPool)
    return backbone.BACKBONE_REGISTRY, parts
