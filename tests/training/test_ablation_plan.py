"""What an ablation runs: each configuration with each seed, all mistakes heard of beforehand."""

import json
from pathlib import Path

import pytest

from d2pd.errors import ConfigError, MissingFileError
from d2pd.training.ablation.plan import overrides_of_file, plain_defaults, plan_runs


@pytest.fixture
def two_files(tmp_path):
    """A base, and a configuration on top of it."""
    base, other = tmp_path / "base.yaml", tmp_path / "other.yaml"
    base.write_text("SOLVER: {BASE_LR: 0.5, MAX_ITER: 7}\nSEED: 3\n")
    other.write_text("_BASE_: base.yaml\nSOLVER: {MAX_ITER: 9}\n")
    return [base, other]


def test_each_configuration_runs_with_each_seed_in_a_folder_of_its_own(two_files):
    runs = plan_runs(two_files, [0, 1], [], Path("out"))
    assert [(run.name, run.seed, str(run.folder)) for run in runs] == [
        ("base", 0, "out/base/seed_0"),
        ("base", 1, "out/base/seed_1"),
        ("other", 0, "out/other/seed_0"),
        ("other", 1, "out/other/seed_1"),
    ]
    for run in runs:
        assert run.opts == ("SEED", str(run.seed), "OUTPUT_DIR", str(run.folder))
        assert (run.config["SEED"], run.config["SOLVER.BASE_LR"]) == (run.seed, 0.5)
    assert [run.config["SOLVER.MAX_ITER"] for run in runs] == [7, 7, 9, 9]


def test_without_seeds_each_runs_with_its_own(two_files):
    assert [run.seed for run in plan_runs(two_files, [], [], Path("out"))] == [3, 3]
    assert [run.seed for run in plan_runs(two_files, [], ["SOLVER.MAX_ITER", "1"], Path("o"))] == [
        3,
        3,
    ]


def test_a_seed_named_twice_is_one_run(two_files):
    assert len(plan_runs(two_files[:1], [4, 4], [], Path("out"))) == 1


@pytest.mark.parametrize("name", ["...yaml", "a|b.yaml", "a\nb.yaml", "..yaml"])
def test_names_that_leave_the_folder_or_break_the_table_are_refused(two_files, name):
    file = two_files[0].rename(two_files[0].with_name(name))
    with pytest.raises(ConfigError, match="give the file another name"):
        plan_runs([file], [1], [], Path("out"))


def test_overrides_go_over_every_configuration(two_files):
    runs = plan_runs(two_files, [], ["SOLVER.MAX_ITER", "2"], Path("out"))
    assert [run.config["SOLVER.MAX_ITER"] for run in runs] == [2, 2]
    assert runs[0].opts[:2] == ("SOLVER.MAX_ITER", "2")


def test_configuration_is_plain_data(two_files):
    config = dict(plan_runs(two_files, [], [], Path("out"))[0].config)
    assert json.loads(json.dumps(config)) == config
    assert plain_defaults().keys() <= config.keys()


def test_each_run_has_its_own_mirror(two_files):
    runs = plan_runs(two_files, [1], ["CHECKPOINT.MIRROR_DIR", "/drive"], Path("out"))
    mirrors = [run.config["CHECKPOINT.MIRROR_DIR"] for run in runs]
    assert mirrors == ["/drive/base/seed_1", "/drive/other/seed_1"]


@pytest.mark.parametrize(
    ("files", "opts", "message"),
    [
        (["base.yaml", "sub/base.yaml"], [], "both be run in the folder base"),
        (["base.yaml"], ["SEED", "3"], "SEED differs from run to run: give --seeds instead"),
        (["base.yaml"], ["OUTPUT_DIR", "x"], "give --output instead"),
        (["base.yaml"], ["SOLVER.MAX_ITER"], "overrides come in pairs"),
        (["base.yaml", "absent.yaml"], [], "no config file .*absent.yaml"),
        (["base.yaml", "broken.yaml"], [], "broken.yaml: unknown key SOLVER.LRR"),
    ],
)
def test_mistakes_are_named_before_anything_runs(two_files, tmp_path, files, opts, message):
    (tmp_path / "broken.yaml").write_text("SOLVER: {LRR: 1}\n")
    with pytest.raises((ConfigError, MissingFileError), match=message):
        plan_runs([tmp_path / name for name in files], [], opts, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_file_of_overrides_says_the_same_as_words(two_files, tmp_path):
    path = tmp_path / "over.yaml"
    path.write_text(
        "MODEL:\n  WEIGHTS: ''\n  ANCHOR_GENERATOR: {SIZES: [[8.0], [16.0]]}\n"
        "INPUT: {MIN_SIZE_TRAIN: [128]}\nSOLVER: {AMP: {ENABLED: true}, MAX_ITER: 5}\n"
    )
    config = plan_runs(two_files, [], overrides_of_file(path), Path("out"))[1].config
    assert config["MODEL.WEIGHTS"] == ""
    assert config["MODEL.ANCHOR_GENERATOR.SIZES"] == [[8.0], [16.0]]
    assert config["INPUT.MIN_SIZE_TRAIN"] == [128]
    assert config["SOLVER.AMP.ENABLED"] is True
    assert config["SOLVER.MAX_ITER"] == 5


@pytest.mark.parametrize("text", ["- 1\n", "", "_BASE_: base.yaml\n", "a: [\n"])
def test_file_of_something_else_is_no_overrides(tmp_path, text):
    path = tmp_path / "over.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"over\.yaml"):
        overrides_of_file(path)


def test_file_of_overrides_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"no file .*over\.yaml \(--overrides"):
        overrides_of_file(tmp_path / "over.yaml")


def test_a_configuration_that_its_overrides_spoil_is_named(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("SOLVER: {WARMUP_ITERS: 50, LR_SCHEDULER_NAME: WarmupCosineLR}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: SOLVER\.WARMUP_ITERS 50 leaves nothing"):
        plan_runs([file], [0], ["SOLVER.MAX_ITER", "4"], tmp_path / "out")
