"""From the keys below INPUT to a pipeline of transforms."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torchvision.transforms import v2

from d2pd.data.augmentation.geometry import RandomCrop, Resize, Rotation
from d2pd.data.augmentation.photometry import PhotometricDistort
from d2pd.data.augmentation.pixel_transforms import PixelTransforms
from d2pd.data.augmentation.sizes import FixedSize, Jittered, ShortestEdge, Sizes
from d2pd.data.augmentation.window import (
    Crop,
    DrawWindow,
    IoUCrop,
    LookThrough,
    ResizedCrop,
    ZoomOut,
)
from d2pd.data.modality import channels_of
from d2pd.errors import ConfigError, UserError

FLIPS = ("horizontal", "vertical", "none")


def make_augmentation(
    sizes: Sizes,
    *,
    flip: str = "none",
    crop: tuple[str, Sequence[float]] | None = None,
    rotation: Rotation | None = None,
    draws: Sequence[DrawWindow] = (),
    fill: Sequence[int] = (),
    pixels: Sequence[v2.Transform] = (),
) -> v2.Compose:
    """Chain the transforms: pixels and geometry on the picture as it is, then the size.

    Pixels come first, as in SSD, so that what is filled later has the level of ``fill``.
    Without the arguments from ``rotation`` on it is Detectron2's pipeline.

    Args:
        sizes: See ``Resize``.
        flip: ``horizontal`` or ``vertical`` mirrors every other sample, by chance; or ``none``.
        crop: (type, size) of ``RandomCrop``; None for the whole image.
        rotation: Turns the picture first.
        draws: See ``LookThrough``.
        fill: A level for each channel, where the image shows what is not in the picture.
        pixels: Transforms that leave the geometry as it is.

    Raises:
        ValueError: If a value is not allowed.
    """
    if flip not in FLIPS:
        raise ValueError(f"flip must be one of {', '.join(FLIPS)}; got {flip!r}")
    cut = RandomCrop(*crop) if crop else None
    steps: list[v2.Transform]
    if draws or rotation:
        draws = [*([Crop(cut)] if cut else []), *draws]
        steps = [LookThrough(draws, sizes, fill, rotation)]
    else:
        steps = [*([cut] if cut else []), Resize(sizes)]
    if flip == "horizontal":
        steps.append(v2.RandomHorizontalFlip(0.5))
    elif flip == "vertical":
        steps.append(v2.RandomVerticalFlip(0.5))
    return v2.Compose([*pixels, *steps])


def build_augmentation(cfg: Any, is_train: bool) -> v2.Compose:
    """Build the pipeline that ``cfg.INPUT`` describes; in testing only the resize.

    Args:
        cfg: Read here: INPUT, and MODEL.PIXEL_MEAN for the fill and the number of channels.
        is_train: Whether it is for training.

    Raises:
        ConfigError: If a value below INPUT cannot be used.
        MissingFileError: If the file of INPUT.AUG.ALBUMENTATIONS is not there.
    """
    sizes = build_sizes(cfg, is_train)
    if not is_train:
        return make_augmentation(sizes)
    least_visible_share(cfg)
    fill = [round(mean) for mean in cfg.MODEL.PIXEL_MEAN]
    with _naming("INPUT.AUG.ROTATION"):
        degrees = cfg.INPUT.AUG.ROTATION
        rotation = Rotation(degrees, fill) if degrees else None
    draws, pixels = _draws(cfg.INPUT.AUG), _pixels(cfg)
    with _naming("INPUT.RANDOM_FLIP or CROP"):
        return make_augmentation(
            sizes,
            flip=cfg.INPUT.RANDOM_FLIP,
            crop=(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE) if cfg.INPUT.CROP.ENABLED else None,
            rotation=rotation,
            draws=draws,
            fill=fill,
            pixels=pixels,
        )


def least_visible_share(cfg: Any) -> float | None:
    """Return the share of a label that must stay in the image in training.

    None where nothing of INPUT.AUG moves boxes out of the image: INPUT.CROP alone keeps
    Detectron2's rule, by which every rest of a box is a target.

    Raises:
        ConfigError: If INPUT.AUG.MIN_VISIBLE is not in [0, 1].
    """
    aug = cfg.INPUT.AUG
    if not 0 <= aug.MIN_VISIBLE <= 1:
        raise ConfigError(
            f"INPUT.AUG.MIN_VISIBLE is a share of a label's area, in [0, 1]; got {aug.MIN_VISIBLE}"
        )
    moves_out = aug.IOU_CROP or len(aug.RESIZED_CROP_SCALE) or aug.ROTATION
    return float(aug.MIN_VISIBLE) if moves_out else None


def build_sizes(cfg: Any, is_train: bool) -> Sizes:
    """Build what says the size: fixed or by edges, jittered in training where that is asked.

    Raises:
        ConfigError: If a value below INPUT cannot be used.
    """
    if len(cfg.INPUT.FIXED_SIZE):
        with _naming("INPUT.FIXED_SIZE"):
            if len(cfg.INPUT.FIXED_SIZE) != 2:
                raise ValueError(f"it takes (height, width), got {tuple(cfg.INPUT.FIXED_SIZE)}")
            sizes: Sizes = FixedSize(*cfg.INPUT.FIXED_SIZE)
    else:
        with _naming("INPUT.MIN_SIZE_*, MAX_SIZE_*"):
            sizes = _train_edges(cfg.INPUT) if is_train else _test_edges(cfg.INPUT)
    jitter = tuple(cfg.INPUT.AUG.SCALE_JITTER) if is_train else ()
    if not jitter:
        return sizes
    with _naming("INPUT.AUG.SCALE_JITTER"):
        if len(jitter) != 2:
            raise ValueError(f"it takes (low, high), got {jitter}")
        return Jittered(sizes, *jitter)


def _train_edges(keys: Any) -> ShortestEdge:
    # Detectron2 takes a single int here as well.
    lengths = keys.MIN_SIZE_TRAIN
    lengths = [lengths] * 2 if isinstance(lengths, int) else lengths
    return ShortestEdge(lengths, keys.MAX_SIZE_TRAIN, keys.MIN_SIZE_TRAIN_SAMPLING)


def _test_edges(keys: Any) -> ShortestEdge:
    return ShortestEdge([keys.MIN_SIZE_TEST], keys.MAX_SIZE_TEST)


def _draws(aug: Any) -> list[DrawWindow]:
    """Build what draws a window, in SSD's order."""
    draws: list[DrawWindow] = []
    with _naming("INPUT.AUG.ZOOM_OUT"):
        draws += [ZoomOut(aug.ZOOM_OUT)] * (aug.ZOOM_OUT != 1)
    draws += [IoUCrop()] * bool(aug.IOU_CROP)
    if len(aug.RESIZED_CROP_SCALE):
        with _naming("INPUT.AUG.RESIZED_CROP_SCALE or RESIZED_CROP_RATIO"):
            draws.append(ResizedCrop(aug.RESIZED_CROP_SCALE, aug.RESIZED_CROP_RATIO))
    return draws


def _pixels(cfg: Any) -> list[v2.Transform]:
    """Build what changes pixels alone."""
    aug, image_format = cfg.INPUT.AUG, cfg.INPUT.FORMAT
    channels = channels_of(cfg.INPUT.MODALITY, len(cfg.MODEL.PIXEL_MEAN))
    steps: list[v2.Transform] = []
    if aug.PHOTOMETRIC:
        steps.append(PhotometricDistort(channels, image_format))
    if aug.ALBUMENTATIONS:
        with _naming("INPUT.AUG.ALBUMENTATIONS"):
            steps.append(PixelTransforms(aug.ALBUMENTATIONS, channels, image_format))
    return steps


@contextmanager
def _naming(keys: str) -> Iterator[None]:
    """Say which keys hold a value that cannot be used."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{keys}: {error}") from None
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{keys} cannot be used: {error}") from None
