"""d2pd trains, evaluates and uses pedestrian detectors, with or without Detectron2."""

__version__ = "0.1.0"
