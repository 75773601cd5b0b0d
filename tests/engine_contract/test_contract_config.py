"""The configuration: every key with its default, merging, ``_BASE_``, what is refused."""

import inspect
from pathlib import Path
from typing import Any

import yaml
from contract_recording import Contract
from contract_toys import raised

from d2pd.d2 import ENGINE, CfgNode, get_cfg


def leaves(node: CfgNode, prefix: str = "") -> dict[str, Any]:
    """Flatten a configuration to dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, CfgNode):
            flat.update(leaves(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_every_key_with_its_default(contract: Contract) -> None:
    defaults = {key: repr(value) for key, value in sorted(leaves(get_cfg()).items())}
    assert defaults["MODEL.DEVICE"] == "'cuda'"
    assert defaults["SOLVER.STEPS"] == "(30000,)"
    assert len(defaults) > 150
    contract(defaults)


def test_each_configuration_is_a_copy(contract: Contract) -> None:
    first, second = get_cfg(), get_cfg()
    first.SOLVER.BASE_LR = 5.0
    first.DATASETS.TRAIN = ("x",)
    copy = second.clone()
    copy.MODEL.RPN.IOU_LABELS.append(7)
    assert second.SOLVER.BASE_LR == 0.001
    contract(
        {
            "rate": second.SOLVER.BASE_LR,
            "train": second.DATASETS.TRAIN,
            "labels": second.MODEL.RPN.IOU_LABELS,
        }
    )


def test_a_dumped_configuration_merges(contract: Contract, tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.STEPS", "(10, 20)", "DATASETS.TRAIN", "('a',)"])
    file = write(tmp_path / "dumped.yaml", cfg.dump())
    again = get_cfg()
    again.merge_from_file(file)
    loaded = yaml.safe_load(cfg.dump())
    assert yaml.safe_load(again.dump()) == loaded
    contract(
        {
            "keys": list(loaded),
            "steps": loaded["SOLVER"]["STEPS"],
            "again": repr(again.SOLVER.STEPS),
        }
    )


GOOD = {
    "float": ["SOLVER.BASE_LR", "1."],
    "scientific": ["SOLVER.BASE_LR", "1e-3"],
    "list to tuple": ["SOLVER.STEPS", "[1, 2]"],
    "tuple to list": ["MODEL.RPN.IN_FEATURES", "('p2', 'p3')"],
    "one dataset": ["DATASETS.TRAIN", "('a',)"],
    "bool": ["MODEL.MASK_ON", "True"],
    "string of a number": ["OUTPUT_DIR", "run1"],
    "none to float": ["SOLVER.WEIGHT_DECAY_BIAS", "0.5"],
    "several": ["SEED", "3", "TEST.EVAL_PERIOD", "20"],
    "objects": ["SEED", 4, "SOLVER.STEPS", (5,)],
}

BAD = {
    "unknown key": ["SOLVER.NO_SUCH_KEY", "1"],
    "unknown group": ["NO.KEY", "1"],
    "word for number": ["SOLVER.MAX_ITER", "many"],
    "int for float": ["SOLVER.BASE_LR", "1"],
    "float for int": ["SOLVER.MAX_ITER", "1.5"],
    "number for string": ["OUTPUT_DIR", "5"],
    "number for tuple": ["SOLVER.STEPS", "5"],
    "odd": ["SEED"],
    "bool for int": ["SEED", "True"],
    "base": ["_BASE_", "x.yaml"],
    "group": ["SOLVER", "5"],
    "lower case": ["solver.max_iter", "5"],
}


def test_pairs_of_the_command_line(contract: Contract) -> None:
    observed = {}
    for name, pairs in GOOD.items():
        cfg = get_cfg()
        cfg.merge_from_list(pairs)
        given = leaves(cfg)
        observed[name] = {key: repr(given[key]) for key in pairs[::2]}
    assert observed["scientific"] == {"SOLVER.BASE_LR": "0.001"}
    assert observed["list to tuple"] == {"SOLVER.STEPS": "(1, 2)"}
    contract(observed)


def test_pairs_that_are_refused(contract: Contract) -> None:
    observed = {name: raised(get_cfg().merge_from_list, pairs) for name, pairs in BAD.items()}
    assert observed["word for number"] == "ValueError"
    contract(observed)


def test_files_build_on_others(contract: Contract, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "root.yaml", "VERSION: 2\nSEED: 1\nSOLVER:\n  MAX_ITER: 10\n  STEPS: (3, 4)\n")
    write(tmp_path / "sub/mid.yaml", "_BASE_: ../root.yaml\nSOLVER:\n  MAX_ITER: 20\n")
    write(tmp_path / "other.yaml", "VERSION: 2\nSEED: 9\nOUTPUT_DIR: other\n")
    top = write(tmp_path / "top.yaml", "_BASE_: sub/mid.yaml\nSOLVER:\n  BASE_LR: 0.5\n")
    both = write(tmp_path / "both.yaml", "_BASE_: [root.yaml, other.yaml]\nSEED: 7\n")
    observed = {}
    for name, file in {"chain": top, "list": both}.items():
        cfg = get_cfg()
        cfg.merge_from_file(file)
        observed[name] = {
            "SEED": cfg.SEED,
            "MAX_ITER": cfg.SOLVER.MAX_ITER,
            "STEPS": repr(cfg.SOLVER.STEPS),
            "BASE_LR": cfg.SOLVER.BASE_LR,
            "OUTPUT_DIR": cfg.OUTPUT_DIR,
        }
    assert observed["chain"]["MAX_ITER"] == 20
    assert observed["chain"]["STEPS"] == "(3, 4)"
    assert observed["list"]["SEED"] == 7
    contract(observed)


FILES = {
    "unknown key": "VERSION: 2\nNO_SUCH_KEY: 1\n",
    "unknown key below": "VERSION: 2\nSOLVER:\n  NO_SUCH_KEY: 1\n",
    "other type": "VERSION: 2\nSOLVER:\n  MAX_ITER: many\n",
    "base missing": "VERSION: 2\n_BASE_: absent.yaml\n",
    "group for value": "VERSION: 2\nSEED:\n  A: 1\n",
    "value for group": "VERSION: 2\nSOLVER: 1\n",
    "no yaml": "VERSION: 2\nSEED: [1\n",
    "later version": "VERSION: 3\nSEED: 1\n",
}


def test_files_that_are_refused(contract: Contract, tmp_path: Path) -> None:
    def merge(text: str) -> str:
        return raised(get_cfg().merge_from_file, write(tmp_path / "c.yaml", text))

    observed = {name: merge(text) for name, text in FILES.items()}
    assert observed["unknown key"] == "KeyError"
    assert "returned" not in observed.values()
    contract(observed, differences={"later version": "ConfigError (ValueError), not an assertion"})


def test_a_file_that_is_not_there(contract: Contract, tmp_path: Path) -> None:
    how = raised(get_cfg().merge_from_file, str(tmp_path / "absent.yaml"))
    assert how == ("AssertionError" if ENGINE == "detectron2" else "FileNotFoundError")
    contract({"how": how}, differences={"how": "MissingFileError, a FileNotFoundError"})


def test_files_of_other_versions(contract: Contract, tmp_path: Path) -> None:
    new = write(tmp_path / "new.yaml", "SEED: 5\n")
    old = write(tmp_path / "old.yaml", "VERSION: 1\nMODEL:\n  WEIGHT: old.pkl\n")
    cfg = get_cfg()
    cfg.merge_from_file(new)
    converted = raised(get_cfg().merge_from_file, old)
    assert cfg.SEED == 5
    assert converted == ("returned" if ENGINE == "detectron2" else "ValueError")
    contract(
        {"seed": cfg.SEED, "old layout": converted},
        differences={"old layout": "files of VERSION 1 are refused, not converted"},
    )


def test_code_in_yaml(contract: Contract, tmp_path: Path) -> None:
    """The difference that matters most: Detectron2 runs code from a configuration file."""
    mark = tmp_path / "mark"
    text = f"VERSION: 2\nSEED: !!python/object/apply:os.mkdir ['{mark}']\n"
    file = write(tmp_path / "hostile.yaml", text)
    allowed = inspect.signature(CfgNode.merge_from_file).parameters["allow_unsafe"].default
    raised(get_cfg().merge_from_file, file)
    ran = mark.exists()
    assert allowed == ran == (ENGINE == "detectron2")
    if ran:
        mark.rmdir()
    raised(get_cfg().merge_from_file, file, allow_unsafe=False)
    assert not mark.exists()
    contract(
        {"allowed by default": allowed, "ran": ran, "ran when told not to": mark.exists()},
        differences={
            "allowed by default": "safe unless asked otherwise",
            "ran": "safe unless asked otherwise",
        },
    )


def test_frozen_configurations(contract: Contract) -> None:
    cfg = get_cfg()
    cfg.freeze()
    observed = {
        "set": raised(setattr, cfg.SOLVER, "MAX_ITER", 1),
        "merge": raised(cfg.merge_from_list, ["SEED", "1"]),
        "frozen": cfg.is_frozen(),
        "clone": cfg.clone().is_frozen(),
    }
    cfg.defrost()
    cfg.SOLVER.MAX_ITER = 1
    assert observed["set"] == "AttributeError"
    contract({**observed, "after": cfg.is_frozen()})


def test_own_keys_can_be_added(contract: Contract, tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.DATASETS.EXTRA = CfgNode({"PATH": "x"})
    cfg.DATASETS.EXTRA.set_new_allowed(True)
    cfg.merge_from_file(write(tmp_path / "c.yaml", "VERSION: 2\nDATASETS:\n  EXTRA:\n    NEW: 3\n"))
    cfg.merge_from_list(["DATASETS.EXTRA.PATH", "y"])
    assert cfg.DATASETS.EXTRA.NEW == 3
    contract(
        {
            "extra": leaves(cfg.DATASETS.EXTRA),
            "absent": raised(lambda: cfg.DATASETS.NOTHING),
            "unknown": raised(cfg.merge_from_list, ["DATASETS.OTHER", "1"]),
        }
    )


def test_merging_trees(contract: Contract) -> None:
    cfg, other = get_cfg(), CfgNode({"SEED": 3, "SOLVER": {"STEPS": (1,)}})
    cfg.merge_from_other_cfg(other)
    assert (cfg.SEED, cfg.SOLVER.STEPS, cfg.SOLVER.MAX_ITER) == (3, (1,), 40000)
    contract(
        {
            "merged": [cfg.SEED, repr(cfg.SOLVER.STEPS), cfg.SOLVER.MAX_ITER],
            "unknown": raised(get_cfg().merge_from_other_cfg, CfgNode({"NOTHING": 1})),
            "base": raised(get_cfg().merge_from_other_cfg, CfgNode({"_BASE_": "x"})),
        }
    )
