"""Drawn street scenes in the layout of KAIST: data to try everything on, from a seed."""

from d2pd.data.synthetic.dataset import draw_dataset
from d2pd.data.synthetic.frames import Frame, draw_frame, frames_of_split
from d2pd.data.synthetic.layout import Label

__all__ = ["Frame", "Label", "draw_dataset", "draw_frame", "frames_of_split"]
