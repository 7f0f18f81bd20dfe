"""Poses in time, and the pose between two of them."""

import bisect
import threading
from dataclasses import replace

from dlink.live.pose import Pose
from dlink.live.rotation import angles_of, between, matrix_of

LONGEST = 4096  # poses that are remembered: minutes at any rate of a drone
AHEAD = 0.3  # seconds for which the last poses are carried on
LEAST = 0.5  # of the seconds carried on, which must lie between the two poses: a jitter of nearer ones would grow
APART = 2.0  # seconds between two poses, beyond which nothing is known of the time between them


class Track:
    """Poses by their time, seconds of any one clock. One thread may add while others ask."""

    def __init__(self, ahead: float = AHEAD, apart: float = APART) -> None:
        self.ahead, self.apart = ahead, apart
        self.times: list[float] = []
        self.poses: list[Pose] = []
        self.lock = threading.Lock()

    def add(self, time: float, pose: Pose) -> None:
        """Remember a pose. A second one of the same time is ignored; an older one is put in its place."""
        with self.lock:
            at = bisect.bisect_left(self.times, time)
            if at < len(self.times) and self.times[at] == time:
                return
            self.times.insert(at, time)
            self.poses.insert(at, pose)
            if len(self.times) > LONGEST:
                del self.times[0], self.poses[0]

    def newest(self, time: float) -> Pose | None:
        """The newest pose, unless it is too far from a time."""
        with self.lock:
            return self.poses[-1] if self.poses and abs(time - self.times[-1]) <= self.apart else None

    @property
    def span(self) -> str:
        """The times of the first and the last pose, in words."""
        with self.lock:
            return f"from {self.times[0]:.1f} to {self.times[-1]:.1f} s" if self.times else "none"

    def clear(self) -> None:
        """Forget all poses, as where a clock begins anew."""
        with self.lock:
            self.times, self.poses = [], []

    def at(self, time: float) -> Pose | None:
        """The pose of a time: between two poses, or up to `ahead` seconds beyond the last or the first one.

        None: it is not known.
        """
        with self.lock:
            pair = self.around(time)
            if pair is None:
                return None
            begin, end = (self.times[i] for i in pair)
            first, second = (self.poses[i] for i in pair)
        if pair[0] == pair[1]:
            return first
        if end - begin > self.apart:
            return None
        return interpolated(first, second, (time - begin) / (end - begin))

    def around(self, time: float) -> tuple[int, int] | None:
        """The two poses that tell of a time; twice the same one where it is of that time."""
        times = self.times
        at = bisect.bisect_left(times, time)
        if at < len(times) and times[at] == time:
            return at, at
        if 0 < at < len(times):
            return at - 1, at
        if not times or not times[0] - self.ahead <= time <= times[-1] + self.ahead:
            return None
        if at:
            before = bisect.bisect_right(times, times[-1] - LEAST * (time - times[-1])) - 1
            before = min(before, len(times) - 2)
            return None if before < 0 else (before, len(times) - 1)
        behind = max(1, bisect.bisect_left(times, times[0] + LEAST * (times[0] - time)))
        return None if behind >= len(times) else (0, behind)


def interpolated(first: Pose, second: Pose, share: float) -> Pose:
    """The pose on the way from the first (0) to the second (1); what one of them does not know is not known."""

    def value(name: str) -> float | None:
        a, b = getattr(first, name), getattr(second, name)
        return None if a is None or b is None else a + share * (b - a)

    apart = (second.longitude - first.longitude + 180) % 360 - 180  # across the antimeridian too
    yaw, pitch, roll = angles_between(first, second, share)
    return replace(
        first,
        latitude=first.latitude + share * (second.latitude - first.latitude),
        longitude=(first.longitude + share * apart + 180) % 360 - 180,
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        **{name: value(name) for name in ("altitude_m", "height_m", "fov", "vertical_fov", "utc")},
    )


def angles_between(first: Pose, second: Pose, share: float) -> tuple[float, float, float] | tuple[None, None, None]:
    """On the shortest turn between two poses. Angles alone would go the long way round at north and at the vertical."""
    each = [angle for pose in (first, second) for angle in (pose.yaw, pose.pitch, pose.roll) if angle is not None]
    if len(each) < 6:
        return None, None, None
    return angles_of(between(matrix_of(*each[:3]), matrix_of(*each[3:]), share))
