"""The ground of a file: an elevation model that GDAL reads. Needs rasterio."""

import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform
from rasterio.windows import Window

from dlink.live.ground.earth import from_local
from dlink.live.ground.ground import FARTHEST_M, Ground
from dlink.live.pose import Pose
from dlink.runtime import BadInput

Values = NDArray[np.float64]
WGS84 = CRS.from_epsg(4326)
AROUND = 1024  # pixels of the model that are read at once, in each direction from the camera
STEPS = 512  # along a ray, before the crossing is narrowed down
HALVED = 24  # times
AXES_M = 500.0  # metres over which a model's pixels are counted along north and east


@dataclass(frozen=True)
class Part:
    """A part of a model in memory, from a row and a column on; NaN where the ground is not known."""

    row: int
    column: int
    values: Values

    def has(self, row: int, column: int) -> bool:
        """Whether it reaches far enough around a pixel."""
        down, right = row - self.row, column - self.column
        return all(
            AROUND <= 2 * at <= 2 * side - AROUND for at, side in zip((down, right), self.values.shape, strict=True)
        )

    def at(self, rows: Values, columns: Values) -> Values:
        return between_pixels(self.values, rows - self.row, columns - self.column)

    @cached_property
    def least(self) -> float:
        """The lowest elevation."""
        return float(np.nanmin(self.values)) if np.isfinite(self.values).any() else float("nan")


NONE = Part(0, 0, np.empty((0, 0)))


class Elevation:
    """Elevations of a file, metres above mean sea level, as altitudes of poses are. Any thread may ask.

    Args:
        path: A raster of one band of metres, in any system of coordinates. Its nodata is not known ground.

    Raises:
        BadInput: The file is none.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.file = rasterio.open(path)
        except RasterioError as e:
            raise BadInput(f"{path}: cannot be read as an elevation model: {e}") from e
        if self.file.crs is None or self.file.count != 1:
            self.file.close()
            raise BadInput(f"{path}: an elevation model has one band and says where it lies")
        self.lock = threading.Lock()  # of the file, which one thread may read
        self.part = NONE

    def below(self, pose: Pose, local: Values) -> Values | None:
        if pose.altitude_m is None:
            return None
        places = local.reshape(-1, 2)
        rows, columns = self.pixels(pose, places)
        known = np.isfinite(rows)
        part = self.part_around(rows[known][0], columns[known][0]) if known.any() else NONE
        below: Values = pose.altitude_m - part.at(rows, columns).reshape(local.shape[:-1])
        return below

    def pixels(self, pose: Pose, local: Values) -> tuple[Values, Values]:
        """Rows and columns of places (N, 2) metres north and east of a pose; the middle of the first pixel is 0."""
        lat, lon = from_local(pose.latitude, pose.longitude, local)
        x, y = transform(WGS84, self.file.crs, lon.tolist(), lat.tolist())
        grid = ~self.file.transform
        xs, ys = np.asarray(x), np.asarray(y)
        return grid.d * xs + grid.e * ys + grid.f - 0.5, grid.a * xs + grid.b * ys + grid.c - 0.5

    def part_around(self, row: float, column: float) -> Part:
        """The model around a pixel; read, unless it was read before."""
        middle = int(row), int(column)
        part = self.part
        if not part.has(*middle):
            with self.lock:
                part = self.part = self.read(*middle)
        return part

    def read(self, row: int, column: int) -> Part:
        part = Part(row - AROUND, column - AROUND, np.full((2 * AROUND, 2 * AROUND), np.nan))
        top, left = max(0, part.row), max(0, part.column)
        down, right = min(self.file.height, row + AROUND), min(self.file.width, column + AROUND)
        if top < down and left < right:
            read = self.file.read(1, window=Window(left, top, right - left, down - top), masked=True)
            inside = slice(top - part.row, down - part.row), slice(left - part.column, right - part.column)
            part.values[inside] = np.ma.filled(read.astype(np.float64), np.nan)
        return part


def between_pixels(values: Values, rows: Values, columns: Values) -> Values:
    """Values between four pixels' middles; NaN outside, and where one of the four is NaN."""
    height, width = values.shape
    inside = (rows >= 0) & (rows <= height - 1) & (columns >= 0) & (columns <= width - 1)
    if not inside.any():
        return np.full(rows.shape, np.nan)
    top = np.clip(np.where(inside, rows, 0).astype(int), 0, height - 2)
    left = np.clip(np.where(inside, columns, 0).astype(int), 0, width - 2)
    down, right = rows - top, columns - left
    upper = values[top, left] * (1 - right) + values[top, left + 1] * right
    lower = values[top + 1, left] * (1 - right) + values[top + 1, left + 1] * right
    return np.where(inside, upper * (1 - down) + lower * down, np.nan)


class Surface:
    """A model around a pose, whose places are counted in metres north and east of it.

    The model's pixels are taken as even along both within a camera's sight. A kilometre away that is wrong by
    centimetres, ten kilometres away by metres, where a pixel of the frame shows as much.
    """

    def __init__(self, elevation: Elevation, pose: Pose) -> None:
        assert pose.altitude_m is not None
        self.altitude = pose.altitude_m
        ends = np.array([[0.0, 0.0], [AXES_M, 0.0], [0.0, AXES_M]])
        rows, columns = elevation.pixels(pose, ends)
        self.origin = np.array([rows[0], columns[0]])
        self.axes = np.array([rows[1:] - rows[0], columns[1:] - columns[0]]) / AXES_M
        self.part = elevation.part_around(rows[0], columns[0])

    def is_above(self, rays: Values, reach: Values) -> NDArray[np.bool_]:
        """Whether it is above the ends of rays (N, 3) of a reach (..., N) in metres."""
        places = reach[..., None] * (rays[:, :2] @ self.axes.T) + self.origin
        with np.errstate(invalid="ignore"):
            above: NDArray[np.bool_] = (
                self.part.at(places[..., 0], places[..., 1]) >= self.altitude - reach * rays[:, 2]
            )
        return above


class Dem(Ground):
    """The ground of an elevation model. Altitudes of poses and elevations are both taken as above mean sea level.

    Args:
        path: A raster of one band, metres.
    """

    def __init__(self, path: Path) -> None:
        self.elevation = Elevation(Path(path))
        super().__init__(self.elevation)

    def hit(self, pose: Pose, rays: Values, height: float) -> Values:
        """As Ground.hit: the first place where each ray is below the surface; NaN where the surface is not known."""
        surface = Surface(self.elevation, pose)
        lowest = max(height, surface.altitude - surface.part.least)
        farthest = np.minimum(lowest / rays[:, 2], FARTHEST_M)
        reaches = np.linspace(0, 1, STEPS + 1)[1:, None] * farthest
        under = surface.is_above(rays, reaches)
        first = under.argmax(axis=0)
        low, high = first / STEPS * farthest, (first + 1) / STEPS * farthest
        for _ in range(HALVED):
            middle = (low + high) / 2
            now = surface.is_above(rays, middle)
            low, high = np.where(now, low, middle), np.where(now, middle, high)
        reach = np.where(under.any(axis=0), high, np.nan)
        local: Values = rays[:, :2] * reach[:, None]
        return local
