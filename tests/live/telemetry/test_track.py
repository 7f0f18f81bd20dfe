"""Poses between poses: positions within half a metre, angles on the shortest turn, and nothing stale."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlink.live import Pose
from dlink.live.ground.earth import from_local, to_local
from dlink.live.rotation import angles_of, between, matrix_of
from dlink.live.telemetry.track import LONGEST, Track

ANGLES = st.tuples(st.floats(0, 360), st.floats(-89, 89), st.floats(-179, 179))


def pose(latitude=47.0, longitude=8.0, **values):
    return Pose(latitude=latitude, longitude=longitude, **values)


def track(*poses, every=0.1):
    track = Track()
    for i, each in enumerate(poses):
        track.add(10 + i * every, each)
    return track


@given(angles=ANGLES)
def test_angles_are_those_of_their_matrix(angles):
    again = matrix_of(*angles_of(matrix_of(*angles)))
    np.testing.assert_allclose(again, matrix_of(*angles), atol=1e-9)


def test_a_camera_that_looks_down_has_the_images_top_in_its_yaw():
    forward, right, down = matrix_of(30.0, -90.0, 0.0).T
    north = [math.cos(math.radians(30)), math.sin(math.radians(30)), 0]
    np.testing.assert_allclose(forward, [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(-down, north, atol=1e-12)
    np.testing.assert_allclose(right, [-north[1], north[0], 0], atol=1e-12)
    assert angles_of(matrix_of(30.0, -90.0, 0.0)) == pytest.approx((30.0, -90.0, 0.0))


def test_roll_lowers_the_right_side_of_the_image():
    assert matrix_of(0, 0, 10)[2, 1] > 0  # the right axis goes down


@given(first=ANGLES, second=ANGLES, share=st.floats(0, 1))
def test_a_turn_goes_evenly_from_one_rotation_to_the_other(first, second, share):
    a, b = matrix_of(*first), matrix_of(*second)

    def angle(x, y):
        return math.acos(max(-1, min(1, (np.trace(x.T @ y) - 1) / 2)))

    if angle(a, b) > 3.1:
        return
    middle = between(a, b, share)
    np.testing.assert_allclose(middle @ middle.T, np.eye(3), atol=1e-9)
    assert angle(a, middle) == pytest.approx(share * angle(a, b), abs=1e-5)


def test_headings_pass_north_the_short_way():
    found = track(pose(yaw=359.0, pitch=-30.0, roll=0.0), pose(yaw=1.0, pitch=-30.0, roll=0.0)).at(10.05)
    assert min(found.yaw, 360 - found.yaw) == pytest.approx(0.0, abs=0.01)


def test_a_camera_that_swings_through_the_vertical_does_not_spin():
    """From 89 degrees down to the north to 89 degrees down to the south the camera looks straight down between."""
    found = track(pose(yaw=0.0, pitch=-89.0, roll=0.0), pose(yaw=180.0, pitch=-89.0, roll=180.0)).at(10.05)
    assert found.pitch == pytest.approx(-90.0, abs=0.01)
    assert min(found.yaw, 360 - found.yaw) == pytest.approx(0.0, abs=0.1)


def test_positions_of_a_turning_flight_at_10_a_second_are_within_half_a_metre():
    """15 m/s on a circle of 50 m, frames at 30 a second, each asked when only poses up to its own time are there."""

    def place(t):
        angle = 15 / 50 * t
        lat, lon = from_local(47.0, 8.0, np.array([[50 * math.sin(angle), 50 * (1 - math.cos(angle))]]))
        return float(lat[0]), float(lon[0])

    track, worst = Track(), 0.0
    for i in range(300):
        t = i / 30
        if i % 3 == 0:
            track.add(t, pose(*place(t), yaw=0.0, pitch=-90.0, roll=0.0))
        found = track.at(t)
        if i > 3:
            local, wanted = (
                to_local(47.0, 8.0, *np.array([[lat], [lon]]))
                for lat, lon in ((found.latitude, found.longitude), place(t))
            )
            worst = max(worst, float(np.linalg.norm(local - wanted)))
    assert 0 < worst < 0.5


def test_nothing_is_known_long_before_long_behind_and_within_a_gap():
    found = track(pose(), pose(), pose(), every=0.1)
    assert [found.at(time) is not None for time in (9.69, 9.71, 10.49, 10.51)] == [False, True, True, False]
    assert track(pose(), pose(), every=5.0).at(11.0) is None
    assert Track().at(0.0) is None and track(pose()).at(10.05) is None


@pytest.mark.parametrize("sign", [1, -1])
def test_two_poses_that_are_close_are_not_carried_far(sign):
    """A millisecond and a jitter of half a metre would be 150 m after 0.3 s."""
    found = Track()
    for time, north in ((10.0, 0.0), (10.0 + sign * 0.001, 0.5)):
        lat, lon = from_local(47.0, 8.0, np.array([[north, 0.0]]))
        found.add(time, pose(float(lat[0]), float(lon[0])))
    assert found.at(10.0 + sign * 0.1) is None and found.at(10.0 + sign * 0.002) is not None
    lat, lon = from_local(47.0, 8.0, np.array([[-3.0, 0.0]]))
    found.add(10.0 - sign * 0.2, pose(float(lat[0]), float(lon[0])))
    local = to_local(47.0, 8.0, *np.array([[(at := found.at(10.0 + sign * 0.2)).latitude], [at.longitude]]))
    assert abs(local[0, 0] - 3.5) < 1.0


def test_what_one_pose_does_not_know_is_not_known_between():
    found = track(pose(height_m=100.0, yaw=0.0, pitch=0.0, roll=0.0), pose(altitude_m=500.0)).at(10.05)
    assert (found.height_m, found.altitude_m, found.yaw) == (None, None, None)


def test_poses_may_come_out_of_order_and_twice():
    track = Track()
    for time, latitude in ((10.2, 47.2), (10.0, 47.0), (10.1, 47.1), (10.1, 99.0)):
        track.add(time, pose(latitude))
    assert [track.at(t).latitude for t in (10.0, 10.05, 10.15, 10.2)] == pytest.approx([47.0, 47.05, 47.15, 47.2])


def test_positions_pass_the_antimeridian():
    found = track(pose(longitude=179.9999), pose(longitude=-179.9999)).at(10.05)
    assert abs(found.longitude) == pytest.approx(180.0)


def test_a_long_flight_needs_bounded_memory():
    track = Track()
    for i in range(LONGEST + 100):
        track.add(float(i), pose())
    assert len(track.times) == LONGEST and track.at(float(LONGEST + 99)) is not None
