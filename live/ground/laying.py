"""Lays a frame's roads onto a map with north up. Needs rasterio and OpenCV."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform

from dlink.live.ground.camera import camera_of
from dlink.live.ground.earth import from_local, to_local
from dlink.live.ground.ground import Ground
from dlink.live.pose import Pose

Values = NDArray[np.float64]
WGS84 = CRS.from_epsg(4326)
STEEPNESS = math.sin(math.radians(15))  # of the rays that a map takes; farther off a pixel's error grows beyond use
LATTICE = 33  # places along each side of a frame that are projected; those between them lie on straight lines
OUTLINE = 16  # points along each side of a frame
MOST = 4_000_000  # cells of the map that one frame may cover


@dataclass(frozen=True)
class Cells:
    """The cells of a map: north is up, and the corner of the cell (0, 0) is the system's origin.

    Args:
        crs: Metres.
        metres: Side of a cell.
    """

    crs: CRS
    metres: float

    def transform(self, row: int, column: int) -> Affine:
        """The place of cells that begin at (row, column)."""
        return Affine(self.metres, 0, column * self.metres, 0, -self.metres, -row * self.metres)


@dataclass(frozen=True)
class Laid:
    """A frame's roads on a map.

    Args:
        levels: uint8 (rows, columns), probability in 255 steps.
        seen: Which cells the frame shows.
        row: Of the first cell.
        column: Of the first cell.
    """

    levels: NDArray[np.uint8]
    seen: NDArray[np.bool_]
    row: int
    column: int


def cells_at(pose: Pose, metres: float) -> Cells:
    """The cells of a map around a pose: the UTM zone of its place."""
    zone = int((pose.longitude + 180) // 6) % 60 + 1
    return Cells(CRS.from_epsg((32600 if pose.latitude >= 0 else 32700) + zone), metres)


def lay(levels: NDArray[np.uint8], pose: Pose, ground: Ground, cells: Cells) -> Laid | None:
    """Lay the roads (H, W) of a frame onto a map. None where the pose does not tell its place.

    Only ground that is seen at 15 degrees or more below the horizon is taken. What hides what is not looked at.
    """
    height, width = levels.shape
    camera = camera_of(pose, width, height)
    outline = outline_of(pose, ground, width, height)
    if camera is None or outline is None:
        return None
    lat, lon = from_local(pose.latitude, pose.longitude, outline)
    x, y = (np.asarray(v) / cells.metres for v in transform(WGS84, cells.crs, lon.tolist(), lat.tolist()))
    first, last = (math.floor(-y.max()), math.floor(x.min())), (math.ceil(-y.min()), math.ceil(x.max()))
    rows, columns = last[0] - first[0], last[1] - first[1]
    if not 0 < rows * columns <= MOST:
        return None
    local = spread(lattice(pose, cells, first, rows, columns), rows, columns)
    below = ground.terrain.below(pose, lattice(pose, cells, first, rows, columns))
    if below is None:
        return None
    directions = np.concatenate([local, spread(below[..., None], rows, columns)], axis=-1)
    at_columns, at_rows, depth = camera.pixels(directions)
    steep = directions[..., 2] >= STEEPNESS * np.linalg.norm(directions, axis=-1)
    with np.errstate(invalid="ignore"):
        inside = (at_columns >= 0) & (at_columns <= width) & (at_rows >= 0) & (at_rows <= height)
    seen = inside & steep & (depth > 0)
    maps = [np.where(seen, at - 0.5, -1.0).astype(np.float32) for at in (at_columns, at_rows)]
    laid = cv2.remap(levels, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return Laid(np.where(seen, np.asarray(laid, np.uint8), np.uint8(0)), seen, first[0], first[1])


def outline_of(pose: Pose, ground: Ground, width: int, height: int) -> Values | None:
    """Metres north and east (N, 2) of points along a frame's edges, without those near the horizon."""
    share = np.linspace(0, 1, OUTLINE, endpoint=False)
    columns = np.concatenate([share, np.ones(OUTLINE), 1 - share, np.zeros(OUTLINE)]) * width
    rows = np.concatenate([np.zeros(OUTLINE), share, np.ones(OUTLINE), 1 - share]) * height
    found = ground.places(pose, width, height, columns, rows)
    if found is None:
        return None
    known = found[0][np.isfinite(found[0]).all(axis=1)]
    below = ground.terrain.below(pose, known)
    if below is None or len(known) < 3:
        return None
    farthest = np.nanmax(below) / math.tan(math.asin(STEEPNESS))
    reach = np.linalg.norm(known, axis=1, keepdims=True)
    shortened: Values = known * np.minimum(1.0, farthest / np.maximum(reach, 1e-9))
    return shortened


def lattice(pose: Pose, cells: Cells, first: tuple[int, int], rows: int, columns: int) -> Values:
    """Metres north and east (LATTICE, LATTICE, 2) of places over the cells, from the first middle to the last."""
    y = -(first[0] + 0.5 + np.linspace(0, rows - 1, LATTICE)) * cells.metres
    x = (first[1] + 0.5 + np.linspace(0, columns - 1, LATTICE)) * cells.metres
    xs, ys = np.meshgrid(x, y)
    lon, lat = (np.asarray(v) for v in transform(cells.crs, WGS84, xs.ravel().tolist(), ys.ravel().tolist()))
    return to_local(pose.latitude, pose.longitude, lat, lon).reshape(LATTICE, LATTICE, 2)


def spread(values: Values, rows: int, columns: int) -> Values:
    """Values (LATTICE, LATTICE, C) on all cells (rows, columns, C), on straight lines between them."""
    down, right = weights(rows), weights(columns)
    full: Values = np.einsum("rk,klc,sl->rsc", down, values, right, optimize=True)
    return full


def weights(count: int) -> Values:
    """The shares (count, LATTICE) of the lattice in each cell."""
    at = np.linspace(0, LATTICE - 1, count)
    lower = np.minimum(at.astype(int), LATTICE - 2)
    shares = np.zeros((count, LATTICE))
    shares[np.arange(count), lower] = 1 - (at - lower)
    shares[np.arange(count), lower + 1] += at - lower
    return shares
