"""The doctor, on machines made up of patched states."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from d2pd import doctor
from d2pd.doctor import Finding, checks, engine, packages
from d2pd.engine_state import EngineState

ROOT = Path(__file__).resolve().parent.parent
GPU = {"version": "2.14.1", "cuda": "13.0", "gpus": [["NVIDIA H200", 141 * 2**30]], "mps": False}
CPU = {"version": "2.14.1", "cuda": "13.0", "gpus": [], "mps": False}


def answer(**facts):
    """A stand-in for ``probe``: what each package says, or the error it ends in."""

    def probe(package):
        if isinstance(facts[package], str):
            raise packages.ProbeError(facts[package])
        return facts[package]

    return probe


@pytest.fixture
def healthy(monkeypatch, tmp_path):
    """A machine where all is well: everything installed, no Detectron2, a dataset folder."""
    probe = answer(torch=CPU, torchvision={"version": "0.29.1"}, cv2={"version": "5.0.0"})
    monkeypatch.setattr(packages, "probe", probe)
    monkeypatch.setattr(checks, "probe", probe)
    monkeypatch.setattr(checks.shutil, "which", lambda name: None)
    monkeypatch.setattr(packages, "has_libgl", lambda: True)
    monkeypatch.setattr(packages, "requirement_lines", lambda: ["numpy>=2.0", "opencv-python>=4"])
    monkeypatch.setattr(engine, "missing_system_packages", lambda: [])
    set_engine(monkeypatch, "absent")
    set_installed(monkeypatch, {"numpy": "2.4.6", "opencv-python": "5.0.0.93"})
    (tmp_path / "kaist").mkdir()
    monkeypatch.setenv("D2PD_DATASETS", str(tmp_path))
    monkeypatch.delenv("D2PD_ENGINE", raising=False)
    return monkeypatch


def set_engine(monkeypatch, state, location="/site/detectron2", detail="undefined symbol: _ZN2"):
    found = EngineState(state=state, version="0.6", location=location, detail=detail)
    monkeypatch.setattr(engine, "find_detectron2", lambda: found)


def set_installed(monkeypatch, versions, folder="/site"):
    """Make the named packages the only ones installed, all in one folder."""
    versions = {"torch": "2.14.1", "torchvision": "0.29.1", "setuptools": "80.10.2"} | versions

    class Distribution:
        def locate_file(self, name):
            return Path(folder, name)

    for module in (packages, engine, checks):
        monkeypatch.setattr(module, "installed_version", versions.get)
    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())


def find(topic, status=None):
    """The findings of a topic, and of a status where one is named."""
    return [f for f in doctor.diagnose() if f.topic == topic and status in (None, f.status)]


def only(topic, status):
    (finding,) = find(topic, status)
    return finding


# The whole


def test_a_healthy_machine_can_run(healthy, capsys):
    assert doctor.main() == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "d2pd can run here"
    assert not [line for line in lines if line.startswith("broken")]


def test_what_is_broken_is_named_with_its_cure_and_ends_in_1(healthy, capsys):
    healthy.setattr(packages, "requirement_lines", lambda: ["pandas>=2.2.2"])

    assert doctor.main() == 1

    out = capsys.readouterr().out
    assert "broken  pandas" in out
    assert f"$ {sys.executable} -m pip install 'pandas>=2.2.2'" in out
    assert out.splitlines()[-1] == "d2pd cannot run yet: pandas"


def test_whatever_is_broken_comes_with_a_cure(healthy):
    broken = "ImportError: libGL.so.1: cannot open shared object file"
    probe = answer(torch="Segmentation fault", torchvision="nms does not exist", cv2=broken)
    healthy.setattr(packages, "probe", probe)
    healthy.setattr(checks, "probe", probe)
    set_installed(healthy, {"numpy": "1.0", "opencv-python": "5.0"})
    set_engine(healthy, "broken")

    findings = [finding for finding in doctor.diagnose() if finding.status == "broken"]

    assert {f.topic for f in findings} == {
        "numpy", "torch", "torchvision", "OpenCV", "engine", "Detectron2",
    }  # fmt: skip
    assert all(finding.cure for finding in findings)


def test_every_line_of_a_cure_is_marked_as_a_command():
    text = doctor.report([Finding("OpenCV", "broken", "no libGL", "first\nsecond")])

    assert text.splitlines() == [
        "broken  OpenCV  no libGL",
        "                $ first",
        "                $ second",
        "d2pd cannot run yet: OpenCV",
    ]


def test_the_real_machine_that_runs_the_tests_can_run_d2pd():
    done = subprocess.run(
        [sys.executable, "-m", "d2pd", "doctor"], cwd=ROOT, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr
    for topic in ("Python", "torch ", "torchvision", "OpenCV", "device", "engine", "Detectron2"):
        assert topic in done.stdout


def test_it_works_where_torch_and_opencv_do_not_load(tmp_path):
    for name in ("torch", "torchvision", "cv2", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('built for another machine')\n")

    done = subprocess.run(
        [sys.executable, "-m", "d2pd", "doctor"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert done.stderr == ""
    assert done.stdout.count("built for another machine") >= 3
    assert "cannot run yet: torch, torchvision, OpenCV" in done.stdout


# Packages


def test_a_missing_requirement_of_the_tests_does_not_keep_d2pd_from_running(healthy):
    healthy.setattr(packages, "requirement_lines", lambda: ["pytest>=8.2"])

    assert "the tests and the notebook need it" in only("pytest", "note").detail
    assert doctor.can_run(doctor.diagnose())


def test_many_missing_requirements_make_one_finding_with_the_line_that_installs_all(healthy):
    lines = ["torch>=2.8", "torchvision>=0.23", "pandas>=2", "tqdm>=4", "pytest>=8"]
    healthy.setattr(packages, "requirement_lines", lambda: lines)
    healthy.setattr(checks, "probe", answer(torch="No module named 'torch'"))
    missing = "No module named 'torch'"
    healthy.setattr(packages, "probe", answer(torchvision=missing, cv2={"version": "5"}))
    set_installed(healthy, {"torch": None, "torchvision": None, "opencv-python": "5.0"})

    broken = [finding for finding in doctor.diagnose() if finding.status == "broken"]

    assert broken == [
        Finding(
            "packages",
            "broken",
            "missing or too old: torch, torchvision, pandas, tqdm",
            f"{sys.executable} -m pip install -r {ROOT / 'requirements.txt'}",
        )
    ]
    assert find("pytest", "note")


def test_a_requirement_that_is_too_old_is_told_with_both_versions(healthy):
    set_installed(healthy, {"numpy": "1.26.4", "opencv-python": "5.0"})

    finding = only("numpy", "broken")

    assert finding.detail == "1.26.4 is installed, d2pd needs numpy>=2.0"
    assert finding.cure == f"{sys.executable} -m pip install 'numpy>=2.0'"


def test_the_requirements_of_the_project_are_read_without_its_comments():
    lines = packages.requirement_lines()

    assert "torch>=2.8" in lines
    assert not [line for line in lines if not line or line.startswith("#")]


def test_torch_that_does_not_load_is_told_with_its_last_line(healthy):
    healthy.setattr(checks, "probe", answer(torch="OSError: libcudart.so.13: not found"))

    assert only("torch", "broken").detail == "does not load: OSError: libcudart.so.13: not found"


def test_torchvision_without_its_operators_is_told_with_both_versions(healthy):
    error = "RuntimeError: operator torchvision::nms does not exist"
    healthy.setattr(packages, "probe", answer(torchvision=error, cv2={"version": "5"}))

    finding = only("torchvision", "broken")

    assert finding.detail.startswith("0.29.1 beside torch 2.14.1: its operators do not load")
    assert error in finding.detail
    assert finding.cure.endswith("install --force-reinstall torch torchvision")


def test_a_probe_that_fails_tells_the_last_line_and_one_that_crashes_its_code(monkeypatch):
    monkeypatch.setitem(packages.PROBES, "torch", "raise OSError('no libcudart')")
    with pytest.raises(packages.ProbeError, match=r"^OSError: no libcudart$"):
        packages.probe("torch")

    monkeypatch.setitem(packages.PROBES, "torch", "import os; os.abort()")
    with pytest.raises(packages.ProbeError, match="code -6"):
        packages.probe("torch")


def test_a_probe_reads_the_last_line_although_the_package_prints_others(monkeypatch):
    monkeypatch.setitem(packages.PROBES, "cv2", """print("hello"); print('{"version": "1"}')""")

    assert packages.probe("cv2") == {"version": "1"}


# OpenCV


def test_missing_libgl_gets_the_apt_line_and_the_package_that_needs_none(healthy):
    error = "ImportError: libGL.so.1: cannot open shared object file: No such file or directory"
    healthy.setattr(packages, "probe", answer(torchvision={"version": "0"}, cv2=error))
    healthy.setattr(packages, "has_libgl", lambda: False)

    finding = only("OpenCV", "broken")

    assert "opencv-python needs a library of the system" in finding.detail
    assert finding.cure.splitlines() == [
        "apt-get install -y libgl1 libglib2.0-0",
        f"{sys.executable} -m pip uninstall -y opencv-python && "
        f"{sys.executable} -m pip install opencv-python-headless",
    ]


@pytest.mark.parametrize(("libgl", "kept"), [(True, "python"), (False, "python-headless")])
def test_two_opencvs_in_one_folder_get_the_line_that_leaves_one(healthy, libgl, kept):
    healthy.setattr(packages, "has_libgl", lambda: libgl)
    set_installed(
        healthy, {"numpy": "2.1", "opencv-python": "5.0", "opencv-python-headless": "5.0"}
    )

    finding = only("OpenCV", "note")

    assert "opencv-python and opencv-python-headless write into one folder" in finding.detail
    assert "uninstall -y opencv-python opencv-python-headless && " in finding.cure
    assert finding.cure.endswith(f"install opencv-{kept}")


def test_two_opencvs_that_broke_each_other_keep_d2pd_from_running(healthy):
    error = "AttributeError: module 'cv2' has no attribute '__version__'"
    healthy.setattr(packages, "probe", answer(torchvision={"version": "0"}, cv2=error))
    set_installed(
        healthy, {"numpy": "2.1", "opencv-python": "5.0", "opencv-python-headless": "5.0"}
    )

    assert "overwrite each other" in only("OpenCV", "broken").detail


def test_two_opencvs_in_two_folders_are_no_twins(healthy):
    set_installed(healthy, {"opencv-python": "5.0", "opencv-python-headless": "5.0"})
    folders = iter(["/user", "/venv"])

    class Elsewhere:
        def locate_file(self, name):
            return Path(next(folders), name)

    healthy.setattr(metadata, "distribution", lambda name: Elsewhere())

    assert packages.opencv_twins() == []


@pytest.mark.parametrize(
    ("libgl", "wanted"), [(True, "opencv-python>=4"), (False, "opencv-python-headless>=4")]
)
def test_missing_opencv_gets_the_package_that_suits_the_machine(healthy, libgl, wanted):
    error = "ModuleNotFoundError: No module named 'cv2'"
    healthy.setattr(packages, "probe", answer(torchvision={"version": "0"}, cv2=error))
    healthy.setattr(packages, "has_libgl", lambda: libgl)
    set_installed(healthy, {"numpy": "2.1"})

    assert only("OpenCV", "broken").cure == f"{sys.executable} -m pip install '{wanted}'"


# Devices, Python, data


def test_devices_are_listed_with_their_memory(healthy):
    healthy.setattr(checks, "probe", answer(torch=GPU))
    healthy.setattr(checks, "system_memory", lambda: 24 * 2**30)
    healthy.setattr(checks.os, "cpu_count", lambda: 2)

    assert [finding.detail for finding in find("device")] == [
        "cpu: 2 cores, 24.0 GiB",
        "cuda:0: NVIDIA H200, 141.0 GiB",
    ]


@pytest.mark.parametrize(
    ("facts", "cure"),
    [(CPU, "nvidia-smi"), (CPU | {"cuda": None}, "install --force-reinstall torch torchvision")],
)
def test_a_gpu_that_torch_cannot_use_is_noted(healthy, facts, cure):
    healthy.setattr(checks, "probe", answer(torch=facts))
    healthy.setattr(checks.shutil, "which", lambda name: "/usr/bin/nvidia-smi")

    assert only("device", "note").cure.endswith(cure)


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 10), "broken"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "note")],
)
def test_pythons_outside_the_tested_range_are_told(healthy, version, status):
    healthy.setattr(checks, "sys", SimpleNamespace(version_info=version, executable="python3"))

    assert checks.check_python().status == status


def test_the_dataset_root_is_told_with_what_it_holds(healthy, tmp_path):
    assert checks.check_dataset_root() == Finding(
        "datasets", "ok", f"{tmp_path} ($D2PD_DATASETS): kaist"
    )


def test_a_missing_dataset_root_is_a_note(healthy, tmp_path):
    healthy.setenv("D2PD_DATASETS", str(tmp_path / "gone"))
    assert checks.check_dataset_root().status == "note"

    healthy.delenv("D2PD_DATASETS")
    healthy.chdir(tmp_path)
    assert f"no folder datasets (in {tmp_path})" in checks.check_dataset_root().detail


# Engine


@pytest.mark.parametrize(
    ("wanted", "state", "in_use"),
    [
        ("auto", "absent", "embedded (D2PD_ENGINE=auto)"),
        ("auto", "present", "detectron2 0.6 (D2PD_ENGINE=auto)"),
        ("embedded", "present", "embedded (D2PD_ENGINE=embedded)"),
        ("embedded", "broken", "embedded (D2PD_ENGINE=embedded)"),
        ("detectron2", "present", "detectron2 0.6 (D2PD_ENGINE=detectron2)"),
    ],
)
def test_the_engine_in_use_is_told(healthy, wanted, state, in_use):
    healthy.setenv("D2PD_ENGINE", wanted)
    set_engine(healthy, state)

    assert only("engine", "ok").detail == in_use
    assert doctor.can_run(doctor.diagnose())


@pytest.mark.parametrize(
    ("wanted", "state"),
    [("auto", "broken"), ("auto", "shadowed"), ("detectron2", "absent"), ("detectron2", "broken")],
)
def test_an_engine_that_cannot_be_had_is_broken_and_the_embedded_one_the_way_out(
    healthy, wanted, state
):
    healthy.setenv("D2PD_ENGINE", wanted)
    set_engine(healthy, state)

    assert only("engine", "broken").cure == "export D2PD_ENGINE=embedded"
    assert find("Detectron2", "broken")


def test_an_unknown_engine_is_told_with_those_allowed(healthy):
    healthy.setenv("D2PD_ENGINE", "detectron")

    finding = only("engine", "broken")

    assert finding.detail == "D2PD_ENGINE is 'detectron'; allowed: auto, detectron2, embedded"


def test_broken_detectron2_is_told_with_the_symbol_and_built_anew(healthy):
    set_engine(healthy, "broken")

    finding = only("Detectron2", "broken")

    assert finding.detail.startswith("0.6 is installed but broken: undefined symbol: _ZN2")
    assert "--force-reinstall --no-deps --no-cache-dir --no-build-isolation" in finding.cure


def test_shadowed_detectron2_is_told_with_the_folder_in_the_way(healthy):
    set_engine(healthy, "shadowed", "/work/detectron2", "/work/detectron2 hides Detectron2")

    finding = only("Detectron2", "broken")

    assert finding.detail.startswith(
        "shadowed: /work/detectron2 hides Detectron2. Run from another"
    )
    assert finding.cure == "mv /work/detectron2 /work/detectron2-source"


def test_detectron2_is_looked_for_in_a_process_of_its_own(monkeypatch):
    assert "detect_detectron2" in packages.PROBES["detectron2"]
    monkeypatch.setitem(packages.PROBES, "detectron2", "import os; os.abort()")

    found = engine.find_detectron2()

    assert (found.state, found.detail) == ("broken", "it ended with code -6")


def test_a_folder_named_detectron2_is_told_from_a_package(monkeypatch, tmp_path):
    (tmp_path / "detectron2").mkdir()
    monkeypatch.chdir(tmp_path)
    if metadata.packages_distributions().get("detectron2"):
        pytest.skip("an installed Detectron2 goes before a folder without a package in it")

    assert engine.find_detectron2().state == "shadowed"


# The install line of Detectron2

LINE = f"{sys.executable} -m pip install --no-build-isolation '{engine.SOURCE}'"


def test_on_a_ready_cpu_machine_detectron2_takes_one_line(healthy):
    assert engine.install_lines("13.0", has_gpu=False) == [LINE]
    finding = only("Detectron2", "note")
    assert finding.detail.endswith("To build it here, for the CPU:")
    assert finding.cure == LINE


@pytest.mark.parametrize(("version", "lines"), [("80.10.2", 0), ("81.0", 1), ("84.2.1", 1)])
def test_a_setuptools_without_pkg_resources_is_replaced_first(healthy, version, lines):
    set_installed(healthy, {"setuptools": version})

    found = engine.install_lines(None, has_gpu=False)

    assert found == [f"{sys.executable} -m pip install 'setuptools<81'"] * lines + [LINE]


def test_without_torch_the_requirements_come_first(healthy):
    healthy.setattr(engine, "installed_version", {"setuptools": "80.0"}.get)

    found = engine.install_lines(None, has_gpu=False)

    assert found == [packages.INSTALL_ALL, LINE]


def test_on_a_gpu_machine_the_line_names_the_toolkit_that_fits(healthy):
    healthy.setattr(engine, "find_cuda_home", lambda version: "/opt/cuda")

    assert engine.install_lines("13.0", has_gpu=True) == [f"CUDA_HOME=/opt/cuda {LINE}"]
    healthy.setattr(checks, "probe", answer(torch=GPU))
    assert only("Detectron2", "note").detail.endswith("To build it here, with CUDA 13.0:")


def test_on_a_gpu_machine_without_a_toolkit_it_is_installed_first(healthy):
    healthy.setattr(engine, "find_cuda_home", lambda version: None)

    assert engine.install_lines("13.0", has_gpu=True) == [
        "apt-get install -y cuda-toolkit-13-0",
        f"CUDA_HOME=/usr/local/cuda-13.0 {LINE}",
    ]


@pytest.mark.parametrize(("release", "fits"), [("13.2", True), ("12.8", False)])
def test_a_toolkit_fits_when_its_major_version_is_that_of_torch(
    monkeypatch, tmp_path, release, fits
):
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.1'\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    known = engine.nvcc_version
    monkeypatch.setattr(
        engine, "nvcc_version", lambda home: known(home) if home == str(tmp_path) else None
    )

    assert known(str(tmp_path)) == release
    assert engine.find_cuda_home("13.0") == (str(tmp_path) if fits else None)


def test_what_a_build_lacks_is_told_by_debian_s_names(monkeypatch, tmp_path):
    monkeypatch.setattr(engine.shutil, "which", lambda name: None)
    monkeypatch.setattr(engine.sysconfig, "get_path", lambda name: str(tmp_path))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"

    assert engine.missing_system_packages() == ["git", "g++", version]

    monkeypatch.setattr(engine.shutil, "which", lambda name: f"/usr/bin/{name}")
    (tmp_path / "Python.h").touch()
    assert engine.missing_system_packages() == []
