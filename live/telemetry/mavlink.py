"""Poses of a MAVLink stream or log: the vehicle's position and attitude, and its gimbal's. Needs pymavlink.

Positions and attitudes come at times of their own, so each has a track, and a frame's pose is made of both. Messages:
https://mavlink.io/en/messages/common.html
"""

import math
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dlink.live.pose import Pose
from dlink.live.rotation import Matrix, angles_of, matrix_of
from dlink.live.telemetry.track import Track
from dlink.live.video.clock import Clock
from dlink.runtime import BadInput

os.environ.setdefault("MAVLINK20", "1")  # pymavlink reads it when it is imported

from pymavlink import mavutil

DEGREES = 1e-7  # of GLOBAL_POSITION_INT
YAW_LOCK, IN_VEHICLE_FRAME, IN_EARTH_FRAME = 16, 32, 64  # GIMBAL_DEVICE_FLAGS
FIX_3D = 3  # GPS_FIX_TYPE
NORM = 0.1  # that the length of a quaternion may differ from 1
LOOK = 0.2  # seconds between looks at whether it was closed
NOWHERE = Pose(latitude=0.0, longitude=0.0)  # of attitudes, which have no place
WANTED = (
    "GLOBAL_POSITION_INT", "ATTITUDE", "GPS_RAW_INT", "GIMBAL_DEVICE_ATTITUDE_STATUS", "MOUNT_ORIENTATION",
    "CAMERA_FOV_STATUS", "POS", "ATT",
)  # fmt: skip


@dataclass
class Heard:
    """Messages that were taken, and positions that were refused."""

    positions: int = 0
    attitudes: int = 0
    no_fix: int = 0
    others: int = 0  # of other vehicles on the link
    damaged: int = 0  # whose values cannot be


class Vehicle:
    """What is known of one vehicle, from its messages.

    Args:
        mount: Pitch of a camera that is fixed to the vehicle, degrees: -90 looks down. A gimbal is not asked then.
        fov: Horizontal field of view, degrees. None: the camera says it.
        system: The vehicle's system id. None: the first one that has a position.
    """

    def __init__(self, mount: float | None = None, fov: float | None = None, system: int | None = None) -> None:
        self.mount, self.fov, self.system = mount, fov, system
        self.given_fov = fov is not None
        self.vertical_fov: float | None = None
        self.positions, self.cameras, self.bodies = Track(), Track(), Track()
        self.fix: int | None = None
        self.heard = Heard()
        self.kinds: Counter[str] = Counter()

    def take(self, message: Any, when: float) -> None:
        """A message that says how things were at a time."""
        kind = message.get_type()
        system = message.get_srcSystem() if hasattr(message, "get_srcSystem") else 0
        if self.system is None and kind in ("GLOBAL_POSITION_INT", "POS"):
            self.system = system
        if self.system is not None and system != self.system:
            self.heard.others += 1
            return
        self.kinds[kind] += 1
        getattr(self, f"take_{kind.lower()}", lambda *_: None)(message, when)

    def take_gps_raw_int(self, message: Any, when: float) -> None:
        self.fix = message.fix_type

    def take_global_position_int(self, message: Any, when: float) -> None:
        if (self.fix is not None and self.fix < FIX_3D) or (message.lat == 0 and message.lon == 0):
            self.heard.no_fix += 1
            return
        self.place(when, message.lat * DEGREES, message.lon * DEGREES, message.alt / 1000, message.relative_alt / 1000)

    def take_pos(self, message: Any, when: float) -> None:  # of an ArduPilot log
        height = getattr(message, "RelHomeAlt", math.nan)
        self.place(when, message.Lat, message.Lng, message.Alt, height if math.isfinite(height) else None)

    def place(self, when: float, latitude: float, longitude: float, altitude: float, height: float | None) -> None:
        self.heard.positions += 1
        self.positions.add(when, Pose(latitude=latitude, longitude=longitude, altitude_m=altitude, height_m=height))

    def take_attitude(self, message: Any, when: float) -> None:
        self.turn(self.bodies, when, *map(math.degrees, (message.yaw, message.pitch, message.roll)))

    def take_att(self, message: Any, when: float) -> None:  # of an ArduPilot log
        self.turn(self.bodies, when, message.Yaw, message.Pitch, message.Roll)

    def take_gimbal_device_attitude_status(self, message: Any, when: float) -> None:
        """Pitch and roll are of the horizon; yaw is of north, or of the vehicle's heading."""
        if not abs(math.hypot(*message.q) - 1) <= NORM:
            self.heard.damaged += any(message.q) and not any(map(math.isnan, message.q))  # else: not known
            return
        yaw, pitch, roll = angles_of(of_quaternion(*message.q))
        flags = message.flags
        earth = bool(flags & IN_EARTH_FRAME) or (not flags & IN_VEHICLE_FRAME and bool(flags & YAW_LOCK))
        if not earth:
            body = self.bodies.at(when) or self.bodies.newest(when)
            if body is None or body.yaw is None:
                return
            yaw += body.yaw
        self.turn(self.cameras, when, yaw, pitch, roll)

    def take_mount_orientation(self, message: Any, when: float) -> None:
        yaw = getattr(message, "yaw_absolute", math.nan)
        if not math.isfinite(yaw):
            body = self.bodies.at(when) or self.bodies.newest(when)
            if body is None or body.yaw is None:
                return
            yaw = body.yaw + message.yaw
        self.turn(self.cameras, when, yaw, message.pitch, message.roll)

    def take_camera_fov_status(self, message: Any, when: float) -> None:
        if not self.given_fov and math.isfinite(message.hfov) and message.hfov > 0:
            self.fov, self.vertical_fov = message.hfov, message.vfov if message.vfov > 0 else None

    def turn(self, track: Track, when: float, yaw: float, pitch: float, roll: float) -> None:
        if all(map(math.isfinite, (yaw, pitch, roll))):
            self.heard.attitudes += 1
            track.add(when, replace(NOWHERE, yaw=yaw % 360, pitch=pitch, roll=roll))

    def pose(self, when: float) -> Pose | None:
        """The camera at a time. Its angles are None where neither a gimbal nor a fixed mount says them."""
        place = self.positions.at(when)
        if place is None:
            return None
        yaw = pitch = roll = None
        camera, body = self.cameras.at(when), self.bodies.at(when)
        if self.mount is None:
            if camera is not None:
                yaw, pitch, roll = camera.yaw, camera.pitch, camera.roll
        elif body and body.yaw is not None:
            fixed = matrix_of(body.yaw, body.pitch or 0.0, body.roll or 0.0) @ matrix_of(0.0, self.mount, 0.0)
            yaw, pitch, roll = angles_of(fixed)
        return replace(place, yaw=yaw, pitch=pitch, roll=roll, fov=self.fov, vertical_fov=self.vertical_fov)


def of_quaternion(w: float, x: float, y: float, z: float) -> Matrix:
    """The rotation of a quaternion, whose length is about 1."""
    n = math.hypot(w, x, y, z)
    w, x, y, z = (v / n for v in (w, x, y, z))
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


class Link:
    """A vehicle on a link, heard by a thread.

    Times are of `time.monotonic()`: those of the vehicle's own clocks, dated by the message that was held up least.

    Args:
        host: Address of this machine at which messages come; 0.0.0.0 is all.
        port: Of UDP.
        vehicle: What the messages are for.

    Raises:
        BadInput: Another program listens there.
    """

    def __init__(self, host: str, port: int, vehicle: Vehicle) -> None:
        self.vehicle = vehicle
        self.clocks: dict[tuple[int, int], Clock] = {}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # pymavlink leaks its own where it fails
            try:
                probe.bind((host, port))
            except (OSError, OverflowError) as e:
                raise BadInput(f"udp:{host}:{port}: no MAVLink there: {e}; another program may listen there") from e
        self.link = mavutil.mavlink_connection(f"udpin:{host}:{port}")
        self.closed = False
        self.thread = threading.Thread(target=self.hear, name="dlink-mavlink", daemon=True)
        self.thread.start()

    def hear(self) -> None:
        while not self.closed:
            message = self.link.recv_match(type=list(WANTED), blocking=True, timeout=LOOK)
            if message is not None:
                self.hear_one(message)

    def hear_one(self, message: Any) -> None:
        """Take a message; one that cannot be is counted, and the next one is heard."""
        try:
            self.vehicle.take(message, self.dated(message))
        except (ArithmeticError, AttributeError, TypeError, ValueError):
            self.vehicle.heard.damaged += 1

    def dated(self, message: Any) -> float:
        """When a message was true."""
        now = time.monotonic()
        boot = getattr(message, "time_boot_ms", None)
        if boot is None:
            return now
        sender = message.get_srcSystem(), message.get_srcComponent()
        clock = self.clocks.setdefault(sender, Clock())
        if clock.restarted(boot / 1000, now):
            clock = self.clocks[sender] = Clock()
        clock.arrived(boot / 1000, now)
        return clock.captured(boot / 1000, now)

    def close(self) -> None:
        self.closed = True
        self.thread.join()
        self.link.close()


def read_log(path: str, vehicle: Vehicle) -> float:
    """Read a .tlog or .bin. Times are seconds since 1970-01-01 UTC. Returns that of the first position."""
    log = mavutil.mavlink_connection(path)
    first = None
    try:
        for message in messages(log):
            when = float(message._timestamp)
            if first is None and message.get_type() in ("GLOBAL_POSITION_INT", "POS"):
                first = when
            vehicle.take(message, when)
    finally:
        log.close()
    if first is None:
        raise BadInput(f"{path}: has no position; expected GLOBAL_POSITION_INT in a .tlog, POS in a .bin")
    return first


def messages(log: Any) -> Iterator[Any]:
    while (message := log.recv_match(type=list(WANTED), blocking=False)) is not None:
        yield message
