"""Trained models in use: on single images."""

from d2pd.inference.predictor import Predictor, Timing, load_predictor

__all__ = ["Predictor", "Timing", "load_predictor"]
