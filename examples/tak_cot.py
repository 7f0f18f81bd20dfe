"""Shows a drone that flies with dlink-live on a TAK map: its place and what it sees, as Cursor on Target events.

    python examples/tak_cot.py flight tcp:takserver:8087    # or udp:239.2.3.1:6969

It follows the session's roads.jsonl as it grows, and sends at most one pair of events a second. An event is XML
of CoT's base schema 2.0: a uid, a type, a way (how), three times in UTC, and a point.
"""

import argparse
import json
import socket
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from dlink.live import Pose
from dlink.live.ground.ground import Flat

UNKNOWN = "9999999.0"  # CoT's value for an error or a height that is not known
STALE = 30.0  # seconds for which an event holds
DRONE, AREA = "a-f-A-M-F-Q", "u-d-f"  # types: a friendly unmanned aircraft; a drawn shape
FROM_A_MACHINE = "m-g"


def event(uid: str, kind: str, when: float, place: tuple[float, float], height: float | None = None) -> Any:
    """An event at (latitude, longitude), degrees, and metres above the ellipsoid, which telemetry seldom knows."""

    def zulu(seconds: float) -> str:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"

    made = ElementTree.Element("event", version="2.0", uid=uid, type=kind, how=FROM_A_MACHINE)
    made.attrib |= {"time": zulu(when), "start": zulu(when), "stale": zulu(when + STALE)}
    hae = UNKNOWN if height is None else f"{height:.1f}"
    point = {"lat": f"{place[0]:.7f}", "lon": f"{place[1]:.7f}", "hae": hae, "ce": UNKNOWN, "le": UNKNOWN}
    ElementTree.SubElement(made, "point", point)
    return made


def events(line: dict[str, Any], name: str, size: tuple[int, int]) -> Iterator[bytes]:
    """The drone, and the footprint of its frame where the pose tells it."""
    pose = Pose(**line["pose"])
    when = line.get("utc") or time.time()
    drone = event(f"dlink-{name}", DRONE, when, (pose.latitude, pose.longitude))
    detail = ElementTree.SubElement(drone, "detail")
    ElementTree.SubElement(detail, "contact", callsign=name)
    if pose.yaw is not None:
        ElementTree.SubElement(detail, "sensor", azimuth=f"{pose.yaw:.1f}", fov=f"{pose.fov or 0:.1f}")
    yield ElementTree.tostring(drone)
    if footprint := Flat().footprint(pose, *size):
        area = event(f"dlink-{name}-view", AREA, when, footprint.corners[0])
        detail = ElementTree.SubElement(area, "detail")
        for lat, lon in (*footprint.corners, footprint.corners[0]):
            ElementTree.SubElement(detail, "link", point=f"{lat:.7f},{lon:.7f}")
        ElementTree.SubElement(detail, "contact", callsign=f"{name} sees")
        yield ElementTree.tostring(area)


def lines(path: Path, follow: bool) -> Iterator[dict[str, Any]]:
    """The lines of a file, whole ones only; with `follow` also those that are to come."""
    with path.open("rb") as file:
        rest = b""
        while True:
            rest += file.readline()
            if rest.endswith(b"\n"):
                yield json.loads(rest)
                rest = b""
            elif not follow:
                return
            else:
                time.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(description="A flight on a TAK map.")
    parser.add_argument("session", type=Path)
    parser.add_argument("server", help="tcp:HOST:PORT or udp:HOST:PORT")
    parser.add_argument("--name", default="drone")
    parser.add_argument("--size", default="1280x720", help="of the video, for the footprint")
    parser.add_argument("--once", action="store_true", help="send what is there and end")
    args = parser.parse_args()
    kind, host, port = args.server.split(":")
    width, height = map(int, args.size.split("x"))
    link = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    sent = float("-inf")
    with link:
        link.connect((host, int(port)))
        for line in lines(args.session / "roads.jsonl", follow=not args.once):
            if "pose" in line and line["captured"] - sent >= 1:
                sent = line["captured"]
                for message in events(line, args.name, (width, height)):
                    link.sendall(message)  # over UDP one event a packet
    return 0


if __name__ == "__main__":
    sys.exit(main())
