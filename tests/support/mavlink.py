"""MAVLink messages of one vehicle, and a log of them."""

import math
import struct

from dlink.live.telemetry.mavlink import mavutil


class Sender:
    """Encodes messages of one vehicle."""

    def __init__(self, system=1, component=1):
        self.mav = mavutil.mavlink.MAVLink(None, srcSystem=system, srcComponent=component)

    def __getattr__(self, name):
        return lambda *values: getattr(self.mav, f"{name}_encode")(*values)

    def bytes(self, message):
        return message.pack(self.mav)


def position(sender, boot, latitude=47.0, longitude=8.0, alt=620.0, height=120.0):
    return sender.global_position_int(
        round(boot * 1000), round(latitude * 1e7), round(longitude * 1e7), round(alt * 1000), round(height * 1000),
        0, 0, 0, 65535,
    )  # fmt: skip


def attitude(sender, boot, yaw=0.0, pitch=0.0, roll=0.0):
    return sender.attitude(round(boot * 1000), *map(math.radians, (roll, pitch, yaw)), 0, 0, 0)


SENDER = Sender()


def write_log(path, first=1.7e9):
    """A .tlog of two seconds, ten positions and attitudes a second."""
    with path.open("wb") as file:
        for i in range(20):
            for message in (position(SENDER, i / 10, latitude=47 + i * 1e-5), attitude(SENDER, i / 10, yaw=45.0)):
                file.write(struct.pack(">Q", round((first + i / 10) * 1e6)) + SENDER.bytes(message))
    return path
