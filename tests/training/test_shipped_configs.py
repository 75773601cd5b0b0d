"""The configs that come with d2pd, run as their headers say, on what this machine can carry."""

import json
from pathlib import Path

import pytest
from every_way import assert_same_detections_every_way

from d2pd import cli
from d2pd.config import load_config
from d2pd.d2 import default_argument_parser
from d2pd.data.synthetic import draw_dataset
from d2pd.modeling.network import map_sides
from d2pd.modeling.ssd_parts import build_anchor_shapes, read_extra_layers
from d2pd.training.ablation.plan import overrides_of_file, plan_runs
from d2pd.training.run import main

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ABLATIONS = sorted((CONFIGS / "ablations").glob("run*.yaml"))
LIGHT = CONFIGS / "ablations/light.yaml"


def run_config(name, opts):
    words = ["--config-file", str(CONFIGS / name), "MODEL.DEVICE", "cpu", *opts]
    return main(default_argument_parser().parse_args(words))


def first_and_last_loss(output):
    rows = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    losses = [row["total_loss"] for row in rows if "total_loss" in row]
    return losses[0], losses[-1]


SMALL = [
    *("INPUT.MIN_SIZE_TRAIN", "(128,)", "INPUT.MIN_SIZE_TEST", "128"),
    *("SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0", "TEST.EVAL_PERIOD", "0"),
]


def from_scratch(name, *resnet):
    """Words for random weights; those on ``MODEL.RESNETS`` where the config has a ResNet."""
    is_resnet = load_config(CONFIGS / name).MODEL.BACKBONE.NAME == "build_resnet_fpn_backbone"
    words = ["MODEL.WEIGHTS", "", "MODEL.BACKBONE.FREEZE_AT", "0"]
    return [*words, *(resnet if is_resnet else ())]


@pytest.mark.slow
def test_demo_reaches_ap50_of_60_and_detects_the_same_every_way(tmp_path, capsys):
    opts = ["DATASETS.ROOT", str(tmp_path), "OUTPUT_DIR", str(tmp_path / "out")]
    results = run_config("quick/faster_rcnn_synthetic.yaml", opts)
    assert results["bbox"]["AP50"] >= 60
    assert_same_detections_every_way(tmp_path / "out", tmp_path, capsys)


@pytest.mark.slow
def test_quick_cascade_learns_and_detects_the_same_every_way(tmp_path, capsys):
    opts = ["DATASETS.ROOT", str(tmp_path), "OUTPUT_DIR", str(tmp_path / "out")]
    run_config("quick/cascade_rcnn_synthetic.yaml", [*opts, "SOLVER.MAX_ITER", "60"])
    first, last = first_and_last_loss(tmp_path / "out")
    assert last < first
    assert_same_detections_every_way(tmp_path / "out", tmp_path, capsys)


@pytest.fixture(scope="module")
def drawn_kaist_root(tmp_path_factory):
    """A dataset root where drawn pictures stand in for KAIST, all of its training videos there."""
    root = tmp_path_factory.mktemp("datasets")
    draw_dataset(root / "kaist", num_train=60, num_test=4, seed=1)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "faster_rcnn_kaist.yaml",
        "cascade_rcnn_kaist.yaml",
        "faster_rcnn_x101_kaist.yaml",
        "faster_rcnn_swin_t_kaist.yaml",
    ],
)
def test_kaist_configs_run_on_drawn_data_in_its_place(drawn_kaist_root, tmp_path, name):
    opts = ["DATASETS.ROOT", str(drawn_kaist_root), "OUTPUT_DIR", str(tmp_path / "out")]
    norm = ["MODEL.RESNETS.NORM", "GN", "MODEL.RESNETS.STRIDE_IN_1X1", "False"]
    words = from_scratch(name, *norm)
    results = run_config(name, [*opts, *SMALL, *words, "SOLVER.MAX_ITER", "4"])
    assert set(results) == {"bbox", "MR", "final"}
    for name in ("kaist_val", "kaist_test"):
        assert (tmp_path / f"out/detections_{name}.png").is_file()
    log = (tmp_path / "out/log.txt").read_text()
    assert "Training on" in log


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "faster_rcnn_face_mask.yaml",
        "faster_rcnn_face_mask_scratch.yaml",
        "cascade_rcnn_face_mask_scratch.yaml",
    ],
)
def test_face_mask_configs_learn_on_real_photos(shared_data, tmp_path, name):
    opts = ["DATASETS.ROOT", str(shared_data), "OUTPUT_DIR", str(tmp_path / "out")]
    overrides = [*from_scratch(name, "MODEL.RESNETS.NORM", "BN"), *SMALL]
    schedule = ["SOLVER.MAX_ITER", "40", "SOLVER.WARMUP_ITERS", "5", "SOLVER.STEPS", "()"]
    # It would need evaluations on the way; PATIENCE is the default.
    schedule += ["EARLY_STOPPING.METRIC", "", "EARLY_STOPPING.PATIENCE", "5"]
    results = run_config(name, [*opts, *overrides, *schedule, "DATASETS.FINAL_TEST", "()"])
    first, last = first_and_last_loss(tmp_path / "out")
    assert last < first
    assert {"AP-with_mask", "AP-without_mask", "AP-mask_weared_incorrect"} <= set(results["bbox"])


@pytest.mark.parametrize(
    ("name", "count", "maps"),
    [
        ("ssd300_seg_kaist.yaml", 8732, [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]),
        (
            "ssd_seg_kaist.yaml",
            41760,
            [(64, 80), (32, 40), (16, 20), (8, 10), (8, 10), (8, 10)],
        ),
    ],
)
def test_ssd_configs_have_the_anchors_and_maps_of_their_sources(name, count, maps):
    cfg = load_config(CONFIGS / name)
    layers = read_extra_layers(cfg)
    sides = [map_sides(side, layers) for side in cfg.INPUT.FIXED_SIZE]
    assert list(zip(*sides, strict=True)) == maps
    numbers = build_anchor_shapes(cfg).num_per_position
    assert sum(h * w * n for (h, w), n in zip(maps, numbers, strict=True)) == count


def test_anchors_of_ssd300_are_those_of_the_paper():
    cfg = load_config(CONFIGS / "ssd300_seg_kaist.yaml")
    scales = [0.1, 0.2, 0.375, 0.55, 0.725, 0.9, 1.0]
    for of_map, scale, following in zip(
        build_anchor_shapes(cfg).of_maps, scales, scales[1:], strict=False
    ):
        areas = sorted({round(width * height) for width, height in of_map.tolist()})
        assert areas == pytest.approx([(300 * scale) ** 2, 300**2 * scale * following], rel=1e-3)
    tall = build_anchor_shapes(cfg).of_maps[0][:, 1].max() * 512 / 300
    assert tall == pytest.approx(72.4, abs=0.1)  # px of the picture: no small person is as high


def test_each_ablation_differs_from_its_base_as_its_number_says():
    runs = {run.name: run.config for run in plan_runs(ABLATIONS, [], [], Path("out"))}
    numbers = ["04", *(str(number) for number in (*range(11, 15), *range(18, 26)))]
    assert list(runs) == [f"run{number}" for number in numbers]
    maps = {name: sum(config["MODEL.SSD.SEG.MAPS"]) for name, config in runs.items()}
    assert [maps[f"run{number}"] for number in numbers] == [0, 0, 0, 0, 0, 2, 2, 3, 3, 2, 2, 0, 2]
    modalities = {name: config["INPUT.MODALITY"] for name, config in runs.items()}
    others = {"run13": "visible", "run14": "both", "run24": "both", "run25": "both"}
    assert modalities == {name: others.get(name, "lwir") for name in runs}
    for config in runs.values():
        assert config["DATASETS.FINAL_TEST"] == ["kaist_test"]
        assert config["BEST_CHECKPOINT.METRIC"] == ["MR/reasonable/all"]


def test_light_overrides_suit_every_ablation():
    for run in plan_runs(ABLATIONS, [], overrides_of_file(LIGHT), Path("out")):
        cfg = load_config(run.config_file, run.opts)
        assert cfg.MODEL.BACKBONE.NAME == "vgg_light"
        flags = cfg.MODEL.SSD.SEG.MAPS
        assert len(build_anchor_shapes(cfg).num_per_position) == 6
        assert len(flags) in (0, 6)


SMALL_SSD = [
    *("MODEL.BACKBONE.NAME", "vgg_light", "MODEL.WEIGHTS", ""),
    *("SOLVER.UNIT", "iter", "SOLVER.STEPS", "()", "SOLVER.MAX_ITER", "4"),
    *("SOLVER.WARMUP_ITERS", "1", "VALIDATION.MAX_IMAGES", "4", *SMALL[4:]),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssd_seg_kaist.yaml", "ssd300_seg_kaist.yaml"])
def test_ssd_configs_run_on_drawn_data_in_its_place(drawn_kaist_root, tmp_path, name):
    opts = ["DATASETS.ROOT", str(drawn_kaist_root), "OUTPUT_DIR", str(tmp_path / "out")]
    results = run_config(name, [*opts, *SMALL_SSD])
    assert set(results) == {"bbox", "MR", "final"}
    rows = [json.loads(line) for line in (tmp_path / "out/metrics.json").read_text().splitlines()]
    losses = {"loss_cls", "loss_box_reg", "loss_seg", "loss_seg/conv4_3", "loss_seg/conv7"}
    assert losses <= set(rows[0])


@pytest.mark.slow
def test_ablations_run_on_drawn_data_with_the_light_overrides(drawn_kaist_root, tmp_path, capsys):
    chosen = [str(CONFIGS / f"ablations/run{number}.yaml") for number in ("13", "21", "25")]
    words = ["ablate", "--config-files", *chosen, "--overrides", str(LIGHT)]
    short = ["SOLVER.MAX_ITER", "2", "SOLVER.WARMUP_ITERS", "1", "VALIDATION.MAX_IMAGES", "2"]
    short += ["DATASETS.REGISTER.kaist_test.INCLUDE", "[]", "MODEL.DEVICE", "cpu"]
    root = ["DATASETS.ROOT", str(drawn_kaist_root)]
    output = tmp_path / "out"
    assert cli.main([*words, "--output", str(output), *root, *short]) == 0, capsys.readouterr().out
    found = json.loads((output / "ablations.json").read_text())
    assert [run["name"] for run in found["runs"]] == ["run13", "run21", "run25"]
    assert all("AP50" in run["values"] for run in found["runs"])


@pytest.mark.slow
def test_quick_ssd_reaches_a_miss_rate_of_30_and_infusion_learns(tmp_path, capsys):
    opts = ["DATASETS.ROOT", str(tmp_path), "OUTPUT_DIR", str(tmp_path / "out")]
    results = run_config("quick/ssd_seg_synthetic.yaml", opts)
    assert results["MR"]["reasonable/all"] <= 30
    rows = [json.loads(line) for line in (tmp_path / "out/metrics.json").read_text().splitlines()]
    losses = [row["loss_seg"] for row in rows if "loss_seg" in row]
    assert losses[-1] < losses[0] / 2
    assert_same_detections_every_way(tmp_path / "out", tmp_path, capsys)
