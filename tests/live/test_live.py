"""Live: which frames are computed, what becomes of the others, and counters that add up."""

import sys
import threading
import time
from queue import SimpleQueue

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlink.live import Live
from dlink.live.frame import What
from dlink.runtime import BadInput, Closed, EngineFailed, HostBackend, Segmenter, Spec

SIDE = 32
WHITE, SLOW, BROKEN, NAN = 255, 254, 253, 252  # red values to which the network below reacts


class Net:
    """Road where red is above one half. Some values make it wait, fail or give what is no probability."""

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.seen = []

    def __call__(self, x):
        red = np.round((x[:, 2] + 1.6) / 3.2 * 255)  # the network takes BGR
        value = int(red[0, 0, 0])
        if value:
            self.seen.append(value)
        if value == SLOW:
            self.begun.set()
            assert self.gate.wait(30)
        if value == BROKEN:
            raise RuntimeError("broken")
        return np.where(red == NAN, np.float32(np.nan), (red / 255).astype(np.float32))


@pytest.fixture
def net():
    net = Net()
    yield net
    net.gate.set()


@pytest.fixture
def model(net):
    with Segmenter(HostBackend(net, Spec(tile=SIDE, views=(0,))), halo=0) as model:
        yield model
        net.gate.set()


def picture(value, height=SIDE, width=SIDE):
    return np.full((height, width, 3), value, np.uint8)


def busy(live, net):
    """A frame under way until the gate is opened."""
    net.gate.clear()
    number = live.offer(picture(SLOW))
    assert net.begun.wait(30)
    return number


def wait_for(true):
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_roads_are_those_of_their_frame(model):
    with Live(model, deadline=None) as live:
        for value in (100, 200):
            number = live.offer(picture(value, 40, 70), captured=5.0, pts=1.5, utc=9.0)
            roads = live.latest(newer_than=number - 1, timeout=30)
            assert (roads.frame.id, roads.frame.pts, roads.frame.utc, roads.frame.captured) == (number, 1.5, 9.0, 5.0)
            assert (roads.levels == value).all() and roads.levels.shape == (40, 70)
            assert (roads.mask == 255 * (value > 127)).all() and (roads.image == value).all()
            assert (roads.views, roads.scale, roads.late) == (1, 1.0, False)
            assert roads.begun <= roads.done and roads.age(now=7.0) == 2.0


def test_the_mask_of_a_level_is_that_of_its_probability():
    for threshold in (0.0, 0.3, 0.5, 0.9):
        with (
            Segmenter(HostBackend(Net(), Spec(tile=SIDE, views=(0,), threshold=threshold)), halo=0) as model,
            Live(model, deadline=None) as live,
        ):
            ramp = np.repeat(np.arange(252, dtype=np.uint8).reshape(6, 42, 1), 3, axis=2)
            live.offer(ramp)
            np.testing.assert_array_equal(live.latest(timeout=30).mask, model.mask(ramp))


def test_the_newest_frame_is_the_next_one(model, net):
    with Live(model, deadline=None) as live:
        busy(live, net)
        numbers = [live.offer(picture(value)) for value in (10, 20, 30)]
        assert live.counts.replaced == 2 and live.counts.waiting == 2
        net.gate.set()
        live.end()
        assert [roads.frame.id for roads in live] == [0, numbers[-1]]
        assert net.seen[-2:] == [SLOW, 30]


def test_so_many_of_the_newest_wait_in_their_order(model, net):
    with Live(model, deadline=None, keep=2) as live:
        busy(live, net)
        [live.offer(picture(value)) for value in (10, 20, 30)]
        net.gate.set()
        live.end()
        assert [roads.frame.id for roads in live] == [0, 2, 3]


def test_all_frames_of_a_file_are_computed_and_the_reader_waits_for_room(model, net):
    with Live(model, deadline=None, keep="all") as live:
        busy(live, net)
        offered = []

        def read():
            offered.extend(live.offer(picture(10)) for _ in range(60))
            live.end()

        reader = threading.Thread(target=read)
        reader.start()
        wait_for(lambda: live.counts.waiting == 5)
        reader.join(0.05)
        assert live.counts.offered == 5  # one under way, four wait
        net.gate.set()
        assert [roads.frame.id for roads in live] == list(range(61))
        reader.join(30)
        assert (live.counts.roads, live.counts.offered, live.unread) == (61, 61, 0)


def test_a_function_is_called_only_for_a_frame_that_is_computed(model, net):
    called = []

    def pixels(value):
        called.append(value)
        return picture(value)

    with Live(model, deadline=None) as live:
        busy(live, net)
        for value in (10, 20, 30):
            live.offer(lambda value=value: pixels(value))
        net.gate.set()
        live.end()
        list(live)
    assert called == [30]


def test_offering_a_frame_does_not_wait_for_the_network(model, net):
    with Live(model, deadline=None) as live:
        busy(live, net)
        assert [live.offer(picture(3)) for _ in range(50)] == list(range(1, 51))
        net.gate.set()


def test_an_array_that_is_used_again_before_its_turn_fails_and_says_why(model, net):
    outcomes = SimpleQueue()
    with Live(model, deadline=None, outcomes=outcomes.put) as live:
        busy(live, net)
        buffer = picture(10)
        live.offer(buffer)
        buffer[:] = 20
        net.gate.set()
        wait_for(lambda: live.counts.failed)
        live.offer(buffer)
        wait_for(lambda: live.counts.roads == 2)
    assert [outcomes.get().what for _ in range(3)] == ["roads", "failed", "roads"]
    assert 20 in net.seen and 10 not in net.seen


@pytest.mark.parametrize(
    ("pixels", "error"),
    [
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: np.zeros((4, 4), np.uint8), "BadInput: an image must be uint8"),
        (lambda: picture(BROKEN), "Lost: NumPy failed while it ran the network: broken"),
        (lambda: picture(NAN), "NoProbability: the tile at rows 0 to 32"),
        (lambda: None, "BadInput: an image must be uint8"),
    ],
)
def test_a_frame_that_fails_fails_alone_and_is_not_tried_again(model, net, pixels, error):
    outcomes = SimpleQueue()
    with Live(model, deadline=None, keep="all", outcomes=outcomes.put) as live:
        live.offer(pixels)
        live.offer(picture(77))
        live.end()
        assert [roads.frame.id for roads in live] == [1]
        assert (live.counts.failed, live.counts.roads) == (1, 1)
    first = outcomes.get()
    assert (first.frame.id, first.what) == (0, "failed") and first.error.startswith(error)
    assert all(net.seen.count(value) <= 1 for value in (BROKEN, NAN))


def test_an_array_that_is_no_image_is_refused_when_it_is_offered(model):
    with Live(model) as live:
        with pytest.raises(BadInput, match="repeat grey"):
            live.offer(np.zeros((4, 4), np.uint8))
        assert live.counts.offered == 0


@pytest.mark.parametrize("captured", [float("nan"), float("inf"), -float("inf"), True, "now"])
def test_a_capture_that_is_no_time_is_refused(model, captured):
    with Live(model) as live, pytest.raises(BadInput, match="captured must be"):
        live.offer(picture(1), captured=captured)


def test_a_capture_in_the_future_is_refused_such_as_a_time_of_another_clock(model):
    with Live(model) as live:
        for captured in (time.time() + 1e9, time.monotonic() + 5):
            with pytest.raises(BadInput, match=r"time\.monotonic"):
                live.offer(picture(1), captured=captured)
        live.offer(picture(1), captured=time.monotonic() + 0.2)  # clocks are not exact
        with pytest.raises(BadInput, match="pose must be"):
            live.offer(picture(1), pose="north")


def test_a_function_for_outcomes_that_fails_stops_nothing(model, caplog):
    with Live(model, deadline=None, keep="all", outcomes=lambda outcome: 1 / 0) as live:
        for _ in range(3):
            live.offer(picture(100))
        live.end()
        assert len(list(live)) == 3 and live.counts.roads == 3
    assert "the function for outcomes failed" in caplog.text


def test_a_function_that_ends_the_program_fails_its_frame(model):
    with Live(model, deadline=None, keep="all") as live:
        for pixels in (lambda: sys.exit(3), picture(100)):
            live.offer(pixels)
        live.end()
        assert [roads.frame.id for roads in live] == [1]
        assert live.counts.failed == 1 and "SystemExit" in live.error


def test_all_frames_of_a_file_have_no_deadline_unless_one_is_given(model):
    with Live(model, keep="all") as all_, Live(model) as newest, Live(model, keep="all", deadline=0.3) as given:
        assert (all_.deadline, newest.deadline, given.deadline) == (None, 0.2, 0.3)


def test_an_array_that_changes_while_it_is_copied_fails(model, monkeypatch):
    image = picture(100)
    copy = np.array

    def torn(pixels):
        copied = copy(pixels)
        copied[0, 0] = 7  # as of another frame
        return copied

    with Live(model, deadline=None) as live:
        monkeypatch.setattr("dlink.live.pixels.np.array", torn)
        live.offer(image)
        wait_for(lambda: live.counts.failed)
        assert "was changed after it was offered" in live.error


def test_pixels_are_not_printed(model):
    with Live(model, deadline=None) as live:
        live.offer(picture(100))
        assert len(repr(live.latest(timeout=30))) < 500


def test_late_roads_are_marked_or_dropped(model):
    with Live(model, deadline=0.5) as live:
        live.offer(picture(10), captured=time.monotonic() - 1)
        assert live.latest(timeout=30).late
        wait_for(lambda: (live.counts.late, live.counts.roads) == (1, 0))
    with Live(model, deadline=0.5, late="drop") as live:
        live.offer(picture(10), captured=time.monotonic() - 1)
        wait_for(lambda: live.counts.expired == 1)
        assert live.latest() is None


def test_roads_that_are_late_only_when_they_are_done_are_dropped_too(model, net):
    with Live(model, deadline=0.5, late="drop") as live:
        busy(live, net)
        time.sleep(0.6)  # the deadline passes while the frame is computed
        net.gate.set()
        wait_for(lambda: live.counts.late == 1)
        assert live.latest() is None and not live.results


def test_closing_leaves_what_waits_and_what_is_under_way(net):
    outcomes = SimpleQueue()
    model = Segmenter(HostBackend(net, Spec(tile=SIDE, views=(0,))), halo=0)
    live = Live(model, deadline=None, keep=3, outcomes=outcomes.put)
    busy(live, net)
    [live.offer(picture(10)) for _ in range(3)]
    closer = threading.Thread(target=live.close)
    closer.start()
    wait_for(lambda: live.closed)
    net.gate.set()
    closer.join(30)
    assert not closer.is_alive() and live.counts.left + live.counts.roads == 4 and live.counts.left >= 3
    with pytest.raises(Closed):
        live.offer(picture(10))
    assert live.state == "closed"
    model.close()


def test_an_iteration_and_a_wait_end_when_the_live_is_closed(model):
    live = Live(model)
    ended = []
    threads = [
        threading.Thread(target=lambda: ended.append(list(live))),
        threading.Thread(target=lambda: ended.append(live.latest(timeout=60))),
    ]
    [thread.start() for thread in threads]
    live.close()
    [thread.join(30) for thread in threads]
    assert sorted(map(str, ended)) == ["None", "[]"]


def test_results_that_nobody_reads_do_not_pile_up(model):
    with Live(model, deadline=None, keep="newest") as live:
        for i in range(40):
            live.offer(picture(10))
            wait_for(lambda i=i: live.counts.roads == i + 1)
        assert (len(live.results), live.unread) == (16, 24)
        assert live.latest().frame.id == 39


def test_a_frame_overtakes_an_image_of_the_same_model(model, net):
    with Live(model, deadline=None) as live:
        net.gate.clear()
        whole_map = model.submit(np.concatenate([picture(SLOW), picture(9, SIDE, SIDE * 200)], axis=1))
        assert net.begun.wait(30)
        live.offer(picture(42))
        wait_for(lambda: model.life.worker.unfinished == 2)
        net.gate.set()
        live.latest(timeout=30)
        whole_map.result()
    assert net.seen.index(42) < 5 and len(net.seen) > 200


def test_the_assumption_about_the_ground_is_said(model):
    with Live(model) as live:
        assert "as if they showed 0.5 m a pixel" in live.assumes
    with Live(model, ground=0.25) as live:
        assert live.assumes == ""


@pytest.mark.parametrize(
    "option",
    [{"deadline": 0}, {"deadline": float("nan")}, {"keep": 0}, {"keep": "some"}, {"late": "maybe"}, {"views": 3},
     {"ground": 0.0}, {"ground": "flat"}, {"ground": 100.0}, {"threads": 2}],
)  # fmt: skip
def test_an_option_that_cannot_be_used_is_refused(model, option):
    with pytest.raises(BadInput):
        Live(model, **option)


STEPS = st.sampled_from(["good", "newer", "broken", "nan", "bad", "raises", "changed", "late", "read", "look"])


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(STEPS, max_size=25),
    keep=st.sampled_from(["newest", 2, 5]),
    late=st.sampled_from(["deliver", "drop"]),
    end=st.sampled_from(["end", "close", "exception"]),
)
def test_the_counters_add_up_whatever_fails(steps, keep, late, end):
    net, outcomes = Net(), SimpleQueue()
    model = Segmenter(HostBackend(net, Spec(tile=SIDE, views=(0,))), halo=0)
    offered = delivered = 0
    looked = []
    try:
        with Live(model, deadline=5.0, keep=keep, late=late, outcomes=outcomes.put) as live:
            for step in steps:
                offered += step not in ("read", "look")
                if step == "read":
                    delivered += bool(live.results) and live.next_roads() is not None
                elif step == "look":
                    looked.append(live.counts)
                else:
                    offer(live, step)
            if end == "exception":
                raise KeyError
            if end == "end":
                live.end()
                delivered += len(list(live))
    except KeyError:
        pass
    model.close()
    told = [outcomes.get() for _ in range(outcomes.qsize())]
    counts = live.counts
    assert all(each.add_up for each in (*looked, counts))
    assert (counts.offered, counts.waiting) == (offered, 0)
    assert sorted(outcome.frame.id for outcome in told) == list(range(offered))  # each exactly once
    for what in What.__args__:
        assert sum(outcome.what == what for outcome in told) == getattr(counts, what)
    if end == "end":
        wanted = counts.roads + (counts.late if late == "deliver" else 0)
        assert delivered + live.unread == wanted


def offer(live, step):
    values = {"broken": BROKEN, "nan": NAN}
    captured = time.monotonic() - (10 if step == "late" else 0)
    if step == "bad":
        live.offer(lambda: np.zeros((2, 2), np.uint8), captured=captured)
    elif step == "raises":
        live.offer(lambda: 1 / 0, captured=captured)
    elif step == "changed":
        array = picture(5)
        live.offer(array, captured=captured)
        array[:] = 6
    else:
        live.offer(picture(values.get(step, 5)), captured=captured)


def test_a_broken_engine_of_this_process_is_used_again(model):
    with Live(model, deadline=None, keep="all") as live:
        live.offer(picture(BROKEN))
        wait_for(lambda: live.engine.restarts == 1 and live.state == "running")
        live.offer(picture(9))
        assert live.latest(timeout=30).frame.id == 1
        assert isinstance(live.engine.error, str) and "broken" in live.engine.error


def test_errors_of_the_network_are_a_kind_of_engine_failed():
    from dlink.live import Lost

    assert issubclass(Lost, EngineFailed)
