"""Several tiles side by side: the same roads in the same order, errors, waiting, closing, exits and forks."""

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from dlink.runtime import BadInput, Closed, EngineFailed, HostBackend, NoProbability, Segmenter, Spec, open_model
from dlink.runtime.life import LIVES
from dlink.runtime.slotted import Slotted
from tests.support.models import write_blur

SIDE = 32
ROOT = Path(__file__).parents[2]


def bright(x):
    return 1 / (1 + np.exp(-2 * x[:, 2]))


def slotted(net=bright, slots=3, spec=None):
    spec = spec or Spec(tile=SIDE, views=(0,))
    return Slotted([HostBackend(net, spec, engine="NumPy") for _ in range(slots)])


def picture(height=100, width=170, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def tile(value=0):
    return np.full((1, SIDE, SIDE, 3), value, np.uint8)


class Gate:
    """A network that says when a run has begun, and ends it when it is let through."""

    def __init__(self):
        self.begun, self.through = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, x):
        self.begun.release()
        assert self.through.acquire(timeout=30)
        return bright(x)


@pytest.mark.parametrize("views", [1, 8, "adaptive"])
@pytest.mark.parametrize("call", ["probabilities", "mask", "submit"])
def test_several_slots_give_the_roads_of_one(views, call):
    one = Segmenter(HostBackend(bright, Spec(tile=SIDE)), halo=4)
    with Segmenter(slotted(spec=Spec(tile=SIDE)), halo=4) as model:
        for image in (picture(), picture(20, 20), picture(SIDE, 5 * SIDE, 1)):
            expected, found = (getattr(m, call)(image, views) for m in (one, model))
            if call == "submit":
                expected, found = expected.result(30), found.result(30)
            np.testing.assert_array_equal(found, expected)
    one.close()


def test_openvino_with_several_slots_gives_the_bits_of_one(tmp_path):
    path, image = write_blur(tmp_path / "blur.onnx", Spec(tile=64), 5), picture(300, 400)
    with open_model(path, slots=1) as one, open_model(path, slots=2) as two:
        assert two.backend.slots == min(2, os.cpu_count())
        assert two.backend.engine == one.backend.engine + (", 2 slots" if two.backend.slots == 2 else "")
        assert two.backend.executed == one.backend.executed
        np.testing.assert_array_equal(two.probabilities(image), one.probabilities(image))
        futures = [two.submit(picture(90, 80, seed)) for seed in range(9)]
        for seed, future in enumerate(futures):
            np.testing.assert_array_equal(future.result(30), one.mask(picture(90, 80, seed)))


def test_an_onnx_file_has_no_more_slots_than_threads(tmp_path):
    path = write_blur(tmp_path / "blur.onnx", Spec(tile=64), 1)
    with open_model(path, slots=2, threads=1) as model:
        assert model.backend.slots == 1
    with open_model(path) as model:
        assert model.backend.slots == 1


def test_as_many_runs_as_slots_are_under_way_and_one_more_waits():
    gate = Gate()
    backend = slotted(gate, slots=2)
    runs = [backend.start(tile(value)) for value in (10, 20)]
    for _ in runs:
        assert gate.begun.acquire(timeout=30)  # both compute at once
    third = []
    waiter = threading.Thread(target=lambda: third.append(backend.start(tile(30))))
    waiter.start()
    assert not gate.begun.acquire(timeout=0.1)
    assert not third
    for _ in range(3):
        gate.through.release()
    waiter.join(30)
    for value, run in zip((10, 20, 30), [*runs, *third], strict=True):
        np.testing.assert_array_equal(run(), run())
        assert run()[0, 0, 0] == pytest.approx(1 / (1 + np.exp(-2 * (value / 255 * 3.2 - 1.6))), abs=1e-6)
    backend.close()


def test_one_thread_may_start_more_runs_than_slots_before_it_asks_for_a_result():
    backend = slotted(slots=2)
    runs = [backend.start(tile(10 * i)) for i in range(12)]
    found = [float(run().max()) for run in reversed(runs)]
    assert found == sorted(found, reverse=True)
    backend.close()


def test_the_pixels_may_change_once_a_run_has_started():
    gate = Gate()
    backend = slotted(gate, slots=1)
    pixels = tile(200)
    for tiles in (pixels, [pixels[0]]):
        pixels[:] = 200
        run = backend.start(tiles)
        pixels[:] = 0
        gate.through.release()
        assert run().min() > 0.5
    with Segmenter(backend) as model:
        pixels[:] = 200
        run = model.adaptive.start(pixels)
        pixels[:] = 0
        gate.through.release(8)
        assert run().min() > 0.5


def test_what_is_wrong_with_a_call_is_said_at_once_and_takes_no_slot():
    backend = slotted(slots=1)
    for tiles, views in ((tile()[:, 1:], None), (np.concatenate([tile(), tile()]), None), (tile(), [9])):
        with pytest.raises(BadInput):
            backend.start(tiles, views)
    assert backend.probabilities(tile()).shape == (1, SIDE, SIDE)
    backend.close()


def test_errors_come_from_the_run_that_failed_and_leave_the_slots_usable():
    def net(x):
        if x.max() > 1.5:
            raise RuntimeError("no memory")
        return np.full((1, SIDE, SIDE), np.nan if x.max() > 1 else 0.25, np.float32)

    backend = slotted(net, slots=2)
    runs = [backend.start(tile(value)) for value in (0, 255, 230, 0)]
    with pytest.raises(EngineFailed, match="NumPy failed while it ran the network: no memory"):
        runs[1]()
    with pytest.raises(NoProbability):
        runs[2]()
    assert runs[0]().max() == runs[3]().max() == 0.25
    with Segmenter(backend, halo=0) as model:
        image = np.zeros((SIDE, 3 * SIDE, 3), np.uint8)
        image[:, 2 * SIDE :] = 230
        for call in (model.mask, lambda i: model.mask(i, "adaptive"), lambda i: model.submit(i).result(30)):
            with pytest.raises(NoProbability, match="the tile at rows 0 to 32, columns 64 to 96"):
                call(image)
        assert model.mask(image[:, : 2 * SIDE]).max() == 0


def test_the_time_spent_is_that_of_all_slots():
    def net(x):
        time.sleep(0.02)
        return bright(x)

    backend = slotted(net, slots=2)
    [run() for run in [backend.start(tile()) for _ in range(4)]]
    assert 0.08 <= backend.spent.network < 8
    backend.close()


def test_close_ends_the_runs_under_way_before_their_next_view_and_frees():
    gate = Gate()
    backend = slotted(gate, slots=2, spec=Spec(tile=SIDE))
    runs = [backend.start(tile()) for _ in range(2)]
    for _ in runs:
        assert gate.begun.acquire(timeout=30)
    closers = [threading.Thread(target=backend.close) for _ in range(3)]
    [thread.start() for thread in closers]
    gate.through.release(2)  # one view each
    [thread.join(30) for thread in closers]
    assert not any(thread.is_alive() for thread in (*closers, *backend.threads))
    assert [host.net for host in backend.hosts] == [None, None]
    for run in runs:
        with pytest.raises(Closed):
            run()
    with pytest.raises(Closed, match="this model is closed; open it again"):
        backend.start(tile())


def test_who_waits_for_a_slot_of_a_model_that_is_closed_hears_of_it():
    gate = Gate()
    backend = slotted(gate, slots=1)
    backend.start(tile())
    said = []

    def use():
        try:
            backend.probabilities(tile())
        except Closed as e:
            said.append(str(e))

    users = [threading.Thread(target=use) for _ in range(3)]
    [thread.start() for thread in users]
    assert gate.begun.acquire(timeout=30)
    while backend.tasks.qsize() < 3:
        time.sleep(0.001)
    closer = threading.Thread(target=backend.close)
    closer.start()
    while not backend.closed:
        time.sleep(0.001)
    gate.through.release()
    [thread.join(30) for thread in (*users, closer)]
    assert said == ["this model is closed; open it again"] * 3


@pytest.mark.parametrize("submitted", [False, True])
def test_a_slots_own_thread_may_close_the_model(submitted):
    """As a destructor does that the garbage collector runs there."""
    before = len(LIVES)
    model = Segmenter(slotted(slots=2), halo=0)
    if submitted:
        model.submit(picture()).result(30)
    run = model.backend.on_a_slot(lambda host: model.close() or tile())
    assert run().shape == tile().shape
    [thread.join(30) for thread in model.backend.threads]
    assert [host.net for host in model.backend.hosts] == [None, None]
    assert model.life.freed.wait(30)
    assert len(LIVES) == before


@pytest.mark.parametrize("way", ["backend", "model", "used"])
def test_a_model_that_is_dropped_ends_its_threads_and_frees_its_networks(way):
    backend = slotted(slots=2)
    threads, hosts, seen = backend.threads, backend.hosts, weakref.ref(backend)
    if way != "backend":
        model = Segmenter(backend, halo=0)
        if way == "used":
            model.submit(picture()).result(30)
        del model
    del backend
    gc.collect()
    [thread.join(30) for thread in threads]
    assert not any(thread.is_alive() for thread in threads)
    assert [host.net for host in hosts] == [None, None]
    end = time.monotonic() + 30
    while seen() is not None and time.monotonic() < end:  # a worker of `submit` may be about to let go of it
        gc.collect()
        time.sleep(0.01)
    assert seen() is None


def test_an_idle_slot_keeps_no_pixels_even_after_an_error():
    class Answer(np.ndarray):
        pass

    gc.disable()  # nothing may hang on a cycle
    try:
        for fails in (False, True):
            seen = []

            def net(x, fails=fails, seen=seen):
                seen.append(weakref.ref(x))
                if fails:
                    raise RuntimeError("no memory")
                return bright(x)

            backend = slotted(net, slots=1)
            run = backend.start(tile())
            with suppress(EngineFailed):
                run()
            del run
            assert backend.on_a_slot(lambda host: tile())().max() == 0  # the slot has let go of the first task
            assert [ref() for ref in seen] == [None]
            backend.close()
    finally:
        gc.enable()


BEGIN = """
import os, sys, threading, time
import numpy as np
from dlink.runtime import Closed, open_model
from dlink.runtime.life import LIVES
from dlink.runtime.spec import Spec
from tests.support.models import write_blur
from pathlib import Path
path = write_blur(Path(sys.argv[1]), Spec(tile=256), 7)
image = np.full((256, 256, 3), 200, np.uint8)
long = np.zeros((5120, 5120, 3), np.uint8)  # 900 tiles: minutes
model = open_model(path, slots=2)
"""


def run(tmp_path, code):
    """What a program of its own says and exits with, after BEGIN. One that hangs is a failure."""
    command = [sys.executable, "-c", BEGIN + code, str(tmp_path / "blur.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    return done.returncode, done.stdout.split(), done.stderr


@pytest.mark.parametrize(
    "begin", ["model.submit(long)", "threading.Thread(target=model.mask, args=(long,), daemon=True).start()"]
)
def test_a_process_that_ends_at_work_keeps_its_exit_code(tmp_path, begin):
    code, _, said = run(tmp_path, f"{begin}\ntime.sleep(0.3)\nsys.exit(3)")
    assert code == 3
    assert "terminate" not in said
    assert "Fatal" not in said


def test_a_forked_child_is_refused_and_ends(tmp_path):
    code = """
model.submit(image).result()
thread = threading.Thread(target=model.mask, args=(long,), daemon=True)
thread.start()
time.sleep(0.1)
pid = os.fork()
if not pid:
    for call in (lambda: model.submit(image), lambda: model.mask(image), lambda: model.backend.probabilities([image])):
        try:
            call()
        except Closed as e:
            print(str(e).partition(",")[0].replace(" ", "_"), flush=True)
    model.close()
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), model.mask(image).shape[0])
"""
    refused = ["this_model_was_opened_in_another_process"] * 3
    code, said, _ = run(tmp_path, code)
    assert (code, said) == (0, [*refused, "7", "256"])


def test_threads_that_go_on_when_the_main_thread_has_ended_still_use_the_model(tmp_path):
    code = """
def work():
    threading.main_thread().join()
    print(model.mask(image).shape[0], model.submit(image).result().shape[0])
threading.Thread(target=work).start()
"""
    assert run(tmp_path, code) == (0, ["256", "256"], "")


def test_both_slots_may_be_the_first_to_compute_in_their_process(tmp_path):
    """Six of twenty such processes hung when OpenVINO took its first array on two threads at once."""
    code = """
sys.setswitchinterval(1e-6)
for run in [model.backend.start(image[None]) for _ in range(4)]: run()
model.close()
"""
    for _ in range(8):
        assert run(tmp_path, code) == (0, [], "")


def test_ctrl_c_does_not_wait_for_the_image(tmp_path):
    code = """
import signal
signal.signal(signal.SIGALRM, signal.default_int_handler)
try:
    with model:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        model.mask(long)
except KeyboardInterrupt:
    print(len(LIVES), sum(thread.is_alive() for thread in model.backend.threads))
"""
    assert run(tmp_path, code) == (0, ["0", "0"], "")
