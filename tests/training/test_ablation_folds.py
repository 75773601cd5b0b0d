"""``d2pd ablate --folds``: a run for each fold, and the mean over them."""

import json
import math
from pathlib import Path

import pytest

from d2pd import cli
from d2pd.data.folds import Folds
from d2pd.errors import ConfigError, MissingFileError
from d2pd.training.ablation import process
from d2pd.training.ablation.plan import plan_runs
from d2pd.training.ablation.record import NAME
from d2pd.training.ablation.table import format_table, make_row, summarise

ROOT = Path(__file__).resolve().parents[2]

TOY = """
import json, pathlib, sys
words = sys.argv[1:]
folder = pathlib.Path(words[words.index("OUTPUT_DIR") + 1])
fold, seed = (int(words[words.index(key) + 1]) for key in ("DATASETS.FOLD", "SEED"))
with (folder / "calls.txt").open("a") as calls:
    calls.write(" ".join(words) + "\\n")
(folder / "metrics.json").write_text("{}")
(folder / "model_0000003.pth").write_text("")
results = {"bbox": {"AP": 10.0 * fold + seed, "AP50": 80.0}, "MR": {}}
(folder / "results.json").write_text(json.dumps({"iteration": 4, "results": results}))
"""


def write_folds(path, num_folds=3, folds=(0, 1, 2)):
    images = dict(zip("abc", folds, strict=True))
    Folds("labels.csv", 3, 3, num_folds, "image", False, 0, images).write(path)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A configuration whose dataset has folds, and a toy in the place of the training."""
    write_folds(tmp_path / "folds.json")
    entry = "FORMAT: csv, ANNOTATIONS: labels.csv, CLASSES: [person], FOLDS: folds.json"
    (tmp_path / "mine.yaml").write_text(
        f"DATASETS:\n  ROOT: {tmp_path}\n  TRAIN: [cv_train]\n  TEST: [cv_test]\n  REGISTER:\n"
        f"    cv_train: {{{entry}, FOLD_PART: train}}\n    cv_test: {{{entry}, FOLD_PART: test}}\n"
    )
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(process, "TRAIN_NET", tmp_path / "toy.py")
    return tmp_path


def ablate(toy, *flags):
    words = ["ablate", "--config-files", str(toy / "mine.yaml"), *flags]
    return cli.main([*words, "--output", str(toy / "out")])


def row(fold, seed, ap, name="a"):
    results = {"bbox": {"AP": ap, "AP50": 50.0}, "MR": {}} if ap is not None else None
    return make_row(name, seed, results, 60.0, "" if results else "not run yet", fold)


def test_each_fold_has_a_folder_of_its_own_and_each_seed_in_it(toy):
    runs = plan_runs([toy / "mine.yaml"], [5, 6], [], Path("out"), [2, 0, 2])
    assert [(run.fold, run.seed, str(run.folder)) for run in runs] == [
        (2, 5, "out/mine/fold_2/seed_5"),
        (2, 6, "out/mine/fold_2/seed_6"),
        (0, 5, "out/mine/fold_0/seed_5"),
        (0, 6, "out/mine/fold_0/seed_6"),
    ]
    assert [run.config["DATASETS.FOLD"] for run in runs] == [2, 2, 0, 0]
    assert str(runs[1]) == "mine, fold 2, seed 6"
    words = ("DATASETS.FOLD", "2", "SEED", "5", "OUTPUT_DIR", "out/mine/fold_2/seed_5")
    assert runs[0].opts == words


def test_without_folds_the_place_is_that_of_the_seed(toy):
    (run,) = plan_runs([toy / "mine.yaml"], [5], [], Path("out"))
    assert (run.fold, str(run.folder), run.config["DATASETS.FOLD"]) == (None, "out/mine/seed_5", 0)


def test_deviation_is_over_folds_each_with_the_mean_of_its_seeds():
    rows = [row(0, 1, 10.0), row(0, 2, 14.0), row(1, 1, 20.0), row(1, 2, None), row(2, 1, None)]
    ap = summarise(rows)["a"]["AP"]
    # Folds of 12 and 20: mean 16, deviation sqrt((4^2 + 4^2) / 1).
    assert (ap.mean, ap.deviation, ap.number) == (16.0, pytest.approx(math.sqrt(32)), 2)
    text = format_table(rows)
    lines = text.splitlines()
    assert lines[0].split("|")[1:4] == [" run ", " folds   ", " seeds "]
    assert lines[2].split("|")[1:4] == [" a   ", " 0, 1, 2 ", " 1, 2  "]
    assert "| 16.00 ± 5.66 (2 of 3) | 50.00 ± 0.00 (2 of 3) |" in lines[2]
    assert "\nEach run:\n" in text
    assert lines[6].split("|")[1:4] == [" run ", " fold ", " seed "]
    assert lines[9].split("|")[1:4] == [" a   ", " 0    ", " 2    "]
    assert text.endswith("- a fold 1 seed 2, a fold 2 seed 1: not run yet")


def test_all_folds_are_run_and_none_again(toy, capsys):
    assert ablate(toy, "--folds", "0", "1", "2", "--seeds", "3") == 0
    text = (toy / "out/ablations.md").read_text()
    assert "| mine | 0, 1, 2 | 3     | -      | -      | -        | 13.00 ± 10.00 |" in text
    assert "over folds, of which each counts with the mean of its seeds. Time" in text
    numbers = json.loads((toy / "out/ablations.json").read_text())
    assert [(run["fold"], run["values"]["AP"]) for run in numbers["runs"]] == [
        (0, 3.0), (1, 13.0), (2, 23.0),
    ]  # fmt: skip
    ablate(toy, "--folds", "0", "1", "2", "--seeds", "3")
    said = capsys.readouterr().out
    assert "[3/3] mine, fold 2, seed 3: finished before, not run again" in said
    for fold in range(3):
        calls = (toy / f"out/mine/fold_{fold}/seed_3/calls.txt").read_text().splitlines()
        assert len(calls) == 1
        assert f" DATASETS.FOLD {fold} SEED 3 " in calls[0]


def test_runs_on_other_folds_in_a_file_of_the_same_name_are_not_taken_for_these(toy, capsys):
    ablate(toy, "--folds", "1")
    write_folds(toy / "folds.json", folds=(1, 0, 2))
    ablate(toy, "--folds", "1")
    said = capsys.readouterr().out
    assert "holds a run of another configuration (DATASETS.REGISTER.cv_train.FOLDS, its " in said
    assert len((toy / "out/mine/fold_1/seed_42/calls.txt").read_text().splitlines()) == 1
    config = json.loads((toy / "out/mine/fold_1/seed_42" / NAME).read_text())["config"]
    assert len(config["DATASETS.REGISTER.cv_test.FOLDS, its content"]) == 12


@pytest.mark.parametrize(
    ("folds", "opts", "message"),
    [
        ([0, 3], [], r"DATASETS.FOLD is 3, and .*folds\.json has the folds 0 to 2"),
        ([0], ["DATASETS.FOLD", "1"], "DATASETS.FOLD differs from run to run: give --folds inst"),
        (
            [0, 1],
            ["DATASETS.TRAIN", "('other',)", "DATASETS.TEST", "()"],
            r"mine\.yaml: --folds would run the same each time: no dataset of DATASETS.TRAIN or",
        ),
    ],
)
def test_folds_that_are_not_there_are_told_before_anything_runs(toy, folds, opts, message):
    with pytest.raises(ConfigError, match=message):
        plan_runs([toy / "mine.yaml"], [], opts, toy / "out", folds)
    assert not (toy / "out").exists()


def test_a_missing_file_of_folds_is_told_before_anything_runs(toy):
    (toy / "folds.json").unlink()
    for folds in ([0], []):
        with pytest.raises(MissingFileError, match=r"folds\.json: no such file of folds"):
            plan_runs([toy / "mine.yaml"], [], [], toy / "out", folds)


@pytest.mark.slow
def test_real_trainings_on_two_folds(drawn_root, quick_opts, tmp_path, capsys):
    folds = tmp_path / "folds.json"
    labels = drawn_root / "synthetic/train20.json"
    words = ["--folds", "2", "--by", "image", "--output", str(folds)]
    assert cli.main(["split", "--annotations", str(labels), *words]) == 0
    opts = [*quick_opts, "SOLVER.MAX_ITER", "3", "DATASETS.TRAIN", "('cv_train',)"]
    opts += ["DATASETS.TEST", "('cv_test',)"]
    for part in ("train", "test"):
        entry = f"DATASETS.REGISTER.cv_{part}"
        opts += [f"{entry}.FORMAT", "kaist", f"{entry}.ANNOTATIONS", "synthetic/train20.json"]
        opts += [f"{entry}.IMAGES", "synthetic/images"]
        opts += [f"{entry}.FOLDS", str(folds), f"{entry}.FOLD_PART", part]
    config = str(ROOT / "configs/quick/faster_rcnn_synthetic.yaml")
    words = ["--config-files", config, "--folds", "0", "1", "--output", str(tmp_path / "out")]
    assert cli.main(["ablate", *words, *opts]) == 0, capsys.readouterr().out
    for fold in (0, 1):
        folder = tmp_path / f"out/faster_rcnn_synthetic/fold_{fold}/seed_42"
        log = (folder / "output.log").read_text()
        assert f"cv_train: all folds but {fold} of 0 to 1 in {folds}: 6 of 12 images" in log
        assert f"cv_test: fold {fold} of 0 to 1 in {folds}: 6 of 12 images" in log
    assert "| 0, 1  | 42 " in (tmp_path / "out/ablations.md").read_text()
