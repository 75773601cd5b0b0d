"""The report of folders as runs leave them."""

import html
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from report_toys import (
    DATASET,
    near_labels,
    row_of,
    write_config,
    write_metrics,
    write_predictions,
)

from d2pd.cli import main
from d2pd.config import load_config
from d2pd.data.records import load_records
from d2pd.errors import MissingFileError, UserError
from d2pd.reporting.report import run_facts
from d2pd.reporting.report.gather import gather
from d2pd.reporting.report.stored import Records
from d2pd.reporting.report.write import write_report

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path, quick_opts):
    """A finished run with detections."""
    folder = tmp_path / "run"
    write_config(folder, quick_opts)
    write_metrics(folder)
    write_predictions(folder, near_labels(load_records(DATASET, cleaned=False)))
    (folder / "results.json").write_text("{}")
    return folder


def gathered(folder, max_pictures=60):
    return gather(folder, max_pictures=max_pictures, quiet=True)


def test_images_that_are_not_trained_on_do_not_count(run, monkeypatch):
    every = load_records("synthetic_train", cleaned=False)
    some = [*every[:-2], *({**record, "annotations": []} for record in every[-2:])]
    monkeypatch.setattr(run_facts, "read_records", lambda _: Records(every, some))
    assert dict(gathered(run).facts)["Training data"] == "synthetic_train (10 of 12 images)"


def test_finished_run_shows_everything(run):
    content = gathered(run)
    [part] = content.datasets

    assert (content.name, content.status, content.absent) == ("run", "finished", [])
    assert dict(content.facts)["Training data"] == "synthetic_train (12 images)"
    assert dict(content.facts)["Model"] == "Faster R-CNN, ResNet-18 with FPN"
    assert {f.label for f in content.figures} >= {"Iterations", "Best bbox/AP", "AP"}
    assert part.name == DATASET
    assert "4 images" in part.summary
    assert [chart.title.split()[0] for chart in part.charts] == ["Miss", "Precision", "Precision,"]
    assert {card.kind for card in part.cards} >= {"miss", "false positive"}
    assert all(card.crop and content.frames[card.frame] for card in part.cards)
    assert "thermal frames" in part.gallery_note
    assert ("SOLVER.MAX_ITER", "700", "40000") in content.changes


def test_a_classifier_of_torchvision_is_called_by_its_name():
    cfg = load_config(ROOT / "configs/faster_rcnn_swin_t_kaist.yaml")
    assert run_facts.model_words(cfg) == "Faster R-CNN, torchvision's swin_t with FPN"


def test_number_of_pictures_is_bounded(run):
    assert len(gathered(run, max_pictures=3).datasets[0].cards) == 3
    none = gathered(run, max_pictures=0)
    assert (none.datasets[0].cards, none.frames) == ([], {})


def test_page_is_written_whole_or_not_at_all(run, monkeypatch):
    path = write_report(run, quiet=True)
    assert path == run / "report.html"
    old = path.read_text()
    assert old.startswith("<!DOCTYPE html>")
    assert old.rstrip().endswith("</html>")

    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(UserError, match=r"cannot write .*report.html \(full\)"):
        write_report(run, quiet=True)
    assert path.read_text() == old
    assert list(run.glob(".*")) == []


def test_command_prints_the_path(run, capsys):
    assert main(["report", str(run), "--max-pictures", "2"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{run / 'report.html'}\n"
    assert "pictures of synthetic_val" in err


@pytest.mark.parametrize("name", ["", "gone"])
def test_folder_that_is_no_run_is_one_line_and_code_2(tmp_path, capsys, name):
    assert main(["report", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "it holds no run; give the OUTPUT_DIR" in error


@pytest.mark.parametrize("words", ["-1", "many"])
def test_number_of_pictures_that_is_none(tmp_path, capsys, words):
    with pytest.raises(SystemExit, match="2"):
        main(["report", str(tmp_path), "--max-pictures", words])
    assert "is not a whole number of 0 or more" in capsys.readouterr().err


def test_run_that_was_never_evaluated_says_how_to_do_it(run):
    shutil.rmtree(run / "inference")
    (run / "results.json").unlink()

    content = gathered(run)

    assert content.status == "unfinished"
    [why] = content.datasets[0].absent
    assert f"No inference/{DATASET}/predictions.json" in why
    assert f"--config-file {run / 'config.yaml'} --eval-only --resume" in why


def test_run_without_numbers_or_test_data(tmp_path, quick_opts):
    write_config(tmp_path, [*quick_opts, "DATASETS.TEST", "()"])

    content = gathered(tmp_path)

    assert content.status == "evaluated"
    assert (content.training, content.datasets) == ([], [])
    assert "no metrics.json" in content.training_absent
    assert any("DATASETS.TEST is empty" in words for words in content.absent)


def test_no_detection_at_all_is_an_answer(run):
    write_predictions(run, [])

    [part] = gathered(run).datasets

    assert any("Not a single detection" in words for words in part.absent)
    assert {card.kind for card in part.cards} == {"miss"}


def test_list_of_detections_as_older_runs_wrote_it(run):
    new = gathered(run).datasets[0]
    path = run / "inference" / DATASET / "predictions.json"
    content = path.read_text()
    path.write_text(content[content.index("[{") : content.rindex("]") + 1])

    old = gathered(run).datasets[0]

    assert old.figures == new.figures


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "not JSON"), ('[{"image_id": "elsewhere"}]', "there is no bbox")],
)
def test_detections_that_cannot_be_used_are_told_of(run, content, words):
    (run / "inference" / DATASET / "predictions.json").write_text(content)

    [why] = gathered(run).datasets[0].absent

    assert why.startswith("Nothing can be shown: ")
    assert words in why


def test_detections_on_another_dataset_are_told_of(run):
    write_predictions(run, [row_of({"image_id": 99_999}, [1, 1, 5, 5], 0.5)])

    [why] = gathered(run).datasets[0].absent

    assert "image_id 99999 is not in the label file" in why


def test_every_dataset_has_its_part_and_its_share_of_the_pictures(run):
    write_predictions(run, near_labels(load_records("synthetic_train"), seed=1), "synthetic_train")
    write_predictions(run, [], "forgotten")

    first, forgotten, train = gathered(run, max_pictures=9).datasets

    assert [p.name for p in (first, forgotten, train)] == [DATASET, "forgotten", "synthetic_train"]
    assert len(first.cards) == len(train.cards) == 3
    assert "no dataset 'forgotten' is registered" in forgotten.absent[0]
    assert {card.frame.split("-")[0] for card in train.cards} == {"2"}


def test_pictures_that_were_moved_leave_the_numbers(run, drawn_root, tmp_path, quick_opts, caplog):
    root = tmp_path / "elsewhere"
    shutil.copytree(drawn_root, root)
    opts = [*quick_opts, "DATASETS.ROOT", str(root)]
    write_config(run, opts)
    before = gathered(run).datasets[0]
    shutil.rmtree(root / "synthetic/images")

    with caplog.at_level(logging.WARNING):
        part = gathered(run).datasets[0]

    assert [f.value for f in part.figures] == [f.value for f in before.figures]
    assert {card.crop for card in part.cards} == {""}
    assert any(words.startswith("No pictures: ") for words in part.absent)
    assert "cannot be read any more" in part.gallery_note
    assert "pictures are not shown" in caplog.text


def test_labels_that_are_gone_are_not_drawn_anew(run, tmp_path, quick_opts):
    root = tmp_path / "empty"
    write_config(run, [*quick_opts, "DATASETS.ROOT", str(root)])

    content = gathered(run)

    assert not root.exists()
    assert "no such file. Do this in the folder" in content.datasets[0].absent[0]
    assert "labels not here" in dict(content.facts)["Training data"]


def test_configuration_that_cannot_be_read_is_an_error(run):
    (run / "config.yaml").write_text("NO_SUCH_KEY: 1\n")
    with pytest.raises(ValueError, match="NO_SUCH_KEY"):
        gathered(run)
    (run / "config.yaml").unlink()
    with pytest.raises(MissingFileError, match=r"no config\.yaml in it"):
        gathered(run)


def test_reasons_reach_the_page_and_the_command_works_in_a_process_of_its_own(run):
    write_metrics(run, stopped="AP <b>stands</b> still")

    done = subprocess.run(
        [sys.executable, "-m", "d2pd", "report", str(run), "--max-pictures", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    page = Path(done.stdout.strip()).read_text()
    assert "<b>stands</b>" not in page
    assert "Stopped after iteration 80 of 700: AP <b>stands</b> still." in html.unescape(page)


@pytest.mark.parametrize(
    "row",
    [
        '{"iteration": "x", "total_loss": 1}',
        '{"iteration": NaN, "total_loss": 1}',
        f'{{"iteration": 1{"0" * 400}, "total_loss": 1}}',
        f'{{"iteration": 1, "lr": 1{"0" * 400}}}',
        f'{{"iteration": 1, "lr": 1{"0" * 5000}}}',
        '{"iteration": 1, "total_loss": 1e308, "lr": -5, "bbox/AP": -1e308}',
        '{"iteration": 1, "lr": -5}',
        "[" * 100_000,
        '{"iteration": 1, "stopped": "\\ud800"}',
    ],
)
def test_rows_of_numbers_that_no_run_writes_leave_a_page(run, row):
    with (run / "metrics.json").open("a") as file:
        file.write(row + "\n")
    page = write_report(run, quiet=True).read_text()
    assert "Learning rate" in page


def test_predictions_nested_without_end_are_said_to_be_unusable(run):
    path = run / "inference" / DATASET / "predictions.json"
    path.write_text("[" * 100_000)
    [part] = gathered(run).datasets
    assert "cannot be read as JSON" in part.absent[0]


def test_a_page_that_cannot_be_written_is_one_line(run, capsys):
    (run / "report.html").mkdir()
    assert main(["report", str(run)]) == 2
    assert "d2pd: cannot write" in capsys.readouterr().err.splitlines()[-1]
