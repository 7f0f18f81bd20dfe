"""A machine like the GPU host of bench/gpu, without a GPU: a bundle whose parts carry the fakes, and a bare Python.

What the real bundle brings by pip is linked from here, its pycuda and TensorRT are fake_*.py, and libcuda.so.1
is a library that knows one GPU. Everything between is the real thing: run.sh, every command line, every process.
"""

import os
import shutil
import subprocess
import textwrap
from pathlib import Path

from dlink.bench.gpu.pack import Item, packed, split
from dlink.nets.embedded import EMBEDDED
from tests.support.environments import environment

ROOT = Path(__file__).parents[2]
HOST = ("torch", "numpy", "onnx", "onnxruntime", "opencv-python-headless", "click", "pytest")
RTX = ("polygraphy", "safetensors", "tensorrt-rtx")
TRT86 = ("numpy", "click", "onnx", "polygraphy", "pytest")
FOR_FAKES = ("onnxruntime",)  # what stands for TensorRT
LIBCUDA = """
#include <string.h>
int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "NVIDIA Fake", size); return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) { *value = which == 75 ? 8 : 9; return 0; }
int cuDeviceTotalMem_v2(size_t *size, int device) { *size = (size_t)80 << 30; return 0; }
int cuGetErrorString(int code, const char **words) { *words = "a fault"; return 0; }
"""
PYCUDA = """
    import sys
    from dlink.trt_runtime import nvidia_driver as cuda
    from tests.support import fake_pycuda
    cuda.driver = fake_pycuda.Driver
    sys.modules[__name__] = fake_pycuda.make()
"""
TENSORRT = """
    import sys
    from pathlib import Path
    site, name, version = str(Path(__file__).parents[1]), __name__, "{version}"
    if version == "rtx":  # whose names are those of the real one
        sys.path.remove(site)
        del sys.modules[name]
        import tensorrt_rtx
        sys.path.insert(0, site)
    from tests.support.fake_tensorrt import make
    sys.modules[name] = make(version)
    sys.modules[name].__name__, sys.modules[name].__version__ = name, "{shown}"
"""
LAUNCHER = """#!/bin/sh
home=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
PYTHONPATH=$PYTHONPATH:$home/py310/lib/python3.10/site-packages exec {python} "$@"
"""
SANITIZER = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do shift 2; done
exec "$@"
"""
EXPORTED = ("quarter.fp16", "quarter.int8", "full.fp16", "full.int8.conv")
SIDE = 32


class GpuHost:
    """The folders of one such machine, and run.sh on it."""

    def __init__(self, folder: Path, parts: Path, python: Path) -> None:
        self.stage, self.out, self.parts, self.python = folder / "stage", folder / "out", folder / "parts", python
        self.out.mkdir(parents=True)
        shutil.copytree(parts, self.parts)
        self.tools = tools(folder / "tools")

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}
        environment = {
            **clean,
            "PYTHON": str(self.python),
            "DLINK_GPU": str(self.stage),
            "OUT": str(self.out),
            "PATH": f"{self.tools}{os.pathsep}{os.environ['PATH']}",
            "LD_LIBRARY_PATH": str(self.tools),
            "OMP_NUM_THREADS": "1",
        }
        command = ["bash", str(ROOT / "bench" / "gpu" / "run.sh"), *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)

    def run(self, *arguments: object, code: int = 0) -> str:
        """What run.sh says; it must exit with `code`."""
        process = self.start(*arguments)
        said, faults = process.communicate()
        assert process.returncode == code, f"{said}\n{faults}\n{self.log()}"
        return said + faults

    def take_all(self) -> str:
        return self.run("take", *sorted(self.parts.iterdir()))

    def log(self) -> str:
        log = self.out / "log.txt"
        return log.read_text()[-4000:] if log.exists() else ""


def tools(folder: Path) -> Path:
    """libcuda.so.1, and a compute-sanitizer that looks at nothing."""
    folder.mkdir(parents=True)
    build = ["g++", "-x", "c", "-w", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), "-"]
    subprocess.run(build, input=LIBCUDA, text=True, check=True)
    write(folder / "compute-sanitizer", SANITIZER)
    return folder


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    path.chmod(0o755)


def fakes(site: Path, module: str, version: str, shown: str) -> None:
    """pycuda and one TensorRT, as pip lays packages out."""
    write(site / "pycuda" / "__init__.py", "")
    write(site / "pycuda" / "driver.py", PYCUDA)
    write(site / module / "__init__.py", TENSORRT.format(version=version, shown=shown))
    name = module.replace("_", "-")
    write(site / f"{module}-{shown}.dist-info" / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {shown}\n")


def bundle(folder: Path, networks: Path) -> Path:
    """Parts as `make gpu-bundle` leaves them, small ones; the host's Python beside them."""
    python86 = environment(folder / "env86", [], [*TRT86, *FOR_FAKES])

    def rtx(made: Path) -> None:
        fakes(made / "site", "tensorrt_rtx", "rtx", "1.7.1")

    def trt86(made: Path) -> None:
        fakes(made / "py310" / "lib" / "python3.10" / "site-packages", "tensorrt", "8.6.1", "8.6.1")
        write(made / "bin" / "python3.10", LAUNCHER.format(python=python86))

    def of(item: str):
        def make(made: Path) -> None:
            for name in EXPORTED:
                if name.startswith(item):
                    shutil.copy(networks / "roads.onnx", made / f"{name}.onnx")
            shutil.copytree(networks / "tiles", made / "tiles")
            if item == "quarter":
                shutil.copy(EMBEDDED, made / "roads.th")

        return make

    def checkpoint(made: Path) -> None:
        shutil.copy(EMBEDDED, made / "roads.th")

    items = [
        Item("rtx", "1", rtx, facts={"engine": "TensorRT-RTX 1.7.1"}),
        Item("quarter", "1", of("quarter"), xz=False),
        Item("trt86", "1", trt86, facts={"engine": "TensorRT 8.6.1"}),
        Item("full", "1", of("full"), xz=False),
        Item("checkpoint", "1", checkpoint, xz=False),
    ]
    cache = folder / "cache"
    cache.mkdir()
    split({item.name: (item, packed(item, cache)) for item in items}, folder, 6 << 20)
    return folder / "parts"
