"""What single rows of KAIST JSON and COCO JSON say; messages leave the place to the caller."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from d2pd.data.annotations.labels import shown
from d2pd.errors import AnnotationError

_NUMBERS = {int, float}  # which bool is not


class BoxValues(NamedTuple):
    """What a row of ``annotations`` says of its box: XYXY in pixels, flag to ignore, occlusion."""

    bbox_xyxy: list[float]
    is_flagged: bool
    occlusion: int | None


def new_image_id(row: Mapping[str, Any], taken: Mapping[int | str, int]) -> int | str:
    """Give the id of an image.

    Args:
        row: Of ``images``.
        taken: Position of the image of each id met so far.

    Raises:
        AnnotationError: If there is none, or another image has it; the place is not named.
    """
    image_id = identifier(row, "id")
    if image_id in taken:
        raise AnnotationError(
            f"id {image_id!r} is already that of image {taken[image_id]}; give every image an id "
            "of its own"
        )
    return image_id


def image_of(row: Mapping[str, Any], positions: Mapping[int | str, int]) -> int:
    """Give the position of the image that a row of ``annotations`` belongs to.

    Raises:
        AnnotationError: If it belongs to none; the place is not named.
    """
    image_id = identifier(row, "image_id")
    if image_id not in positions:
        raise AnnotationError(
            f"image_id {image_id!r} is not the id of any image of the file; add the image or "
            "remove the annotation"
        )
    return positions[image_id]


def box_values(row: Mapping[str, Any]) -> BoxValues:
    """Read what a row of ``annotations`` says of its box.

    Raises:
        AnnotationError: If a value cannot be used; the place is not named.
    """
    is_flagged = False
    for key in ("ignore", "iscrowd", "is_crowd"):
        value = row.get(key)
        if value is not None and value not in (0, 1):
            raise AnnotationError(f"{key} must be 0 or 1, got {shown(value)}")
        is_flagged |= bool(value)
    return BoxValues(_box(row), is_flagged, _occlusion(row))


def whole_number(row: Mapping[str, Any], key: str) -> int:
    """Give a size in pixels that a row states.

    Raises:
        AnnotationError: If the value is not a whole number above 0; the place is not named.
    """
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise AnnotationError(f"{key} must be a number of pixels, got {shown(value)}")
    if value != int(value):
        raise AnnotationError(f"{key} must be a whole number of pixels, got {value!r}")
    return int(value)


def identifier(row: Mapping[str, Any], key: str) -> int | str:
    """Give the id that a row states under a key.

    Raises:
        AnnotationError: If it is neither a whole number nor a name; the place is not named.
    """
    value = row.get(key)
    if isinstance(value, int | str) and not isinstance(value, bool):
        return value
    got = shown(value) if key in row else "none"
    raise AnnotationError(f"{key} must be a whole number or a name, got {got}")


def _occlusion(row: Mapping[str, Any]) -> int | None:
    value = row.get("occlusion")
    if value is None or value in (0, 1, 2):
        return None if value is None else int(value)
    raise AnnotationError(
        f"occlusion must be 0 (none), 1 (partial) or 2 (heavy), got {shown(value)}"
    )


def _box(row: Mapping[str, Any]) -> list[float]:
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not _NUMBERS.issuperset(map(type, box)):
        got = shown(box) if "bbox" in row else "none"
        raise AnnotationError(
            f"bbox must be four numbers x, y, width, height, got {got}; mend the file"
        )
    try:
        x, y, width, height = map(float, box)
    except OverflowError:
        return [float("inf")] * 4
    return [x, y, x + width, y + height]
