"""Detectors on a classifier of torchvision: keys, weights, training, both engines."""

from pathlib import Path

import pytest
import torch
from torchvision.models import get_model

from d2pd import d2
from d2pd.config import load_config, train_parser
from d2pd.data.synthetic import draw_dataset
from d2pd.errors import ConfigError, WeightsError
from d2pd.modeling.build import build_detector, build_model
from d2pd.training.optimizer import build_optimizer
from d2pd.training.run import main
from d2pd.training.weights.matching import read_weights
from d2pd.training.weights.weights_loading import load_weights

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
QUICK = CONFIGS / "quick/faster_rcnn_synthetic.yaml"
BODY = "backbone.bottom_up.body."


def words_of(name="mobilenet_v3_small", channels=3, **keys):
    modality = {1: "lwir", 3: "lwir", 4: "both", 6: "both"}[channels]
    settings = {
        "MODEL.BACKBONE.NAME": "build_torchvision_fpn_backbone",
        "MODEL.TORCHVISION.NAME": name,
        "MODEL.DEVICE": "cpu",
        "MODEL.RESNETS.DEPTH": 50,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 256,
        "MODEL.RESNETS.STRIDE_IN_1X1": True,
        "MODEL.RESNETS.NORM": "FrozenBN",
        "MODEL.FPN.OUT_CHANNELS": 16,
        "MODEL.FPN.NORM": "",
        "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
        "MODEL.PIXEL_MEAN": [50.0] * channels,
        "MODEL.PIXEL_STD": [33.0] * channels,
        "INPUT.MODALITY": modality,
        **{key.replace("__", "."): value for key, value in keys.items()},
    }
    return [str(word) for pair in settings.items() for word in pair]


def config_of(*args, **keys):
    return load_config(QUICK, words_of(*args, **keys))


def build(*args, **keys):
    torch.manual_seed(0)
    return build_model(config_of(*args, **keys))


def test_odd_sizes_are_padded_to_levels_of_strides_4_to_64():
    model = build().eval()
    assert model.backbone.size_divisibility == 32
    shapes = model.backbone.output_shape()
    assert {key: one.stride for key, one in shapes.items()} == {
        f"p{level}": 2**level for level in range(2, 7)
    }
    image = torch.randint(0, 256, (3, 61, 99), dtype=torch.uint8)
    with torch.no_grad():
        batch = model.preprocess_image([{"image": image}]).tensor
        assert tuple(batch.shape[2:]) == (64, 128)
        maps = model.backbone(batch)
    assert {key: tuple(one.shape[1:]) for key, one in maps.items()} == {
        f"p{level}": (16, 64 >> level, 128 >> level) for level in range(2, 7)
    }


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"MODEL__FPN__IN_FEATURES": "['res2','res3']"}, "has to end in res5"),
        ({"MODEL__FPN__IN_FEATURES": "['res3','res5']"}, "each needs twice the stride"),
        ({"MODEL__FPN__IN_FEATURES": "['c3','res5']"}, "takes maps such as res2"),
        (
            {"MODEL__FPN__IN_FEATURES": "['res3','res4','res5']"},
            "RPN.IN_FEATURES names p2, but the pyramid over res3, res4, res5 has p3, p4, p5, p6",
        ),
        ({"MODEL__RESNETS__DEPTH": 18}, "RESNETS.DEPTH is 18, but MODEL.BACKBONE.NAME build_torch"),
        (
            {"MODEL__BACKBONE__NAME": "build_resnet_fpn_backbone"},
            "TORCHVISION.NAME is 'mobilenet_v3_small', but MODEL.BACKBONE.NAME build_resnet_fpn",
        ),
    ],
)
def test_keys_that_do_not_go_together_are_named(keys, message):
    with pytest.raises(ConfigError, match=message):
        build(**keys)


def saved(tmp_path, name, seed=3):
    torch.manual_seed(seed)
    classifier = get_model(name, weights=None)
    torch.save(classifier.state_dict(), tmp_path / f"{name}.pth")
    return classifier, read_weights(tmp_path / f"{name}.pth")


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet18", "swin_t", "regnet_y_400mf"])
def test_files_of_torchvision_fill_the_whole_backbone(tmp_path, name):
    classifier, file = saved(tmp_path, name)
    model = build(name)
    match = load_weights(model, file)
    assert match.missing == match.renewed == match.adapted == []
    assert match.matched_fraction == 1
    heads = ("classifier.", "head.", "fc.", "norm.") if name == "swin_t" else ("classifier.", "fc.")
    assert not [key for key in match.unused if not key.startswith(heads)]
    theirs = classifier.state_dict()
    ours = {key: one for key, one in model.state_dict().items() if key.startswith(BODY)}
    learnt = [key for key in ours if not key.endswith("num_batches_tracked")]
    assert learnt
    assert all(torch.equal(ours[key], theirs[key.removeprefix(BODY)]) for key in learnt)


@pytest.mark.parametrize(("channels", "visible"), [(1, 0), (4, 3), (6, 3)])
def test_a_first_layer_for_rgb_serves_other_channels(tmp_path, channels, visible):
    classifier, file = saved(tmp_path, "mobilenet_v3_small")
    model = build(channels=channels, MODEL__BACKBONE__LWIR_FILTERS="average")
    match = load_weights(model, file)
    assert [one.name for one in match.adapted] == [f"{BODY}features.0.0.weight"]
    rgb = classifier.state_dict()["features.0.0.weight"]
    found = model.state_dict()[f"{BODY}features.0.0.weight"]
    assert torch.equal(found[:, :visible], rgb[:, :visible])
    torch.testing.assert_close(found[:, -1], rgb.mean(dim=1))


def test_a_file_of_another_depth_is_refused(tmp_path):
    _, file = saved(tmp_path, "resnet18")
    with pytest.raises(WeightsError, match=r"2 blocks in layer1, the backbone has 3: .*\.NAME"):
        load_weights(build("resnet34"), file)


def test_position_tables_and_norms_of_swin_do_not_decay():
    cfg = load_config(CONFIGS / "faster_rcnn_swin_t_face_mask.yaml", ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    decay = {
        parameter: group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    found = {key.removeprefix(BODY): decay[p] for key, p in model.named_parameters()}
    assert found["features.1.0.attn.relative_position_bias_table"] == 0
    assert found["features.1.0.norm1.weight"] == 0
    assert found["norm.bias"] == 0
    assert found["features.1.0.attn.qkv.weight"] == 0.05
    assert set(decay.values()) == {0, 0.05}


def run(tmp_path, output, name, iterations, *flags, size=64):
    draw = ["DATASETS.ROOT", str(tmp_path), "DATASETS.SYNTHETIC.NUM_TRAIN", "6"]
    draw += ["DATASETS.SYNTHETIC.NUM_TEST", "2", "SOLVER.MAX_ITER", str(iterations)]
    small = ["INPUT.MIN_SIZE_TRAIN", f"({size},)", "INPUT.MIN_SIZE_TEST", str(size)]
    small += ["TEST.EVAL_PERIOD", "0", "SOLVER.WARMUP_ITERS", "2", "CHECKPOINT.KEEP", "0"]
    small += ["SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", "SOLVER.STEPS", "()"]
    small += ["OUTPUT_DIR", str(tmp_path / output), "SOLVER.CHECKPOINT_PERIOD", "10"]
    words = ["--config-file", str(QUICK), *flags, *words_of(name), *draw, *small]
    main(train_parser().parse_args(words))
    return torch.load(tmp_path / output / "model_final.pth", weights_only=True)["model"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "swin_t"])
def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path, name):
    draw_dataset(tmp_path / "synthetic", num_train=6, num_test=2, seed=0)
    whole = run(tmp_path, "whole", name, 20)
    run(tmp_path, "parts", name, 10)
    resumed = run(tmp_path, "parts", name, 20, "--resume")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def labelled_images(sizes):
    generator = torch.Generator().manual_seed(3)
    found = []
    for height, width in sizes:
        corner = torch.rand(3, 2, generator=generator) * 0.5
        extent = 0.1 + 0.3 * torch.rand(3, 2, generator=generator)
        boxes = torch.cat([corner, corner + extent], 1) * torch.tensor([width, height] * 2)
        pixels = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        labels = d2.Instances((height, width))
        labels.gt_boxes = d2.Boxes(boxes)
        labels.gt_classes = torch.zeros(3, dtype=torch.int64)
        found.append({"image": pixels, "instances": labels, "height": height, "width": width})
    return found


def test_twenty_steps_at_a_fixed_batch_lower_the_loss():
    torch.manual_seed(0)
    cfg = config_of()
    model = build_model(cfg).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images, losses = labelled_images([(64, 64), (61, 90)]), []
    with d2.EventStorage():
        for _ in range(20):
            loss = sum(model(images).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", ["swin_t", "mobilenet_v3_small"])
def test_both_engines_and_the_core_agree(name):
    """Under Detectron2 this compares its own FPN and heads with the embedded engine's."""
    cfg = config_of(name, MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.0)
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    torch.manual_seed(0)
    embedded, core = build_detector(cfg)
    ours, theirs = embedded.state_dict(), model.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    frozen = [key for key, p in model.named_parameters() if not p.requires_grad]
    assert frozen == [key for key, p in embedded.named_parameters() if not p.requires_grad]
    image = labelled_images([(93, 125)])[0]["image"]
    with torch.no_grad():
        expected = model([{"image": image}])[0]["instances"]
        found = core(image[None])
    count = int(found.counts[0])
    assert count == len(expected) > 5
    boxes = found.boxes[0, :count]
    torch.testing.assert_close(boxes, expected.pred_boxes.tensor, rtol=0, atol=0.01)
    torch.testing.assert_close(found.scores[0, :count], expected.scores, rtol=0, atol=1e-4)
    assert found.classes[0, :count].tolist() == expected.pred_classes.tolist()


@pytest.mark.parametrize("name", ["faster_rcnn_swin_t_kaist", "faster_rcnn_swin_t_face_mask"])
def test_configs_are_read_and_start_from_the_file_of_their_backbone(name):
    cfg = load_config(CONFIGS / f"{name}.yaml")
    assert cfg.MODEL.WEIGHTS.rpartition("/")[2].startswith(cfg.MODEL.TORCHVISION.NAME + "-")
    assert cfg.MODEL.BACKBONE.FREEZE_AT == 0
