"""Computers that the doctor's tests look at, and what is said of them."""

from dataclasses import replace

from dlink.doctor.components import Tried
from dlink.doctor.machine import Machine
from dlink.doctor.report import examine
from dlink.trt_runtime.nvidia_driver import Gpu, Gpus

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
    "pyogrio": "0.13.0",
    "rasterio": "1.4.4",
    "tensorrt": "8.6.2",
    "pycuda": "2026.1",
    "polygraphy": "0.53.6",
    "cryptography": "50.0.2",
    "osmium": "4.3.2",
    "av": "18.1.0",
    "pymavlink": "2.4.50",
    "distributed": "2026.8.0",
    "ray": "2.60.0",
    "osmnx": "2.1.1",
}
FINE = Tried()
ABSENT = Tried(fault="ModuleNotFoundError: No module named 'it'")


def without(*names):
    return {k: v for k, v in HERE.items() if k not in names}


def rows_of(here, machine=MACHINE, tried=FINE):
    return {row.name: row for row in examine(machine, here.get, lambda module: tried).rows}


def abilities_of(here, machine=MACHINE, tried=FINE):
    return {a.name: a for a in examine(machine, here.get, lambda module: tried).abilities}
