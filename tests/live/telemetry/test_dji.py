"""DJI's subtitles and photographs, in the spellings that its drones have."""

import pytest

from dlink.live.telemetry.dji import pose_of_photograph, pose_of_subtitle, read_subtitles
from dlink.live.telemetry.telemetry import TelemetryOptions, telemetry_of
from dlink.live.video.taken import Taken
from dlink.runtime import BadInput

NEW = (
    '<font size="28">FrameCnt: 1, DiffTime: 33ms\n2024-05-01 10:00:00.033\n[iso: 100] [shutter: 1/1000.0] [fnum: 2.8] '
    "[ev: 0] [focal_len: 24.00] [latitude: 47.123456] [longitude: 8.654321] [rel_alt: 120.100 abs_alt: 620.300] "
    "[gb_yaw: -10.5 gb_pitch: -90.0 gb_roll: 0.0] </font>"
)
MIDDLE = "[iso : 100] [latitude : 47.123456] [longtitude : 8.654321] [altitude: 55.0]"
OLD = "HOME(8.6540,47.1230) 2017.05.01 10:00:00\nGPS(8.654321,47.123456,16) BAROMETER:120.1"


@pytest.mark.parametrize("text", [NEW, MIDDLE, OLD])
def test_every_spelling_has_its_place(text):
    pose = pose_of_subtitle(text)
    assert (pose.latitude, pose.longitude) == (47.123456, 8.654321)


def test_what_newer_drones_say_of_the_camera_is_read():
    pose = pose_of_subtitle(NEW, fov=73.7)
    assert (pose.height_m, pose.altitude_m) == (120.1, 620.3)
    assert (pose.yaw, pose.pitch, pose.roll, pose.fov) == (-10.5, -90.0, 0.0, 73.7)
    assert pose_of_subtitle(MIDDLE).pitch is None and pose_of_subtitle(MIDDLE).height_m is None


@pytest.mark.parametrize("text", ["[latitude: 0.000000] [longitude: 0.000000]", "no place", "GPS(0,0,0)"])
def test_a_drone_without_a_fix_has_no_place(text):
    assert pose_of_subtitle(text) is None


def test_a_file_of_subtitles_is_a_track(tmp_path):
    path = tmp_path / "DJI_0001.SRT"
    blocks = [
        f"{i + 1}\n00:00:0{i // 2},{500 * (i % 2):03} --> 00:00:0{i // 2},{500 * (i % 2) + 400:03}\n"
        + NEW.replace("47.123456", f"{47 + i / 1000:.6f}")
        for i in range(6)
    ]
    path.write_bytes("\r\n\r\n".join(block.replace("\n", "\r\n") for block in blocks).encode())
    assert read_subtitles(path).at(1.25).latitude == pytest.approx(47.0025)
    telemetry = telemetry_of(str(path), TelemetryOptions(fov=60.0, offset=0.5))
    taken = Taken(pixels=None, captured=0.0, pts=0.75, index=0, connection=1)
    pose = telemetry.pose(taken)
    assert pose.latitude == pytest.approx(47.0025) and pose.fov == 60.0
    assert pose.yaw == pytest.approx(349.5) and pose.pitch == pytest.approx(-90.0)


def test_subtitles_of_something_else_are_refused(tmp_path):
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    with pytest.raises(BadInput, match="no place of a drone"):
        read_subtitles(tmp_path / "a.srt")


def test_a_photograph_says_its_camera():
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description drone-dji:GpsLatitude="+47.123456" '
        b'drone-dji:GpsLongitude="8.654321" drone-dji:AbsoluteAltitude="+620.30" drone-dji:RelativeAltitude="+120.10" '
        b'drone-dji:GimbalYawDegree="+12.0" drone-dji:GimbalPitchDegree="-89.90" drone-dji:GimbalRollDegree="+0.00" '
        b'drone-dji:CalibratedFocalLength="3666.66"/></x:xmpmeta>'
    )
    pose = pose_of_photograph(b"\xff\xd8..." + xmp + b"...", width=5472)
    assert (pose.latitude, pose.longitude, pose.height_m, pose.altitude_m) == (47.123456, 8.654321, 120.1, 620.3)
    assert (pose.yaw, pose.pitch, pose.roll) == (12.0, -89.9, 0.0) and pose.fov == pytest.approx(73.45, abs=0.1)
    assert pose_of_photograph(b"\xff\xd8 none", width=5472) is None
