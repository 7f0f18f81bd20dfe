"""What is there and what is missing."""

import json
from dataclasses import replace

import numpy
import pytest

from dlink.doctor import components
from dlink.doctor.components import Tried, attempt
from dlink.doctor.extras import NEEDS
from dlink.trt_runtime.nvidia_driver import Gpus
from tests.support.computers import ABSENT, HERE, JETSON, LAPTOP, MACHINE, abilities_of, rows_of, without
from tests.support.environments import ROOT

ARRAYS = json.loads((ROOT / "tests" / "support" / "tensorrt_arrays.json").read_text())


def test_there_is_a_row_for_everything():
    assert list(rows_of(HERE)) == ["Python", *(need.name for need in NEEDS), "GPU", "driver"]


def test_what_is_there_is_found_with_its_version():
    row = rows_of(HERE)["PyTorch"]
    assert (row.state, row.version, row.fault, row.mend) == ("found", "2.13.0+cpu", "", "")


@pytest.mark.parametrize(
    ("distribution", "name", "mend"),
    [
        ("openvino", "OpenVINO", "pip install 'dlink[cpu]'"),
        ("opencv-python", "OpenCV", "pip install 'dlink[cpu]'"),
        ("onnx", "ONNX", "pip install 'dlink[export]'"),
        ("shapely", "shapely", "pip install 'dlink[accuracy]'"),
        ("rasterio", "rasterio", "pip install 'dlink[geo]'"),
        ("tensorrt", "TensorRT", "pip install tensorrt (from NVIDIA's own package index, see its installation guide)"),
    ],
)
def test_what_is_missing_comes_with_its_line(distribution, name, mend):
    row = rows_of(without(distribution), tried=ABSENT)[name]
    assert (row.state, row.mend) == ("missing", mend)


@pytest.mark.parametrize(
    ("version", "state"), [("2.9.1", "too old"), ("2.10.0", "found"), ("2.10", "found"), ("10.0", "found")]
)
def test_versions_are_compared_as_numbers(version, state):
    assert rows_of({**HERE, "torch": version})["PyTorch"].state == state


def test_what_is_too_old_says_how_new_it_must_be():
    row = rows_of({**HERE, "onnx": "1.17.0"})["ONNX"]
    assert (row.state, row.fault, row.mend) == ("too old", "dlink needs 1.21", "pip install -U 'onnx>=1.21'")


@pytest.mark.parametrize("tensorrt", ARRAYS)
def test_the_doctor_knows_which_tensorrt_gives_wrong_arrays_beside_numpy_2(tensorrt):
    row = rows_of({**HERE, "numpy": "2.4.6", "tensorrt": tensorrt})["numpy"]
    assert (row.fault != "") == (ARRAYS[tensorrt]["gives"] != [1, 2, 3, 4])


@pytest.mark.parametrize("tensorrt", ARRAYS)
def test_every_tensorrt_takes_arrays_of_numpy_2_as_they_are(tensorrt):
    assert (ARRAYS[tensorrt]["numpy"][0], ARRAYS[tensorrt]["takes"]) == ("2", [1, 2, 3, 4])


def test_numpy_2_beside_an_older_tensorrt_is_said_and_hinders_nothing():
    here = {**HERE, "numpy": "2.4.6", "tensorrt": "10.3.0"}
    row = rows_of(here)["numpy"]
    assert (row.state, row.fault[:30], row.mend[-21:]) == (
        "found",
        "TensorRT 10.3.0 is older than ",
        "pip install 'numpy<2'",
    )
    assert abilities_of(here)["run TensorRT plans"].can


@pytest.mark.parametrize("here", [HERE, {**without("tensorrt"), "numpy": "2.4.6", "tensorrt-rtx": "1.7.1.116"}])
def test_numpy_1_and_tensorrt_rtx_leave_nothing_to_say(here):
    assert rows_of(here, tried=ABSENT)["numpy"].fault == ""


def test_what_does_not_import_is_broken_with_its_reason():
    row = rows_of(HERE, tried=Tried(fault="ImportError: libfoo.so.3: undefined symbol: bar"))["OpenVINO"]
    assert (row.state, row.version, row.fault) == (
        "broken",
        "2026.4.1",
        "ImportError: libfoo.so.3: undefined symbol: bar",
    )


def test_opencv_without_libgl_gets_its_apt_line():
    fault = "ImportError: libGL.so.1: cannot open shared object file: No such file or directory"
    mend = rows_of(HERE, tried=Tried(fault=fault))["OpenCV"].mend
    assert mend.startswith("sudo apt install libgl1")


def test_pycuda_without_a_driver_is_told_to_get_one():
    fault = "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory"
    assert rows_of(HERE, LAPTOP, Tried(fault=fault))["pycuda"].mend.startswith("install NVIDIA's driver")


def test_opencv_without_a_distribution_is_found_by_its_import():
    row = rows_of(without("opencv-python"), tried=Tried("4.8.0"))["OpenCV"]
    assert (row.state, row.version) == ("found", "4.8.0")


def test_a_jetson_gets_tensorrt_with_jetpack():
    assert rows_of(without("tensorrt"), JETSON)["TensorRT"].mend.startswith("sudo apt install nvidia-jetpack")


@pytest.mark.parametrize("tensorrt", ["", "8.4.1"])
def test_on_jetpack_5_it_says_that_plans_do_not_run_there(tensorrt):
    here = {**without("tensorrt"), **({"tensorrt": tensorrt} if tensorrt else {})}
    mend = rows_of(here, replace(JETSON, jetson="R35.4.1"))["TensorRT"].mend
    assert mend.startswith("dlink runs plans from JetPack 6 on")


@pytest.mark.parametrize(("python", "state"), [("3.9.2", "too old"), ("3.13.1", "found"), ("3.14.0", "too new")])
def test_python_has_its_range(python, state):
    assert rows_of(HERE, replace(MACHINE, python=python))["Python"].state == state


def test_gpu_rows_say_what_the_driver_said():
    broken = Gpus("12.8", (), "cuInit: system has unsupported display driver (803)", True)
    rows = rows_of(HERE, replace(MACHINE, gpus=broken))
    assert (rows["GPU"].state, rows["GPU"].fault) == ("broken", broken.fault)
    assert (rows["driver"].state, rows["driver"].version) == ("found", "CUDA 12.8")


def test_an_import_that_works_gives_its_version():
    assert attempt("numpy") == Tried(version=numpy.__version__)


def test_an_import_that_fails_gives_its_last_line():
    assert attempt("no_such_module").fault == "ModuleNotFoundError: No module named 'no_such_module'"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Make a module of one line that child processes find."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda line: (tmp_path / "trouble.py").write_text(line)


def test_an_import_that_crashes_harms_nobody(module):
    module("import os; os.kill(os.getpid(), 11)")
    assert attempt("trouble").fault == "importing it ends the process with signal 11"


def test_an_import_that_hangs_is_given_up(module, monkeypatch):
    monkeypatch.setattr(components, "TRY_FOR", 0.5)
    module("import signal; signal.pause()")
    assert attempt("trouble").fault == "not imported after 0.5 s"


def test_a_file_in_the_current_folder_is_no_library(tmp_path, monkeypatch):
    (tmp_path / "stray.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert attempt("stray").fault.startswith("ModuleNotFoundError")
