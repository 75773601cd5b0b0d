"""What is wrong with a configuration, in words for the person who wrote it."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from d2pd.d2 import CfgNode
from d2pd.errors import ConfigError


def flatten(cfg: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every (dotted key, value) of a configuration, depth first, in its order."""
    for key, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def lookup(cfg: CfgNode, key: str) -> Any:
    """Return the value of a dotted key, such as ``SOLVER.BASE_LR``."""
    node: Any = cfg
    for part in key.split("."):
        node = node[part]
    return node


def check_words(opts: Sequence[str]) -> None:
    """Check that command-line overrides come as ``KEY VALUE`` pairs.

    Raises:
        ConfigError: Naming the word that does not fit.
    """
    flag = next((word for word in opts[::2] if str(word).startswith("--")), None)
    if flag:
        raise ConfigError(f"{flag} stands behind an override: flags come before KEY VALUE pairs")
    joined = next((word for word in opts[::2] if "=" in str(word)), None)
    if joined:
        raise ConfigError(f"{joined!r}: an override is two words, KEY VALUE, without =")
    if len(opts) % 2:
        raise ConfigError(
            f"overrides come in pairs, KEY VALUE: {opts[-1]!r} has no value ({len(opts)} words)"
        )


def one_line(error: Exception) -> str:
    """Return the message of an error without line breaks."""
    return " ".join(str(error).split())


def explain(error: Exception, cfg: CfgNode) -> str:
    """Turn yacs's error into a line that names the key and, for a typo, what was meant."""
    text = one_line(error).strip("'\"")
    _, is_mismatch, key = text.partition(" for config key: ")
    if is_mismatch and text.startswith("Type mismatch"):
        return _expected_type(key, text.partition(" vs. <class '")[2].partition("'")[0], cfg)
    unknown = text.removeprefix("Non-existent config key: ").removeprefix("Non-existent key: ")
    if unknown == text:
        return text
    return unknown_key(unknown, cfg)


def unknown_key(key: str, cfg: CfgNode) -> str:
    """Say that a key is unknown and, for a typo, what was meant."""
    near = difflib.get_close_matches(key, [known for known, _ in flatten(cfg)], n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else "; configs/README.md lists the keys"
    return f"unknown key {key}{hint}"


def _expected_type(key: str, got: str, cfg: CfgNode) -> str:
    value = lookup(cfg, key)
    if isinstance(value, CfgNode):
        names = f" ({', '.join(list(value)[:3])}, ...)" if value else ""
        return f"{key} holds keys{names}, got a value of type {got}"
    example = f"{value!r}"
    if isinstance(value, tuple) and got == "str":
        example += "; on the command line a list of one is \"('name',)\""
    return f"{key} takes a value of type {type(value).__name__}, got {got}; it is now {example}"
