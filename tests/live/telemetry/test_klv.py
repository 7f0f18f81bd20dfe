"""MISB ST 0601: values of the standard's own examples, and damage that is refused and counted."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlink.live.telemetry.klv import RANGES, KlvReader, extended
from dlink.live.telemetry.klv_pose import pose_of
from tests.support.klv import KEY, camera, local_set

GOOD = camera(1.7e9, 47.0, 8.0, 620.0, 30.0, -80.0, ground=500.0)


def read(*packets):
    reader = KlvReader()
    return [found for packet in packets for found in reader.feed(packet)], reader.refused


@pytest.mark.parametrize(
    ("tag", "number", "value"),
    [  # the examples of MISB ST 0601.8, section 8
        (5, "71C2", 159.9744), (6, "FD3D", -0.4315), (7, "08B8", 3.4059), (13, "5595B66D", 60.17682297),
        (14, "5B5360C4", 128.42675904), (15, "C221", 14190.72), (16, "CD9C", 144.5713), (17, "D917", 152.6436),
        (18, "724A0A20", 160.71921144), (19, "87F84B86", -168.79232483), (21, "03830926", 68590.98),
        (22, "1281", 722.8199), (23, "F101A229", -10.54238863), (24, "14BC082B", 29.15789012), (25, "34F3", 3216.037),
        (75, "C221", 14190.72), (90, "FF62E2F2", -0.43152510),
    ],
)  # fmt: skip
def test_a_number_is_the_standards_example(tag, number, value):
    assert RANGES[tag].value(bytes.fromhex(number)) == pytest.approx(value, rel=1e-6, abs=5e-5)


def test_an_extended_height_is_the_standards_example():
    assert extended(bytes.fromhex("2F921E")) == pytest.approx(23456.24, abs=0.01)
    assert extended(bytes.fromhex("E80000")) is None


def test_a_set_says_where_the_camera_is():
    (found,), refused = read(GOOD)
    pose = pose_of(found)
    assert (pose.latitude, pose.longitude) == pytest.approx((47.0, 8.0), abs=1e-7)
    assert (pose.altitude_m, pose.height_m) == pytest.approx((620.0, 120.0), abs=0.4)
    assert (pose.yaw, pose.pitch, pose.fov, pose.utc) == pytest.approx((30.0, -80.0, 60.0, 1.7e9), abs=2e-3)
    assert (refused.checksum, refused.damaged, refused.items, refused.skipped) == (0, 0, 0, 0)


@settings(max_examples=200)
@given(bit=st.integers(0, 8 * len(GOOD) - 1))
def test_a_set_with_one_flipped_bit_is_refused_and_the_next_one_is_read(bit):
    damaged = bytearray(GOOD)
    damaged[bit // 8] ^= 1 << bit % 8
    found, refused = read(bytes(damaged), GOOD, GOOD, GOOD)
    assert 2 <= len(found) <= 3  # a length that grew may hide the set behind it
    assert all(each == read(GOOD)[0][0] for each in found)
    assert refused.checksum + refused.damaged + refused.skipped > 0


@settings(max_examples=60)
@given(cuts=st.lists(st.integers(0, 3 * len(GOOD)), max_size=8))
def test_sets_are_read_however_they_are_cut_into_packets(cuts):
    stream, at = GOOD * 3, [0, *sorted(cuts), 3 * len(GOOD)]
    found, refused = read(*(stream[a:b] for a, b in pairwise(at)))
    assert len(found) == 3 and refused.skipped == 0


@settings(max_examples=60)
@given(lost=st.integers(1, len(GOOD) - 1), begin=st.integers(0, len(GOOD) - 1))
def test_a_set_that_was_cut_is_refused_and_the_next_one_is_read(lost, begin):
    cut = GOOD[:begin] + GOOD[begin + lost :]
    found, refused = read(cut, GOOD, GOOD)
    assert 1 <= len(found) <= 2 or len(cut) == len(GOOD)
    assert all(each.values[13] == pytest.approx(47.0, abs=1e-6) for each in found)
    assert refused.checksum + refused.damaged + refused.skipped > 0


@settings(max_examples=60)
@given(noise=st.binary(max_size=300))
def test_noise_is_skipped(noise):
    found, _ = read(noise, GOOD, GOOD)
    assert len(found) in (1, 2)


@pytest.mark.parametrize("tag", [6, 7, 13, 14, 19])
def test_a_value_that_the_standard_reserves_is_not_known(tag):
    reserved = b"\x80" + bytes(RANGES[tag].size - 1)
    (found,), _ = read(local_set(1.7e9, {13: 47.0, 14: 8.0, tag: reserved}))
    assert tag not in found.values


def test_without_a_place_there_is_no_pose_and_without_an_angle_no_attitude():
    (found,), _ = read(local_set(1.7e9, {13: 47.0, 14: b"\x80\0\0\0"}))
    assert pose_of(found) is None
    (found,), _ = read(
        local_set(1.7e9, {13: 47.0, 14: 8.0, 5: 10.0, 6: 0.0, 7: 0.0, 18: 0.0, 19: b"\x80\0\0\0", 20: 0.0})
    )
    assert (pose_of(found).yaw, pose_of(found).pitch, pose_of(found).height_m, pose_of(found).fov) == (None,) * 4


def test_an_item_of_another_length_is_refused_and_counted():
    (found,), refused = read(local_set(1.7e9, {13: 47.0, 14: 8.0, 5: b"\x01\x02\x03"}))
    assert 5 not in found.values and refused.items == 1


@pytest.mark.parametrize("body", [b"", b"\x02\x08" + bytes(7), b"\x0d\x7f\x00"])
def test_a_set_whose_items_do_not_fit_is_refused(body):
    data = KEY + bytes([len(body) + 4]) + body + b"\x01\x02"
    total = sum(byte << (8 if i % 2 == 0 else 0) for i, byte in enumerate(data)) & 0xFFFF
    found, refused = read(data + total.to_bytes(2, "big"), GOOD)
    assert len(found) == 1 and refused.damaged == 1


def test_the_sensors_rotation_follows_the_platforms():
    """A platform that heads east and banks, and a sensor that looks down: the axes are worked out by hand."""
    (found,), _ = read(local_set(1.7e9, {13: 47.0, 14: 8.0, 5: 90.0, 6: 0.0, 7: 20.0, 18: 0.0, 19: -90.0, 20: 0.0}))
    pose = pose_of(found)
    # Banking to the right (south) turns the downward axis to the left of the flight, which is north.
    down = np.array([math.sin(math.radians(20)), 0.0, math.cos(math.radians(20))])  # north, east, down
    looks = np.array(
        [
            math.cos(math.radians(pose.pitch)) * math.cos(math.radians(pose.yaw)),
            math.cos(math.radians(pose.pitch)) * math.sin(math.radians(pose.yaw)),
            -math.sin(math.radians(pose.pitch)),
        ]
    )
    np.testing.assert_allclose(looks, down, atol=2e-3)
