"""Configuration: fvcore's ``CfgNode`` with Detectron2's keys, loaded without running code."""

import os

from fvcore.common.config import CfgNode as _FvcoreCfgNode

from d2pd.embedded.defaults_tree import DEFAULTS
from d2pd.embedded.honoured import check_honoured, unhonoured_keys
from d2pd.errors import ConfigError, MissingFileError

__all__ = ["CfgNode", "check_honoured", "get_cfg", "unhonoured_keys"]


class CfgNode(_FvcoreCfgNode):
    """A tree of keys; merging refuses unknown keys and values of another type.

    Differs from Detectron2's in two ways: YAML tags that would run code are refused unless asked
    for, and a file of the old key layout is refused instead of converted.
    """

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = False) -> None:
        """Merge a YAML file, and before it the files that its ``_BASE_`` names.

        Args:
            cfg_filename: Path of the file; ``_BASE_`` is relative to its folder.
            allow_unsafe: Accept YAML tags that run code while loading.

        Raises:
            MissingFileError: If there is no such file.
            ConfigError: If the file states a ``VERSION`` other than this tree's.
            KeyError: If it holds a key that the tree lacks.
            ValueError: If a value has another type than the default.
        """
        if not os.path.isfile(cfg_filename):
            raise MissingFileError(f"config file {cfg_filename} does not exist")
        loaded = type(self)(self.load_yaml_with_base(cfg_filename, allow_unsafe=allow_unsafe))
        version = loaded.get("VERSION", self.get("VERSION"))
        if version != self.get("VERSION"):
            raise ConfigError(
                f"{cfg_filename} has VERSION {version}, this engine reads {self.get('VERSION')}: "
                "convert it with Detectron2, or rename its keys and set VERSION"
            )
        self.merge_from_other_cfg(loaded)


def get_cfg() -> CfgNode:
    """Return a fresh copy of the default configuration."""
    return CfgNode(DEFAULTS).clone()
