"""MAVLink over a real socket and in real logs: positions, and the camera's attitude whatever says it."""

import math
import os
import socket
import struct
import time

import numpy as np
import pytest

from dlink.live.rotation import matrix_of
from dlink.live.telemetry.mavlink import IN_EARTH_FRAME, IN_VEHICLE_FRAME, YAW_LOCK, Link, Vehicle, read_log
from dlink.live.telemetry.telemetry import TelemetryOptions, telemetry_of
from dlink.live.video.taken import Taken
from dlink.runtime import BadInput
from tests.support.mavlink import SENDER, attitude, position, write_log

NAN = float("nan")


def gimbal(sender, boot, flags, yaw=0.0, pitch=0.0, roll=0.0):
    q = quaternion(yaw, pitch, roll)
    return sender.gimbal_device_attitude_status(0, 0, round(boot * 1000), flags, q, 0, 0, 0, 0)


def quaternion(yaw, pitch, roll):
    halves = [math.radians(angle) / 2 for angle in (yaw, pitch, roll)]
    (cy, sy), (cp, sp), (cr, sr) = ((math.cos(half), math.sin(half)) for half in halves)
    return [
        cr * cp * cy + sr * sp * sy, sr * cp * cy - cr * sp * sy, cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    ]  # fmt: skip


def fed(vehicle, *messages):
    """A vehicle that heard messages, each at the time that it says."""
    for message in messages:
        message._header.srcSystem = message._header.srcSystem or 1
        vehicle.take(message, getattr(message, "time_boot_ms", 0) / 1000)
    return vehicle


def both(make, *values, **named):
    """A message at 1 second, and at 2 seconds."""
    return [make(SENDER, boot, *values, **named) for boot in (1.0, 2.0)]


def angles(pose):
    return pose.yaw, pose.pitch, pose.roll


@pytest.mark.parametrize(
    ("flags", "yaw"), [(IN_EARTH_FRAME, 30.0), (IN_VEHICLE_FRAME, 120.0), (YAW_LOCK, 30.0), (0, 120.0),
                       (IN_VEHICLE_FRAME | YAW_LOCK, 120.0)]
)  # fmt: skip
def test_a_gimbals_yaw_is_of_north_or_of_the_vehicle_as_its_flags_say(flags, yaw):
    vehicle = fed(
        Vehicle(), *both(position), *both(attitude, yaw=90.0, roll=15.0), *both(gimbal, flags, yaw=30.0, pitch=-80.0)
    )
    assert angles(vehicle.pose(1.5)) == pytest.approx((yaw, -80.0, 0.0), abs=0.01)


def test_a_gimbal_without_an_attitude_says_none():
    vehicle = fed(Vehicle(), *both(position), *both(gimbal, IN_EARTH_FRAME, yaw=NAN))
    assert angles(vehicle.pose(1.5)) == (None, None, None)


@pytest.mark.parametrize(("absolute", "yaw"), [(30.0, 30.0), (NAN, 110.0)])
def test_an_older_mount_says_its_yaw_of_north_or_of_the_vehicle(absolute, yaw):
    mounts = [SENDER.mount_orientation(boot, 0.0, -85.0, 20.0, absolute) for boot in (1000, 2000)]
    vehicle = fed(Vehicle(), *both(position), *both(attitude, yaw=90.0), *mounts)
    assert angles(vehicle.pose(1.5)) == pytest.approx((yaw, -85.0, 0.0), abs=0.01)


def test_a_fixed_camera_moves_with_the_vehicle():
    vehicle = fed(Vehicle(mount=-90.0, fov=70.0), *both(position), *both(attitude, yaw=90.0, pitch=0.0, roll=20.0))
    pose = vehicle.pose(1.5)
    looks = matrix_of(*angles(pose))[:, 0]  # north, east, down
    # A bank to the right (south) turns what looks down to the left of the flight, which is north.
    np.testing.assert_allclose(looks, [math.sin(math.radians(20)), 0, math.cos(math.radians(20))], atol=1e-6)
    assert pose.fov == 70.0


def test_without_a_gimbal_and_a_mount_nothing_is_guessed():
    vehicle = fed(Vehicle(), *both(position), *both(attitude, yaw=90.0))
    assert angles(vehicle.pose(1.5)) == (None, None, None) and vehicle.pose(1.5).height_m == 120.0


@pytest.mark.parametrize(("given", "fov"), [(None, 64.0), (10.0, 10.0)])
def test_the_cameras_own_field_of_view_is_taken_unless_one_is_given(given, fov):
    field = SENDER.camera_fov_status(0, 0, 0, 0, 0, 0, 0, [1, 0, 0, 0], 64.0, NAN)
    vehicle = fed(Vehicle(fov=given), *both(position), field)
    assert (vehicle.pose(1.5).fov, vehicle.pose(1.5).vertical_fov) == (fov, None)


def test_a_camera_that_is_said_to_be_fixed_asks_no_gimbal():
    vehicle = fed(
        Vehicle(mount=-90.0), *both(position), *both(attitude, yaw=90.0), *both(gimbal, IN_EARTH_FRAME, yaw=30.0)
    )
    assert angles(vehicle.pose(1.5)) == pytest.approx((90.0, -90.0, 0.0), abs=0.01)


@pytest.mark.parametrize("q", [[0.0, 0.0, 0.0, 0.0], [NAN] * 4, [9.0, 0.0, 0.0, 0.0], [0.1, 0.1, 0.0, 0.0]])
def test_an_attitude_that_is_no_rotation_is_left_out(q):
    bad = SENDER.gimbal_device_attitude_status(0, 0, 1500, IN_EARTH_FRAME, q, 0, 0, 0, 0)
    vehicle = fed(Vehicle(), *both(position), *both(gimbal, IN_EARTH_FRAME, pitch=-80.0), bad)
    assert angles(vehicle.pose(1.5)) == pytest.approx((0.0, -80.0, 0.0), abs=0.01)
    assert vehicle.heard.damaged == (max(q) > 0)  # zeros and NaN say that it is not known


def test_a_heading_that_is_long_ago_turns_no_gimbal():
    vehicle = fed(Vehicle(), attitude(SENDER, 1.0, yaw=90.0))
    fed(
        vehicle,
        *[make for boot in (60.0, 60.5) for make in (position(SENDER, boot), gimbal(SENDER, boot, IN_VEHICLE_FRAME))],
    )
    assert angles(vehicle.pose(60.25)) == (None, None, None)


def test_a_message_that_cannot_be_ends_no_link(monkeypatch):
    port = free_port()
    link = Link("127.0.0.1", port, Vehicle())
    try:
        monkeypatch.setattr(link.vehicle, "take_attitude", lambda *_: 1 / 0)
        end = time.monotonic() + 60
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not (link.vehicle.heard.damaged and link.vehicle.heard.positions):
                assert time.monotonic() < end and link.thread.is_alive()
                for message in (attitude(SENDER, 1.0, yaw=1.0), position(SENDER, 1.0)):
                    sender.sendto(SENDER.bytes(message), ("127.0.0.1", port))
                time.sleep(0.02)
    finally:
        link.close()


def test_a_position_without_a_fix_is_refused_and_counted():
    lost = SENDER.gps_raw_int(0, 1, 0, 0, 0, 0, 0, 0, 0, 0)
    vehicle = fed(Vehicle(), lost, *both(position))
    assert vehicle.pose(1.5) is None and vehicle.heard.no_fix == 2
    vehicle = fed(Vehicle(), *both(position, latitude=0.0, longitude=0.0))
    assert vehicle.pose(1.5) is None and vehicle.heard.no_fix == 2


def test_another_vehicle_on_the_link_is_left_out():
    other = position(SENDER, 1.5, latitude=10.0)
    other._header.srcSystem = 9
    vehicle = fed(Vehicle(), position(SENDER, 1.0), other, position(SENDER, 2.0))
    assert vehicle.pose(1.75).latitude == pytest.approx(47.0) and vehicle.heard.others == 1


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_a_vehicle_is_heard_over_udp_and_dated_by_its_own_clock():
    port = free_port()
    telemetry = telemetry_of(f"mavlink:udp:127.0.0.1:{port}", TelemetryOptions(mount=-90.0, fov=60.0))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            begun = time.monotonic()
            end = begun + 60
            pose = None
            i = 0
            while pose is None and time.monotonic() < end:
                boot = 100 + time.monotonic() - begun
                for message in (position(SENDER, boot, latitude=47 + i * 1e-6), attitude(SENDER, boot, yaw=10.0)):
                    link.sendto(SENDER.bytes(message), ("127.0.0.1", port))
                i += 1
                time.sleep(0.05)
                pose = telemetry.pose(taken(captured=time.monotonic()))
        assert pose.latitude == pytest.approx(47.0, abs=0.01) and pose.fov == 60.0
        assert angles(pose) == pytest.approx((10.0, -90.0, 0.0), abs=0.01)
        assert "--telemetry-offset" in telemetry.assumes
    finally:
        telemetry.close()
    assert not telemetry.link.thread.is_alive()


def taken(**values):
    return Taken(**({"pixels": None, "captured": 0.0, "pts": None, "index": 0, "connection": 1} | values))


def test_a_port_that_is_taken_is_named():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        with pytest.raises(BadInput, match="no MAVLink there"):
            Link("127.0.0.1", s.getsockname()[1], Vehicle())


def test_a_log_is_read_and_brought_together_with_the_video_by_utc(tmp_path):
    path = write_log(tmp_path / "a.tlog")
    options = TelemetryOptions(mount=-90.0, fov=60.0, video_start="2023-11-14T22:13:20Z")  # 1.7e9
    pose = telemetry_of(f"mavlink:{path}", options).pose(taken(pts=0.55))
    assert pose.latitude == pytest.approx(47 + 5.5e-5, abs=1e-7) and pose.yaw == pytest.approx(45.0, abs=0.01)
    with pytest.raises(BadInput, match="--video-start"):
        telemetry_of(f"mavlink:{path}", TelemetryOptions())
    with pytest.raises(BadInput, match="has no zone"):
        telemetry_of(f"mavlink:{path}", TelemetryOptions(video_start="2023-11-14T22:13:20"))


def write_bin(path):
    """An ArduPilot log: FMT messages, a GPS time, positions and attitudes."""
    formats = {
        1: ("GPS", "QBIHBcLLffff", "TimeUS,Status,GMS,GWk,NSats,HDop,Lat,Lng,Alt,Spd,GCrs,VZ", "<QBIHBhiiffff"),
        2: ("POS", "QLLfff", "TimeUS,Lat,Lng,Alt,RelHomeAlt,RelOriginAlt", "<Qiifff"),
        3: ("ATT", "Qccccccff", "TimeUS,DesRoll,Roll,DesPitch,Pitch,DesYaw,Yaw,ErrRP,ErrYaw", "<Qhhhhhhff"),
    }
    fields = b"Type,Length,Name,Format,Columns"
    out = b"\xa3\x95\x80" + struct.pack("<BB4s16s64s", 128, 89, b"FMT", b"BBnNZ", fields)
    for kind, (name, letters, columns, packed) in formats.items():
        size = 3 + struct.calcsize(packed)
        words = (word.encode() for word in (name, letters, columns))
        out += b"\xa3\x95\x80" + struct.pack("<BB4s16s64s", kind, size, *words)
    for i in range(20):
        us = round(1e6 + i * 1e5)
        gps = us, 3, 200_000_000 + i * 100, 2300, 9, 90, 470000000, 80000000, 620, 0, 0, 0
        out += b"\xa3\x95\x01" + struct.pack("<QBIHBhiiffff", *gps)
        out += b"\xa3\x95\x02" + struct.pack("<Qiifff", us, 470000000 + i * 100, 80000000, 620.0, 120.0, 120.0)
        out += b"\xa3\x95\x03" + struct.pack("<Qhhhhhhff", us, 0, 0, 0, 0, 0, 4500, 0.0, 0.0)
    path.write_bytes(out)
    return path


def test_an_ardupilot_log_is_read(tmp_path):
    vehicle = Vehicle(mount=-90.0)
    first = read_log(str(write_bin(tmp_path / "a.bin")), vehicle)
    pose = vehicle.pose(first + 0.55)
    assert pose.latitude == pytest.approx(47 + 5.5e-5, abs=1e-6)
    assert (pose.altitude_m, pose.height_m) == pytest.approx((620.0, 120.0))
    assert pose.yaw == pytest.approx(45.0, abs=0.1)
    assert first == pytest.approx(315964800 + 2300 * 604800 + 200_000 - 18, abs=2)  # GPS weeks, leap seconds


@pytest.mark.parametrize("name", ["a.tlog", "a.bin"])
def test_a_log_without_a_position_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\0" * 300)
    with pytest.raises(BadInput, match="no position|cannot be read"):
        read_log(str(tmp_path / name), Vehicle())


@pytest.mark.parametrize(
    ("text", "words"),
    [("gps", "no telemetry; it is one of klv"), ("mavlink:a.ulg", "a PX4 log"), ("a.SRT", "no such file")],
)
def test_telemetry_that_is_none_is_refused(text, words):
    with pytest.raises(BadInput, match=words):
        telemetry_of(text, TelemetryOptions())


def test_messages_are_of_the_second_version_of_the_protocol():
    assert os.environ["MAVLINK20"] == "1" and SENDER.bytes(position(SENDER, 1.0))[0] == 0xFD
