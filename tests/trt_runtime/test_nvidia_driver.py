"""NVIDIA's driver, asked through ctypes."""

import ctypes.util
import shutil
import subprocess

import pytest

from dlink.trt_runtime.nvidia_driver import Gpu, Gpus, look_for_gpus

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
