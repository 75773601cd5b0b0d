"""For which sizes of images a graph is drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch

from d2pd.inference.export.command import FORMATS, only_size, write_checked
from d2pd.inference.export.graph import SMALLEST, smallest_side
from d2pd.inference.export.torch_files import write_script
from d2pd.inference.predictor import Predictor, load
from d2pd.modeling.network import map_sides

FACE_MASK = [[64, 128, 2, 1], [64, 128, 2, 1]]
SSD300 = [[64, 128, 2, 1], [64, 128, 2, 1], [64, 128, 1, 0], [64, 128, 1, 0]]
SIZES = [[20.0], [40.0], [60.0], [80.0], [100.0], [120.0]]


def detector(run, extra_layers, side) -> Predictor:
    """A model with so many maps, never trained, that sees all pictures in this size."""
    trained = load(run, device="cpu").cfg.clone()
    num_maps = 2 + len(extra_layers)
    trained.defrost()
    trained.MODEL.SSD.EXTRA_LAYERS = extra_layers
    trained.MODEL.SSD.SEG.MAPS = [False] * num_maps
    trained.MODEL.ANCHOR_GENERATOR.SIZES = SIZES[:num_maps]
    trained.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0]] * num_maps
    trained.INPUT.FIXED_SIZE = [side, side]
    torch.manual_seed(0)
    return Predictor(trained)


def pictures_of(predictor):
    noise = np.random.default_rng(3).integers(0, 255, (2, 90, 120, 3), dtype=np.uint8)
    return [predictor.prepare(image).pixels for image in noise]


@pytest.mark.parametrize(("layers", "least"), [([], 64), (FACE_MASK, 76), (SSD300, 332)])
def test_the_last_map_has_two_positions_in_the_smallest_images(tiny_ssd_run, layers, least):
    core = detector(tiny_ssd_run, layers, 400).core
    assert smallest_side(core) == least
    assert min(map_sides(least, core.extra_layers)) > 1
    assert least == SMALLEST or min(map_sides(least - 1, core.extra_layers)) == 1


def test_a_file_is_for_any_size_unless_the_model_sees_smaller_pictures(tiny_ssd_run):
    for side, expected in ((332, None), (300, (300, 300))):
        predictor = detector(tiny_ssd_run, SSD300, side)
        assert only_size(predictor, "onnx", pictures_of(predictor)) == expected


def test_a_file_of_swin_is_for_one_size(tiny_swin_run):
    predictor = load(tiny_swin_run, device="cpu")
    pictures = pictures_of(predictor)
    for name in FORMATS:
        assert only_size(predictor, name, pictures) == tuple(pictures[0].shape[1:])


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_swin_is_exported(tiny_swin_run, tmp_path, name):
    if name == "onnx":
        pytest.importorskip("onnxruntime", reason="`pip install onnx onnxscript onnxruntime`")
    predictor = load(tiny_swin_run, device="cpu")
    path = tmp_path / f"model{FORMATS[name].suffix}"
    agreement = write_checked(predictor, {}, name, path, pictures_of(predictor))
    assert agreement.num_detections > 0


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "side"), [(FACE_MASK, 416), (SSD300, 300)])
@pytest.mark.parametrize("name", ["onnx", "torch_export"])
def test_models_with_one_position_left_are_exported(tiny_ssd_run, tmp_path, layers, side, name):
    if name == "onnx":
        pytest.importorskip("onnxruntime", reason="`pip install onnx onnxscript onnxruntime`")
    predictor = detector(tiny_ssd_run, layers, side)
    path = tmp_path / f"model{FORMATS[name].suffix}"
    agreement = write_checked(predictor, {}, name, path, pictures_of(predictor))
    assert agreement.num_images == 6  # alone, and beside the mirror image
    assert agreement.num_detections > 0


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tiny_ssd_run):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_script(load(tiny_ssd_run, device="cpu").core, Path("/dev/full"), {}, (128, 160))
