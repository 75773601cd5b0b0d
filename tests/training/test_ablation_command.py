"""``d2pd ablate`` with a toy in the place of the training: order, skips, failures, stops."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from d2pd import cli
from d2pd.training.ablation import process
from d2pd.training.ablation.command import measured_on, results_of_one_dataset
from d2pd.training.ablation.record import LOG, NAME

ROOT = Path(__file__).resolve().parents[2]
QUICK = ROOT / "configs/quick/faster_rcnn_synthetic.yaml"

TOY = """
import json, pathlib, sys, time
words = sys.argv[1:]
folder = pathlib.Path(words[words.index("OUTPUT_DIR") + 1])
seed = int(words[words.index("SEED") + 1])
with (folder / "calls.txt").open("a") as calls:
    calls.write(" ".join(words) + "\\n")
toy = pathlib.Path(__file__).parent
if (toy / f"fail_{folder.parent.name}_{seed}").exists():
    sys.exit("d2pd: no memory")
(folder / "metrics.json").write_text("{}")
(folder / "model_0000003.pth").write_text("")
if (toy / "wait").exists():
    time.sleep(60)
rates = {f"reasonable/{split}": 20.0 + seed for split in ("all", "day", "night")}
results = {"bbox": {"AP": 50.0 + seed, "AP50": 80.0}, "MR": rates}
if "DATASETS.FINAL_TEST" in words:
    results = {"final": results, "bbox": {"AP": 1.0}}
(folder / "results.json").write_text(json.dumps({"iteration": 4, "results": results}))
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Two configurations, and a toy that writes results where the training would."""
    for name in ("first", "second"):
        (tmp_path / f"{name}.yaml").write_text(f"_BASE_: {QUICK}\nSOLVER: {{BASE_LR: 0.001}}\n")
    (tmp_path / "second.yaml").write_text(f"_BASE_: {QUICK}\nSOLVER: {{BASE_LR: 0.002}}\n")
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(process, "TRAIN_NET", tmp_path / "toy.py")
    return tmp_path


def words_of(toy, *seeds, flags=(), opts=("SOLVER.MAX_ITER", "5", "SOLVER.WARMUP_ITERS", "1")):
    files = [str(toy / "first.yaml"), str(toy / "second.yaml")]
    return [
        *("ablate", "--config-files", *files, "--seeds", *map(str, seeds), *flags),
        *("--output", str(toy / "out"), *opts),
    ]


def calls(toy, place):
    return (toy / "out" / place / "calls.txt").read_text().splitlines()


def test_all_are_run_in_turn_and_the_table_is_printed_and_written(toy, capsys):
    assert cli.main(words_of(toy, 0, 2)) == 0
    printed = capsys.readouterr().out
    heads = [line.partition("; ")[0] for line in printed.splitlines() if line.startswith("[")]
    assert heads[::2] == [
        "[1/4] first, seed 0: starts",
        "[2/4] first, seed 2: starts",
        "[3/4] second, seed 0: starts",
        "[4/4] second, seed 2: starts",
    ]
    assert heads[1].startswith("[1/4] first, seed 0: MR all 20.00, MR day 20.00")
    text = (toy / "out/ablations.md").read_text()
    assert "| first  | 0, 2  | 21.00 ± 1.41 |" in text
    assert "- second: first; SOLVER.BASE_LR: 0.001 -> 0.002" in text
    assert "On synthetic_val: " in text
    assert text in printed
    numbers = json.loads((toy / "out/ablations.json").read_text())
    assert [run["values"]["AP"] for run in numbers["runs"]] == [50.0, 52.0, 50.0, 52.0]
    assert numbers["means"]["second"]["AP"]["mean"] == 51.0
    (call,) = calls(toy, "second/seed_2")
    assert call == (
        f"--config-file {toy}/second.yaml SOLVER.MAX_ITER 5 SOLVER.WARMUP_ITERS 1 "
        f"SEED 2 OUTPUT_DIR {toy}/out/second/seed_2"
    )


def test_finished_runs_are_not_run_again(toy, capsys):
    assert cli.main(words_of(toy, 0)) == 0
    assert cli.main(words_of(toy, 0, 1)) == 0
    assert "[1/4] first, seed 0: finished before, not run again" in capsys.readouterr().out
    assert [len(calls(toy, f"first/seed_{seed}")) for seed in (0, 1)] == [1, 1]


def test_failed_run_is_named_the_others_go_on_and_it_is_tried_again(toy, capsys):
    (toy / "fail_first_0").touch()
    assert cli.main(words_of(toy, 0)) == 1
    printed = capsys.readouterr().out
    assert "[1/2] first, seed 0: not finished, exit code 1: no memory" in printed
    assert "\n- first seed 0: not finished, exit code 1: no memory" in printed
    assert (toy / "out/second/seed_0/results.json").is_file()
    assert "d2pd: no memory" in (toy / "out/first/seed_0" / LOG).read_text()
    (toy / "fail_first_0").unlink()
    assert cli.main(words_of(toy, 0)) == 0
    assert "--resume" not in calls(toy, "first/seed_0")[-1]


def test_finished_run_of_another_configuration_is_said_and_left_alone(toy, capsys):
    assert cli.main(words_of(toy, 0)) == 0
    other = words_of(toy, 0, opts=["SOLVER.MAX_ITER", "6", "SOLVER.WARMUP_ITERS", "1"])
    assert cli.main(other) == 1
    printed = capsys.readouterr().out
    assert "holds a run of another configuration (SOLVER.MAX_ITER: 5 -> 6)" in printed
    assert len(calls(toy, "first/seed_0")) == 1


def test_interrupted_run_goes_on_with_resume_or_anew_without_a_checkpoint(toy):
    assert cli.main(words_of(toy, 0)) == 0
    for name in ("first", "second"):
        (toy / f"out/{name}/seed_0/results.json").unlink()
    (toy / "out/second/seed_0/model_0000003.pth").unlink()
    assert cli.main(words_of(toy, 0)) == 0
    assert [f"--{flag}" in calls(toy, "first/seed_0")[1] for flag in ("resume", "overwrite")] == [
        True,
        False,
    ]
    assert "--overwrite" in calls(toy, "second/seed_0")[1]


def test_table_alone_runs_nothing(toy, capsys):
    assert cli.main(words_of(toy, 0)) == 0
    shutil.rmtree(toy / "out/second")
    assert cli.main(words_of(toy, 0, flags=["--table"])) == 1
    printed = capsys.readouterr().out
    assert "- second seed 0: not run yet" in printed
    assert not (toy / "out/second").exists()


def test_file_of_overrides_goes_over_all_and_words_over_it(toy):
    over = toy / "over.yaml"
    over.write_text("SOLVER: {MAX_ITER: 7, BASE_LR: 0.25, WARMUP_ITERS: 1}\n")
    flags = ["--overrides", str(over)]
    assert cli.main(words_of(toy, 0, flags=flags, opts=["SOLVER.MAX_ITER", "8"])) == 0
    config = json.loads((toy / "out/first/seed_0" / NAME).read_text())["config"]
    assert (config["SOLVER.MAX_ITER"], config["SOLVER.BASE_LR"]) == (8, 0.25)


def test_figures_are_of_the_final_test_where_there_is_one(toy, capsys):
    opts = ["DATASETS.FINAL_TEST", "('synthetic_train',)"]
    assert cli.main(words_of(toy, 3, opts=opts)) == 0
    printed = capsys.readouterr().out
    assert "On synthetic_train: " in printed
    assert "AP 53.00" in printed


def test_of_several_datasets_the_first_is_shown():
    config = {"DATASETS.FINAL_TEST": [], "DATASETS.TEST": ["b", "a"]}
    results = {"a": {"bbox": {"AP": 1.0}}, "b": {"bbox": {"AP": 2.0}}}
    assert results_of_one_dataset(results, config) == {"bbox": {"AP": 2.0}}
    assert results_of_one_dataset({"bbox": {"AP": 3.0}}, config) == {"bbox": {"AP": 3.0}}
    assert measured_on({**config, "DATASETS.TEST": []}) == "no dataset"


def test_mistake_in_the_last_configuration_is_heard_of_before_the_first_run(toy, capsys):
    (toy / "second.yaml").write_text("SOLVER: {LRR: 1}\n")
    assert cli.main(words_of(toy, 0)) == 2
    assert "second.yaml: unknown key SOLVER.LRR" in capsys.readouterr().err
    assert not (toy / "out").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no SIGTERM")
def test_stop_from_outside_stops_the_run_too_and_leaves_the_table(toy):
    (toy / "wait").touch()
    code = (
        "import sys; from pathlib import Path; from d2pd import cli; "
        "from d2pd.training.ablation import process; "
        f"process.TRAIN_NET = Path({str(toy / 'toy.py')!r}); sys.exit(cli.main(sys.argv[1:]))"
    )
    ablation = subprocess.Popen(
        [sys.executable, "-c", code, *words_of(toy, 0)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    checkpoint = toy / "out/first/seed_0/model_0000003.pth"
    deadline = time.monotonic() + 60
    while not checkpoint.is_file():
        assert time.monotonic() < deadline
        assert ablation.poll() is None
        time.sleep(0.05)
    ablation.send_signal(signal.SIGTERM)
    _, said = ablation.communicate(timeout=60)
    assert ablation.returncode == 143
    assert "d2pd: stopped by SIGTERM at first, seed 0: the same command again goes on" in said
    record = json.loads((toy / "out/first/seed_0" / NAME).read_text())
    assert record["attempts"][0]["exit_code"] == -signal.SIGTERM
    assert not (toy / "out/second").exists()
    assert "second seed 0: not run yet" in (toy / "out/ablations.md").read_text()
