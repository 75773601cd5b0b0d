"""What a notebook is told of its machine before anything is installed."""

import subprocess
import sys
import types
from pathlib import Path

import pytest

from d2pd.notebook.runtime import Runtime, find_gpus, is_colab, look_at_runtime

ROOT = Path(__file__).resolve().parents[2]
BEFORE_REQUIREMENTS = ("runtime", "drive", "install", "detectron2_wheel", "pip_process")


@pytest.mark.parametrize("module", BEFORE_REQUIREMENTS)
def test_what_comes_before_the_requirements_needs_the_standard_library_alone(module):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import d2pd.notebook.{module}"

    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)  # -S: no packages


def nvidia_smi(folder, monkeypatch, script):
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_gpus_are_those_of_the_driver(tmp_path, monkeypatch):
    nvidia_smi(tmp_path, monkeypatch, "echo 'Tesla T4, 15360 MiB'")
    assert find_gpus() == ("Tesla T4, 15360 MiB",)
    assert "GPU: Tesla T4, 15360 MiB" in str(look_at_runtime())


def test_a_driver_that_does_not_answer_and_no_driver_give_no_gpu(tmp_path, monkeypatch):
    nvidia_smi(tmp_path, monkeypatch, "echo 'No devices were found'; exit 6")
    assert find_gpus() == ()
    (tmp_path / "nvidia-smi").unlink()
    assert find_gpus() == ()


def test_without_a_gpu_colab_tells_where_to_choose_one():
    machine = Runtime(True, "3.12.3", 2, 13 * 2**30, 70 * 2**30, ())
    assert str(machine).splitlines()[0] == "Colab, Python 3.12.3"
    assert "2 cores, 13.0 GiB of memory, 70.0 GiB free in" in str(machine)
    assert "Runtime > Change runtime type > T4 GPU" in str(machine)
    elsewhere = Runtime(False, "3.12.3", 2, None, 2**30, ())
    assert "Runtime >" not in str(elsewhere)
    assert "no GPU: the CPU trains" in str(elsewhere)


def test_colab_is_known_by_its_package(monkeypatch):
    assert not is_colab()
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    assert is_colab()


def test_this_machine_can_be_looked_at():
    machine = look_at_runtime()
    assert machine.python.startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert machine.free_disk > 0
    assert machine.cores >= 1
