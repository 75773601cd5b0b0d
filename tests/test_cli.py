"""The commands as a user types them: exit codes, one line on stderr, nothing on failure."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from d2pd import __version__, cli
from d2pd.errors import RunInterrupted

ROOT = Path(__file__).resolve().parent.parent


def run(*words, cwd=ROOT, **environment):
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_module_runs_as_a_command():
    done = run("-m", "d2pd", "--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"d2pd {__version__}")


def test_kaist_config_with_nothing_there_lists_all_that_is_missing(tmp_path):
    words = [
        str(ROOT / "train_net.py"),
        "--config-file",
        str(ROOT / "configs/faster_rcnn_kaist.yaml"),
    ]
    done = run(*words, "MODEL.WEIGHTS", "none.pth", "MODEL.DEVICE", "cuda:99", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().split("\n")
    assert lines[0] == "d2pd: 5 things are in the way of this run:"
    joined = "\n".join(lines)
    for part in ("cuda:99", "train20.json", "test20.json", "kaist/images", "none.pth", "synth"):
        assert part in joined
    assert list(tmp_path.iterdir()) == []


MISTAKES = [
    (cli.train, ["--config-file", "nowhere.yaml"], "no config file nowhere.yaml"),
    (cli.train, ["SOLVER.LRR", "1"], "unknown key SOLVER.LRR"),
    (cli.main, ["show", "--config-file", "README.md"], "README.md: not "),
    (cli.main, ["synth", "--output", "README.md"], "README.md"),
    (cli.main, ["diagnose", "--config-file", "nowhere.yaml"], "no config file nowhere"),
    (cli.main, ["diagnose", "--labels-only"], "name the training: --config-file FILE"),
]


@pytest.mark.parametrize(("command", "words", "message"), MISTAKES)
def test_mistakes_end_in_one_line_and_exit_code_two(command, words, message, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert command(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("d2pd: ")
    assert message in said
    assert said.count("\n") == 1


def test_a_mistake_is_one_line_and_exit_code_two_in_a_process_of_its_own():
    done = run("train_net.py", "SOLVER.LRR", "1")
    assert done.returncode == 2
    assert done.stderr.startswith("d2pd: command line: unknown key SOLVER.LRR")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["train_net.py"], ["-m", "d2pd", "show"]], ids=["train", "show"])
def test_output_folder_that_cannot_be_made_is_one_line(quick_opts, words):
    config = "configs/quick/faster_rcnn_synthetic.yaml"
    done = run(*words, "--config-file", config, *quick_opts, "OUTPUT_DIR", "/proc/d2pd")
    assert done.returncode == 2
    assert done.stderr.startswith("d2pd: OUTPUT_DIR /proc/d2pd cannot be ")
    assert done.stderr.count("\n") == 1


def test_synth_then_show_draws_the_samples(tmp_path):
    words = ["synth", "--output", "drawn", "--train", "3", "--test", "2", "--seed", "5"]
    done = run("-m", "d2pd", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "drawn/train20.json").read_text())["images"]) == 3
    key = "DATASETS.REGISTER.synthetic_train"
    done = run(
        *(
            "-m",
            "d2pd",
            "show",
            "--config-file",
            str(ROOT / "configs/quick/faster_rcnn_synthetic.yaml"),
        ),
        *("DATASETS.ROOT", str(tmp_path), f"{key}.FORMAT", "kaist"),
        *(f"{key}.ANNOTATIONS", "drawn/train20.json", f"{key}.IMAGES", "drawn/images"),
        *("OUTPUT_DIR", "seen"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().split("\n")[-1] == "seen/train_batch.png"
    assert (tmp_path / "seen/train_batch.png").stat().st_size > 10_000


def test_interrupt_is_said_in_one_line(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_doctor", interrupted)
    assert cli.main(["doctor"]) == cli.INTERRUPTED
    assert capsys.readouterr().err == "d2pd: interrupted\n"
    monkeypatch.setattr(cli, "_train", interrupted)
    assert cli.train([]) == cli.INTERRUPTED
    assert capsys.readouterr().err == (
        "d2pd: interrupted; --resume goes on from the newest checkpoint\n"
    )


def test_stop_from_outside_is_said_in_one_line_with_its_exit_code(monkeypatch, capsys):
    def stopped(args):
        raise RunInterrupted("stopped by SIGTERM after iteration 7: --resume goes on", 143)

    monkeypatch.setattr(cli, "_train", stopped)
    assert cli.train([]) == 143
    assert capsys.readouterr().err == (
        "d2pd: stopped by SIGTERM after iteration 7: --resume goes on\n"
    )


def test_reader_that_closes_the_output_early_sees_no_traceback():
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from d2pd import cli;"
    code += (
        "cli._doctor = lambda args: print('line\\n' * 100_000) or 0; sys.exit(cli.main(['doctor']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(5)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == cli.OUTPUT_CLOSED


def test_what_the_system_refuses_is_one_line_and_a_fault_of_ours_is_not_hidden(monkeypatch, capsys):
    def full(args):
        raise OSError(errno.ENOSPC, "No space left on device", "a.png")

    monkeypatch.setattr(cli, "_doctor", full)
    assert cli.main(["doctor"]) == cli.USER_ERROR
    assert "No space left on device: 'a.png'; make room" in capsys.readouterr().err

    def gone(args):
        raise FileNotFoundError(errno.ENOENT, "No such file", "of_ours")

    monkeypatch.setattr(cli, "_doctor", gone)
    with pytest.raises(FileNotFoundError):
        cli.main(["doctor"])


def test_faults_of_d2pd_itself_keep_their_traceback(monkeypatch):
    def broken(args):
        raise RuntimeError("ours")

    monkeypatch.setattr(cli, "_doctor", broken)
    with pytest.raises(RuntimeError, match="ours"):
        cli.main(["doctor"])


def test_the_report_command_shows_as_many_pictures_as_the_end_of_a_run():
    from d2pd.reporting.report.write import MAX_PICTURES

    assert cli._parser().parse_args(["report", "runs/any"]).max_pictures == MAX_PICTURES
