"""One weights file in both engines, each reading it in its own way."""

import numpy as np
import torch
from detectron2.engine import DefaultPredictor
from parity_toys import DETECTRON2, EMBEDDED, build, config

from d2pd.training.weights.weights_file import read_weights
from d2pd.training.weights.weights_loading import load_weights


def check_detections(path, options):
    """Let both load a file, each in its own way, and compare what they find."""
    cfg = config(DETECTRON2, {**options, "INPUT.MIN_SIZE_TEST": 64, "INPUT.MAX_SIZE_TEST": 96})
    cfg.MODEL.WEIGHTS, cfg.DATASETS.TEST = str(path), ()
    # Of the size that it is resized to, so that both get the same pixels.
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    predictor = DefaultPredictor(cfg)
    expected = predictor(image)["instances"]
    model, match = load_in_embedded(path, options)
    assert (match.adapted, match.renewed, match.missing, match.unused) == ([], [], [], [])
    assert_same_state(model, predictor.model)
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
    with torch.no_grad():
        found = model([{"image": pixels, "height": 64, "width": 96}])[0]["instances"]
    assert len(found) == len(expected) >= 5
    assert found.pred_classes.tolist() == expected.pred_classes.tolist()
    boxes = found.pred_boxes.tensor, expected.pred_boxes.tensor
    torch.testing.assert_close(*boxes, rtol=0, atol=0.01)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-4)


def load_in_embedded(path, options):
    model = build(EMBEDDED, options, seed=1).eval()
    return model, load_weights(model, read_weights(path))


def assert_same_state(ours, reference, besides=()):
    ours, reference = ours.state_dict(), reference.state_dict()
    assert list(ours) == list(reference)
    for name in reference.keys() - set(besides):
        assert torch.equal(ours[name], reference[name]), name
