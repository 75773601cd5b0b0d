"""Which picture is of which camera, and which two are a pair."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from d2pd.data.modality import CAMERAS
from d2pd.errors import ConfigError
from d2pd.inference.predict.sources import Found, is_video


@dataclass(frozen=True)
class Source:
    """A picture or a video that the model is to see.

    Attributes:
        paths: Its file, or the visible one and the thermal one of a pair.
        name: What its drawing is called by.
        image_id: In the label file; None gives it a number.
    """

    paths: tuple[str, ...]
    name: str
    image_id: int | str | None = None

    @property
    def is_video(self) -> bool:
        """Tell by the suffix."""
        return is_video(self.paths[0])


@dataclass(frozen=True)
class Pairing:
    """How the path of a thermal picture follows from that of the visible one.

    Attributes:
        visible: A word in the path of a visible picture.
        lwir: What stands in the place of its last occurrence in the path of the thermal one.
    """

    visible: str = "visible"
    lwir: str = "lwir"

    @classmethod
    def parse(cls, text: str) -> "Pairing":
        """Read ``VISIBLE=LWIR``.

        Raises:
            ConfigError: If these are not two different words.
        """
        visible, _, lwir = text.partition("=")
        if not (visible and lwir) or "=" in lwir or visible == lwir:
            raise ConfigError(
                f"--pair takes two different words, such as visible=lwir or rgb=ir, got {text!r}"
            )
        return cls(visible, lwir)

    def camera_of(self, path: str) -> str:
        """Return ``visible`` or ``lwir`` by the word that comes last in a path, "" without one."""
        visible, lwir = (path.rfind(word) for word in (self.visible, self.lwir))
        # Of words of which one holds the other, the longer one tells.
        ends = visible + len(self.visible), lwir + len(self.lwir)
        if max(visible, lwir) < 0:
            return ""
        if min(visible, lwir) < 0 or ends[0] != ends[1]:
            return "visible" if visible > lwir else "lwir"
        return "visible" if len(self.visible) > len(self.lwir) else "lwir"

    def lwir_of(self, path: str) -> str:
        """Return the path of the thermal picture; that given where it holds no such word."""
        return _replace_last(path, self.visible, self.lwir)

    def visible_of(self, path: str) -> str:
        """Return the path of the visible picture; that given where it holds no such word."""
        return _replace_last(path, self.lwir, self.visible)


@dataclass(frozen=True)
class Chosen:
    """What a model is to see, and what it is not.

    Attributes:
        sources: In order.
        skipped: What cannot be used, and why.
        num_of_other_camera: Pictures that were found beside those of the model's camera.
    """

    sources: list[Source]
    skipped: list[str]
    num_of_other_camera: int = 0


def choose_sources(files: Sequence[Found], pairing: Pairing, modality: str) -> Chosen:
    """Choose what a model of some modality can see.

    Args:
        files: As they were found.
        pairing: How paths tell the cameras.
        modality: ``visible``, ``lwir`` or ``both``; a model of one camera gets the files that were
            named, whatever their path, and of a folder with pictures of both only its own.
    """
    if modality == "both":
        return _choose_pairs(files, pairing)
    cameras = {found: pairing.camera_of(found.within) for found in files if not found.is_named}
    groups = {camera: {f.group for f, of in cameras.items() if of == camera} for camera in CAMERAS}
    mixed = groups["visible"] & groups["lwir"]
    other = "lwir" if modality == "visible" else "visible"
    kept = [f for f in files if not (f.group in mixed and cameras.get(f) == other)]
    return Chosen([Source((f.path,), f.name) for f in kept], [], len(files) - len(kept))


def _choose_pairs(files: Sequence[Found], pairing: Pairing) -> Chosen:
    given = {os.path.realpath(found.path) for found in files}
    sources, skipped = [], []
    for found in files:
        path = os.path.abspath(found.path)
        camera = pairing.camera_of(path)
        if camera == "lwir":
            if os.path.realpath(pairing.visible_of(path)) not in given:
                skipped.append(
                    f"{found.path}: a thermal picture without its visible one, "
                    f"{pairing.visible_of(path)}; this model needs both"
                )
            continue
        trouble = why_no_pair(path, pairing)
        if trouble:
            skipped.append(f"{found.path}: {trouble}")
        else:
            sources.append(Source((found.path, pairing.lwir_of(path)), found.name))
    return Chosen(sources, skipped)


def why_no_pair(path: str, pairing: Pairing) -> str:
    """Say why a visible picture has no thermal one; "" where it has.

    Args:
        path: Absolute.
        pairing: How to find it.
    """
    lwir = pairing.lwir_of(path)
    if lwir == path:
        return (
            f"this model needs pairs, and no {pairing.visible!r} in its path says where the "
            "thermal picture is; name the words with --pair VISIBLE=LWIR"
        )
    return "" if os.path.isfile(lwir) else f"this model needs pairs, and there is no {lwir}"


def _replace_last(text: str, old: str, new: str) -> str:
    before, found, after = text.rpartition(old)
    return f"{before}{new}{after}" if found else text
