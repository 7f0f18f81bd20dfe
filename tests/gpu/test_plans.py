"""What every Backend holds, for a plan: on a real GPU, and on tests/support/fake_*.py where there is none.

python -m pytest tests/gpu      (or bench/gpu/run.sh, which does it with the rest)
"""

import os
import threading

import numpy as np
import pytest

from dlink.runtime import Spec, open_model
from dlink.runtime.backend import HostBackend, open_backend
from dlink.runtime.views import ALL
from dlink.trt_runtime.manifest import Options
from dlink.trt_runtime.plan import look_here
from tests.runtime import test_backend as spine
from tests.support.models import red, write_blur, write_pointwise

HERE = look_here()
GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not HERE.gpus.found, reason=f"needs an NVIDIA GPU: {HERE.gpus.fault}"),
    pytest.mark.skipif(not HERE.versions, reason="needs TensorRT or TensorRT-RTX: dlink-doctor says how"),
]
SIDE = spine.SIDE
SPEC = Spec(tile=SIDE)
BUILT = {}  # on the GPU, by network
WITH = os.environ.get("DLINK_BUILD_WITH", "").split()  # options of dlink-build, from bench/gpu/stages.py
MORE = {"unlisted_gpu": True} if "--unlisted-gpu" in WITH else {}
MORE |= {"compute_capability": ("current",)} if "current" in WITH else {}


@pytest.fixture(params=["fake", pytest.param("real", marks=GPU)])
def planned(request, tmp_path_factory):
    """A function that makes a plan of a network: for the GPU at hand, and for tests/support/fake_*.py."""

    def on_the_fake(network, max_tiles):
        machine = request.getfixturevalue("machine")
        return machine(network=lambda path, spec: network(path), spec=SPEC, options=Options(max_tiles=max_tiles)).plan

    def on_the_gpu(network, max_tiles):
        from dlink.engine.build import build
        from dlink.onnx_graph.model import read_model

        if network not in BUILT:
            source = network(tmp_path_factory.mktemp("plan") / "net.onnx")
            BUILT[network] = source.with_suffix(".plan")
            options = Options(target=next(iter(HERE.versions)), max_tiles=max_tiles, **MORE)
            build(read_model(source), BUILT[network], options, None, lambda *tick: None)
        return BUILT[network]

    return on_the_fake if request.param == "fake" else on_the_gpu


def red_network(path):
    return write_pointwise(path, SPEC)


def blur_network(path):
    return write_blur(path, SPEC, radius=3)


@pytest.fixture
def pointwise(planned):
    return planned(red_network, 1)


@pytest.fixture
def blur(planned):
    return planned(blur_network, 2)


@pytest.fixture
def tile():
    return np.random.default_rng(1).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)


@pytest.fixture
def backend(pointwise):
    backend = open_backend(pointwise)
    yield backend
    backend.close()


test_probabilities_of_a_known_network = spine.test_probabilities_of_a_known_network
test_each_view_is_undone = spine.test_each_view_is_undone
test_the_caller_owns_the_result = spine.test_the_caller_owns_the_result
test_other_tiles_are_refused = spine.test_other_tiles_are_refused
test_closing_twice_is_allowed_and_use_after_it_is_not = spine.test_closing_twice_is_allowed_and_use_after_it_is_not
test_threads_may_share_it = spine.test_threads_may_share_it


def blurred(x):
    """The network of write_blur, in NumPy."""
    padded = np.pad(x[:, 2], ((0, 0), (3, 3), (3, 3)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), axis=(1, 2))
    return (1 / (1 + np.exp(-2 * windows.mean(axis=(-1, -2))))).astype(np.float32)


@pytest.mark.parametrize("views", [(0,), (1, 6), (0, 2, 4, 6), ALL[1:], ALL], ids=str)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_plan_gives_what_hostbackend_gives(blur, views, count):
    tiles = np.random.default_rng(2).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    expected = HostBackend(blurred, SPEC, max_tiles=count).probabilities(tiles, views)
    with open_model(blur) as model:
        for _ in range(5):  # plainly, and as a graph on both slots
            np.testing.assert_allclose(model.backend.probabilities(tiles, views), expected, atol=1e-3)


def test_runs_become_graphs(blur, tile):
    with open_model(blur) as model:
        for _ in range(4):
            model.mask(tile[0])
        if model.backend.share.captures:
            assert all(slot.graphs and not slot.plain for slot in model.backend.at_work)


def test_an_image_of_any_size_and_images_in_the_background(blur):
    image = np.random.default_rng(3).integers(0, 256, (150, 200, 3), np.uint8)
    with open_model(blur) as model:
        mask = model.mask(image)
        for future in [model.submit(image) for _ in range(8)]:
            np.testing.assert_array_equal(future.result(), mask)


def test_models_and_threads_that_come_and_go_keep_no_memory(pointwise, tile):
    import pycuda.driver as cuda

    def free():
        with open_model(pointwise) as model, model.backend.working():
            return cuda.mem_get_info()[0]

    def use():
        with open_model(pointwise) as model:
            np.testing.assert_allclose(model.probabilities(tile[0]), red(tile)[0], atol=1e-3)

    use()
    before = free()
    for _ in range(20):
        threads = [threading.Thread(target=use) for _ in range(2)]
        [t.start() for t in threads]
        [t.join() for t in threads]
    assert free() >= before - (8 << 20)


def test_a_tensor_of_pytorch_is_read_where_it_lies(blur):
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'dlink[test]'")
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU: one that PyTorch finds")
    image = np.random.default_rng(4).integers(0, 256, (200, 300, 3), np.uint8)
    with open_model(blur) as model:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            given = torch.from_numpy(image).cuda(non_blocking=True)
            result = model.segment_device(given, stream=stream.cuda_stream)
            mask = torch.as_tensor(result, device="cuda").cpu().numpy()
        np.testing.assert_array_equal(mask, model.mask(image))
        assert torch.ones(8, device="cuda").sum().item() == 8  # and PyTorch goes on
