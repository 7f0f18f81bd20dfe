"""A pinhole camera: the rays of its pixels, and the pixels of places. Lenses that bend lines are not modelled."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlink.live.pose import Pose
from dlink.live.rotation import Matrix, matrix_of

Values = NDArray[np.float64]
WIDEST = 175.0  # degrees of a field of view that a pinhole can have


@dataclass(frozen=True)
class Camera:
    """A camera without its place.

    Args:
        width: Pixels of a row.
        height: Pixels of a column.
        focal: Focal length along rows, pixels.
        vertical_focal: The same along columns.
        matrix: Turns its axes (forward, right, down of the image) into north, east, down.
    """

    width: int
    height: int
    focal: float
    vertical_focal: float
    matrix: Matrix

    def rays(self, columns: Values, rows: Values) -> Values:
        """Directions (..., 3) north, east, down of pixels; a pixel's middle is at one half. They are not normed."""
        right = (columns - self.width / 2) / self.focal
        down = (rows - self.height / 2) / self.vertical_focal
        directions: Values = np.stack([np.ones_like(right), right, down], axis=-1) @ self.matrix.T
        return directions

    def pixels(self, directions: Values) -> tuple[Values, Values, Values]:
        """Columns, rows and depths of directions (..., 3); a depth of 0 or less is behind the camera."""
        seen = directions @ self.matrix
        depth = seen[..., 0]
        safe = np.where(depth > 0, depth, np.nan)
        columns = self.width / 2 + self.focal * seen[..., 1] / safe
        return columns, self.height / 2 + self.vertical_focal * seen[..., 2] / safe, depth


def camera_of(pose: Pose, width: int, height: int) -> Camera | None:
    """The camera of a pose and a frame's pixels. None where an angle or the field of view is not known."""
    if pose.yaw is None or pose.pitch is None or pose.roll is None or pose.fov is None:
        return None
    if not 0 < pose.fov < WIDEST or not 0 < (pose.vertical_fov or pose.fov) < WIDEST:
        return None
    focal = width / 2 / math.tan(math.radians(pose.fov) / 2)
    vertical = height / 2 / math.tan(math.radians(pose.vertical_fov) / 2) if pose.vertical_fov else focal
    return Camera(width, height, focal, vertical, matrix_of(pose.yaw, pose.pitch, pose.roll))
