"""Trained models in use: on pictures, on video, and on their way into other programs."""
