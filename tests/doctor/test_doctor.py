import ctypes.util
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy
import pytest

from dlink.doctor import report as doctor
from dlink.doctor.extras import EXTRAS, NEEDS
from dlink.doctor.report import Machine, Tried, attempt, examine, look_at_cpu
from dlink.trt_runtime.nvidia_driver import Gpu, Gpus, look_for_gpus
from tests.support.environments import ROOT

MACHINE = Machine(
    python="3.11.7",
    system="Linux x86_64",
    cpu="Some CPU",
    features=("avx512_bf16", "avx512_vnni"),
    jetson="",
    gpus=Gpus("12.8", (Gpu("NVIDIA H200", "9.0", 150_100_000_000),)),
)
LAPTOP = replace(MACHINE, gpus=Gpus(fault="libcuda.so.1: cannot open shared object file"))
JETSON = replace(MACHINE, system="Linux aarch64", jetson="R36.3.0")
HERE = {
    "numpy": "1.26.4",
    "openvino": "2026.4.1",
    "opencv-python": "4.10.0.84",
    "torch": "2.13.0+cpu",
    "onnx": "1.21.0",
    "onnxruntime": "1.31.1",
    "safetensors": "0.8.0",
    "scipy": "1.17.1",
    "scikit-image": "0.26.0",
    "shapely": "2.2.0",
    "rasterio": "1.4.4",
    "tensorrt": "8.6.2",
    "pycuda": "2026.1",
    "polygraphy": "0.53.6",
    "cryptography": "50.0.2",
    "osmium": "4.3.2",
    "osmnx": "2.1.1",
}
ARRAYS = json.loads((ROOT / "tests" / "support" / "tensorrt_arrays.json").read_text())
FINE = Tried()
ABSENT = Tried(fault="ModuleNotFoundError: No module named 'it'")


def without(*names):
    return {k: v for k, v in HERE.items() if k not in names}


def rows_of(here, machine=MACHINE, tried=FINE):
    return {row.name: row for row in examine(machine, here.get, lambda module: tried).rows}


def abilities_of(here, machine=MACHINE, tried=FINE):
    return {a.name: a for a in examine(machine, here.get, lambda module: tried).abilities}


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


def test_with_numpy_alone_all_else_is_missing_and_nothing_can_be_done():
    here = {"numpy": "2.4.6"}
    states = {name: row.state for name, row in rows_of(here, LAPTOP, ABSENT).items()}
    assert [name for name, state in states.items() if state != "missing"] == ["Python", "numpy"]
    assert not any(a.can for a in abilities_of(here, LAPTOP, ABSENT).values())


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
        "TensorRT 10.3.0 gives arrays (",
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


def test_with_everything_everything_can_be_done():
    assert all(a.can for a in abilities_of(HERE).values())


@pytest.mark.parametrize(
    ("lost", "unable", "words"),
    [
        ("onnx", "export a checkpoint", "ONNX missing"),
        ("onnxruntime", "make INT8 files", "ONNX Runtime missing"),
        ("shapely", "score roads", "shapely missing"),
        ("safetensors", "train a network", "safetensors missing"),
        ("rasterio", "read GeoTIFF", "rasterio missing"),
        ("osmium", "draw OpenStreetMap", "osmium missing"),
        ("polygraphy", "build TensorRT plans", "Polygraphy missing"),
        ("cryptography", "sign plans", "cryptography missing"),
    ],
)
def test_an_ability_says_what_it_lacks(lost, unable, words):
    found = abilities_of(without(lost))[unable]
    assert (found.can, found.words) == (False, words)


def test_the_abilities_are_those_of_the_extras():
    assert list(abilities_of(HERE)) == list(dict.fromkeys(extra.can for extra in EXTRAS.values() if extra.can))


def test_what_can_be_done_does_not_hang_on_what_is_fetched_alone():
    assert abilities_of(without("osmnx"))["draw OpenStreetMap"].can


def test_without_tensorrt_no_plan_is_built_or_run():
    abilities = abilities_of(without("tensorrt"))
    assert [a.words for a in abilities.values() if not a.can] == ["TensorRT missing", "TensorRT missing"]


def test_tensorrt_rtx_does_for_tensorrt():
    here = {**without("tensorrt"), "tensorrt-rtx": "1.7.1.116"}
    assert abilities_of(here)["build TensorRT plans"].words == "by TensorRT-RTX"
    assert abilities_of(here)["run TensorRT plans"].can


def test_plans_need_a_gpu_but_tensorrt_rtx_builds_them_without():
    assert "GPU missing" in abilities_of(HERE, LAPTOP)["run TensorRT plans"].words
    assert "GPU missing" in abilities_of(HERE, LAPTOP)["build TensorRT plans"].words
    here = {**HERE, "tensorrt-rtx": "1.7.1.116"}
    assert abilities_of(here, LAPTOP)["build TensorRT plans"].can
    assert not abilities_of(here, LAPTOP)["run TensorRT plans"].can


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (("avx512_bf16", "avx512_vnni"), "fast in reduced precision: bfloat16 and int8 (avx512_bf16, avx512_vnni)"),
        ((), "in float32; reduced precision is no faster"),
    ],
)
def test_the_cpus_reduced_precision_is_said(features, words):
    assert abilities_of(HERE, replace(MACHINE, features=features))["run on the CPU"].words == words


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("model name\t: Xeon\nflags\t\t: fpu amx_bf16 avx512_vnni sse\n\n", ("Xeon", ("amx_bf16", "avx512_vnni"))),
        ("processor\t: 0\nFeatures\t: fp asimdhp asimddp\n", ("", ("asimdhp", "asimddp"))),
        ("", ("", ())),
    ],
)
def test_cpuinfo_is_read_on_x86_and_arm(text, known):
    assert look_at_cpu(text) == known


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
    monkeypatch.setattr(doctor, "TRY_FOR", 0.5)
    module("import signal; signal.pause()")
    assert attempt("trouble").fault == "not imported after 0.5 s"


def test_a_file_in_the_current_folder_is_no_library(tmp_path, monkeypatch):
    (tmp_path / "stray.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert attempt("stray").fault.startswith("ModuleNotFoundError")


DRIVER = """
#include <stddef.h>
#include <string.h>
int cuGetErrorString(int code, const char **words) {{ *words = "in the driver's words"; return 0; }}
int cuDriverGetVersion(int *v) {{ *v = 12080; return 0; }}
int cuInit(unsigned flags) {{ return flags ? 1 : {code}; }}
int cuDeviceGetCount(int *n) {{ *n = 2; return 0; }}
int cuDeviceGet(int *device, int index) {{ *device = index + 40; return 0; }}
int cuDeviceGetName(char *name, int size, int device) {{ strncpy(name, device == 40 ? "A" : "B", size); return 0; }}
int cuDeviceGetAttribute(int *v, int which, int device) {{ *v = which == 75 ? 8 : which == 76 ? 7 : -1; return 0; }}
int cuDeviceTotalMem_v2(size_t *bytes, int device) {{ *bytes = (size_t)(device - 34) << 30; return 0; }}
"""


@pytest.fixture
def driver(tmp_path):
    """Compile a driver whose cuInit returns a code, with cuda.h's signatures."""
    if not (cc := shutil.which("cc")):
        pytest.skip("needs a C compiler: apt-get install gcc")

    def compiled(code):
        library = tmp_path / f"driver{code}.so"
        (tmp_path / "driver.c").write_text(DRIVER.format(code=code))
        subprocess.run([cc, "-shared", "-fPIC", "-o", library, tmp_path / "driver.c"], check=True)
        return str(library)

    return compiled


def test_the_driver_is_asked_for_every_gpu(driver):
    found = look_for_gpus(driver(0))
    assert found == Gpus("12.8", (Gpu("A", "8.7", 6 << 30), Gpu("B", "8.7", 7 << 30)))
    assert str(found.found[0]) == "A, compute capability 8.7, 6.0 GiB"


@pytest.mark.parametrize(("code", "broken"), [(100, False), (803, True)])
def test_a_driver_that_fails_says_so_in_its_own_words(driver, code, broken):
    assert look_for_gpus(driver(code)) == Gpus("12.8", (), f"cuInit: in the driver's words ({code})", broken)


def test_no_driver_is_an_absence_and_a_foreign_file_is_a_fault(tmp_path):
    absent = look_for_gpus("libno-such-driver.so.1")
    assert (absent.driver, absent.found, absent.broken) == ("", (), False)
    (tmp_path / "libcuda.so.1").write_bytes(b"no library")
    assert look_for_gpus(str(tmp_path / "libcuda.so.1")).broken


def test_a_library_that_is_no_driver_is_a_fault():
    libc = ctypes.util.find_library("c")
    if not libc:
        pytest.skip("needs a C library: one that is found by its name")
    assert "cuDriverGetVersion" in look_for_gpus(libc).fault


def test_gpu_rows_say_what_the_driver_said():
    broken = Gpus("12.8", (), "cuInit: system has unsupported display driver (803)", True)
    rows = rows_of(HERE, replace(MACHINE, gpus=broken))
    assert (rows["GPU"].state, rows["GPU"].fault) == ("broken", broken.fault)
    assert (rows["driver"].state, rows["driver"].version) == ("found", "CUDA 12.8")


def run_doctor(*options):
    code = "from dlink.cli.doctor import doctor; doctor()"
    return subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True)


def test_the_command_prints_every_row_and_exits_with_0():
    done = run_doctor()
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("Python", *(need.name for need in NEEDS), "GPU", "driver", "run on the CPU"):
        assert re.search(rf"^{name} ", done.stdout, re.MULTILINE), name


def test_json_has_the_machine_the_rows_and_the_abilities():
    values = json.loads(run_doctor("--json").stdout)
    assert list(values) == ["machine", "rows", "abilities"]
    assert {row["name"]: row["state"] for row in values["rows"]}["numpy"] == "found"
