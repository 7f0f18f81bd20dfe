"""What the page shows. The pipeline puts it here, and any number of clients read it; none of them holds it up."""

import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dlink.live.counts import Counts
from dlink.live.frame import Image, Roads
from dlink.live.ground.earth import to_local
from dlink.live.ground.ground import Footprint
from dlink.live.pose import Pose

WIDEST = 960  # px of a picture on the page
QUALITY = 80  # of a JPEG
ROAD = (214, 0, 110)  # red, green, blue, on the picture
OPACITY = 0.55
LONGEST = 2000  # places of the track
APART_M = 1.0  # metres between two of them
BUCKETS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)  # seconds of age, of the histogram


@dataclass(frozen=True)
class MapPicture:
    """The map for the page.

    Args:
        levels: uint8 (H, W), probability in 255 steps.
        seen: Which cells were seen.
        corners: (latitude, longitude) of its corners: top left, top right, bottom left.
    """

    levels: NDArray[np.uint8]
    seen: NDArray[np.bool_]
    corners: tuple[tuple[float, float], ...]


@dataclass
class Ages:
    """Ages of roads when they were done, as Prometheus counts them."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def add(self, age: float) -> None:
        self.counts[next((i for i, limit in enumerate(BUCKETS) if age <= limit), len(BUCKETS))] += 1
        self.total += age


class Board:
    """The newest of everything. Any thread may call.

    Args:
        title: What is flown, or the source's address.
        deadline: Seconds; the page warns of roads that are older. None: it does not.
        assumes: What is assumed, each in a sentence.
    """

    def __init__(self, title: str, deadline: float | None = None, assumes: tuple[str, ...] = ()) -> None:
        self.title, self.deadline, self.assumes = title, deadline, assumes
        self.lock = threading.Condition()
        self.begun = time.monotonic()
        self.roads: Roads | None = None
        self.pose: Pose | None = None
        self.footprint: Footprint | None = None
        self.place: tuple[float, float] | None = None  # latitude and longitude, around which metres are counted
        self.track: deque[tuple[float, float]] = deque(maxlen=LONGEST)
        self.map: MapPicture | None = None
        self.maps = 0  # shown so far
        self.counts, self.ages = Counts(), Ages()
        self.state: dict[str, Any] = {}
        self.version = 0

    def show(self, roads: Roads, footprint: Footprint | None = None) -> None:
        """Show the roads of a frame."""
        with self.lock:
            self.roads, self.pose, self.footprint = roads, roads.frame.pose, footprint
            self.ages.add(roads.done - roads.frame.captured)
            if self.pose:
                self.place = self.place or (self.pose.latitude, self.pose.longitude)
                at = self.metres([(self.pose.latitude, self.pose.longitude)])[0]
                if not self.track or np.hypot(at[0] - self.track[-1][0], at[1] - self.track[-1][1]) >= APART_M:
                    self.track.append(at)
            self.version += 1
            self.lock.notify_all()

    def show_map(self, picture: MapPicture) -> None:
        with self.lock:
            self.map = picture
            self.maps += 1
            self.version += 1
            self.lock.notify_all()

    def tell(self, counts: Counts, **state: Any) -> None:
        """Say how it goes: the counters, and `state`, `views`, `source` and others as words and numbers."""
        with self.lock:
            changed = (counts, state) != (self.counts, self.state)
            self.counts, self.state = counts, state
            self.version += changed
            if changed:
                self.lock.notify_all()

    def metres(self, places: list[tuple[float, float]]) -> list[tuple[float, float]]:
        """Metres east and north of places, from the first one that was shown."""
        assert self.place is not None
        local = to_local(*self.place, *np.array(places, np.float64).T)
        return [(round(float(east), 2), round(float(north), 2)) for north, east in local]

    def wait(self, newer_than: int, seconds: float) -> dict[str, Any]:
        """What is shown, once it is newer than a version, or after so many seconds."""
        with self.lock:
            self.lock.wait_for(lambda: self.version > newer_than, seconds)
            return self.now()

    def now(self) -> dict[str, Any]:
        """What is shown, as JSON values."""
        roads, pose = self.roads, self.pose
        shown: dict[str, Any] = {
            "version": self.version,
            "deadline": self.deadline,
            "counts": asdict(self.counts),
            "frame": None,
            "pose": None if pose is None else {k: v for k, v in asdict(pose).items() if v is not None},
            "footprint": None,
            "clamped": False,
            "track": list(self.track),
            "map": None,
            **self.state,
        }
        if roads:
            shown["frame"] = {
                "id": roads.frame.id,
                "age": roads.age(),
                "done_age": roads.done - roads.frame.captured,
                "views": round(float(roads.views), 1),
                "scale": roads.scale,
                "late": roads.late,
                "utc": roads.frame.utc,
            }
        if self.footprint and self.place:
            shown["footprint"] = self.metres(list(self.footprint.corners))
            shown["clamped"] = self.footprint.clamped
        if self.map and self.place:
            shown["map"] = {"number": self.maps, "corners": self.metres(list(self.map.corners))}
        return shown

    def picture(self, with_roads: bool) -> bytes | None:
        """The newest frame as a JPEG, with its roads painted over it."""
        roads = self.roads
        if roads is None:
            return None
        height, width = roads.image.shape[:2]
        scale = min(1.0, WIDEST / width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = np.asarray(cv2.resize(shown(roads.image), size, interpolation=cv2.INTER_AREA), np.uint8)
        if with_roads:
            mask = np.asarray(cv2.resize(roads.mask, size, interpolation=cv2.INTER_AREA), np.float32)[..., None] / 255
            image = (image + mask * OPACITY * (np.array(ROAD, np.float32) - image)).astype(np.uint8)
        return encoded(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])

    def map_picture(self) -> bytes | None:
        """The map as a PNG: roads in colour, other ground in grey, and what was not seen transparent."""
        if (picture := self.map) is None:
            return None
        p = picture.levels.astype(np.float32)[..., None] / 255
        colour = (1 - p) * np.array((150, 150, 150), np.float32) + p * np.array(ROAD[::-1], np.float32)
        alpha = np.where(picture.seen, 70 + 150 * p[..., 0], 0)[..., None]
        return encoded(".png", np.concatenate([colour, alpha], axis=-1).astype(np.uint8), [])


def shown(image: Image) -> Image:
    """The first three bands of an image, or its first one three times."""
    return image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)


def encoded(suffix: str, pixels: NDArray[np.uint8], options: list[int]) -> bytes:
    ok, data = cv2.imencode(suffix, pixels, options)
    assert ok
    return data.tobytes()
