"""A long run: first minute against last, memory, and when it may be quoted."""

import pytest

from dlink.bench.headline import why_no_headline
from dlink.bench.soak import Soak, one_after_the_other, seconds_of
from dlink.bench.watch.watch import Conditions
from dlink.cli.bench_tables import part_name
from dlink.runtime import BadInput, CheckFailed

QUIET = Conditions(
    seconds=10, others_share=0.01, stolen_share=0, load_average=(1, 1), min_mhz=3000, median_mhz=3000, throttled=0,
    throttled_after_s=None, gpu_min_mhz=None, gpu_median_mhz=None, gpu_throttled=None, not_read=(),
)  # fmt: skip
ROW = {"views": 8, "calls": 100, "spread": 0.02}


@pytest.mark.parametrize(("length", "seconds"), [("10m", 600), ("90s", 90), ("1.5h", 5400), ("45", 45)])
def test_a_length_of_time_has_a_unit(length, seconds):
    assert seconds_of(length) == seconds


@pytest.mark.parametrize("length", ["", "m", "10 m", "-5m", "0s", "10d"])
def test_what_is_no_length_of_time_is_refused(length):
    with pytest.raises(BadInput, match=f"--soak {length}: must be a length of time, such as 10m"):
        seconds_of(length)


def soaked(seconds, took, memory=lambda now: 1000):
    """A run whose call at a time takes took(time) seconds."""
    clock = [50.0]

    def call(number):
        clock[0] += took(clock[0] - 50)

    soak = Soak(seconds, memory=lambda: memory(clock[0] - 50))
    one_after_the_other(call, soak, lambda: clock[0])
    return soak


def test_the_first_minute_is_compared_with_the_last():
    found = soaked(600, lambda at: 0.1 if at < 60 else 0.5 if at < 540 else 0.2).figures(views=1)
    assert (found.first.p50_ms, found.last.p50_ms) == (pytest.approx(100), pytest.approx(200))
    assert found.first.calls == pytest.approx(600, abs=2)
    assert (found.p50_change, found.p99_change) == (pytest.approx(2), pytest.approx(2))
    assert found.seconds == pytest.approx(600, abs=1)
    assert found.calls == pytest.approx(600 + 960 + 300, abs=5)


def test_a_short_run_is_compared_by_its_halves():
    found = soaked(10, lambda at: 0.1 if at < 5 else 0.3).figures(views=1)
    assert (found.first.p99_ms, found.last.p50_ms) == (pytest.approx(100), pytest.approx(300))
    assert found.part_s == 5


@pytest.mark.parametrize(("seconds", "name"), [(4, "half (2 s)"), (119, "half (59.5 s)"), (120, "minute")])
def test_what_is_compared_has_its_name(seconds, name):
    assert part_name(soaked(seconds, lambda at: 0.1).figures(views=1).part_s) == name


def test_memory_that_grows_has_its_slope_without_the_first_minute():
    found = soaked(600, lambda at: 0.5, memory=lambda at: int(5e6 * min(at, 60) + 100 * at)).figures(views=1)
    assert found.memory.bytes_per_h == pytest.approx(100 * 3600, rel=0.01)
    assert found.memory.start_bytes == int(5e6 * 0.5 + 50)
    assert found.memory.end_bytes == pytest.approx(3e8 + 60_000, abs=200)


def test_memory_that_the_system_does_not_tell_is_left_out():
    found = soaked(10, lambda at: 0.1, memory=lambda at: None).figures(views=1)
    assert (found.memory, found.gpu_memory) == (None, None)


def test_a_soak_keeps_no_more_than_two_minutes_of_calls():
    soak = soaked(7200, lambda at: 1.0)
    assert len(soak.first) + len(soak.last) <= 122


def test_a_soak_without_a_call_in_its_first_half_is_too_short():
    with pytest.raises(CheckFailed, match="the soak of 1 s is too short"):
        soaked(1, lambda at: 3.0).figures(views=1)


def changed(**values):
    return Conditions(**{**QUIET.to_json(), **values})


def test_a_quiet_machine_makes_a_headline():
    assert why_no_headline(QUIET, [ROW]) == []


@pytest.mark.parametrize(
    ("conditions", "row", "words"),
    [
        ({"others_share": 0.06}, {}, "other processes took 6.0% of the processors' time, more than 5%"),
        ({"stolen_share": 0.03}, {}, "the hypervisor took 3.0% of the processors' time, more than 2%"),
        ({"throttled": 4}, {}, "the processor was throttled, 4 times"),
        ({"gpu_throttled": {"power cap": 0.5}}, {}, "the GPU was held back by its power cap in 50% of the looks"),
        ({}, {"spread": 0.123}, "8 views: the times vary, their interquartile range is 12.3% of the median"),
        ({}, {"calls": 4}, "8 views: 4 calls are too few; --seconds gives more time"),
        ({}, {"roads": 1, "rate": 30, "views": 1}, "1 view, 30 frames a second: 1 call is too few"),
    ],
)
def test_a_machine_that_did_something_else_makes_none(conditions, row, words):
    [why] = why_no_headline(changed(**conditions), [{**ROW, **row}])
    assert words in why


def test_what_a_machine_does_not_tell_is_no_reason():
    assert why_no_headline(changed(others_share=None, stolen_share=None, throttled=None), [ROW]) == []
