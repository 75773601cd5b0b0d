"""Names, shapes and order of what a Faster R-CNN holds; a checkpoint moves by them."""

from typing import Any

import pytest
import torch
from contract_recording import Contract
from contract_toys import raised, with_model

from d2pd.d2 import (
    BACKBONE_REGISTRY,
    ENGINE,
    META_ARCH_REGISTRY,
    Backbone,
    CfgNode,
    GeneralizedRCNN,
    ShapeSpec,
    build_model,
    get_default_optimizer_params,
)

MODELS: dict[str, dict[str, Any]] = {
    "R50-FPN": {},
    "R18-FPN": {"MODEL.RESNETS.DEPTH": 18, "MODEL.RESNETS.RES2_OUT_CHANNELS": 64},
    "R50-FPN-GN": {
        "MODEL.BACKBONE.FREEZE_AT": 0,
        "MODEL.RESNETS.NORM": "GN",
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.FPN.NORM": "GN",
        "MODEL.ROI_BOX_HEAD.NUM_CONV": 2,
        "MODEL.ROI_BOX_HEAD.NORM": "GN",
        "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
        "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
    },
    "R18-FPN-BN": {
        "MODEL.RESNETS.DEPTH": 18,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
        "MODEL.RESNETS.NORM": "BN",
        "MODEL.BACKBONE.FREEZE_AT": 3,
        "MODEL.ROI_HEADS.NUM_CLASSES": 1,
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_parameters_of(contract: Contract, cfg: CfgNode, name: str) -> None:
    model = build_model(with_model(cfg, MODELS[name]))
    parameters = {key: list(value.shape) for key, value in model.named_parameters()}
    frozen = [key for key, value in model.named_parameters() if not value.requires_grad]
    state = list(model.state_dict())
    # The FPN registers before its bottom-up; optimizer state by position depends on it.
    assert next(iter(parameters)).startswith("backbone.fpn_lateral2")
    assert parameters["roi_heads.box_predictor.cls_score.weight"][0] == (
        2 if name == "R18-FPN-BN" else 3
    )
    contract(
        {
            "parameters": [
                f"{key} {'x'.join(map(str, shape))}" for key, shape in parameters.items()
            ],
            "state": [key for key in state if key not in parameters],
            "frozen": frozen,
            # Mean, deviation and one set of anchors for each map are not saved.
            "buffers left out": sum(key not in state for key, _ in model.named_buffers()),
            "groups": [
                len(group["params"])
                for group in get_default_optimizer_params(
                    model, base_lr=0.1, weight_decay_norm=0.0, bias_lr_factor=2.0
                )
            ],
        }
    )


def test_outputs_of_the_backbone(contract: Contract, cfg: CfgNode) -> None:
    backbone = build_model(with_model(cfg, MODELS["R18-FPN"])).backbone
    shapes = {
        name: [spec.channels, spec.height, spec.width, spec.stride]
        for name, spec in backbone.output_shape().items()
    }
    assert shapes["p2"] == [32, None, None, 4]
    assert isinstance(backbone, Backbone)
    contract(
        {
            "shapes": shapes,
            "divisibility": backbone.size_divisibility,
            "square": backbone.padding_constraints.get("square_size", 0),
        }
    )


def test_initial_values(contract: Contract, cfg: CfgNode) -> None:
    """The same seed gives the same model: layers draw their first values in the same order."""
    torch.manual_seed(11)
    model = build_model(with_model(cfg, MODELS["R18-FPN"]))
    values = {
        name: [float(each.detach().double().sum()), float(each.detach().double().abs().mean())]
        for name, each in model.named_parameters()
        if name.endswith("weight")
    }
    assert values["roi_heads.box_predictor.cls_score.weight"][1] == pytest.approx(0.008, rel=0.2)
    contract(values, rtol=1e-3, atol=1e-4)


def test_models_are_built_by_name(contract: Contract, cfg: CfgNode) -> None:
    model = build_model(with_model(cfg, MODELS["R18-FPN"]))
    assert type(model) is GeneralizedRCNN
    assert META_ARCH_REGISTRY.get("GeneralizedRCNN") is GeneralizedRCNN
    cfg.MODEL.META_ARCHITECTURE = "NoSuchModel"
    how = raised(build_model, cfg)
    assert how == ("KeyError" if ENGINE == "detectron2" else "ValueError")
    contract(
        {
            "training": model.training,
            "device": str(model.device),
            "unknown": how,
            "registered": [name in BACKBONE_REGISTRY for name in BACKBONES],
            "twice": raised(META_ARCH_REGISTRY.register, GeneralizedRCNN),
        },
        differences={"unknown": "ConfigError, a ValueError that names the models there are"},
    )


BACKBONES = ("build_resnet_backbone", "build_resnet_fpn_backbone")


def test_a_backbone_of_ones_own(contract: Contract, cfg: CfgNode) -> None:
    seen: list[Any] = []

    def contract_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
        seen.append([input_shape.channels, input_shape.stride])
        return BACKBONE_REGISTRY.get("build_resnet_fpn_backbone")(cfg, input_shape)

    if "contract_backbone" not in BACKBONE_REGISTRY:
        BACKBONE_REGISTRY.register(contract_backbone)
    with_model(cfg, {**MODELS["R18-FPN"], "MODEL.BACKBONE.NAME": "contract_backbone"})
    model = build_model(cfg)
    assert seen == [[3, None]]
    contract({"seen": seen, "backbone": type(model.backbone).__name__})
