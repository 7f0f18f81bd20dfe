"""The ground of a file: an elevation model that GDAL reads. Needs rasterio."""

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


class Elevation:
    """Elevations of a file, metres above mean sea level, as altitudes of poses are.

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
        self.values: NDArray[np.float64] = np.empty((0, 0))
        self.row = self.column = 0  # of the first value that was read

    def below(self, pose: Pose, local: Values) -> Values | None:
        if pose.altitude_m is None:
            return None
        lat, lon = from_local(pose.latitude, pose.longitude, local.reshape(-1, 2))
        below: Values = pose.altitude_m - self.at(lat, lon).reshape(local.shape[:-1])
        return below

    def at(self, lat: Values, lon: Values) -> Values:
        """Elevations of places, between the middles of pixels; NaN where they are not known."""
        x, y = transform(WGS84, self.file.crs, lon.tolist(), lat.tolist())
        grid = ~self.file.transform
        xs, ys = np.asarray(x), np.asarray(y)
        columns, rows = grid.a * xs + grid.b * ys + grid.c - 0.5, grid.d * xs + grid.e * ys + grid.f - 0.5
        self.read_around(rows, columns)
        return between_pixels(self.values, rows - self.row, columns - self.column)

    def read_around(self, rows: Values, columns: Values) -> None:
        """Read the model around the first place, unless it was read before."""
        row, column = int(rows[0]), int(columns[0])
        height, width = self.values.shape
        if self.row + AROUND // 2 <= row <= self.row + height - AROUND // 2 and (
            self.column + AROUND // 2 <= column <= self.column + width - AROUND // 2
        ):
            return
        self.row, self.column = row - AROUND, column - AROUND
        self.values = np.full((2 * AROUND, 2 * AROUND), np.nan)
        top, left = max(0, self.row), max(0, self.column)
        down, right = min(self.file.height, row + AROUND), min(self.file.width, column + AROUND)
        if top < down and left < right:
            read = self.file.read(1, window=Window(left, top, right - left, down - top), masked=True)
            inside = slice(top - self.row, down - self.row), slice(left - self.column, right - self.column)
            self.values[inside] = np.ma.filled(read.astype(np.float64), np.nan)

    @property
    def least(self) -> float:
        """The lowest elevation that was read."""
        return float(np.nanmin(self.values)) if np.isfinite(self.values).any() else float("nan")


def between_pixels(values: Values, rows: Values, columns: Values) -> Values:
    """Values between four pixels' middles; NaN outside, and where one of the four is NaN."""
    height, width = values.shape
    inside = (rows >= 0) & (rows <= height - 1) & (columns >= 0) & (columns <= width - 1)
    top, left = np.clip(rows.astype(int), 0, height - 2), np.clip(columns.astype(int), 0, width - 2)
    down, right = rows - top, columns - left
    upper = values[top, left] * (1 - right) + values[top, left + 1] * right
    lower = values[top + 1, left] * (1 - right) + values[top + 1, left + 1] * right
    return np.where(inside, upper * (1 - down) + lower * down, np.nan)


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
        lowest = max(height, float(pose.altitude_m or 0) - self.elevation.least)
        reach = np.minimum(lowest / rays[:, 2], FARTHEST_M)
        low, high = np.zeros(len(rays)), np.full(len(rays), np.nan)
        for step in np.linspace(0, 1, STEPS + 1)[1:]:
            under = np.isnan(high) & self.is_below(pose, rays, reach * step)
            high[under] = (reach * step)[under]
            low = np.where(np.isnan(high), reach * step, low)
            if not np.isnan(high).any():
                break
        for _ in range(HALVED):
            middle = (low + high) / 2
            under = self.is_below(pose, rays, middle)
            low, high = np.where(under, low, middle), np.where(under, middle, high)
        local: Values = rays[:, :2] * high[:, None]
        return local

    def is_below(self, pose: Pose, rays: Values, reach: Values) -> NDArray[np.bool_]:
        """Whether rays are below the surface after so many metres."""
        known = np.where(np.isfinite(reach), reach, 0.0)
        below = self.terrain.below(pose, rays[:, :2] * known[:, None])
        assert below is not None  # the altitude is known here
        result: NDArray[np.bool_] = np.isfinite(reach) & (rays[:, 2] * known >= below)
        return result
