"""A machine with a GPU that is not there: pycuda, the driver and TensorRT are fake_*.py, and a plan for them."""

import gc
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest

from dlink.runtime import Spec
from dlink.runtime.backend import HostBackend
from dlink.runtime.files import mark_of
from dlink.trt_runtime.manifest import Options
from tests.support import fake_pycuda
from tests.support.fake_tensorrt import answer, make, plan_of
from tests.support.models import write_blur
from tests.support.plans import HERE, MANIFEST, write

SIDE = 64
SPEC = Spec(tile=SIDE, precision="fp32")
ONE = Options(max_tiles=1)
MODULES = ("slot", "device_arrays", "primary", "tensorrt_backend")  # what imports pycuda


def machines(tmp_path, monkeypatch):
    """A function that puts a plan of a small network on a machine whose GPU, CUDA and TensorRT take it."""
    pycuda, cuda = type(sys)("pycuda"), fake_pycuda.make()
    pycuda.driver = cuda
    monkeypatch.setitem(sys.modules, "pycuda", pycuda)
    monkeypatch.setitem(sys.modules, "pycuda.driver", cuda)
    for name in MODULES:
        monkeypatch.delitem(sys.modules, f"dlink.trt_runtime.{name}", raising=False)
    monkeypatch.setattr("dlink.trt_runtime.nvidia_driver.driver", fake_pycuda.Driver)

    def made(version="10.3.0", options=ONE, spec=SPEC, network=write_blur, **changes):
        trt = make(version)
        target = "tensorrt-rtx" if version == "rtx" else "tensorrt"
        version = "1.7.1" if version == "rtx" else version
        trt.__version__ = version
        monkeypatch.setitem(sys.modules, target.replace("-", "_"), trt)
        monkeypatch.setattr("dlink.trt_runtime.plan.look_here", lambda: replace(HERE, versions={target: version}))
        onnx = network(tmp_path / "roads.onnx", spec, **({"radius": 5} if network is write_blur else {}))
        tag = b"vtrt" if target == "tensorrt-rtx" else b"ftrt"
        sharing = target == "tensorrt-rtx" or not version.startswith("8.5")
        data = plan_of(version, onnx.read_bytes(), sharing, options.batch, tag)
        built = replace(MANIFEST.built, target=target, version=version)
        manifest = {"spec": spec, "options": options, "onnx": mark_of("roads.onnx", onnx.read_bytes()), "built": built}
        manifest |= changes
        return Machine(trt, write(tmp_path, data, **manifest), onnx, data, manifest)

    yield made
    gc.collect()  # what errors and their frames held is freed on this machine
    for name in MODULES:
        sys.modules.pop(f"dlink.trt_runtime.{name}", None)


machine = pytest.fixture(machines, name="machine")


@pytest.fixture
def gpu(machine):
    return machine()


class Machine:
    def __init__(self, trt, plan, onnx, data, manifest):
        self.trt, self.plan, self.onnx, self.data, self.manifest = trt, plan, onnx, data, manifest


def tiles(count=1, seed=0, planes=3):
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, planes), dtype=np.uint8)


def of_bands(*bands):
    """SPEC for other bands, each prepared in its own way."""
    scale, shift = (
        tuple(start + i * step for i in range(len(bands))) for start, step in ((0.012, 0.001), (-1.6, -0.1))
    )
    return replace(SPEC, bands=bands, channels="BGR" if bands[:3] == SPEC.bands else "RGB", scale=scale, shift=shift)


def expected(machine, given, views=None):
    """What HostBackend makes of the same network."""
    model = onnx.load_from_string(machine.onnx.read_bytes())
    host = HostBackend(lambda x: answer(model, x)[:, 0], machine.manifest["spec"], max_tiles=len(given))
    return host.probabilities(given, views)
