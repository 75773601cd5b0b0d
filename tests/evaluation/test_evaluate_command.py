"""``d2pd evaluate`` as a user types it: golden numbers, own subsets, and every mistake one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from d2pd import cli
from d2pd.errors import ConfigError
from d2pd.evaluation import comparison as comparison_module
from d2pd.evaluation.evaluate_command import name_methods

ROOT = Path(__file__).resolve().parent.parent.parent

GOLDEN = {
    "MLPD": {
        "strict": ("7.58", "7.95", "6.95"),
        "compat": (7.5756, 7.9637, 6.9476),
        "recall": 96.7010,
        "settings": ("7.58", "0.00", "12.10", "52.79", "25.18", "29.84", "55.05"),
        "iou_75": ("66.80", "65.59", "69.14"),
    },
    "MSDS-RCNN": {
        "strict": ("11.34", "10.53", "12.94"),
        "compat": (11.3361, 10.5400, 12.9386),
        "recall": 94.2955,
        "settings": ("11.34", "1.29", "16.19", "63.73", "29.96", "38.71", "63.37"),
        # 70.57 67.36 79.25 with ties inside an image in the file's own order of lines. Here they
        # break by the box, so that shuffled lines give the same.
        "iou_75": ("70.59", "67.33", "79.25"),
    },
}
REASONABLE = ("reasonable/all", "reasonable/day", "reasonable/night")


@pytest.fixture
def kaist(tmp_path):
    """Four labelled frames, the last at night, and detections that find all but the last."""
    names = ["set06/V000/I00019", "set06/V000/I00039", "set07/V000/I00019", "set09/V000/I00019"]
    label = {"category_id": 1, "bbox": [100, 100, 30, 80], "occlusion": 0, "ignore": 0}
    content = {
        "images": [{"id": n, "im_name": name} for n, name in enumerate(names)],
        "annotations": [label | {"image_id": n} for n in range(4)],
        "categories": [{"id": 1, "name": "person"}],
    }
    (tmp_path / "labels.json").write_text(json.dumps(content))
    (tmp_path / "mine_result.txt").write_text(
        "".join(f"{n + 1},100,100,30,80,0.{9 - n}\n" for n in range(3))
    )
    return tmp_path


@pytest.fixture
def evaluate(kaist, monkeypatch, capsys):
    """Run the command in the folder of ``kaist``, with few resamples."""
    monkeypatch.chdir(kaist)
    monkeypatch.setitem(comparison_module.compare.__kwdefaults__, "repetitions", 20)

    def run(*words, annotations="labels.json", detections=("mine_result.txt",)):
        files = map(str, detections)
        code = cli.main(["evaluate", "--annotations", annotations, "--detections", *files, *words])
        done = capsys.readouterr()
        return code, done.out, done.err

    return run


def test_published_files_print_the_published_numbers(shared_data):
    folder = shared_data / "kaist"
    results = [str(folder / "results" / f"{name}_result.txt") for name in GOLDEN]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "d2pd", "evaluate"),
            *("--annotations", str(folder / "test20.json"), "--detections", *results),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert max(map(len, lines[1:])) <= 100
    for name, golden in GOLDEN.items():
        row = next(line for line in lines if line.startswith(f"{name} "))
        words = row.replace("[", " ").split()
        assert (words[1], words[4], words[7]) == golden["strict"]
        assert words[-1] == f"{golden['recall']:.2f}"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        # Boxes x1,y1,x2,y2.
        (
            [f"{n},100,100,130,180,.9\n" for n in (1, 2, 3, 4)],
            "0.0 % of the labels of reasonable/all, and leaves 0 of 4",
        ),
        # Made on another, shorter list.
        (["1,100,100,30,80,.9\n"], "25.0 % of the labels of reasonable/all, and leaves 3 of 4"),
    ],
)
def test_detections_that_look_made_on_other_images_get_a_warning(
    evaluate, kaist, caplog, lines, words
):
    (kaist / "mine_result.txt").write_text("".join(lines))
    code, *_ = evaluate()
    assert code == 0
    assert words in caplog.text
    assert "are its boxes x, y, w, h" in caplog.text


@pytest.mark.parametrize("mode", ["strict", "compat"])
def test_all_golden_values_are_in_the_json(shared_data, evaluate, mode):
    folder = shared_data / "kaist"
    results = [folder / "results" / f"{name}_result.txt" for name in GOLDEN]
    labels = str(folder / "test20.json")
    code, *_ = evaluate("--json", "o.json", "--mode", mode, annotations=labels, detections=results)
    assert code == 0
    for result in json.loads(Path("o.json").read_text())["results"]:
        golden, subsets = GOLDEN[result["method"]], result["subsets"]
        parts = [subsets[name] for name in REASONABLE]
        assert [part["num_labels"] for part in parts] == [1455, 989, 466]
        assert tuple(f"{part['strict']:.2f}" for part in parts) == golden["strict"]
        assert [part["compat"] for part in parts] == pytest.approx(golden["compat"], abs=5e-5)
        assert [part["miss_rate"] for part in parts] == [part[mode] for part in parts]
        assert parts[0]["recall"] == pytest.approx(golden["recall"], abs=5e-5)
        low, high = parts[0]["interval"]
        assert low < parts[0]["miss_rate"] < high
        values = [f"{part['strict']:.2f}" for name, part in subsets.items() if "/all" in name]
        assert tuple(values) == golden["settings"]
        for part in subsets.values():
            differs = f"{part['strict']:.2f}" != f"{part['compat']:.2f}"
            assert bool(part["difference"]) == differs


def test_golden_values_of_a_stricter_overlap(shared_data, evaluate):
    folder = shared_data / "kaist"
    results = [folder / "results" / f"{name}_result.txt" for name in GOLDEN]
    labels = str(folder / "test20.json")
    assert (
        evaluate("--json", "o.json", "--iou", ".75", annotations=labels, detections=results)[0] == 0
    )
    for result in json.loads(Path("o.json").read_text())["results"]:
        values = tuple(f"{result['subsets'][name]['strict']:.2f}" for name in REASONABLE)
        assert values == GOLDEN[result["method"]]["iou_75"]


def test_the_table_and_both_files(evaluate):
    code, out, err = evaluate("--json", "new/o.json", "--plot", "new/o.png")
    assert (code, err) == (0, "")
    row = next(line for line in out.splitlines() if line.startswith("mine "))
    # A miss of 0, 0 and 1 at every reference by day, by night and in a quarter of all images.
    assert row.split()[1] == "25.00"
    assert "  0.00 [" in row
    assert "100.00 [100.00, 100.00]" in row
    assert row.split()[-1] == "75.00"
    assert out.endswith("\n\nwritten to new/o.json\nwritten to new/o.png\n")
    content = json.loads(Path("new/o.json").read_text())
    assert content["annotations"]["file"] == "labels.json"
    assert len(content["annotations"]["sha256"]) == 64
    assert content["annotations"]["num_images"] == 4
    assert content["detections"]["mine"]["file"] == "mine_result.txt"
    assert Path("new/o.png").read_bytes().startswith(b"\x89PNG")


def test_compat_is_the_main_number_where_asked_for(evaluate):
    _, out, _ = evaluate("--mode", "compat")
    assert next(line for line in out.splitlines() if line.startswith("mine ")).split()[1] == "0.00"
    assert "reasonable/all: compat 0.00, strict 25.00" in out


def test_own_subsets_come_from_a_configuration(evaluate):
    Path("own.yaml").write_text(
        "MISS_RATE:\n  MODE: compat\n  SETTINGS: {tall: {HEIGHT: [70, .inf]}}\n"
        "  SPLITS: {first: [set06]}\n"
    )
    code, *_ = evaluate("--json", "o.json", "--config-file", "own.yaml")
    content = json.loads(Path("o.json").read_text())
    assert code == 0
    assert list(content["results"][0]["subsets"]) == ["tall/all", "tall/first"]
    assert content["mode"] == "compat"
    assert content["results"][0]["subsets"]["tall/first"]["num_labels"] == 2
    words = ("--config-file", "own.yaml", "MISS_RATE.IOU_THRESHOLD", "0.25")
    evaluate("--json", "o.json", "--mode", "strict", "--protocol", "kaist", *words)
    content = json.loads(Path("o.json").read_text())
    assert (content["mode"], content["iou_threshold"]) == ("strict", 0.25)
    assert "reasonable/all" in content["results"][0]["subsets"]


def test_no_engine_is_loaded_without_a_configuration(kaist):
    code = (
        "import sys\nfrom d2pd.cli import main\n"
        "main(['evaluate', '--annotations', 'labels.json', '--detections', 'mine_result.txt'])\n"
        "print([m for m in ('torch', 'd2pd.d2', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=kaist,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--iou", "0"], "the IoU threshold must be above 0 and at most 1, got 0"),
        (["--iou", "nan"], "the IoU threshold must be above 0 and at most 1, got nan"),
        (["--json", "labels.json"], "labels.json: this is one of the files to read"),
        (["--json", "mine_result.txt"], "mine_result.txt: this is one of the files to read"),
        (["--json", "./x/../linked.json"], "this is one of the files to read"),
        (["--json", "hard.json"], "hard.json: this is one of the files to read"),
        (["--plot", "plot.doc"], "a picture of the format .doc cannot be drawn"),
        (["--plot", "plot"], "a picture of the format (none) cannot be drawn"),
        (["--json", "o.png", "--plot", "o.png"], "--json and --plot name the same file"),
        (["--json", "."], ".: this is no file that could be replaced"),
        (["--config-file", "c.yaml", "--json", "c.yaml"], "c.yaml: this is one of the files to"),
        (["--json", f"{'x' * 300}.json"], "File name too long"),
        (["--plot", "/proc/o.png"], "cannot write /proc/o.png"),
        (["--plot", "o.pgf"], "a picture of the format .pgf cannot be drawn"),
        (["--json", "/dev/null"], "/dev/null: this is no file that could be replaced"),
        (["--json", "labels.json/o.json"], "labels.json is a file, not a folder"),
        (["--config-file", "nowhere.yaml"], "no config file nowhere.yaml"),
        (["--iou", "0.5", "MISS_RATE.MODE", "fair"], "MISS_RATE.MODE"),
    ],
)
def test_a_wrong_option_is_one_line_and_nothing_is_written(evaluate, words, message):
    Path("linked.json").symlink_to("labels.json")
    Path("x").mkdir()
    Path("c.yaml").write_text("MISS_RATE: {MODE: compat}")
    os.link("labels.json", "hard.json")
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    code, out, err = evaluate(*words)
    assert (code, out) == (2, "")
    assert err.startswith("d2pd: ")
    assert message in err
    assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"empty.txt": ""}, "empty.txt: the file is empty"),
        ({"a.txt": "9,1,2,3,4,.5"}, "a.txt, line 1: image_id 9 is not in the label file"),
        ({"a.txt": "1,1,2,nan,4,.5"}, "a.txt, line 1: "),
        ({"a.json": '[{"image_id": 0, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 1}]'}, "2"),
        ({}, "gone.txt: no such result file"),
        ({"b.txt": "1,1,2,3,4,.5", "a.txt": "x"}, "a.txt, line 1: 1 columns"),
    ],
)
def test_a_bad_result_file_is_one_line_and_no_number(evaluate, files, message):
    for name, content in files.items():
        Path(name).write_text(content)
    detections = ["mine_result.txt", *(files or ["gone.txt"])]
    code, out, err = evaluate("--json", "o.json", detections=detections)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not Path("o.json").exists()


def test_labels_that_cannot_be_read_are_one_line(evaluate):
    for name, content in {"cut.json": '{"images": [', "list.json": "[]", "none.json": None}.items():
        if content:
            Path(name).write_text(content)
        code, out, err = evaluate(annotations=name)
        assert (code, out) == (2, "")
        assert err.startswith(f"d2pd: {name}")
        assert err.count("\n") == 1


def test_an_override_among_the_result_files_is_recognised(evaluate):
    code, _, err = evaluate(detections=["mine_result.txt", "MISS_RATE.MODE", "compat"])
    assert code == 2
    assert "MISS_RATE.MODE: no such result file; KEY VALUE overrides go last" in err


def test_a_mode_that_does_not_exist_is_refused_by_the_parser(evaluate, capsys):
    with pytest.raises(SystemExit) as caught:
        evaluate("--mode", "fair")
    assert caught.value.code == 2
    assert "strict" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/MLPD_result.txt", "a/MSDS-RCNN_result.txt"], ["MLPD", "MSDS-RCNN"]),
        (["a/x/predictions.json", "b/x/predictions.json"], ["a/x/predictions", "b/x/predictions"]),
        (["a/x.txt", "b/x.txt", "y.txt"], ["a/x", "b/x", "y"]),
        (["a/x.txt", "a/x.json"], ["x.txt", "x.json"]),
        (["a/x.txt", "a/x_result.txt", "b/x.txt"], ["x.txt", "x_result.txt", "x"]),
        (["a/_result.txt"], ["_result"]),
        (["o/one/inference/k/predictions.json"], ["one"]),
        (
            ["o/one/inference/k/predictions.json", "o/two/inference/k/predictions.json"],
            ["one", "two"],
        ),
        (
            ["p/one/inference/k/predictions.json", "o/one/inference/k/predictions.json"],
            ["p/one", "o/one"],
        ),
        (
            ["one/inference/a/predictions.json", "one/inference/b/predictions.json"],
            ["a/predictions", "b/predictions"],
        ),
        (["o/one/inference/k/predictions.json", "x/one.txt"], ["o/one", "x/one"]),
    ],
)
def test_methods_are_named_by_their_files(paths, names):
    files = [Path(path) for path in paths]
    assert name_methods(files) == dict(zip(names, files, strict=True))


def test_a_file_given_twice_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is given 2 times"):
        name_methods([tmp_path / "a.txt", tmp_path / "x" / ".." / "a.txt"])


def test_names_of_files_break_no_table_and_fit_every_encoding(evaluate):
    hostile = os.fsdecode(b"a\nreasonable  0.00 \x1b[31m\xe2\x80\xae\xff.txt")
    Path(hostile).write_text(Path("mine_result.txt").read_text())
    code, out, _ = evaluate("--json", "o.json", detections=[hostile])
    assert code == 0
    assert r"a\nreasonable  0.00 \x1b[31m\u202e\udcff" in out
    assert not {"\x1b", "\u202e", "\udcff"} & set(out)
    assert json.loads(Path("o.json").read_text())["results"][0]["num_detections"] == 3


def test_a_terminal_without_the_letters_of_a_name_shows_their_codes(kaist):
    (kaist / "mine_result.txt").rename(kaist / "größe.txt")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "d2pd", "evaluate", "--annotations", "labels.json"),
            *("--detections", "größe.txt"),
        ],
        cwd=kaist,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert r"gr\xf6\xdfe" in done.stdout


def test_a_link_that_leads_to_itself_is_no_result_file(evaluate):
    Path("round.txt").symlink_to("round.txt")
    code, out, err = evaluate(detections=["round.txt"])
    assert (code, out) == (2, "")
    assert "round.txt: no such result file" in err
