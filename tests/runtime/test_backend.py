"""What every Backend holds, for each that can run here."""

import threading

import numpy as np
import pytest

from dlink.runtime.backend import HostBackend, Opening, open_backend
from dlink.runtime.errors import BadInput, Closed
from dlink.runtime.slotted import Slotted
from dlink.runtime.spec import Spec
from dlink.runtime.views import ALL, apply_view, undo_view
from tests.support.models import red, write_blur, write_pointwise

SIDE = 64


@pytest.fixture
def spec():
    return Spec(tile=SIDE)


@pytest.fixture
def tile():
    return np.random.default_rng(1).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)


@pytest.fixture(params=["numpy", "numpy, 3 slots", "openvino", "openvino, 2 slots"])
def backend(request, spec, tmp_path):
    if request.param.startswith("numpy"):
        hosts = [HostBackend(lambda x: 1 / (1 + np.exp(-2 * x[:, 2])), spec) for _ in range(3)]
        made = Slotted(hosts) if "slots" in request.param else hosts[0]
    else:
        slots = 2 if "slots" in request.param else None
        made = open_backend(write_pointwise(tmp_path / "red.onnx", spec), Opening(slots=slots))
    yield made
    made.close()


def test_probabilities_of_a_known_network(backend, tile):
    got = backend.probabilities(tile)
    assert (got.shape, got.dtype) == ((1, SIDE, SIDE), np.float32)
    np.testing.assert_allclose(got, red(tile), atol=1e-6)  # pointwise, so the mean of its views is itself


@pytest.mark.parametrize("view", ALL)
def test_each_view_is_undone(backend, tile, view):
    np.testing.assert_allclose(backend.probabilities(tile, [view]), red(tile), atol=1e-6)


def test_the_caller_owns_the_result(backend, tile):
    first = backend.probabilities(tile)
    kept = first.copy()
    backend.probabilities(255 - tile)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    "bad", [np.zeros((1, SIDE, SIDE, 3)), np.zeros((1, 32, 32, 3), np.uint8), np.zeros((SIDE, SIDE, 3), np.uint8)]
)
def test_other_tiles_are_refused(backend, bad):
    with pytest.raises(BadInput, match=r"tiles must be uint8 \(N, 64, 64, 3\), got"):
        backend.probabilities(bad)


@pytest.mark.parametrize("count", [0, 2])
def test_more_tiles_than_it_takes_are_refused(backend, count):
    with pytest.raises(BadInput, match=f"{count} tiles at once; this model takes 1 to 1"):
        backend.probabilities(np.zeros((count, SIDE, SIDE, 3), np.uint8))


def test_closing_twice_is_allowed_and_use_after_it_is_not(backend, tile):
    backend.close()
    backend.close()
    with pytest.raises(Closed, match="closed"):
        backend.probabilities(tile)


def test_threads_may_share_it(backend):
    tiles = [np.full((1, SIDE, SIDE, 3), 10 * i, np.uint8) for i in range(8)]
    got = {}
    threads = [threading.Thread(target=lambda i=i: got.update({i: backend.probabilities(tiles[i])})) for i in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    for i in range(8):
        np.testing.assert_allclose(got[i], red(tiles[i]), atol=1e-6)


def test_the_mean_is_over_what_each_view_sees(spec, tile):
    # A network that reads context: the mean of its undone views, computed plainly.
    def net(x):
        context = np.cumsum(x[:, 2], axis=-1) / SIDE + np.cumsum(x[:, 0], axis=-2) / SIDE
        return (context / 8 + 0.5).astype(np.float32)

    x = spec.prepare(tile)
    expected = np.mean([undo_view(net(np.ascontiguousarray(apply_view(x, v))), v) for v in ALL], axis=0)
    np.testing.assert_allclose(HostBackend(net, spec).probabilities(tile), expected, atol=1e-5)


@pytest.mark.parametrize("views", [(0,), (0, 2, 4, 6), (1, 3), ALL])
def test_the_network_runs_once_a_view_on_contiguous_input(spec, tile, views):
    seen = []

    def net(x):
        seen.append(x.flags.c_contiguous)
        return np.zeros((1, SIDE, SIDE), np.float32)

    HostBackend(net, spec).probabilities(tile, views)
    assert seen == [True] * len(views)


def test_the_specs_views_are_the_default(tile):
    calls = []

    def net(x):
        calls.append(1)
        return np.zeros((1, SIDE, SIDE), np.float32)

    HostBackend(net, Spec(tile=SIDE, views=(0, 5, 6))).probabilities(tile)
    assert len(calls) == 3


def test_openvino_and_numpy_agree_on_a_network_with_context(spec, tile, tmp_path):
    openvino = open_backend(write_blur(tmp_path / "blur.onnx", spec, radius=3)).probabilities(tile)

    def net(x):
        padded = np.pad(x[:, 2], ((0, 0), (3, 3), (3, 3)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), axis=(1, 2))
        return (1 / (1 + np.exp(-2 * windows.mean(axis=(-1, -2))))).astype(np.float32)

    np.testing.assert_allclose(openvino, HostBackend(net, spec).probabilities(tile), atol=1e-5)


def test_a_name_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"roads.pb: not a model; expected a name ending in .onnx"):
        open_backend(tmp_path / "roads.pb")
