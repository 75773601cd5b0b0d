"""TorchServe's handler of a d2pd detector; it needs d2pd on the server.

A request is an encoded picture (JPEG, PNG), by itself or as ``data`` or ``body``; of a detector on
two cameras it holds one as ``visible`` and one as ``lwir``. The answer is JSON::

    {"width": 640, "height": 512,
     "detections": [{"box": [x1, y1, x2, y2], "score": 0.97, "class": "person"}, ...]}

with boxes in pixels of the picture, the best first, and ``{"error": "..."}`` for what is no
picture. The environment variable ``D2PD_THRESHOLD`` (0.5) sets the least score.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from d2pd.data.images import decode_image
from d2pd.data.modality import CAMERAS
from d2pd.errors import AnnotationError, UserError
from d2pd.inference.predict.picture import as_camera, stack_cameras
from d2pd.inference.predictor import load

WEIGHTS, CONFIG = "weights.pth", "config.yaml"


class DetectionHandler:
    """Loads the model once, then answers batches of requests."""

    def initialize(self, context: Any) -> None:
        """Load the model.

        Args:
            context: TorchServe's; ``system_properties`` has ``model_dir`` and ``gpu_id``, which is
                None where the server gives this worker no GPU.
        """
        properties = context.system_properties
        folder, gpu = Path(properties["model_dir"]), properties.get("gpu_id")
        self.threshold = float(os.environ.get("D2PD_THRESHOLD", "0.5"))
        self.detector = load(
            folder / WEIGHTS,
            config_file=folder / CONFIG,
            device="cpu" if gpu is None else f"cuda:{gpu}",
        )

    def handle(self, data: list[Any], context: Any) -> list[dict[str, Any]]:
        """Answer a batch of requests, each by itself: a bad one costs the others nothing."""
        return [self._answer(request) for request in data]

    def _answer(self, request: Any) -> dict[str, Any]:
        try:
            image = self._read(request)
            found = self.detector.predict(image, threshold=self.threshold)
        except (UserError, ValueError) as error:
            return {"error": str(error)}
        rows = zip(found.boxes_xyxy.tolist(), found.scores.tolist(), found.classes, strict=True)
        return {
            "width": image.shape[1],
            "height": image.shape[0],
            "detections": [
                {"box": box, "score": score, "class": found.class_names[number]}
                for box, score, number in rows
            ],
        }

    def _read(self, request: Any) -> np.ndarray:
        """Return the (H, W, 3) or (H, W, 6) image of a request."""
        cameras = CAMERAS[self.detector.channels.modality]
        parts = [_part(request, camera, len(cameras)) for camera in cameras]
        return stack_cameras([_decode(*each) for each in zip(parts, cameras, strict=True)])


def _part(request: Any, camera: str, num_cameras: int) -> bytes:
    if not isinstance(request, dict):
        content = request
    elif num_cameras > 1:
        content = request.get(camera)
    else:
        content = request.get("data") or request.get("body")
    if not isinstance(content, bytes | bytearray) or not content:
        raise ValueError(f"the request holds no {camera} picture: send the bytes of a JPEG or PNG")
    return bytes(content)


def _decode(content: bytes, camera: str) -> np.ndarray:
    try:
        picture = decode_image(np.frombuffer(content, np.uint8), f"the {camera} picture", camera)
    except AnnotationError as error:  # its way out is that of a training
        raise ValueError(f"{str(error).rpartition('; ')[0]}; send a JPEG or PNG") from error
    return as_camera(picture, camera)
