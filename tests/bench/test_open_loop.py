"""Frames at a fixed rate: they do not wait, and their latency counts from when they were due."""

import numpy as np
import pytest

from dlink.bench.area import km2_per_h
from dlink.bench.latency import spread_of
from dlink.bench.open_loop import Seen, ages, at_rate, figures, offer_at
from dlink.live.frame import Frame, Outcome, Roads
from dlink.runtime import EngineFailed, HostBackend, Segmenter, Spec


class Clock:
    """A clock that only sleeping and working move."""

    def __init__(self, at=100.0):
        self.at = at

    def __call__(self):
        return self.at

    def work(self, seconds):
        self.at += seconds


def offered(rate, count, works):
    """The times at which frames were due and offered, if offering frame i takes works[i] seconds."""
    clock, found = Clock(), []

    def offer(number, due):
        found.append((number, due - 100, clock() - 100))
        clock.work(works.get(number, 0.0))

    late = offer_at(rate, count, offer, clock, clock.work)
    return found, late


def test_frames_are_due_at_their_rate():
    found, late = offered(10, 4, {})
    assert [n for n, *_ in found] == [0, 1, 2, 3]
    assert [due for _, due, _ in found] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert [at for *_, at in found] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert late == pytest.approx(0)


def test_a_frame_that_is_late_keeps_its_time_and_does_not_move_the_next_ones():
    found, late = offered(10, 5, {1: 0.25})
    assert [due for _, due, _ in found] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert [at for *_, at in found] == pytest.approx([0, 0.1, 0.35, 0.35, 0.4])
    assert late == pytest.approx(0.15)


def test_a_sleep_that_ends_early_is_slept_on():
    clock, times = Clock(), []
    offer_at(10, 3, lambda number, due: times.append(clock()), clock, lambda s: clock.work(min(s, 0.03)))
    assert times == pytest.approx([100, 100.1, 100.2])


def seen(*frames, dropped=0):
    """Frames by when they were due, begun and done."""
    found = Seen(dropped=dropped)
    for due, begun, done in frames:
        found.due.append(due)
        found.begun.append(begun)
        found.done.append(done)
    return found


def test_latency_counts_from_when_a_frame_was_due_and_the_spread_from_when_it_was_begun():
    found = figures(seen((0, 0, 0.2), (0.1, 0.2, 0.4), (0.3, 0.4, 0.6), dropped=1), views=1, rate=10, late=0.01)
    assert (found.p50_ms, found.max_ms) == (pytest.approx(300), pytest.approx(300))
    assert found.spread == pytest.approx(0)
    assert (found.offered, found.roads, found.dropped, found.dropped_share) == (4, 3, 1, 0.25)
    assert found.achieved_per_s == pytest.approx(2 / 0.4)
    assert found.offered_late_ms == pytest.approx(10)


def test_the_age_grows_until_the_next_roads():
    # From 1 to 3 s it grows from 1 to 3 s; from 3 to 4 s from 1 to 2 s.
    found = ages(np.array([0.0, 2.0, 3.0]), np.array([1.0, 3.0, 4.0]), (0.0, 0.5, 2 / 3, 1.0))
    # Of 3 s, ages 1 to 2 take 2 s and ages 2 to 3 take 1 s.
    assert found == pytest.approx([1.0, 1.75, 2.0, 3.0])


def test_the_age_is_that_of_a_fine_grid_of_moments():
    rng = np.random.default_rng(0)
    due = np.sort(rng.random(40)) * 10
    done = np.maximum.accumulate(due + rng.random(40))
    moments = np.linspace(done[0], done[-1], 400_001)[:-1]
    newest = np.searchsorted(done, moments, "right") - 1
    seen_ages = moments - due[newest]
    shares = (0.1, 0.5, 0.9, 0.99)
    assert ages(due, done, shares) == pytest.approx(np.quantile(seen_ages, shares), abs=1e-3)


def test_one_frame_has_one_age():
    found = figures(seen((1.0, 1.0, 1.5)), views=8, rate=1)
    assert (found.age_p50_ms, found.age_max_ms, found.achieved_per_s) == (500, 500, 2)


def outcome(what, due=1.0):
    frame = Frame(id=0, captured=due, pixels=np.zeros((1, 1, 3), np.uint8))
    levels = np.zeros((1, 1), np.uint8)
    roads = Roads(
        frame=frame,
        image=levels,
        levels=levels,
        threshold=0.5,
        rung=1,
        views=1,
        scale=1,
        begun=1.1,
        done=1.4,
        late=False,
    )
    return Outcome(frame, what, roads if what == "roads" else None)


def test_each_frame_of_a_live_is_counted_by_what_became_of_it():
    found = Seen()
    for what in ("roads", "replaced", "replaced", "failed"):
        found.take(outcome(what))
    assert (list(found.due), list(found.begun), list(found.done)) == ([1.0], [1.1], [1.4])
    assert (found.dropped, found.failed) == (2, 1)


def model(net):
    return Segmenter(HostBackend(net, Spec(tile=64)))


def test_frames_that_come_too_fast_are_dropped_and_each_is_counted():
    ended = []
    tile = np.zeros((64, 64, 3), np.uint8)
    with model(lambda x: x[:, 0] * 0) as segmenter:
        found = at_rate(segmenter, [tile], views=1, rate=20_000, seconds=0.05, ended=lambda *e: ended.append(e))
    assert found.offered == 1000
    assert found.roads + found.dropped == 1000
    assert found.dropped > 0
    assert len(ended) == found.roads
    assert max(latency for _, latency in ended) == pytest.approx(found.max_ms / 1e3)


def test_a_network_that_fails_ends_the_run():
    calls = []

    def net(x):
        calls.append(1)
        if len(calls) > 4:  # warm-up, here and in Live
            raise RuntimeError("broken")
        return x[:, 0] * 0

    with (
        model(net) as segmenter,
        pytest.raises(EngineFailed, match="--rate 50: a frame after 0 frames failed: .*broken"),
    ):
        at_rate(segmenter, [np.zeros((64, 64, 3), np.uint8)], views=1, rate=50, seconds=60)


def test_the_spread_is_the_middle_half_over_the_median():
    assert spread_of([1, 2, 3, 4, 5]) == pytest.approx(2 / 3)


def test_an_hours_ground_is_that_of_the_cores():
    assert km2_per_h(10, tile=1024, halo=64, gsd_m=0.5) == pytest.approx(10 * 3600 * 0.448**2)
