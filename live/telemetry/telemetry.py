"""The camera of each frame, from whatever telemetry there is."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from dlink.live.pose import Pose
from dlink.live.telemetry.klv import KlvReader
from dlink.live.telemetry.klv_pose import pose_of
from dlink.live.telemetry.likely import Likely
from dlink.live.telemetry.track import Track
from dlink.live.video.taken import Taken
from dlink.runtime import BadInput

SPREAD = 5.0  # seconds that sets of one packet may lie apart
KINDS = "klv, mavlink:udp:14550, mavlink:flight.tlog, mavlink:flight.bin, flight.SRT"
UDP = re.compile(r"udp(?:in)?:/*(?:(?P<host>[^:]*):)?(?P<port>\d+)")


class Telemetry(Protocol):
    """Knows the camera of a frame."""

    assumes: str  # how frames and telemetry are brought together, and what else is assumed, in a sentence

    def pose(self, taken: Taken) -> Pose | None:
        """The camera of a frame. None: not known."""
        ...

    @property
    def heard(self) -> str:
        """What came so far, in words."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class TelemetryOptions:
    """How telemetry is read.

    Args:
        fov: Horizontal field of view of the camera, degrees. None: the telemetry says it.
        mount: Pitch of a camera that is fixed to the vehicle, degrees: -90 looks down. For MAVLink.
        offset: Seconds that are added to a frame's time before its pose is looked up.
        video_start: When the video begins, UTC, as 2026-05-01T10:00:00Z: for logs, whose times are UTC.
    """

    fov: float | None = None
    mount: float | None = None
    offset: float = 0.0
    video_start: str | None = None


class Klv:
    """KLV within the video. Sets and frames are brought together by the video's own time stamps."""

    assumes = "telemetry and frames of one time stamp of the video belong together"

    def __init__(self, options: TelemetryOptions) -> None:
        self.options = options
        self.reader, self.track, self.likely = KlvReader(), Track(), Likely()
        self.taken = 0  # sets with a position
        self.unlikely = 0  # sets whose position cannot be
        self.connection: int | None = None
        self.stamped = True  # whether packets have time stamps; else the time at which they came is taken

    def on_data(self, data: bytes, stamp: float | None, captured: float, connection: int) -> None:
        """Take a packet. One without a time stamp belongs to the time at which it came.

        A packet's time is that of its last set; the others are as much older as they say.
        """
        if connection != self.connection:
            self.connection, self.reader.buffer = connection, bytearray()
            self.track.clear()
            self.likely = Likely()
            self.stamped = stamp is not None
        if (when := stamp if self.stamped else captured) is None:
            return
        sets = self.reader.feed(data)
        for found in sets:
            older = sets[-1].utc - found.utc
            if (pose := pose_of(found)) is None or not 0 <= older <= SPREAD:
                continue
            if self.likely.take(when - older, pose):
                self.taken += 1
                self.track.add(when - older, pose if self.options.fov is None else with_fov(pose, self.options.fov))
            else:
                self.unlikely += 1

    def pose(self, taken: Taken) -> Pose | None:
        when = taken.pts if self.stamped else taken.captured
        if taken.connection != self.connection or when is None:
            return None
        return self.track.at(when + self.options.offset)

    @property
    def refused(self) -> int:
        """Sets that were damaged."""
        return self.reader.refused.checksum + self.reader.refused.damaged + self.unlikely

    @property
    def heard(self) -> str:
        return f"KLV: {self.taken} positions, {self.refused} damaged sets; of this connection {self.track.span}"

    def close(self) -> None:
        pass


class Mavlink:
    """A vehicle's own link. Its messages and the frames are brought together by the time at which they came."""

    assumes = (
        "a frame and a MAVLink message that come at once belong together; what the video's encoder and link add is not "
        "known, and --telemetry-offset corrects it; heights are above the place of the take-off"
    )

    def __init__(self, host: str, port: int, options: TelemetryOptions) -> None:
        from dlink.live.telemetry.mavlink import Link, Vehicle

        self.options = options
        self.link = Link(host, port, Vehicle(options.mount, options.fov))

    def pose(self, taken: Taken) -> Pose | None:
        return self.link.vehicle.pose(taken.captured + self.options.offset)

    @property
    def heard(self) -> str:
        heard = self.link.vehicle.heard
        return (
            f"MAVLink: {heard.positions} positions, {heard.attitudes} attitudes, {heard.no_fix} without a fix, "
            f"{heard.damaged} damaged"
        )

    def close(self) -> None:
        self.link.close()


class MavlinkLog:
    """A vehicle's log. Its times are UTC, and so are the video's, from when it begins."""

    assumes = "the video begins when --video-start says; heights are above the place of the take-off"

    def __init__(self, path: Path, options: TelemetryOptions) -> None:
        from dlink.live.telemetry.mavlink import Vehicle, read_log

        if options.video_start is None:
            raise BadInput(f"{path}: its times are UTC; say when the video begins: --video-start 2026-05-01T10:00:00Z")
        self.begin = utc_of(options.video_start) + options.offset
        self.vehicle = Vehicle(options.mount, options.fov)
        read_log(str(path), self.vehicle)

    def pose(self, taken: Taken) -> Pose | None:
        return None if taken.pts is None else self.vehicle.pose(self.begin + taken.pts)

    @property
    def heard(self) -> str:
        span = self.vehicle.positions.span
        return f"the log: {self.vehicle.heard.positions} positions, {span} of UTC; the video begins at {self.begin:.1f}"

    def close(self) -> None:
        pass


class Subtitles:
    """DJI's subtitles, which count from the beginning of their video."""

    assumes = "subtitles count from the video's first frame; heights are above the place of the take-off"

    def __init__(self, path: Path, options: TelemetryOptions) -> None:
        from dlink.live.telemetry.dji import read_subtitles

        self.offset = options.offset
        self.track = read_subtitles(path, options.fov)

    def pose(self, taken: Taken) -> Pose | None:
        return None if taken.pts is None else self.track.at(taken.pts + self.offset)

    @property
    def heard(self) -> str:
        return f"subtitles: {self.track.span} of the video"

    def close(self) -> None:
        pass


def with_fov(pose: Pose, fov: float) -> Pose:
    """A pose with the field of view that was given, of square pixels."""
    return replace(pose, fov=fov, vertical_fov=None)


def telemetry_of(text: str, options: TelemetryOptions) -> Telemetry:
    """Telemetry as a user names it.

    Args:
        text: klv, mavlink:udp:PORT, mavlink:FILE.tlog, mavlink:FILE.bin or FILE.SRT.
        options: How it is read.

    Raises:
        BadInput: It is none of these.
        ModuleNotFoundError: pymavlink is not installed.
    """
    if text == "klv":
        return Klv(options)
    name = text.removeprefix("mavlink:")
    if name != text and (udp := UDP.fullmatch(name)):
        return Mavlink(udp["host"] or "0.0.0.0", int(udp["port"]), options)
    path = Path(name)
    readers: dict[str, Callable[[Path, TelemetryOptions], Telemetry]] = {
        ".tlog": MavlinkLog, ".bin": MavlinkLog, ".srt": Subtitles,
    }  # fmt: skip
    reader = readers.get(path.suffix.lower())
    if path.suffix.lower() == ".ulg":
        raise BadInput(f"{path}: a PX4 log; record a .tlog beside it, or convert it, for .tlog and .bin are read")
    if reader is None:
        raise BadInput(f"{text}: no telemetry; it is one of {KINDS}")
    if not path.is_file():
        raise BadInput(f"{path}: no such file; telemetry is one of {KINDS}")
    return reader(path, options)


def utc_of(text: str) -> float:
    """Seconds since 1970-01-01 of a time such as 2026-05-01T10:00:00Z. BadInput where the zone is missing."""
    try:
        when = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as e:
        raise BadInput(f"{text}: no time; write it as 2026-05-01T10:00:00Z") from e
    if when.tzinfo is None:
        raise BadInput(f"{text}: has no zone; write Z for UTC at its end, or +02:00")
    return when.astimezone(timezone.utc).timestamp()
