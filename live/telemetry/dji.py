"""Poses of DJI's drones: subtitles beside or within a video, and the XMP of a photograph.

The formats have no public specification; they are read as the drones write them. `rel_alt` and `RelativeAltitude` are
metres above the place of the take-off, and are taken as the height above the ground.
"""

import math
import re
from pathlib import Path

from dlink.live.pose import Pose
from dlink.live.telemetry.track import Track
from dlink.runtime import BadInput

NUMBER = r"([+-]?\d+(?:\.\d+)?)"
TIMES = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})\s*-->")
OLD_PLACE = re.compile(rf"GPS\s*\(\s*{NUMBER}\s*,\s*{NUMBER}\s*(?:,\s*{NUMBER}[A-Z]?\s*)?\)")
LONGITUDE = ("longitude", "longtitude")  # as some of them have it


def value(text: str, *names: str) -> float | None:
    """A value of `name: 1.5` or `name="+1.5"`."""
    for name in names:
        if found := re.search(rf'\b{name}\s*[:=]\s*"?{NUMBER}', text, re.IGNORECASE):
            return float(found[1])
    return None


def pose_of_subtitle(text: str, fov: float | None = None) -> Pose | None:
    """The camera of one subtitle. None where the drone did not know its place."""
    latitude, longitude = value(text, "latitude"), value(text, *LONGITUDE)
    if latitude is None and (old := OLD_PLACE.search(text)):
        longitude, latitude = float(old[1]), float(old[2])
    if latitude is None or longitude is None or (latitude == 0 and longitude == 0):
        return None
    return Pose(
        latitude=latitude,
        longitude=longitude,
        altitude_m=value(text, "abs_alt"),
        height_m=value(text, "rel_alt", "H"),
        yaw=value(text, "gb_yaw"),
        pitch=value(text, "gb_pitch"),
        roll=value(text, "gb_roll"),
        fov=fov,
    )


def read_subtitles(path: Path, fov: float | None = None) -> Track:
    """Poses of an .SRT file, by seconds from the beginning of its video.

    Raises:
        BadInput: It has no place.
    """
    track = Track(apart=2.5)  # older drones write one a second
    for block in re.split(r"\n\s*\n", path.read_text("utf-8", errors="replace").replace("\r", "")):
        times = TIMES.search(block)
        pose = pose_of_subtitle(block[times.end() :], fov) if times else None
        if times and pose:
            hours, minutes, seconds, part = times.groups()
            track.add(int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{part}"), pose)
    if not track.times:
        raise BadInput(f"{path}: has no place of a drone; expected DJI's subtitles with latitude and longitude")
    return track


def pose_of_photograph(data: bytes, width: int) -> Pose | None:
    """The camera of a JPEG's bytes by its XMP; `width` is that of the picture. None where it has no place."""
    begin, end = data.find(b"<x:xmpmeta"), data.find(b"</x:xmpmeta>")
    text = data[begin:end].decode("utf-8", errors="replace") if 0 <= begin < end else ""
    latitude, longitude = value(text, "GpsLatitude"), value(text, "GpsLongitude", "GpsLongtitude")
    if latitude is None or longitude is None:
        return None
    focal = value(text, "CalibratedFocalLength")  # pixels
    return Pose(
        latitude=latitude,
        longitude=longitude,
        altitude_m=value(text, "AbsoluteAltitude"),
        height_m=value(text, "RelativeAltitude"),
        yaw=value(text, "GimbalYawDegree"),
        pitch=value(text, "GimbalPitchDegree"),
        roll=value(text, "GimbalRollDegree"),
        fov=2 * math.degrees(math.atan(width / 2 / focal)) if focal else None,
    )
