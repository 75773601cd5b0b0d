"""The section on the configuration: what differs from the defaults, and how to train it again."""

import json
from collections.abc import Iterator

from d2pd.config_words import flatten
from d2pd.d2 import CfgNode
from d2pd.reporting.model_card.markdown import code, names, table
from d2pd.reporting.report.run_config import CONFIG
from d2pd.reporting.report.run_facts import changes

MOST_KEYS = 100
ELSEWHERE = ("DATASETS.REGISTER.", "OUTPUT_DIR", "VERSION", "MODEL.DEVICE", "DATASETS.ROOT")
"""Keys that are told of in other words, or are of a machine and no one's choice."""
OF_A_MACHINE = ("OUTPUT_DIR", "MODEL.DEVICE", "DATASETS.ROOT", "DATALOADER.NUM_WORKERS")


def configuration_lines(cfg: CfgNode, file: CfgNode, weights_name: str) -> Iterator[str]:
    """Yield the section's lines, without its heading.

    Args:
        cfg: Of the training.
        file: What ``config.yaml`` says.
        weights_name: Of the file that carries the configuration too.
    """
    other = differing_keys(cfg, file)
    if other:
        yield (
            f"**`{CONFIG}` is of another command than the training**, such as an evaluation: it "
            f"differs in {names(other)}. What follows is what {code(weights_name)} says itself; "
            "d2pd reads it from there."
        )
    else:
        yield (
            f"All keys are in `{CONFIG}` beside this card. It trains again, with d2pd and the "
            "data in their places, by:"
        )
        yield from (
            "",
            "```sh",
            f"python train_net.py --config-file PATH_OF_THIS_FOLDER/{CONFIG} OUTPUT_DIR NEW_FOLDER",
            "```",
        )
    rows = [row for row in changes(cfg) if not row[0].startswith(ELSEWHERE)]
    yield from ("", "Keys that differ from the defaults of d2pd:", "")
    cells = [(code(key), code(value), code(default)) for key, value, default in rows[:MOST_KEYS]]
    yield from table([("key", "value", "default"), *cells])
    if len(rows) > MOST_KEYS:
        yield from (f"And {len(rows) - MOST_KEYS:,} more.", "")


def differing_keys(cfg: CfgNode, file: CfgNode) -> list[str]:
    """Return the keys in which two configurations differ, but for those of a machine."""
    ours, theirs = (
        {key: json.dumps(value, default=str) for key, value in flatten(one)} for one in (cfg, file)
    )
    return [
        key
        for key in {**ours, **theirs}
        if ours.get(key) != theirs.get(key) and key not in OF_A_MACHINE
    ]
