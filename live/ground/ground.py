"""Where the pixels of a frame lie: the ground as a plane, or as a surface that a file describes."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dlink.live.ground.camera import Camera, camera_of
from dlink.live.ground.earth import from_local
from dlink.live.pose import Pose
from dlink.runtime.values import real

Values = NDArray[np.float64]
SHALLOWEST = math.radians(5)  # below the horizon; what is seen nearer to it is taken for so far away
FARTHEST_M = 20_000.0
ALONG = 1.0  # pixels from the middle over which the resolution is measured


class Terrain(Protocol):
    """The ground below a camera."""

    def below(self, pose: Pose, local: Values) -> Values | None:
        """Metres (...) that the ground is below the camera, at (..., 2) metres north and east of it; NaN: not known."""
        ...


@dataclass(frozen=True)
class Footprint:
    """What a frame shows of the ground.

    Args:
        corners: (latitude, longitude) of the frame's corners: top left, top right, bottom right, bottom left.
        clamped: Whether a corner is at or near the horizon, so that it was taken to lie nearer.
    """

    corners: tuple[tuple[float, float], ...]
    clamped: bool


class Ground:
    """The ground, for the footprint and the resolution of frames.

    The camera is a pinhole, its pixels are square unless the pose has a vertical field of view, and its optical axis
    goes through the middle of the frame. What a pose does not tell makes results None; nothing is guessed.

    Args:
        terrain: How far the ground is below the camera.
    """

    def __init__(self, terrain: Terrain) -> None:
        self.terrain = terrain

    def resolution(self, pose: Pose, width: int, height: int) -> float | None:
        """Metres a pixel in the middle of a frame: the root of a pixel's area on the ground. None: not known."""
        middle = np.array([0.0, ALONG, 0.0])
        found = self.places(pose, width, height, width / 2 + middle, height / 2 + middle[[0, 0, 1]])
        if found is None:
            return None
        local, clamped = found
        if clamped.any():
            return None
        (a, b), (c, d) = (local[1] - local[0]) / ALONG, (local[2] - local[0]) / ALONG
        metres = math.sqrt(abs(a * d - b * c))
        return metres if math.isfinite(metres) and metres > 0 else None

    def missing(self, pose: Pose, width: int, height: int) -> str:
        """What the pose lacks, or why it tells no resolution, in words that follow "because"."""
        below = self.terrain.below(pose, np.zeros((1, 2)))
        if below is None or not np.isfinite(below[0]):
            return "its pose does not tell the height above the ground"
        if below[0] <= 0:
            return f"its camera would be {-float(below[0]):.0f} m below the ground, whose elevation was given"
        if camera_of(pose, width, height) is None:
            return "its pose does not tell all angles and the field of view"
        return "the middle of the frame shows the horizon, or ground that is not known"

    def footprint(self, pose: Pose, width: int, height: int) -> Footprint | None:
        """The corners of a frame on the ground. None: not known."""
        found = self.places(pose, width, height, np.array([0.0, width, width, 0.0]), np.array([0.0, 0, height, height]))
        if found is None or not np.isfinite(found[0]).all():
            return None
        lat, lon = from_local(pose.latitude, pose.longitude, found[0])
        return Footprint(tuple(zip(lat.tolist(), lon.tolist(), strict=True)), bool(found[1].any()))

    def ground_of(self, pose: Pose, width: int, height: int, column: float, row: float) -> tuple[float, float] | None:
        """The place that a pixel shows, (latitude, longitude). None: not known, or at the horizon."""
        found = self.places(pose, width, height, np.array([float(column)]), np.array([float(row)]))
        if found is None or found[1].any() or not np.isfinite(found[0]).all():
            return None
        lat, lon = from_local(pose.latitude, pose.longitude, found[0])
        return float(lat[0]), float(lon[0])

    def places(
        self, pose: Pose, width: int, height: int, columns: Values, rows: Values
    ) -> tuple[Values, NDArray[np.bool_]] | None:
        """Metres north and east (N, 2) of what pixels show, and which were clamped. None: the pose does not tell."""
        camera = camera_of(pose, width, height)
        at_camera = self.terrain.below(pose, np.zeros((1, 2)))
        if camera is None or at_camera is None or not at_camera[0] > 0:
            return None
        rays, clamped = steep_rays(camera, columns, rows)
        return self.hit(pose, rays, float(at_camera[0])), clamped

    def hit(self, pose: Pose, rays: Values, height: float) -> Values:
        """Where rays (N, 3) of length 1 meet the ground, (N, 2) metres north and east. This one is for a plane."""
        reach = np.minimum(height / rays[:, 2], FARTHEST_M)
        local: Values = rays[:, :2] * reach[:, None]
        return local


def steep_rays(camera: Camera, columns: Values, rows: Values) -> tuple[Values, NDArray[np.bool_]]:
    """Rays of length 1; those above SHALLOWEST are lowered to it, in their direction, and marked."""
    rays = camera.rays(columns, rows)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    clamped = rays[:, 2] < math.sin(SHALLOWEST)
    flat = rays[:, :2] / np.maximum(np.linalg.norm(rays[:, :2], axis=-1, keepdims=True), 1e-12)
    lowered = np.concatenate([flat * math.cos(SHALLOWEST), np.full((len(rays), 1), math.sin(SHALLOWEST))], axis=1)
    return np.where(clamped[:, None], lowered, rays), clamped


class Plane:
    """A level ground.

    Args:
        elevation_m: Metres above mean sea level. None: the pose's own height above the ground is taken.
    """

    def __init__(self, elevation_m: float | None) -> None:
        if elevation_m is not None:
            elevation_m = real("elevation_m", elevation_m, "metres", lambda e: -1000 < e < 10_000)
        self.elevation_m = elevation_m

    def below(self, pose: Pose, local: Values) -> Values | None:
        if self.elevation_m is None:
            height = pose.height_m
        else:
            height = None if pose.altitude_m is None else pose.altitude_m - self.elevation_m
        return None if height is None else np.full(local.shape[:-1], height)


class Flat(Ground):
    """A level ground below the camera.

    Args:
        elevation_m: Metres above mean sea level, which a pose's altitude is compared with. None: the pose's height
            above the ground is taken.

    Example:
        >>> from dlink.live import Pose
        >>> from dlink.live.ground.ground import Flat
        >>> pose = Pose(latitude=47.0, longitude=8.0, height_m=120.0, yaw=0.0, pitch=-90.0, roll=0.0, fov=73.7)
        >>> round(Flat().resolution(pose, 1920, 1080), 3)  # metres a pixel
        0.094
    """

    def __init__(self, elevation_m: float | None = None) -> None:
        super().__init__(Plane(elevation_m))
