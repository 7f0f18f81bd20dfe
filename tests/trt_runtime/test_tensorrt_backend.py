"""The TensorRT backend on a TensorRT and a CUDA that are not there: calls, their order, lifetimes, and errors.

The names are those of the recorded bindings (fake_tensorrt.py), the network is run by ONNX Runtime, the kernels
are the real ones on the host, and nothing on a stream happens before someone waits for it (fake_pycuda.py).
"""

import gc
import importlib
import json
import logging
import multiprocessing
import sys
import threading
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from dlink.runtime import (
    BadInput,
    BadPlan,
    Closed,
    DlinkError,
    EngineFailed,
    GpuFailed,
    Mismatch,
    NoEngine,
    NoProbability,
    open_model,
)
from dlink.runtime.backend import Opening, open_backend
from dlink.runtime.views import ALL
from dlink.trt_runtime.manifest import Options, manifest_of
from tests.support import fake_pycuda
from tests.support.command import call
from tests.support.fake_machine import SIDE, SPEC, expected, of_bands, tiles
from tests.support.fake_pycuda import HELD, LOG, STATE
from tests.support.fake_tensorrt import API
from tests.support.models import write_conv, write_pointwise
from tests.support.plans import HERE, MANIFEST, write

VERSIONS = [*API, "rtx"]


@pytest.mark.parametrize("ends", ["float32", "float16"])
@pytest.mark.parametrize("views", [(0,), (1,), (0, 2, 4, 6), ALL[1:], ALL], ids=str)
def test_a_plan_gives_what_its_onnx_file_gives(gpu, views, ends):
    gpu.trt.ends = ends
    plan = open_backend(gpu.plan)
    for _ in range(3):  # plainly, captured, launched as a graph
        for count in (1, 3, 8):
            found = plan.probabilities(tiles(count), views)
            np.testing.assert_allclose(
                found, expected(gpu, tiles(count), views), atol=1e-6 if ends == "float32" else 1e-3
            )
    assert plan.max_tiles == 8
    assert plan.tiles_per_batch(views) == 8 // len(views)
    assert plan.engine == "TensorRT 10.3.0, fp16 99 %, fp32, Orin"
    plan.close()
    assert fake_pycuda.nothing_is_held()


BANDS = [("pan",), ("red", "green", "blue", "nir"), ("nir", "red", "green"), tuple("abcdefgh")]


@pytest.mark.parametrize("ends", ["float32", "float16"])
@pytest.mark.parametrize("bands", BANDS, ids=lambda bands: ",".join(bands))
def test_a_plan_of_other_bands_gives_what_its_onnx_file_gives(machine, bands, ends):
    there = machine(spec=of_bands(*bands))
    there.trt.ends = ends
    given = tiles(3, planes=len(bands))
    plan = open_backend(there.plan)
    for views in ((0,), (1, 6), ALL):
        for _ in range(3):  # plainly, captured, launched as a graph
            found = plan.probabilities(given, views)
            near = 1e-6 if ends == "float32" else 2e-3
            np.testing.assert_allclose(found, expected(there, given, views), atol=near)
    with pytest.raises(BadInput, match="this model takes|tiles must be uint8"):
        plan.probabilities(tiles(planes=len(bands) + 1))
    plan.close()
    assert fake_pycuda.nothing_is_held()


def test_views_may_be_asked_for_in_any_order(gpu):
    with open_model(gpu.plan) as model:
        for _ in range(3):
            found = model.backend.probabilities(tiles(), (6, 1, 3))
            np.testing.assert_allclose(found, expected(gpu, tiles(), (1, 3, 6)), atol=1e-6)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_has_what_the_backend_asks_for(machine, version):
    there = machine(version)
    with open_model(there.plan) as model:
        for _ in range(3):
            np.testing.assert_allclose(model.probabilities(tiles()[0]), expected(there, tiles())[0], atol=1e-6)
    assert fake_pycuda.nothing_is_held()
    assert ("cuGraphLaunch" in LOG) == (version not in ("rtx", "8.5.2.2"))


@pytest.mark.parametrize("version", VERSIONS)
def test_there_are_as_many_contexts_as_the_version_has_for_a_plan(machine, version, caplog):
    """8.5 has one a profile, so one slot and no graphs; 8.6 shares it where each but the first is told to take it."""
    there = machine(version)
    with caplog.at_level(logging.INFO), open_model(there.plan, slots=2) as model:
        for seed in range(4):
            runs = [model.backend.start(tiles(seed=seed + i)) for i in range(2)]
            for i, run in enumerate(runs):
                np.testing.assert_allclose(run(), expected(there, tiles(seed=seed + i)), atol=1e-6)
        slots = model.backend.slots
        assert model.backend.layer_times(2) == {"/first/Conv + /Relu": 0.25}
        assert model.backend.memory.slots == slots
    one = version.startswith("8.5")
    assert slots == (1 if one else 2)
    assert ("one slot and no CUDA graphs: TensorRT 8.5.2.2 has one context a plan" in caplog.text) == one
    assert LOG.count("context") == {"8.5.2.2": 1, "rtx": 3}.get(version, 5)  # slots', graphs', one for layers' times


def test_a_plan_whose_profile_is_not_shared_opens_in_one_slot_alone(machine):
    """As 8.6 builds it where nobody asks for more."""
    there = machine("8.6.1")
    data = there.data[:28] + b"\0" + there.data[29:]
    path = write(there.plan.parent, data, **there.manifest)
    with pytest.raises(GpuFailed, match="TensorRT does not let a second context have the plan's optimisation profile"):
        open_model(path)
    assert fake_pycuda.nothing_is_held()
    open_model(path, slots=1).close()


def test_more_views_than_the_plan_was_built_for_are_an_error(machine):
    there = machine(options=Options(max_tiles=1, views=1))
    path = write(there.plan.parent, there.data, **{**there.manifest, "options": Options(max_tiles=2)})
    said = "TensorRT does not take 8 views at once; its messages are above"
    with open_model(path) as model, pytest.raises(GpuFailed, match=said):
        model.mask(tiles()[0])
    assert fake_pycuda.nothing_is_held()


def test_tensorrt_rtx_is_told_to_capture_for_itself(machine):
    there = machine("rtx")
    with open_model(there.plan) as model:
        model.probabilities(tiles()[0])
        assert model.backend.loaded.context_per_shape
    set_to = there.trt.asked["set"]
    assert set_to["IRuntimeConfig.cuda_graph_strategy"] == there.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    eager = there.trt.DynamicShapesKernelSpecializationStrategy.EAGER
    assert set_to["IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy"] == eager


def test_only_tensorrt_rtx_wants_a_context_for_each_shape(gpu):
    with open_model(gpu.plan) as model:
        assert not model.backend.loaded.context_per_shape
    assert sorted(p.name for p in gpu.plan.parent.iterdir()) == ["roads.onnx", "roads.plan", "roads.plan.json"]


def run_once(there, views=ALL, **how):
    """The batches that kernels were compiled for."""
    there.trt.asked["compiled"].clear()
    with open_model(there.plan, **how) as model:
        found = model.backend.probabilities(tiles(), views)
        np.testing.assert_allclose(found, expected(there, tiles(), views), atol=1e-6)
    return list(there.trt.asked["compiled"])


def test_kernels_that_were_compiled_are_there_the_next_time(machine):
    there = machine("rtx")
    cache = there.plan.with_name("roads.plan.cache")
    assert run_once(there) == [8]
    line, data = cache.read_bytes().split(b"\n", 1)
    assert (json.loads(line)["gpu"], data) == ("Orin, compute capability 8.7, 8.0 GiB", b"kernels\x08")
    written = cache.stat().st_mtime_ns
    assert run_once(there) == []
    assert cache.stat().st_mtime_ns == written
    assert run_once(there, (0,)) == [1]
    assert run_once(there) + run_once(there, (0,)) == []
    assert importlib.import_module("dlink.trt_runtime.tensorrt_backend").memory_needed(there.plan)
    assert not list(there.plan.parent.glob(".*"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1] + b"\x07",
        lambda data: data[:40],
        lambda data: b"",
        lambda data: data.replace(b"Orin", b"Xavi"),
        lambda data: data.replace(b"1.7.1", b"1.7.0"),
        lambda data: data.replace(b'"plan": "', b'"plan": "0'),
    ],
)
def test_kernels_of_another_plan_gpu_or_version_or_damaged_ones_are_compiled_anew(machine, damage):
    there = machine("rtx")
    cache = there.plan.with_name("roads.plan.cache")
    assert run_once(there) == [8]
    sound = cache.read_bytes()
    cache.write_bytes(damage(sound))
    assert run_once(there) == [8]
    assert cache.read_bytes() == sound


def test_kernels_that_the_library_does_not_take_are_compiled_anew(machine, caplog):
    from dlink.trt_runtime.kernel_cache import KernelCache
    from dlink.trt_runtime.manifest import parse, read_bytes

    there = machine("rtx")
    KernelCache(there.plan, parse(read_bytes(there.plan), there.plan), HERE.gpus.found[0]).write(b"of another driver")
    with caplog.at_level(logging.INFO):
        assert run_once(there) == [8]
    assert "TensorRT-RTX 1.7.1 does not accept the kernels in the cache" in caplog.text
    assert run_once(there) == []


def test_where_a_signature_is_required_no_kernels_are_read_or_kept(machine, monkeypatch, tmp_path):
    monkeypatch.setattr("dlink.trt_runtime.signing.verify", lambda path, said, keys: None)
    there = machine("rtx")
    cache = there.plan.with_name("roads.plan.cache")
    assert run_once(there, keys=[tmp_path / "key"]) == [8]
    assert not cache.exists()
    assert run_once(there) == [8]
    kept = cache.read_bytes()
    assert run_once(there, keys=[tmp_path / "key"]) == [8]
    assert cache.read_bytes() == kept


def test_a_folder_that_can_not_be_written_keeps_no_kernels_and_is_no_error(machine, caplog):
    there = machine("rtx")
    there.plan.with_name("roads.plan.cache").mkdir()
    with caplog.at_level(logging.INFO):
        assert run_once(there) == [8]
    assert "roads.plan.cache: kernels are not kept for the next time" in caplog.text
    assert not [p for p in there.plan.parent.iterdir() if p.name.startswith(".")]


def test_a_model_whose_gpu_has_failed_keeps_no_kernels(machine):
    there = machine("rtx")
    backend = open_backend(there.plan)
    STATE.fail["synchronize"] = fake_pycuda.LogicError("an illegal memory access was encountered")
    with pytest.raises(GpuFailed):
        backend.probabilities(tiles())
    STATE.fail.clear()
    backend.close()
    assert not there.plan.with_name("roads.plan.cache").exists()


def test_tensorrt_rtx_is_asked_what_it_says_of_a_plan_on_this_gpu(machine, caplog):
    there = machine("rtx")
    for reasons, said in (
        (("UNSUPPORTED_CC",), "UNSUPPORTED_CC; build it here: dlink-build"),
        (("UNSUPPORTED_CC", "OLD_CUDA_DRIVER"), "UNSUPPORTED_CC, OLD_CUDA_DRIVER; update the driver"),
        (
            ("INSUFFICIENT_GPU_MEMORY",),
            "INSUFFICIENT_GPU_MEMORY; free memory of the GPU, or build with a smaller --max",
        ),
        ((), "it gives no reason, its messages are above; build it here: dlink-build"),
    ):
        there.trt.validity = "INVALID", reasons
        with pytest.raises(Mismatch, match=f"TensorRT-RTX 1.7.1 says that it does not run here: {said}"):
            open_model(there.plan)
    assert there.trt.asked["loaded"] == []
    tried = {**there.manifest, "options": replace(there.manifest["options"], unlisted_gpu=True)}
    write(there.plan.parent, there.data, **tried)
    with pytest.raises(Mismatch, match=r"build it here: dlink-build .* --compute-capability current --unlisted-gpu$"):
        there.trt.validity = "INVALID", ("UNSUPPORTED_CC",)
        open_model(there.plan)
    there.trt.validity = "SUBOPTIMAL", ("UNSUPPORTED_CC",)
    with caplog.at_level(logging.WARNING), open_model(there.plan) as model:
        assert model.backend.engine == "TensorRT-RTX 1.7.1, fp16 99 %, fp32, Orin, suboptimal on this GPU"
        np.testing.assert_allclose(model.probabilities(tiles()[0]), expected(there, tiles())[0], atol=1e-6)
    assert "TensorRT-RTX 1.7.1 says that it is suboptimal on this GPU: UNSUPPORTED_CC" in caplog.text
    there.trt.validity = "VALID", ()
    with open_model(there.plan) as model:
        assert model.backend.engine == "TensorRT-RTX 1.7.1, fp16 99 %, fp32, Orin"
    assert fake_pycuda.nothing_is_held()


@pytest.mark.parametrize("batch", [1, 3, 4, 8])
def test_views_that_do_not_fit_the_plan_come_in_several_batches(machine, batch):
    there = machine(options=Options(max_tiles=batch, views=1))
    with open_model(there.plan) as model:
        for _ in range(3):
            found = model.backend.probabilities(tiles(min(batch, 2)))
            np.testing.assert_allclose(found, expected(there, tiles(min(batch, 2))), atol=1e-6)


def test_the_very_bytes_that_were_verified_are_loaded_and_host_code_stays_forbidden(gpu):
    with open_model(gpu.plan):
        assert gpu.trt.asked["loaded"] == [gpu.data]
        assert "Runtime.engine_host_code_allowed" not in gpu.trt.asked["set"]


def test_a_damaged_plan_is_not_loaded(gpu):
    gpu.plan.write_bytes(gpu.data[:-1] + b"x")
    with pytest.raises(BadPlan):
        open_model(gpu.plan)
    assert gpu.trt.asked["loaded"] == []
    assert LOG == []


def test_a_shape_is_run_plainly_once_and_then_as_one_graph(gpu):
    backend = open_backend(gpu.plan, Opening(slots=1))
    once = ["push", "fill", "upload", "spread", "execute", "gather", "download", "download"]  # roads, faults
    LOG.clear()
    backend.probabilities(tiles())
    work = [name for name in LOG[: LOG.index("synchronize")] if name in once]
    assert work == [*once, *once[1:], "push"]  # run, captured, waited for
    assert LOG.index("cuStreamBeginCapture_v2") < LOG.index("cuStreamEndCapture") < LOG.index("synchronize")
    LOG.clear()
    backend.probabilities(tiles(seed=1))
    assert LOG == ["push", "cuGraphLaunch", "pop", "push", "synchronize", "pop"]
    backend.close()


def test_each_form_and_threshold_is_a_graph_of_its_own(gpu):
    with open_model(gpu.plan) as model:
        for _ in range(3):
            prob = expected(gpu, tiles())
            for threshold in (0.3, 0.6):
                found = model.backend.start(tiles(), None, "mask", threshold)()
                far = abs(prob - threshold) > 1e-6
                np.testing.assert_array_equal(found[far], np.where(prob > threshold, 255, 0)[far])
            level = model.backend.start(tiles(), None, "level")()
            assert level.dtype == np.uint8
            assert abs(level - prob * 255).max() <= 0.5 + 1e-3
    with pytest.raises(BadInput, match="form must be probability, level, mask, got 'road'"):
        open_backend(gpu.plan).start(tiles(), None, "road")


def test_a_slot_keeps_few_graphs(gpu):
    with open_model(gpu.plan, slots=1) as model:
        for threshold in np.linspace(0, 0.9, 40):
            model.backend.start(tiles(), None, "mask", float(threshold))()
        assert len(HELD["exec"]) == 16


@pytest.mark.parametrize("call", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"])
def test_where_a_capture_fails_runs_stay_plain_and_the_reason_is_logged(gpu, call, caplog):
    STATE.refuse[call] = 900
    with open_model(gpu.plan, slots=1) as model, caplog.at_level(logging.WARNING):
        for _ in range(3):
            np.testing.assert_allclose(model.probabilities(tiles()[0]), expected(gpu, tiles())[0], atol=1e-6)
    said = [r.getMessage() for r in caplog.records]
    assert said == [f"1 tiles, views {ALL}: launched without a CUDA graph: {call}: a fault of the test's making (900)"]
    assert "cuGraphLaunch" not in LOG
    assert fake_pycuda.nothing_is_held()


def test_where_there_is_no_memory_for_a_graphs_context_runs_stay_plain(gpu, caplog):
    with open_model(gpu.plan) as model:
        gpu.trt.no_contexts = True
        for _ in range(3):
            np.testing.assert_allclose(model.probabilities(tiles()[0]), expected(gpu, tiles())[0], atol=1e-6)
    assert "no execution context" in caplog.text
    assert "cuGraphLaunch" not in LOG


def test_one_slot_is_filled_while_the_other_one_runs(gpu):
    backend = open_backend(gpu.plan)
    for seed in range(2):
        backend.probabilities(tiles(seed=seed))
    LOG.clear()
    runs = [backend.start(tiles(seed=seed)) for seed in range(2)]
    assert LOG.count("cuGraphLaunch") == 2
    assert "synchronize" not in LOG
    third = backend.start(tiles(seed=2))  # waits for the first
    assert LOG.count("synchronize") == 1
    for seed, run in enumerate([*runs, third]):
        np.testing.assert_allclose(run(), expected(gpu, tiles(seed=seed)), atol=1e-6)
    backend.close()


def test_results_are_the_callers_and_kept_until_they_are_asked_for(gpu):
    backend = open_backend(gpu.plan)
    runs = [backend.start(tiles(seed=seed)) for seed in range(6)]
    last = backend.start(tiles(seed=6))
    backend.close()
    for seed, run in reversed(list(enumerate([*runs, last]))):
        first = run()
        np.testing.assert_allclose(first, expected(gpu, tiles(seed=seed)), atol=1e-6)
        assert run() is first
    assert fake_pycuda.nothing_is_held()


def test_an_image_of_many_tiles_keeps_both_slots_busy(gpu):
    image = np.random.default_rng(3).integers(0, 256, (200, 150, 3), np.uint8)
    with open_model(gpu.plan) as plan, open_model(gpu.onnx) as host:
        plan.probabilities(image)
        LOG.clear()
        np.testing.assert_allclose(plan.probabilities(image), host.probabilities(image), atol=1e-6)
        order = [name for name in LOG if name in ("cuGraphLaunch", "synchronize")]
        assert order[:3] == ["cuGraphLaunch", "cuGraphLaunch", "synchronize"]
        prob = host.probabilities(image)
        clear = abs(prob - 0.5) > 1e-6
        np.testing.assert_array_equal(plan.mask(image)[clear], host.mask(image)[clear])
        np.testing.assert_array_equal(plan.submit(image).result(), plan.mask(image))


def test_adaptive_views_fill_batches_of_one_view_and_then_of_seven(gpu):
    image = np.random.default_rng(3).integers(0, 256, (200, 150, 3), np.uint8)
    with open_model(gpu.plan, doubt=0.0) as plan, open_model(gpu.onnx) as host:
        for _ in range(3):
            found = plan.probabilities(image, "adaptive")
            np.testing.assert_allclose(found, host.probabilities(image), atol=1e-6)


def test_the_context_is_current_within_calls_alone_from_any_thread(gpu):
    backend = open_backend(gpu.plan)
    found = []

    def work():
        found.append(backend.probabilities(tiles()))
        found.append(fake_pycuda.depth())

    threads = [threading.Thread(target=work) for _ in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert found[1::2] == [0] * 8 or {type(f) for f in found} == {np.ndarray, int}
    assert fake_pycuda.depth() == 0
    assert LOG.count("push") == LOG.count("pop")
    for each in found:
        if isinstance(each, np.ndarray):
            np.testing.assert_allclose(each, expected(gpu, tiles()), atol=1e-6)
    backend.close()


def test_two_models_in_one_process_do_each_other_no_harm(gpu):
    first, second = open_model(gpu.plan), open_model(gpu.plan)
    np.testing.assert_array_equal(first.mask(tiles()[0]), second.mask(tiles()[0]))
    first.close()
    second.mask(tiles()[0])
    second.close()
    assert fake_pycuda.nothing_is_held()


def in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_model_may_be_closed_by_another_thread_than_opened_it(gpu):
    opened = []
    in_a_thread(lambda: opened.append(open_backend(gpu.plan)))
    opened[0].probabilities(tiles())
    opened[0].close()
    assert fake_pycuda.nothing_is_held()


def test_a_programs_own_context_of_pycuda_is_current_again_after_every_call(gpu):
    theirs = fake_pycuda.Device(0).retain_primary_context()
    theirs.push()
    backend = open_backend(gpu.plan)
    backend.probabilities(tiles())
    backend.close()
    assert (fake_pycuda.uppermost(), fake_pycuda.depth()) == (theirs, 1)
    fake_pycuda.Context.pop()
    theirs.detach()
    fake_pycuda.stack("cuda").pop()  # what their own detach has left
    assert fake_pycuda.nothing_is_held()


def test_the_default_stream_can_be_used_while_a_run_is_captured(gpu, caplog):
    put, seen = fake_pycuda.put, []

    def beside(stream, work):
        if stream > 1 and fake_pycuda.HELD["stream"][stream].captured is not None:
            seen.append(put(1, lambda: None))  # another thread's, on the default stream
        put(stream, work)

    fake_pycuda.put = beside
    try:
        with open_model(gpu.plan) as model:
            for _ in range(3):
                np.testing.assert_allclose(model.probabilities(tiles()[0]), expected(gpu, tiles())[0], atol=1e-6)
    finally:
        fake_pycuda.put = put
    assert seen
    assert "cuGraphLaunch" in LOG
    assert not caplog.records


def test_no_garbage_is_collected_while_a_run_is_captured(gpu, caplog):
    """Garbage that holds memory of the GPU, whoever's: its freeing would spoil the capture, and not free."""
    memory = importlib.import_module("dlink.trt_runtime.device_arrays").DeviceMemory
    put, kept, before = fake_pycuda.put, [], gc.get_threshold()

    class Cycle:
        def __init__(self, memory):
            self.memory, self.me = memory, self

    def littering(stream, work):
        if fake_pycuda.HELD["stream"][stream].captured is not None:
            [Cycle(kept.pop()) for _ in range(len(kept))]
            assert [[] for _ in range(1000)]  # so that Python would collect
        put(stream, work)

    fake_pycuda.put = littering
    try:
        with open_model(gpu.plan, slots=1) as model:
            for threshold in (0.3, 0.4, 0.5):
                kept.append(memory(64))
                gc.set_threshold(10)
                model.backend.start(tiles(), None, "mask", threshold)()
                gc.set_threshold(*before)
                assert gc.isenabled()
            assert LOG.count("cuStreamEndCapture") == 3
    finally:
        fake_pycuda.put = put
        gc.set_threshold(*before)
    assert not caplog.records
    assert fake_pycuda.nothing_is_held()


def test_a_program_without_garbage_collection_stays_so(gpu):
    gc.disable()
    try:
        with open_model(gpu.plan) as model:
            model.mask(tiles()[0])
        assert "cuStreamEndCapture" in LOG
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_close_frees_everything_once(gpu):
    backend = open_backend(gpu.plan)
    assert fake_pycuda.MEMORY
    backend.close()
    assert fake_pycuda.nothing_is_held()
    assert LOG[-3:] == ["push", "detach", "cuCtxPopCurrent_v2"]
    backend.close()
    assert LOG.count("detach") == 1
    for use in (lambda: backend.probabilities(tiles()), lambda: backend.layer_times(1), lambda: backend.start(tiles())):
        with pytest.raises(Closed, match="this model is closed"):
            use()


def test_a_forked_child_is_refused_and_frees_nothing(gpu):
    backend = open_backend(gpu.plan)
    context = multiprocessing.get_context("fork")
    said = context.Queue()

    def child():
        try:
            backend.probabilities(tiles())
        except Closed as e:
            said.put(str(e))
        calls = len(LOG)
        backend.close()
        said.put(len(LOG) - calls)

    process = context.Process(target=child)
    process.start()
    assert "opened in another process, and its engine does not survive a fork" in said.get(timeout=30)
    assert said.get(timeout=30) == 0
    process.join()
    backend.close()


def test_a_thread_that_dies_within_a_call_does_no_harm(gpu):
    backend = open_backend(gpu.plan)
    backend.probabilities(tiles())
    for name in ("cuGraphLaunch", "synchronize", "spread", "upload"):
        STATE.fail[name] = KeyboardInterrupt()
        views = (0,) if name in ("spread", "upload") else None
        if name == "cuGraphLaunch":
            STATE.fail["execute"] = KeyboardInterrupt()
        with suppress(KeyboardInterrupt):
            backend.probabilities(tiles(), views)
        STATE.fail.clear()
        assert fake_pycuda.depth() == 0
        for _ in range(4):
            np.testing.assert_allclose(backend.probabilities(tiles()), expected(gpu, tiles()), atol=1e-6)
    backend.close()
    assert fake_pycuda.nothing_is_held()


def open_to_close(machine):
    """Open, run plainly and as a graph on both slots, and close."""
    backend = open_backend(machine.plan)
    try:
        for _ in range(2):
            runs = [backend.start(tiles(seed=seed)) for seed in range(2)]
            for seed, run in enumerate(runs):
                yield run(), seed
    finally:
        backend.close()


def test_an_error_at_any_call_is_ours_and_leaves_nothing_behind(gpu):
    for _ in open_to_close(gpu):
        pass
    calls = list(LOG)
    pushes = [at for at, name in enumerate(calls) if name == "push"]
    last = pushes[-2]  # memory is freed behind it; the one that follows is to let the context go
    outcomes, right = set(), [expected(gpu, tiles(seed=seed)) for seed in range(2)]
    for at in range(len(calls)):
        for error in (
            fake_pycuda.LogicError("an illegal memory access was encountered"),
            fake_pycuda.MemoryError("out"),
        ):
            fake_pycuda.reset()
            STATE.fail_at, STATE.error = at, error
            try:
                for found, seed in open_to_close(gpu):
                    np.testing.assert_allclose(found, right[seed], atol=1e-6)
                outcomes.add("mended")
            except DlinkError as e:
                outcomes.add(type(e).__name__)
                assert str(gpu.plan) in str(e)
                assert "\n" not in str(e)
            if fake_pycuda.MEMORY or any(HELD.values()):
                gc.collect()  # errors and their frames are cycles
            assert fake_pycuda.depth() == 0, calls[at]
            if at != last:  # where the context can't be had, nothing can be given back
                assert not fake_pycuda.MEMORY, calls[at]
                assert not any(HELD.values()), calls[at]
    assert outcomes == {"mended", "NoEngine", "GpuFailed"}


def test_after_a_cuda_error_nothing_is_run_again(gpu):
    backend = open_backend(gpu.plan)
    STATE.fail["synchronize"] = fake_pycuda.LogicError("an illegal memory access was encountered")
    with pytest.raises(GpuFailed, match=r"roads.plan: the GPU failed: an illegal memory .*; open the model again"):
        backend.probabilities(tiles())
    STATE.fail.clear()
    LOG.clear()
    with pytest.raises(GpuFailed, match="the GPU has failed before: an illegal memory access"):
        backend.probabilities(tiles())
    assert LOG == []
    backend.close()


def test_an_address_that_tensorrt_does_not_take_is_said(gpu):
    gpu.trt.refuses_addresses = True
    with pytest.raises(GpuFailed, match="TensorRT does not take an address for image; its messages are above"):
        open_model(gpu.plan)
    assert fake_pycuda.nothing_is_held()


def test_what_tensorrt_can_not_run_is_said(gpu):
    with open_model(gpu.plan) as model:
        gpu.trt.refuses_to_run = True
        with pytest.raises(GpuFailed, match="TensorRT could not run the network; its messages are above"):
            model.mask(tiles()[0])
        gpu.trt.refuses_to_run = False
        model.mask(tiles()[0])
    assert not fake_pycuda.MEMORY


def test_too_little_memory_says_what_was_needed_what_was_free_and_what_fits(machine):
    there = machine(options=Options(max_tiles=4))
    needed = importlib.import_module("dlink.trt_runtime.tensorrt_backend").memory_needed(there.plan)
    assert needed.total == needed.plan + 2 * needed.slot
    assert needed.batch == 32 * 3 * SIDE * SIDE * 4
    assert "alloc" not in LOG
    slot = f"{needed.slot / 1e6:,.0f}"
    for free, advice in (
        (needed.slot * 1.5, "open it with slots=1"),
        (needed.slot * 0.6, "build it with --max-tiles 2"),
        (needed.slot * 0.1, "build it with --views 1, or with a smaller tile"),
    ):
        STATE.free = int(free)
        said = f"not enough memory on the GPU: 2 slots need {2 * needed.slot / 1e6:,.0f} MB beside the weights, "
        with pytest.raises(NoEngine) as e:
            open_model(there.plan)
        assert said + f"{STATE.free / 1e6:,.0f} MB free; {advice}" in str(e.value)
        assert fake_pycuda.nothing_is_held()
    STATE.free = int(needed.slot * 1.5)
    open_model(there.plan, slots=1).close()
    assert slot


def test_weights_that_do_not_fit_are_not_loaded(gpu):
    STATE.free = 100
    with pytest.raises(NoEngine, match="not enough memory on the GPU: its weights take 0 MB, 0 MB free"):
        open_model(gpu.plan)
    assert gpu.trt.asked["loaded"] == []


def test_a_jetsons_shared_memory_saves_the_copies(gpu):
    STATE.integrated = True
    with open_model(gpu.plan) as model:
        for _ in range(3):
            np.testing.assert_allclose(model.probabilities(tiles()[0]), expected(gpu, tiles())[0], atol=1e-6)
    assert not {"upload", "download"} & set(LOG)
    assert fake_pycuda.nothing_is_held()


def test_on_a_jetson_memory_is_what_linux_would_give_and_too_little_is_a_warning(gpu, tmp_path, monkeypatch, caplog):
    STATE.integrated, STATE.free = True, 100  # the rest is Linux's page cache
    memory = importlib.import_module("dlink.trt_runtime.memory")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    for kilobytes, warned in ((4 << 20, False), (1, True)):
        memory.MEMINFO.write_text(f"MemTotal:       9000000 kB\nMemFree:   1 kB\nMemAvailable:   {kilobytes} kB\n")
        caplog.clear()
        with open_model(gpu.plan) as model:
            np.testing.assert_allclose(model.probabilities(tiles()[0]), expected(gpu, tiles())[0], atol=1e-6)
        assert ("not enough memory on the GPU: 2 slots need" in caplog.text) is warned
    memory.MEMINFO.unlink()
    open_model(gpu.plan).close()
    assert "0 MB free" in caplog.text


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
    with pytest.raises(
        BadPlan, match=r"its inputs and outputs are image \(3, 64, 64\), road \(1, 64, 64\), not an image of 32 px"
    ):
        open_model(path)
    assert fake_pycuda.nothing_is_held()


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


def test_a_plan_is_explained_with_its_layers_times(gpu, monkeypatch):
    monkeypatch.setattr("dlink.engine.versions.look_for_gpus", lambda: HERE.gpus)
    monkeypatch.setattr("dlink.engine.versions.choose_for_polygraphy", lambda target: None)  # one for a process
    said = call("inspect", gpu.plan, "--explain").stdout
    assert "CaskConvolution" in said


def test_without_pycuda_the_module_is_named(gpu, monkeypatch):
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"pycuda"):
        open_model(gpu.plan)
    importlib.invalidate_caches()


def test_the_gpu_benchmark_checks_roads_and_keeps_the_verdict(machine, tmp_path):
    gpu = machine(network=write_pointwise)
    from dlink.cli.gpu import roads
    from dlink.trt_runtime.manifest import parse, read_bytes
    from tests.support.calibrated import folder_of
    from tests.support.models import write_conv

    tiles = folder_of(tmp_path / "tiles", 2, 128)
    found = roads(gpu.plan, parse(read_bytes(gpu.plan), gpu.plan), gpu.onnx, tiles)
    assert (found["same"], found["tiles"], [s["views"] for s in found["settings"]]) == (True, 2, [8, 1])
    assert parse(read_bytes(gpu.plan), gpu.plan).verdict.same_roads
    other = write_conv(tmp_path / "other.onnx", SPEC, np.full((1, 1), -2.0))
    found = roads(gpu.plan, parse(read_bytes(gpu.plan), gpu.plan), other, tiles)
    assert not found["same"]
    assert "agree" in found["why"][0]


def test_a_check_is_written_into_the_manifest_bound_to_the_plan(machine, tmp_path):
    gpu = machine(network=write_pointwise)
    from dlink.trt_runtime.manifest import parse, read_bytes
    from dlink.trt_runtime.plan import read_plan
    from tests.support.calibrated import folder_of

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
    from tests.support.models import write_conv

    other = write_conv(tmp_path / "other.onnx", SPEC, np.full((1, 1), -2.0))
    _, verdict = check(other, 1)
    assert not verdict.same_roads
    assert verdict.words.startswith("NOT the same roads")
    assert manifest_of(gpu.plan).exists()
    assert MANIFEST.verdict is None


WHITE, BLACK = np.full((SIDE, SIDE, 3), 255, np.uint8), np.zeros((SIDE, SIDE, 3), np.uint8)
NAN_OF_BLACK = replace(SPEC, views=(0,), shift=(0.0, 0.0, 0.0))  # 0 times infinity; 1 of white


def infinite(path, spec):
    return write_conv(path, spec, np.full((1, 1), np.inf))


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "rtx"])
@pytest.mark.parametrize("form", ["mask", "levels", "probabilities"])
def test_what_is_no_probability_is_engine_failed_and_names_the_tile(machine, version, form):
    gpu = machine(version, Options(max_tiles=2), NAN_OF_BLACK, infinite)
    with open_model(gpu.plan, halo=0) as model:
        for _ in range(2):  # plainly, and as a graph
            with pytest.raises(
                EngineFailed, match="the tile at rows 0 to 64, columns 0 to 64: the network gives values"
            ):
                getattr(model, form)(np.hstack([BLACK] * 3))
    assert fake_pycuda.nothing_is_held()


def test_a_tile_at_fault_leaves_the_others_of_its_batch(machine):
    gpu = machine(options=Options(max_tiles=4, views=1), spec=NAN_OF_BLACK, network=infinite)
    backend = open_backend(gpu.plan)
    with pytest.raises(NoProbability) as e:
        backend.start([WHITE, BLACK, WHITE], form="mask")()
    assert (e.value.tiles, e.value.roads[[0, 2]].min()) == ((1,), 255)
    del e
    assert backend.start([WHITE] * 4, form="mask")().min() == 255
    backend.close()
