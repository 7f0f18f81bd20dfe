"""How a model ends, and what becomes of it when its process ends or forks: each in a process of its own."""

import gc
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError, as_completed
from pathlib import Path

import numpy as np
import pytest

from dlink.runtime import Closed, EngineFailed, HostBackend, Segmenter, Spec
from dlink.runtime.life import LIVES

ROOT = Path(__file__).parents[2]
BEGIN = """
import os, signal, sys, threading, time
import numpy as np
from dlink.runtime import Closed, open_model
from dlink.runtime.life import LIVES
from dlink.runtime.spec import Spec
from tests.support.models import write_blur
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins deaf to it
path = write_blur(Path(sys.argv[1]), Spec(tile=256), 7)
image = np.full((256, 256, 3), 200, np.uint8)
long = np.zeros((5120, 5120, 3), np.uint8)  # 900 tiles: minutes
model = open_model(path)
"""


def run(tmp_path, code, seconds=60):
    """What a program of its own says and exits with, after BEGIN. One that hangs is a failure."""
    command = [sys.executable, "-c", BEGIN + code, str(tmp_path / "blur.onnx")]
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=ROOT)
    return done.returncode, done.stdout.split(), done.stderr, time.monotonic() - begun


def test_close_in_a_futures_callback_ends_and_frees(tmp_path):
    code = """
future = model.submit(image)
future.add_done_callback(lambda _: model.close())
future.result()
model.close()  # waits for the callback's
print(len(LIVES))
"""
    assert run(tmp_path, code)[:3] == (0, ["0"], "")


def test_two_models_whose_callbacks_close_each_other_end(tmp_path):
    code = """
other = open_model(path)
def close(first, second):
    time.sleep(0.2)
    first.close(), second.close()
pair = [model.submit(image), other.submit(image)]
pair[0].add_done_callback(lambda _: close(other, model))
pair[1].add_done_callback(lambda _: close(model, other))
model.close(), other.close()
print(len(LIVES))
"""
    assert run(tmp_path, code)[:3] == (0, ["0"], "")


def test_a_signal_within_submit_leaves_nothing_locked(tmp_path):
    code = """
import dlink.runtime.pipeline as pipeline
left = [5]
def interrupt(frame, event, argument):  # wherever a call within submit returns
    inside = {f.f_code for f in (frame, frame.f_back) if f}
    if event == "c_return" and pipeline.Pipeline.submit.__code__ in inside:
        left[0] -= 1
        if not left[0]:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)
for at in range(1, 40):
    left[0] = at
    try:
        with open_model(path) as one:
            sys.setprofile(interrupt)
            for _ in range(3): one.submit(image)
    except KeyboardInterrupt:
        pass
    sys.setprofile(None)
model.close()
print(len(LIVES))
"""
    assert run(tmp_path, code)[:3] == (0, ["0"], "")


@pytest.mark.parametrize("call", ["mask", "submit"])
def test_a_signal_as_a_call_begins_keeps_neither_the_model_nor_the_process(tmp_path, call):
    code = f"""
import contextlib
def interrupt(frame, event, argument):
    if event == "c_return" and frame.f_code is contextlib._GeneratorContextManager.__enter__.__code__:
        sys.setprofile(None)
        signal.raise_signal(signal.SIGINT)
with model:
    sys.setprofile(interrupt)
    model.{call}(image)
"""
    code, _, said, seconds = run(tmp_path, code)
    assert said.splitlines()[-1] == "KeyboardInterrupt"
    assert seconds < 30


def test_close_from_del_within_the_models_own_threads_ends(tmp_path):
    code = """
class Owner:
    def __init__(self): self.model, self.me = model, self
    def __del__(self): self.model.close()
Owner()
future = model.submit(image)
import gc
future.add_done_callback(lambda _: gc.collect())
future.result()
model.close()
print(len(LIVES))
"""
    assert run(tmp_path, code)[:3] == (0, ["0"], "")


def test_close_in_a_signals_handler_frees_when_the_call_it_interrupts_has_ended(tmp_path):
    code = """
def handler(*_):
    model.close()
    print("closed")
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    model.mask(long)
except Closed:
    print(len(LIVES))
"""
    assert run(tmp_path, code)[:3] == (0, ["closed", "0"], "")


def test_a_second_close_returns_when_the_engine_is_freed(tmp_path):
    code = """
[model.submit(image) for _ in range(8)]
first = threading.Thread(target=model.close)
first.start()
model.close()
print(len(LIVES), model.backend.net)
"""
    assert run(tmp_path, code)[:3] == (0, ["0", "None"], "")


def test_close_ends_what_another_thread_is_in_the_middle_of(tmp_path):
    code = """
def work():
    try:
        model.mask(long)
    except Closed:
        print("Closed")
thread = threading.Thread(target=work)
thread.start()
time.sleep(0.3)
model.close()
thread.join()
"""
    code, said, _, seconds = run(tmp_path, code)
    assert (code, said) == (0, ["Closed"])
    assert seconds < 30


@pytest.mark.parametrize(
    "begin", ["model.submit(long)", "threading.Thread(target=model.mask, args=(long,), daemon=True).start()"]
)
def test_a_process_that_ends_at_work_keeps_its_exit_code(tmp_path, begin):
    code, _, said, seconds = run(tmp_path, f"{begin}\ntime.sleep(0.3)\nsys.exit(3)")
    assert code == 3
    assert "terminate" not in said
    assert seconds < 30


def test_an_error_that_ends_a_process_at_work_is_seen(tmp_path):
    code, _, said, _ = run(tmp_path, "model.submit(long)\ntime.sleep(0.2)\nraise SystemError('mine')")
    assert code == 1
    assert said.splitlines()[-1] == "SystemError: mine"


def test_ctrl_c_within_with_does_not_wait_for_the_queue(tmp_path):
    code = """
signal.signal(signal.SIGALRM, signal.default_int_handler)
try:
    with model:
        futures = [model.submit(long) for _ in range(60)]
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        futures[-1].result()
except KeyboardInterrupt:
    print(sum(f.cancelled() for f in futures), type(futures[0].exception()).__name__, len(LIVES))
"""
    code, said, _, seconds = run(tmp_path, code)
    assert (code, said) == (0, ["59", "Closed", "0"])
    assert seconds < 30


def test_a_forked_child_is_refused_and_ends(tmp_path):
    code = """
model.submit(image).result()
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
    assert run(tmp_path, code)[:3] == (0, [*refused, "7", "256"], "")


@pytest.mark.parametrize("close", ["a.close(), b.close()", "b.close(), a.close()", "run(a.close), run(b.close)"])
def test_signals_do_not_run_on_memory_that_a_closed_model_has_given_back(tmp_path, close):
    code = """
import ctypes, gc
class Stack(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
def run(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
a, b = model, open_model(path)
a.submit(image).result(), b.mask(image)
CLOSE
del model, a, b
gc.collect()
now = Stack()
ctypes.CDLL(None).sigaltstack(None, ctypes.byref(now))
at = now.at or 0
maps = [[int(n, 16) for n in line.split()[0].split("-")] for line in open("/proc/self/maps")]
print(not at or any(low <= at and at + now.size <= high for low, high in maps))
"""
    assert run(tmp_path, code.replace("CLOSE", close))[:3] == (0, ["True"], "")


def test_dropped_models_are_freed_with_their_threads_and_memory(tmp_path):
    code = """
import gc, resource
def once():
    open_model(path).submit(image).result()
def rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
for _ in range(3): once()
model.close()
def settle():
    end = time.monotonic() + 20
    while (LIVES or threading.active_count() > 1) and time.monotonic() < end: time.sleep(0.01)
settle()
before = rss()
for _ in range(20): once()
settle()
print(len(LIVES), threading.active_count(), rss() - before < 40)
"""
    assert run(tmp_path, code)[:3] == (0, ["0", "1", "True"], "")


def test_a_dropped_model_still_finishes_what_was_submitted(tmp_path):
    code = "future = model.submit(image)\ndel model\nprint(future.result().shape[0])"
    assert run(tmp_path, code)[:3] == (0, ["256"], "")


SIDE = 32


def slow(x):
    time.sleep(0.01)
    return np.zeros((len(x), SIDE, SIDE), np.float32)


def segmenter(net=slow):
    return Segmenter(HostBackend(net, Spec(tile=SIDE, views=(0,))), halo=0)


def image(tiles=1):
    return np.zeros((SIDE, SIDE * tiles, 3), np.uint8)


def test_who_waits_for_several_images_hears_of_cancelled_ones():
    model = segmenter()
    futures = [model.submit(image(5)) for _ in range(4)]
    assert futures[-1].cancel()
    model.close(cancel=True)
    assert len(list(as_completed(futures, timeout=10))) == 4


def test_cancelling_ends_the_image_under_way_at_its_next_tile():
    model = segmenter()
    first, second = model.submit(image(1000)), model.submit(image())
    time.sleep(0.1)
    model.close(cancel=True)
    with pytest.raises(Closed, match="closed before the image was done"):
        first.result()
    with pytest.raises(CancelledError):
        second.result()


def test_a_model_is_freed_however_many_threads_close_it():
    before = len(LIVES)
    model = segmenter()
    model.submit(image(3))
    threads = [threading.Thread(target=model.close) for _ in range(8)]
    [t.start() for t in threads]
    [t.join(10) for t in threads]
    assert not any(t.is_alive() for t in threads)
    assert (len(LIVES), model.backend.net) == (before, None)


def test_a_callback_that_closes_another_model_frees_it():
    other, model = segmenter(), segmenter()
    model.submit(image()).add_done_callback(lambda _: other.close())
    model.close()
    assert (other.backend.net, other.life.freed.is_set()) == (None, True)


def test_a_model_that_is_dropped_without_a_call_is_freed():
    backend = HostBackend(slow, Spec(tile=SIDE))
    model = Segmenter(backend)
    del model
    gc.collect()
    assert backend.net is None


def test_an_engine_that_fails_is_engine_failed_by_every_way():
    def net(x):
        raise RuntimeError("Exception from src/core.cpp:1:\nno memory")

    model = segmenter(net)
    for call in (model.mask, lambda i: model.submit(i).result()):
        with pytest.raises(EngineFailed, match="NumPy failed while it ran the network: Exception .* no memory"):
            call(image())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.5, -0.5])
@pytest.mark.parametrize("form", ["mask", "levels", "probabilities", "submit"])
def test_what_is_no_probability_is_engine_failed_and_names_the_tile(value, form):
    def net(x):
        prob = np.full((1, SIDE, SIDE), 0.25, np.float32)
        if x.max() > 0:
            prob[0, 3, 4] = value
        return prob

    model = segmenter(net)
    picture = image(3)
    picture[:, 2 * SIDE :] = 255
    with pytest.raises(EngineFailed, match="the tile at rows 0 to 32, columns 64 to 96: the network gives values that"):
        found = getattr(model, form)(picture)
        found.result()
    assert model.mask(image(2)).max() == 0


def test_rounding_outside_0_to_1_is_none_of_that():
    model = segmenter(lambda x: np.full((1, SIDE, SIDE), 1.001, np.float32))
    assert model.probabilities(image()).max() == 1
    assert model.levels(image()).min() == 255


def test_what_is_no_probability_does_not_hide_in_the_mean_of_the_views():
    turn = iter([7, -6] * 8)
    net = lambda x: np.full((1, SIDE, SIDE), next(turn), np.float32)  # noqa: E731
    model = Segmenter(HostBackend(net, Spec(tile=SIDE)), halo=0)
    with pytest.raises(EngineFailed, match="the network gives values that are not probabilities"):
        model.mask(image())


def test_a_callback_that_exits_ends_no_worker(caplog):
    model = segmenter()
    model.submit(image()).add_done_callback(lambda _: sys.exit(3))
    assert model.submit(image()).result(10).shape == (SIDE, SIDE)
    model.close()
    assert "a callback of an image's Future raised SystemExit" in caplog.text


def test_an_idle_model_keeps_no_image():
    class Picture(np.ndarray):
        pass

    model = segmenter()
    picture = image().view(Picture)
    seen = weakref.ref(picture)
    model.submit(picture).result()
    del picture
    end = time.monotonic() + 10
    while seen() is not None and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)
    assert seen() is None
    model.close()
