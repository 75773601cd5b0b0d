"""What training pictures go through, in words."""

from collections.abc import Iterator
from typing import Any

from d2pd.reporting.model_card.markdown import code


def augmentation_words(cfg: Any) -> Iterator[str]:
    """Yield what ``cfg.INPUT`` does to pictures in training, in the order of the pipeline."""
    pictures, aug = cfg.INPUT, cfg.INPUT.AUG
    if aug.PHOTOMETRIC:
        yield "contrast distorted" if pictures.MODALITY == "lwir" else "light and colours distorted"
    if aug.ALBUMENTATIONS:
        yield f"the pixel transforms of {code(aug.ALBUMENTATIONS)}"
    if aug.ROTATION:
        yield f"turned by up to {aug.ROTATION:g} degrees"
    if pictures.CROP.ENABLED:
        yield f"cropped ({code(pictures.CROP.TYPE)} {code(list(pictures.CROP.SIZE))})"
    if aug.ZOOM_OUT > 1:
        yield f"every other one shrunk by up to {aug.ZOOM_OUT:g} on a canvas"
    if aug.IOU_CROP:
        yield "cropped by overlap with the labels, as in SSD"
    if len(aug.RESIZED_CROP_SCALE):
        low, high = aug.RESIZED_CROP_SCALE
        yield f"a part of {low:g} to {high:g} of the area cut out and resized"
    yield _size(pictures)
    if len(aug.SCALE_JITTER):
        low, high = aug.SCALE_JITTER
        yield f"that size times {low:g} to {high:g}"
    if pictures.RANDOM_FLIP in ("horizontal", "vertical"):
        yield f"every other one mirrored ({pictures.RANDOM_FLIP})"


def _size(pictures: Any) -> str:
    if len(pictures.FIXED_SIZE):
        height, width = pictures.FIXED_SIZE
        return f"resized to {height} px high and {width} wide"
    lengths = pictures.MIN_SIZE_TRAIN
    lengths = [lengths] if isinstance(lengths, int) else list(lengths)
    if lengths in ([0], [0, 0]):
        return "of their own size"
    between = " to " if pictures.MIN_SIZE_TRAIN_SAMPLING == "range" else " or "
    shown = between.join(f"{length}" for length in dict.fromkeys(lengths))
    return f"resized to a short side of {shown} px, a long one of {pictures.MAX_SIZE_TRAIN} at most"
