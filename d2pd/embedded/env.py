"""Random seeds, and what this machine and its Python packages are."""

import logging
import os
import platform
import random
import sys
from importlib import metadata

import numpy as np
import torch

logger = logging.getLogger(__name__)

_PACKAGES = (
    "numpy",
    "torch",
    "torchvision",
    "fvcore",
    "iopath",
    "Pillow",
    "opencv-python",
    "opencv-python-headless",
)


def seed_all_rng(seed: int | None = None) -> None:
    """Seed Python's, numpy's and torch's random numbers.

    Args:
        seed: In [0, 2**32); None draws one, which is logged.
    """
    if seed is None:
        seed = int.from_bytes(os.urandom(4), "big")
        logger.info("No seed was given, drew %d", seed)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    os.environ["PYTHONHASHSEED"] = str(seed)  # for the processes that this one starts


def collect_env_info() -> str:
    """Return platform, Python, packages that are installed, and devices, one a line."""
    lines = [
        f"platform: {platform.platform()}",
        f"python: {sys.version.split()[0]} at {sys.executable}",
        *(f"{package}: {version}" for package in _PACKAGES if (version := _version(package))),
        f"CPU threads: {torch.get_num_threads()}",
    ]
    for index in range(torch.cuda.device_count()):
        lines.append(f"GPU {index}: {torch.cuda.get_device_name(index)}")
    return "\n".join(lines)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
