"""Label tables of a few names, to divide into folds."""

from pathlib import Path

import numpy as np

from d2pd.data.label_table.table import LabelTable


def table_of(names, boxes=(), class_names=("person",)):
    """Return a table of images, with a box for each (image, category, is_region)."""
    images = np.array([image for image, _, _ in boxes], dtype=np.int64)
    categories = np.array([category for _, category, _ in boxes], dtype=np.int64)
    return LabelTable(
        path=Path("labels.json"),
        format="kaist",
        box_format="xywh",
        image_names=list(names),
        image_ids=list(range(len(names))),
        image_rows=np.arange(len(names)),
        heights=np.full(len(names), 512.0),
        widths=np.full(len(names), 640.0),
        box_images=images,
        boxes_xyxy=np.tile([1.0, 2.0, 30.0, 40.0], (len(boxes), 1)),
        box_rows=np.arange(len(boxes)),
        categories=categories,
        class_names=tuple(class_names),
        category_words={},
        is_region=np.array([region for _, _, region in boxes], dtype=bool),
        occlusion=np.full(len(boxes), -1, dtype=np.int8),
        malformed=[],
        repeated={},
    )


def frames(**number_of_video):
    """Return names of KAIST frames: ``set00_V001=3`` stands for three of ``set00/V001``."""
    return [
        f"{video.replace('_', '/')}/I{at:05}"
        for video, number in number_of_video.items()
        for at in range(number)
    ]
