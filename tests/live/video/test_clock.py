"""Frames are dated by the stamp and the arrival of the packet that was held up least."""

from dlink.live.video.clock import AGREE, Clock


def run(stamps, every=1 / 30, clock=None):
    """A clock that heard of these stamps, whose packets arrive evenly from 100 s on; and when the last one arrived."""
    clock = clock or Clock()
    for i, stamp in enumerate(stamps):
        clock.arrived(stamp, 100 + i * every)
    return clock, 100 + (len(stamps) - 1) * every


def test_a_frame_that_was_held_up_is_dated_by_its_stamp():
    clock, now = run([i / 30 for i in range(30)])
    assert abs(clock.captured(now - 100, now + 1.5) - now) < 1e-6


def test_one_damaged_stamp_dates_no_other_frame():
    for damaged in (1491.0, 3.0, -1491.0):
        stamps = [i / 30 for i in range(30)]
        stamps[10] += damaged
        clock, now = run(stamps)
        assert abs(clock.captured(stamps[-1], now) - now) < 1e-6, damaged


def test_a_clock_that_was_set_ahead_is_believed_once_some_stamps_agree():
    stamps = [i / 30 + (500 if i >= 10 else 0) for i in range(10 + AGREE)]
    clock, now = run(stamps)
    assert abs(clock.captured(stamps[-1], now) - now) < 1e-6
    assert abs(clock.captured(stamps[-1] - 1, now) - (now - 1)) < 1e-6


def test_damaged_stamps_that_do_not_agree_are_never_believed():
    stamps = [i / 30 + (100 * i if 10 <= i < 20 else 0) for i in range(30)]
    clock, now = run(stamps)
    assert abs(clock.captured(stamps[-1], now) - now) < 1e-6
