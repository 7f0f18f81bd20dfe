"""The engine in a process of its own: the same roads, and what happens when it ends, is stuck or cannot open."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest

from dlink.live import Live, Lost, supervisor
from dlink.live.opening import opener
from dlink.live.process import Process
from dlink.live.wire import COMPUTE, MEMORY, Memory, Request, needed, new_memory, receive_reply, send_request
from dlink.runtime import BadInput, BadModel, Spec, open_model
from tests.support.models import write_blur

SIDE = 64
pytestmark = pytest.mark.skipif(not hasattr(socket, "send_fds"), reason="needs file descriptors through sockets")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_blur(tmp_path_factory.mktemp("model") / "roads.onnx", Spec(tile=SIDE, threshold=0.4), 3)


@pytest.fixture
def process(path):
    process = Process(path, {"threads": 1})
    yield process
    process.close()


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def wait_for(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_worker_finds_the_roads_that_the_model_finds_here(process, path):
    with open_model(path, threads=1) as model:
        assert process.about.spec == model.spec
        assert (process.about.halo, process.about.threshold) == (model.halo, 0.4)
        for height, width, views in ((50, 30, 8), (200, 300, 1), (40, 40, 4), (150, 90, "adaptive")):
            picture = image(height, width, seed=height)
            made = process.levels(picture, views, patience=60)
            np.testing.assert_array_equal(made.levels, model.levels(picture, views))
            assert 1 <= made.views <= 8 and made.seconds > 0


def test_an_image_that_cannot_be_computed_is_this_images_fault_alone(process):
    with pytest.raises(BadInput, match="must be uint8"):
        process.levels(image(20, 20)[..., :2], 1, patience=60)
    assert process.levels(image(20, 20), 1, patience=60).levels.shape == (20, 20)


@pytest.mark.parametrize(("name", "error"), [("missing.onnx", BadInput), ("damaged.onnx", BadModel)])
def test_a_model_that_cannot_be_opened_raises_what_open_model_raises(tmp_path, name, error):
    (tmp_path / "damaged.onnx").write_bytes(b"no graph")
    with pytest.raises(error) as here:
        open_model(tmp_path / name)
    with pytest.raises(error) as there:
        Live(tmp_path / name)
    assert str(there.value) == str(here.value)


def test_an_option_of_the_model_reaches_the_worker(path):
    with Live(path, halo=5, threshold=0.7, threads=1) as live:
        assert (live.engine.about.halo, live.engine.about.threshold) == (5, 0.7)
    with pytest.raises(BadInput, match="halo"):
        Live(path, halo=-1)


def test_a_killed_worker_is_seen_and_replaced_and_no_frame_comes_twice(path):
    outcomes = SimpleQueue()
    with Live(path, deadline=None, outcomes=outcomes.put, threads=1) as live:
        first = live.engine.engine
        os.kill(first.pid, signal.SIGKILL)
        wait_for(lambda: live.engine.restarts == 1)  # idle, and seen nevertheless
        wait_for(lambda: live.state == "running")
        assert live.engine.engine.pid != first.pid and not first.alive()
        number = live.offer(image(40, 40))
        assert live.latest(timeout=60).frame.id == number
    assert outcomes.get().what == "roads" and outcomes.empty()


def test_a_worker_that_is_killed_over_a_frame_fails_that_frame_alone(path):
    big, outcomes = image(2500, 2500), SimpleQueue()
    with Live(path, deadline=None, views=8, keep="all", outcomes=outcomes.put, threads=1) as live:
        live.offer(big)
        live.offer(image(40, 40))
        live.end()
        wait_for(lambda: live.computing)
        time.sleep(0.2)
        os.kill(live.engine.engine.pid, signal.SIGKILL)
        assert [roads.frame.id for roads in live] == [1]
    failed, done = outcomes.get(), outcomes.get()
    assert (failed.frame.id, failed.what, done.frame.id, done.what) == (0, "failed", 1, "roads")
    assert failed.error == "Lost: the worker was ended by signal 9"


@pytest.mark.parametrize("process", [True, False])
def test_a_model_file_that_is_replaced_is_not_taken(path, tmp_path, process):
    own = tmp_path / "roads.onnx"
    own.write_bytes(path.read_bytes())
    start = opener(own, process, {"threads": 1})
    start().close()
    other = write_blur(tmp_path / "other.onnx", Spec(tile=SIDE, threshold=0.9), 5)
    own.write_bytes(other.read_bytes())
    with pytest.raises(BadModel, match="is another model than at the beginning"):
        start()
    own.write_bytes(path.read_bytes())
    start().close()


def test_a_stopped_worker_is_killed_and_replaced(path, monkeypatch):
    monkeypatch.setattr(supervisor, "LEAST_PATIENCE", 1.0)
    with Live(path, deadline=None, keep="all", views=1, threads=1) as live:
        pid = live.engine.engine.pid
        os.kill(pid, signal.SIGSTOP)
        live.offer(image(40, 40))
        wait_for(lambda: live.counts.failed)
        assert "gave no answer within 1.0 s" in live.engine.error
        live.offer(image(40, 40))
        assert live.latest(timeout=60).frame.id == 1
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_standby_takes_over(path):
    with Live(path, deadline=None, standby=True, threads=1) as live:
        wait_for(lambda: live.engine.spare)
        spare = live.engine.spare.pid
        os.kill(live.engine.engine.pid, signal.SIGKILL)
        wait_for(lambda: live.engine.restarts and live.state == "running")
        assert live.engine.engine.pid == spare
        wait_for(lambda: live.engine.spare)
        pids = [live.engine.engine.pid, live.engine.spare.pid]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_worker_whose_application_is_killed_ends(path):
    code = (
        "import sys\nfrom dlink.live import Live\n"
        f"live = Live({str(path)!r}, threads=1)\nprint(live.engine.engine.pid, flush=True)\nsys.stdin.read()"
    )
    application = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    worker = int(application.stdout.readline())
    application.kill()
    application.communicate()
    wait_for(lambda: not runs(worker))


def runs(pid):
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_closing_ends_a_worker_that_is_busy_or_stopped(path):
    live = Live(path, deadline=None, views=8, threads=1)
    pid = live.engine.engine.pid
    live.offer(image(3000, 3000))
    wait_for(lambda: live.computing)
    os.kill(pid, signal.SIGSTOP)
    live.close()
    assert (live.counts.left, live.counts.failed) == (1, 0)
    assert not runs(pid)


def test_a_worker_that_is_listening_serves_one_program_after_another(path, tmp_path):
    place = tmp_path / "roads.sock"
    worker = subprocess.Popen(
        [sys.executable, "-m", "dlink.live.worker", path, "--socket", place, "--options", '{"threads": 1}'],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert f"serves {path} at {place}" in worker.stderr.readline()
        assert place.stat().st_mode & 0o777 == 0o600
        second = [sys.executable, "-m", "dlink.live.worker", path, "--socket", place]
        done = subprocess.run(second, capture_output=True, text=True, timeout=100)
        assert done.returncode == 1 and "a worker serves there" in done.stderr
        with open_model(path, threads=1) as model:
            for seed in (1, 2):
                picture = image(90, 50, seed)
                np.testing.assert_array_equal(asked(place, picture), model.levels(picture, 4))
    finally:
        worker.send_signal(signal.SIGINT)
        worker.communicate(timeout=60)
    assert worker.returncode == 0 and not place.exists()


def asked(place, picture):
    """Roads of a picture by a worker at a path, with four views."""
    height, width, channels = picture.shape
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(place))
        assert '"threshold": 0.4' in receive_reply(link).text
        size = needed(height, width, channels)
        fd = new_memory(size)
        memory = Memory(fd, size)
        send_request(link, Request(MEMORY, size=size), fd)
        os.close(fd)
        memory.image(height, width, channels)[:] = picture
        send_request(link, Request(COMPUTE, 7, height, width, channels, 4))
        reply = receive_reply(link)
        assert (reply.status, reply.id, reply.views) == (0, 7, 4.0)
        return np.array(memory.levels(height, width, channels))


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(COMPUTE, 1, 10, 10, 3, 1), "the program gave less"),
        (Request(COMPUTE, 1, 10, 10, 3, 3), "the program gave less"),
        (Request(9, 1), "the program gave less"),
    ],
)
def test_a_worker_refuses_what_it_cannot_do_and_goes_on(process, request_, words):
    send_request(process.link, request_)
    with pytest.raises(BadInput, match=words):
        process.answer(60)
    assert process.levels(image(20, 20), 1, patience=60).levels.shape == (20, 20)


def test_a_worker_is_not_killed_by_memory_that_is_too_short(process):
    fd = new_memory(100)
    send_request(process.link, Request(MEMORY, size=10**6), fd)
    os.close(fd)
    with pytest.raises(Lost):
        process.answer(60)
    assert process.process.wait(60) == 0  # it said why and left, instead of a crash


def test_many_threads_offer_and_each_frame_is_counted_once(path):
    with Live(path, deadline=None, keep=3, views=1, threads=1) as live:
        threads = [threading.Thread(target=lambda: [live.offer(image(20, 20)) for _ in range(50)]) for _ in range(8)]
        [thread.start() for thread in threads]
        [thread.join(60) for thread in threads]
        live.end()
        ids = [roads.frame.id for roads in live]
    assert live.counts.offered == 400 and live.counts.add_up
    assert ids == sorted(set(ids)) and ids[-1] == 399


def test_a_worker_does_not_take_modules_of_the_current_folder(path, tmp_path):
    (tmp_path / "openvino.py").write_text("raise SystemExit('taken from the current folder')")
    code = (
        "import sys; sys.path.remove('')\nfrom dlink.live import Live\n"
        f"with Live({str(path)!r}, threads=1) as live:\n    print(live.state)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, "running\n"), done.stderr
