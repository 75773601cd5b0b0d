"""Imports point inwards: pure < interface < engine, and the engine is met in d2pd/d2.py alone."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "d2pd"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
SHARED = ("d2pd.errors", "d2pd.sync_batch_norm")
"""What the embedded engine may use of d2pd."""
PURE = (
    "d2pd.sync_batch_norm",
    "d2pd.errors",
    "d2pd.config_rules",
    "d2pd.atomic_file",
    "d2pd.json_file",
    "d2pd.output_files",
    "d2pd.markdown_table",
    "d2pd.engine_state",
    "d2pd.doctor",
    "d2pd.data.annotations",
    "d2pd.data.audit.audit",
    "d2pd.data.audit.box_rules",
    "d2pd.data.audit.clean_copy",
    "d2pd.data.audit.cleaning_plan",
    "d2pd.data.audit.csv_text",
    "d2pd.data.audit.json_text",
    "d2pd.data.audit.spelled_box",
    "d2pd.data.audit.stored_text",
    "d2pd.data.audit.findings",
    "d2pd.data.audit.image_rules",
    "d2pd.data.audit.outliers",
    "d2pd.data.audit.picture_files",
    "d2pd.data.audit.pictures",
    "d2pd.data.audit.rules",
    "d2pd.data.audit.summary",
    "d2pd.data.audit.suspicious",
    "d2pd.data.cleaning",
    "d2pd.data.label_table",
    "d2pd.data.convert",
    "d2pd.data.synthetic",
    "d2pd.data.augmentation",
    "d2pd.data.sampler",
    "d2pd.data.dataset_source",
    "d2pd.data.fold_assignment",
    "d2pd.data.folds",
    "d2pd.data.split_command",
    "d2pd.data.drawn_on_first_use",
    "d2pd.data.images",
    "d2pd.data.modality",
    "d2pd.notebook.detectron2_wheel",
    "d2pd.notebook.drive",
    "d2pd.notebook.install",
    "d2pd.notebook.pip_process",
    "d2pd.notebook.runtime",
    "d2pd.notebook.unpack",
    "d2pd.modeling.anchor_fit",
    "d2pd.inference.batches",
    "d2pd.inference.detections",
    "d2pd.inference.export.check",
    "d2pd.inference.detector",
    "d2pd.inference.ensemble",
    "d2pd.inference.fuse_files",
    "d2pd.inference.fusion",
    "d2pd.inference.views",
    "d2pd.inference.predict.drawings",
    "d2pd.inference.predict.labelled",
    "d2pd.inference.predict.names",
    "d2pd.inference.predict.overlap",
    "d2pd.inference.predict.pairing",
    "d2pd.inference.predict.picture",
    "d2pd.inference.predict.pipeline",
    "d2pd.inference.predict.quiet",
    "d2pd.inference.predict.result_files",
    "d2pd.inference.predict.run",
    "d2pd.inference.predict.sources",
    "d2pd.inference.predict.stage_times",
    "d2pd.inference.predict.summary",
    "d2pd.inference.predict.targets",
    "d2pd.inference.predict.video",
    "d2pd.modeling.anchors",
    "d2pd.modeling.batch_detections",
    "d2pd.modeling.rcnn_core",
    "d2pd.modeling.ssd_core",
    "d2pd.modeling.backbones",
    "d2pd.modeling.heads",
    "d2pd.modeling.torchvision_features",
    "d2pd.modeling.network",
    "d2pd.modeling.box_coding",
    "d2pd.modeling.losses",
    "d2pd.modeling.matching",
    "d2pd.modeling.post_processing",
    "d2pd.modeling.segmentation",
    "d2pd.modeling.targets",
    "d2pd.evaluation.arrays",
    "d2pd.evaluation.assignment",
    "d2pd.evaluation.bootstrap",
    "d2pd.evaluation.coco",
    "d2pd.evaluation.confusion",
    "d2pd.evaluation.operating_points",
    "d2pd.evaluation.label_convention",
    "d2pd.evaluation.error_analysis",
    "d2pd.evaluation.error_cases",
    "d2pd.evaluation.error_counts",
    "d2pd.evaluation.miss_rate",
    "d2pd.evaluation.subsets",
    "d2pd.evaluation.tally",
    "d2pd.evaluation.comparison",
    "d2pd.evaluation.comparison_text",
    "d2pd.evaluation.result_files",
    "d2pd.printable",
    "d2pd.reporting.audit_page",
    "d2pd.reporting.camera_pictures",
    "d2pd.reporting.cells",
    "d2pd.reporting.anchor_fit_plot",
    "d2pd.reporting.curves",
    "d2pd.reporting.drawing",
    "d2pd.reporting.error_sheet",
    "d2pd.reporting.gallery",
    "d2pd.reporting.heat_maps",
    "d2pd.reporting.model_card.augmentation_words",
    "d2pd.reporting.model_card.markdown",
    "d2pd.reporting.model_card.saved_weights",
    "d2pd.reporting.miss_rate_plot",
    "d2pd.reporting.report.cards",
    "d2pd.reporting.report.chart",
    "d2pd.reporting.report.content",
    "d2pd.reporting.report.dataset_charts",
    "d2pd.reporting.report.dataset_part",
    "d2pd.reporting.report.error_tables",
    "d2pd.reporting.report.measured",
    "d2pd.reporting.report.metric_tables",
    "d2pd.reporting.report.page",
    "d2pd.reporting.report.pictures",
    "d2pd.reporting.report.status",
    "d2pd.reporting.report.training",
    "d2pd.reporting.run_metrics",
    "d2pd.reporting.threshold_plot",
    "d2pd.reporting.sheet",
    "d2pd.reporting.suspects",
    "d2pd.training.ablation.record",
    "d2pd.training.ablation.table",
    "d2pd.training.checkpoints.archive",
    "d2pd.training.deciding.best_value",
    "d2pd.training.checkpoints.checkpoint_choice",
    "d2pd.training.checkpoints.checkpoint_file",
    "d2pd.training.checkpoints.checkpoint_folder",
    "d2pd.training.diagnosis.diagnosis",
    "d2pd.training.culprits.gradients",
    "d2pd.training.culprits.model_check",
    "d2pd.training.interruption",
    "d2pd.training.isolation",
    "d2pd.training.checkpoints.mirror",
    "d2pd.training.checkpoints.optimizer_state",
    "d2pd.training.deciding.patience",
    "d2pd.training.period",
    "d2pd.training.checkpoints.plain_data",
    "d2pd.training.random_state",
    "d2pd.training.results",
    "d2pd.training.run_folder",
    "d2pd.training.running_numbers",
    "d2pd.training.said_once",
    "d2pd.training.culprits.sample_faults",
    "d2pd.training.snapshot",
    "d2pd.training.checkpoints.training_state",
    "d2pd.training.deciding.watched_metric",
    "d2pd.training.weights",
    "d2pd.training.writers.appended_file",
)
"""Modules and packages of ring 1."""


def in_package(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in packages)


def parse_imports(source: str, module: str, is_package: bool) -> set[str]:
    """Return every module that a source imports at any depth; ``from a import b`` gives a, a.b."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parents = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parents, base] if base else parents)
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


@cache
def imports_of(module: str) -> set[str]:
    path = MODULES[module]
    return parse_imports(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")


def test_imports_are_found_however_they_are_written():
    source = (
        "import a.b as c\nfrom d import e\ndef f():\n    from ..g import h\n    from . import i\n"
    )

    assert parse_imports(source, "p.q.r", is_package=False) == {
        "a.b", "d", "d.e", "p.g", "p.g.h", "p.q", "p.q.i",
    }  # fmt: skip
    assert parse_imports("from .x import y", "p.q", is_package=True) == {"p.q.x", "p.q.x.y"}


def test_every_pure_module_exists():
    assert [name for name in PURE if not any(in_package(m, (name,)) for m in MODULES)] == []


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"d2pd.d2"}))
def test_detectron2_is_met_in_d2_only(module):
    assert not [name for name in imports_of(module) if in_package(name, ("detectron2",))]


@pytest.mark.parametrize(
    "module", sorted(m for m in MODULES if m != "d2pd.d2" and not in_package(m, ("d2pd.embedded",)))
)
def test_the_embedded_engine_is_met_in_d2_only(module):
    assert not [name for name in imports_of(module) if in_package(name, ("d2pd.embedded",))]


@pytest.mark.parametrize("module", sorted(m for m in MODULES if in_package(m, ("d2pd.embedded",))))
def test_the_embedded_engine_knows_nothing_of_d2pd(module):
    ours = [name for name in imports_of(module) if in_package(name, ("d2pd",)) and name != "d2pd"]

    assert not [name for name in ours if not in_package(name, ("d2pd.embedded", *SHARED))]


def reachable_from(module: str) -> set[str]:
    """Return all that importing a module may import: packages above it, and so on from there.

    Not through ``d2pd`` itself, which names ``load`` and imports nothing before it is asked for.
    """
    found: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        found.add(name)
        if name in MODULES and name != "d2pd":
            parts = name.split(".")
            above = {".".join(parts[:length]) for length in range(2, len(parts))}
            waiting |= (imports_of(name) | above) - found
    return found


@pytest.mark.parametrize("module", sorted(m for m in MODULES if in_package(m, PURE)))
def test_pure_modules_reach_no_engine(module):
    engines = ("d2pd.d2", "d2pd.embedded", "detectron2")

    assert not [name for name in reachable_from(module) if in_package(name, engines)]


def test_every_module_that_reaches_no_engine_is_listed():
    engines = ("d2pd.d2", "d2pd.embedded", "detectron2")
    modules = (name for name, path in MODULES.items() if path.name != "__init__.py")
    pure = [m for m in modules if not any(in_package(n, engines) for n in reachable_from(m))]

    assert [name for name in pure if not in_package(name, PURE)] == []


def test_what_a_module_reaches_includes_what_its_imports_import():
    assert "d2pd.embedded" in {
        name.removesuffix(".config") for name in reachable_from("d2pd.config")
    }


@pytest.mark.parametrize(
    "module",
    ["d2pd", "d2pd.data.annotations", "d2pd.data.cleaning", "d2pd.doctor", "d2pd.cli"],
)
def test_light_modules_load_neither_torch_nor_an_engine(module):
    code = (
        f"import sys, {module}\n"
        "heavy = ('torch', 'detectron2', 'd2pd.embedded', 'd2pd.d2')\n"
        "print([name for name in heavy if name in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
