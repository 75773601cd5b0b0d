"""Which channels of a sample's image come from which camera."""

from dataclasses import dataclass

from d2pd.errors import ConfigError

CAMERAS = {"visible": ("visible",), "lwir": ("lwir",), "both": ("visible", "lwir")}
"""What took the pictures of each modality, in the order of the channels."""

TOTALS = {"visible": (3,), "lwir": (3, 1), "both": (6, 4)}
"""Channels that an image may have: a thermal image counts as one channel or as three equal ones."""


@dataclass(frozen=True)
class Channels:
    """The channels of an image, visible ones first.

    Attributes:
        visible: Their number: 3, or 0 where there is no visible image.
        lwir: 3 equal ones, 1, or 0 where there is no thermal image.
    """

    visible: int
    lwir: int

    @property
    def total(self) -> int:
        """Number of channels of an image."""
        return self.visible + self.lwir

    @property
    def of_cameras(self) -> tuple[int, ...]:
        """Number of channels of each camera there is, visible first."""
        return tuple(number for number in (self.visible, self.lwir) if number)

    @property
    def modality(self) -> str:
        """``visible``, ``lwir`` or ``both``."""
        if self.visible and self.lwir:
            return "both"
        return "visible" if self.visible else "lwir"


def channels_of(modality: str, total: int) -> Channels:
    """Divide the channels of an image among the modalities.

    Args:
        modality: ``visible``, ``lwir`` or ``both``.
        total: Number of channels: as many as ``MODEL.PIXEL_MEAN`` has values.

    Raises:
        ConfigError: If a modality does not come in so many channels.
    """
    allowed = TOTALS[modality]
    if total not in allowed:
        thermal = " (visible first; thermal as one or three equal ones)" if len(allowed) > 1 else ""
        raise ConfigError(
            f"MODEL.PIXEL_MEAN has {total} value{'s' * (total != 1)}, but INPUT.MODALITY "
            f"{modality} gives images of {' or '.join(str(number) for number in allowed)} "
            f"channels{thermal}: set MODEL.PIXEL_MEAN and MODEL.PIXEL_STD; the header of "
            "configs/ssd_seg_kaist.yaml has KAIST's"
        )
    visible = 0 if modality == "lwir" else 3
    return Channels(visible, total - visible)


def channels_in(total: int) -> Channels:
    """Divide the channels of an image of which only their number is known.

    Args:
        total: 1, 3, 4 or 6. Three are taken for visible ones: a thermal image of three equal
            channels looks the same either way.

    Raises:
        ValueError: If there is another number of them.
    """
    for modality, totals in TOTALS.items():
        if total in totals:
            return channels_of(modality, total)
    raise ValueError(f"an image has 1, 3, 4 or 6 channels, got {total}")
