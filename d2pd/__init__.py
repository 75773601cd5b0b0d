"""d2pd trains, evaluates and uses pedestrian detectors, with or without Detectron2.

A trained one in three lines::

    import cv2, d2pd
    detector = d2pd.load("output/demo/model_final.pth")
    found = detector.predict(cv2.imread("street.png"))  # .boxes_xyxy, .scores, .draw(), ...
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d2pd.inference.predictor import load

__all__ = ["__version__", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load":  # torch is loaded only where a model is
        from d2pd.inference.predictor import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
