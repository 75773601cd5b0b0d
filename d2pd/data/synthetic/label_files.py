"""The label files of a drawn dataset, and the reading of labels to draw pictures for."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from d2pd.data.annotations.kaist import read_kaist_json
from d2pd.data.annotations.labels import Annotation
from d2pd.data.synthetic.frames import Frame
from d2pd.data.synthetic.layout import CYCLIST_MAX_ASPECT, HEIGHT, WIDTH, Label
from d2pd.errors import AnnotationError

TRAIN_CATEGORIES = [{"id": -1, "name": "__ignore__"}, {"id": 1, "name": "person"}]
TEST_CATEGORIES = [
    {"id": 0, "name": "__ignore__"},
    {"id": 1, "name": "person"},
    {"id": 2, "name": "cyclist"},
    {"id": 3, "name": "people"},
    {"id": 4, "name": "person?"},
]
IM_NAME = re.compile(r"set\d\d/V\d{3}/I\d{5}")


def kaist_json(frames: Sequence[Frame], with_occlusion: bool) -> str:
    """Write ``frames`` as KAIST JSON, in the spelling of the test labels or of the train labels.

    The test labels state the occlusion and mark regions to ignore by ``ignore`` alone, the train
    labels by category -1 as well.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, frame in enumerate(frames):
        size = {"height": HEIGHT, "width": WIDTH}
        images.append({"id": image_id, "im_name": frame.im_name, **size})
        for label in frame.labels:
            ignore = int(label.kind != "person")
            row: dict[str, Any] = {"id": len(annotations), "image_id": image_id}
            row["category_id"] = -1 if ignore and not with_occlusion else 1
            row.update(bbox=list(label.box_xywh), height=label.box_xywh[3])
            row.update({"occlusion": label.occlusion} if with_occlusion else {"is_crowd": 0})
            annotations.append({**row, "ignore": ignore})
    categories = TEST_CATEGORIES if with_occlusion else TRAIN_CATEGORIES
    info = {"description": "Synthetic scenes drawn by d2pd synth; no photo is shown."}
    content = {"info": info, "images": images, "annotations": annotations, "categories": categories}
    return json.dumps(content, separators=(",", ":")) + "\n"


def two_class_csv(frames: Iterable[Frame], fmt: str) -> str:
    """Write the persons and cyclists of the thermal pictures as ``filename,x1,y1,x2,y2,class``.

    A picture with neither is a row without a box. Groups are left out.
    """
    lines = []
    for frame in frames:
        name = frame.path("lwir", fmt)
        rows = [label for label in frame.labels if label.kind != "people"]
        for label in rows:
            x, y, width, height = label.box_xywh
            lines.append(f"{name},{x},{y},{x + width},{y + height},{label.kind}")
        if not rows:
            lines.append(f"{name},,,,,")
    return "\n".join(lines) + "\n"


def read_boxes(path: Path) -> list[tuple[str, tuple[Label, ...]]]:
    """Read a KAIST JSON as labels to draw, faults included.

    Returns:
        (im_name, labels) of every row of ``images`` in file order, repeated names included.

    Raises:
        MissingFileError: If ``path`` is not a file.
        AnnotationError: If it is not KAIST JSON of 640x512 frames; the message names the row.
    """
    rows = []
    for index, record in enumerate(read_kaist_json(path, None).records):
        where, name = f"{path}, image {index}", record["im_name"]
        if not IM_NAME.fullmatch(name):
            raise AnnotationError(f"{where}: im_name is {name!r}, not such as set00/V000/I01217")
        size = (record["width"], record["height"])
        if size != (WIDTH, HEIGHT):
            raise AnnotationError(
                f"{where}: {size[0]}x{size[1]} pixels, only {WIDTH}x{HEIGHT} can be drawn; "
                "correct width and height"
            )
        rows.append((name, tuple(map(_label, record["annotations"]))))
    return rows


def _label(annotation: Annotation) -> Label:
    left, top, right, bottom = annotation["bbox"]
    width, height = right - left, bottom - top
    kind = "person"
    if annotation["ignore"]:
        kind = "people" if width > CYCLIST_MAX_ASPECT * height else "cyclist"
    return Label((left, top, width, height), kind, annotation.get("occlusion", 0))
