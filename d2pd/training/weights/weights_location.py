"""Finds a weights file: a path of this machine, or an address fetched once into a cache folder."""

import logging
import os
import shutil
import urllib.parse
import urllib.request
from pathlib import Path

from d2pd.errors import ConfigError, MissingFileError, WeightsError

logger = logging.getLogger(__name__)

_DETECTRON2 = "detectron2://"
_DETECTRON2_HOST = "https://dl.fbaipublicfiles.com/detectron2/"
_TIMEOUT_SECONDS = 30


def cache_folder() -> Path:
    """Return the folder for fetched weights.

    It is the one that Detectron2 uses (``$FVCORE_CACHE``, else ``~/.torch/iopath_cache``), so that
    what either has fetched serves both.
    """
    return Path(os.environ.get("FVCORE_CACHE", "~/.torch/iopath_cache")).expanduser()


def weights_url(location: str) -> str | None:
    """Return the https address behind a location, or None where it is a path.

    Raises:
        ConfigError: If the location has another scheme.
    """
    if "://" not in location:
        return None
    if location.startswith(_DETECTRON2):
        return _DETECTRON2_HOST + location.removeprefix(_DETECTRON2)
    if location.startswith("https://"):
        return location
    raise ConfigError(
        f"MODEL.WEIGHTS {location!r} has a scheme that is not known: give '' (from scratch), a "
        "path, https://... or detectron2://..."
    )


def cached_path(url: str) -> Path:
    """Return where the file of an https address lies, or has to be put."""
    parts = urllib.parse.urlparse(url)
    names = [name for name in parts.path.split("/") if name not in ("", ".", "..")]
    if not names:
        raise ConfigError(f"MODEL.WEIGHTS {url!r} names no file")
    return cache_folder().joinpath(*names)


def _fetch(url: str, target: Path) -> None:
    """Fetch into a file beside the target first: a broken line leaves nothing under its name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:
            expected = answer.headers.get("Content-Length")
            with partial.open("wb") as file:
                shutil.copyfileobj(answer, file, 1 << 20)
        size = partial.stat().st_size
        if expected is not None and size != int(expected):
            raise OSError(f"the connection ended after {size:,} of {int(expected):,} bytes")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def resolve_weights(location: str) -> Path:
    """Return the local file of a ``MODEL.WEIGHTS`` value, fetching it when it is an address.

    Args:
        location: A path (``~`` is understood), ``https://...``, or ``detectron2://...``, which
            stands for Detectron2's model zoo. Not empty: no weights means nothing to resolve.

    Raises:
        ConfigError: If the location is empty or of an unknown scheme.
        MissingFileError: If there is no such file, or it cannot be fetched; says where to put it.
        WeightsError: If the location is a folder.
    """
    if not location:
        raise ConfigError("MODEL.WEIGHTS is empty: there is nothing to load")
    url = weights_url(location)
    if url is None:
        path = Path(location).expanduser()
        if path.is_dir():
            raise WeightsError(f"MODEL.WEIGHTS {location!r} is a folder: name the file in it")
        if not path.is_file():
            raise MissingFileError(
                f"MODEL.WEIGHTS {location!r} is not there (looked at {path.absolute()}): give an "
                "existing .pth or .pkl, an https:// or detectron2:// address, or '' for none"
            )
        return path
    target = cached_path(url)
    if target.is_file():
        return target
    logger.info("Fetching %s into %s", url, target)
    try:
        _fetch(url, target)
    except (OSError, ValueError) as error:  # URLError, HTTPError and timeouts are OSErrors
        reason = getattr(error, "reason", None) or error
        raise MissingFileError(
            f"cannot fetch {url} ({reason}): download it elsewhere and put it at {target}, or give "
            "the path of a local file as MODEL.WEIGHTS"
        ) from error
    return target
