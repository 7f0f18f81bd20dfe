"""The TensorRT backend on a TensorRT and a CUDA that are not there: calls, their order, lifetimes, and errors.

The names are those of the recorded bindings (tests/fake_tensorrt.py); the network is run by ONNX Runtime.
"""

import importlib
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from dlink.trt_runtime import BadPlan, Closed, Mismatch, NoEngine, Spec, open_model
from dlink.trt_runtime.backend import open_backend
from dlink.trt_runtime.manifest import Options, manifest_of
from tests import fake_pycuda
from tests.command import call
from tests.fake_tensorrt import make
from tests.models import write_pointwise
from tests.plans import HERE, MANIFEST, mark, write

SIDE = 64
SPEC = Spec(tile=SIDE, precision="fp32")


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """A plan of a small network, on a machine whose GPU, CUDA and TensorRT take it."""
    trt, cuda = make("10.3.0"), fake_pycuda.make()
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setitem(sys.modules, "pycuda", type(sys)("pycuda"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", cuda)
    sys.modules["pycuda"].driver = cuda
    monkeypatch.delitem(sys.modules, "dlink.trt_runtime.tensorrt_backend", raising=False)
    monkeypatch.setattr("dlink.trt_runtime.plan.look_here", lambda: HERE)
    onnx = write_pointwise(tmp_path / "roads.onnx", SPEC)
    data = b"ftrt" + bytes(20) + bytes([10, 3, 0, 0]) + bytes(4) + onnx.read_bytes()
    manifest = {"spec": SPEC, "options": Options(max_tiles=1), "onnx": mark("roads.onnx", onnx.read_bytes())}
    yield Machine(trt, write(tmp_path, data, **manifest), onnx, data, manifest)
    sys.modules.pop("dlink.trt_runtime.tensorrt_backend", None)
    fake_pycuda.FAIL.clear()


class Machine:
    def __init__(self, trt, plan, onnx, data, manifest):
        self.trt, self.plan, self.onnx, self.data, self.manifest = trt, plan, onnx, data, manifest


def tiles(count=1):
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.mark.parametrize("views", [(0,), tuple(range(8))])
def test_a_plan_gives_what_its_onnx_file_gives(gpu, views):
    plan, onnx = open_backend(gpu.plan), open_backend(gpu.onnx)
    found = plan.probabilities(tiles(3), views)
    for tile, prob in zip(tiles(3), found, strict=True):
        np.testing.assert_allclose(prob, onnx.probabilities(tile[None], views)[0], atol=1e-6)
    assert plan.max_tiles == 8
    assert plan.engine == "TensorRT 10.3.0, fp16 99 %, fp32, Orin"
    plan.close()
    onnx.close()


def test_the_very_bytes_that_were_verified_are_loaded_and_host_code_stays_forbidden(gpu):
    with open_model(gpu.plan):
        assert gpu.trt.asked["loaded"] == [gpu.data]
        assert "Runtime.engine_host_code_allowed" not in gpu.trt.asked["set"]


def test_a_damaged_plan_is_not_loaded(gpu):
    gpu.plan.write_bytes(gpu.data[:-1] + b"x")
    with pytest.raises(BadPlan):
        open_model(gpu.plan)
    assert gpu.trt.asked["loaded"] == []
    assert fake_pycuda.LOG == []


def test_the_context_is_current_within_calls_alone_from_any_thread(gpu):
    backend = open_backend(gpu.plan)
    found = []

    def work():
        found.append(backend.probabilities(tiles()))
        found.append(getattr(fake_pycuda.current, "depth", 0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[1] == 0
    assert getattr(fake_pycuda.current, "depth", 0) == 0
    assert fake_pycuda.LOG.count("push") == fake_pycuda.LOG.count("pop")
    backend.close()


def test_each_view_is_copied_run_and_copied_back_in_order(gpu):
    backend = open_backend(gpu.plan)
    fake_pycuda.LOG.clear()
    backend.probabilities(tiles(), (0,))
    assert fake_pycuda.LOG == ["push", "upload", "download", "synchronize", "pop"]
    backend.close()


def test_close_frees_everything_once(gpu):
    backend = open_backend(gpu.plan)
    assert fake_pycuda.MEMORY
    backend.close()
    assert not fake_pycuda.MEMORY
    assert fake_pycuda.LOG[-2:] == ["pop", "detach"]
    backend.close()
    assert fake_pycuda.LOG.count("detach") == 1
    with pytest.raises(Closed):
        backend.probabilities(tiles())
    with pytest.raises(Closed):
        backend.layer_times(1)


CALLS = ["init", "retain", "stream", "alloc", "pinned"]


@pytest.mark.parametrize("call", CALLS)
def test_an_error_at_any_call_while_opening_leaks_nothing(gpu, call):
    fake_pycuda.FAIL[call] = fake_pycuda.Error(f"{call} failed")
    with pytest.raises((NoEngine, fake_pycuda.Error), match=f"{call} failed"):
        open_model(gpu.plan)
    assert not fake_pycuda.MEMORY
    assert fake_pycuda.LOG.count("push") == fake_pycuda.LOG.count("pop")
    assert fake_pycuda.LOG.count("detach") == (CALLS.index(call) > 1)


@pytest.mark.parametrize("call", ["upload", "download", "synchronize"])
def test_an_error_at_any_call_while_running_leaves_the_context_popped(gpu, call):
    backend = open_backend(gpu.plan)
    fake_pycuda.FAIL[call] = fake_pycuda.LogicError("an illegal memory access was encountered")
    with pytest.raises(fake_pycuda.LogicError):
        backend.probabilities(tiles())
    assert getattr(fake_pycuda.current, "depth", 0) == 0
    fake_pycuda.FAIL.clear()
    backend.close()
    assert not fake_pycuda.MEMORY


def test_too_little_memory_says_what_to_build_instead(gpu):
    fake_pycuda.FAIL["alloc"] = fake_pycuda.MemoryError("out of memory")
    with pytest.raises(NoEngine, match=r"not enough memory on the GPU for 8 views of 64 px; build with a smaller"):
        open_model(gpu.plan)


def test_what_tensorrt_does_not_load_is_a_mismatch(gpu, tmp_path):
    path = write(tmp_path, b"????" + gpu.data[4:], **gpu.manifest)
    with pytest.raises(Mismatch, match=r"TensorRT 10.3.0 does not load it.*build it here: dlink-build"):
        open_model(path)


def test_another_tensorrt_than_its_distribution_says_is_a_mismatch(gpu):
    gpu.trt.__version__ = "10.4.0"
    with pytest.raises(Mismatch, match=r"a plan of TensorRT 10.3.0, here is TensorRT 10.4.0"):
        open_model(gpu.plan)


def test_a_plan_of_another_network_is_refused(gpu, tmp_path):
    path = write(tmp_path, gpu.data, **{**gpu.manifest, "spec": replace(SPEC, tile=32)})
    with pytest.raises(BadPlan, match=r"its ends are image \(3, 64, 64\), road \(1, 64, 64\), not an image of 32 px"):
        open_model(path)
    assert not fake_pycuda.MEMORY


def test_a_plan_without_weights_takes_them_from_its_onnx_file(gpu, tmp_path):
    stripped = {**gpu.manifest, "options": Options(strip_weights=True, refit=True)}
    with open_model(write(tmp_path, gpu.data, **stripped)):
        assert gpu.trt.asked["refit"] == str(gpu.onnx)
    write_pointwise(gpu.onnx, replace(SPEC, threshold=0.4))
    with pytest.raises(BadPlan, match=r"was built without weights, and they are in roads.onnx; put it beside"):
        open_model(gpu.plan)


def test_layers_are_timed_by_tensorrts_profiler(gpu):
    backend = open_backend(gpu.plan)
    assert backend.layer_times(3) == {"/first/Conv + /Relu": 0.25}
    backend.close()


def test_without_pycuda_the_module_is_named(gpu, monkeypatch):
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"pycuda"):
        open_model(gpu.plan)
    importlib.invalidate_caches()


def test_the_gpu_benchmark_checks_roads_and_keeps_the_verdict(gpu, tmp_path):
    from dlink.cli.gpu import roads
    from dlink.trt_runtime.manifest import parse, read_bytes
    from tests.calibrated import folder_of
    from tests.models import write_conv

    tiles = folder_of(tmp_path / "tiles", 2, 128)
    found = roads(gpu.plan, parse(read_bytes(gpu.plan), gpu.plan), gpu.onnx, tiles)
    assert (found["same"], found["tiles"], [s["views"] for s in found["settings"]]) == (True, 2, [8, 1])
    assert parse(read_bytes(gpu.plan), gpu.plan).verdict.same_roads
    other = write_conv(tmp_path / "other.onnx", SPEC, np.full((1, 1), -2.0))
    found = roads(gpu.plan, parse(read_bytes(gpu.plan), gpu.plan), other, tiles)
    assert not found["same"]
    assert "agree" in found["why"][0]


def test_a_check_is_written_into_the_manifest_bound_to_the_plan(gpu, tmp_path):
    from dlink.trt_runtime.manifest import parse, read_bytes
    from dlink.trt_runtime.plan import read_plan
    from tests.calibrated import folder_of

    roads = folder_of(tmp_path / "tiles", 2, 128)
    signature = tmp_path / "roads.plan.json.sig"
    signature.write_text("old")

    def check(reference, code):
        result = call("check", gpu.plan, roads, "--against", reference, code=code)
        return result, parse(read_bytes(gpu.plan), gpu.plan).verdict

    result, verdict = check(gpu.onnx, 0)
    assert "its manifest has the verdict; sign it again" in result.stderr
    assert not signature.exists()
    assert verdict.same_roads
    assert (verdict.tiles, verdict.reference.name) == (2, "roads.onnx")
    assert read_plan(gpu.plan, require_verdict=True)[0] == gpu.data
    from tests.models import write_conv

    other = write_conv(tmp_path / "other.onnx", SPEC, np.full((1, 1), -2.0))
    _, verdict = check(other, 1)
    assert not verdict.same_roads
    assert verdict.words.startswith("NOT the same roads")
    assert manifest_of(gpu.plan).exists()
    assert MANIFEST.verdict is None
