"""The map of a flight: what all frames say of the ground, north up. Needs rasterio and OpenCV.

Each cell has the sum of the frames' log odds, log(p / (1 - p)), which is how independent observations add up. Frames
of one view are not independent: what the network takes for a road it takes for one in the next frame too. So a frame
counts only if the camera has moved on since the last one that counted, and one frame counts for little.
"""

import math
import os
from collections import OrderedDict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.warp import transform
from rasterio.windows import Window

from dlink.live.ground.earth import to_local
from dlink.live.ground.ground import Ground
from dlink.live.ground.laying import WGS84, Cells, Laid, cells_at, lay
from dlink.live.page.board import MapPicture
from dlink.live.pose import Pose
from dlink.runtime.files import replacing

NAME = "map.tif"
BLOCK = 512  # cells along each side of a block
IN_MEMORY = 256  # blocks of 1 MB; others wait on the disk
WIDEST = 1024  # cells along a side of the map's picture
DIVISORS = tuple(2**i for i in range(10))  # of BLOCK
SUREST = 0.8  # of a single frame: a level beyond it counts no more
MOST = 6.0  # log odds of a cell, so that a change of the ground can be seen
MOVED = 0.1  # of a frame's side, or so many degrees: less is the same view
TURNED = 15.0
PLAIN = {"driver": "GTiff", "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate",
         "bigtiff": "IF_SAFER", "sparse_ok": True}  # fmt: skip
COG = {"driver": "COG", "compress": "deflate", "blocksize": BLOCK, "overview_resampling": "average"}
TAGS = {
    "DLINK_VALUES": "probability of road in 255 steps, of the sum of the frames' log odds; masked where no frame was",
    "AREA_OR_POINT": "Area",
}

Odds = NDArray[np.float32]


class RoadMap:
    """A map that grows as frames are added.

    Args:
        folder: Where it is written, and where blocks wait that memory does not hold.
        ground: Where frames lie.
        metres: Side of a cell.
    """

    def __init__(self, folder: Path, ground: Ground, metres: float) -> None:
        self.folder, self.ground, self.metres = folder, ground, metres
        self.cells: Cells | None = None
        self.blocks: OrderedDict[tuple[int, int], Odds] = OrderedDict()  # NaN where no frame was
        self.all: set[tuple[int, int]] = set()
        self.spill = TemporaryDirectory(prefix=".map", dir=folder)
        self.last: Pose | None = None
        self.side = 0.0  # metres of the last frame's shorter side
        self.frames = 0  # that counted
        self.changed = False

    def add(self, levels: NDArray[np.uint8], pose: Pose) -> bool:
        """Add the roads (H, W) of a frame. Whether it counted: it has a place, and shows another view than the last."""
        if not self.is_new(pose):
            return False
        self.cells = self.cells or cells_at(pose, self.metres)
        laid = lay(levels, pose, self.ground, self.cells)
        if laid is None or not laid.seen.any():
            return False
        self.last = pose
        self.side = math.sqrt(float(laid.seen.sum())) * self.metres
        self.put(laid)
        self.frames += 1
        self.changed = True
        return True

    def is_new(self, pose: Pose) -> bool:
        """Whether a pose shows another view than the last frame that counted."""
        last = self.last
        if last is None or pose.yaw is None or last.yaw is None or pose.pitch is None or last.pitch is None:
            return True
        local = to_local(last.latitude, last.longitude, np.array([pose.latitude]), np.array([pose.longitude]))
        turned = max(abs((pose.yaw - last.yaw + 180) % 360 - 180), abs(pose.pitch - last.pitch))
        return float(np.linalg.norm(local)) >= MOVED * self.side or turned >= TURNED

    def put(self, laid: Laid) -> None:
        """Add a frame's log odds to the blocks that it covers."""
        p = np.clip(laid.levels.astype(np.float32) / 255, 1 - SUREST, SUREST)
        odds = np.where(laid.seen, np.log(p / (1 - p)), np.float32(np.nan))
        height, width = odds.shape
        for row in range(laid.row // BLOCK, (laid.row + height - 1) // BLOCK + 1):
            for column in range(laid.column // BLOCK, (laid.column + width - 1) // BLOCK + 1):
                top, left = row * BLOCK - laid.row, column * BLOCK - laid.column
                rows, columns = slice(max(0, top), top + BLOCK), slice(max(0, left), left + BLOCK)
                part = odds[rows, columns]
                if np.isnan(part).all():
                    continue
                block = self.block((row, column))
                at = max(0, -top), max(0, -left)
                place = block[at[0] : at[0] + part.shape[0], at[1] : at[1] + part.shape[1]]
                total = np.where(np.isnan(place), part, np.where(np.isnan(part), place, place + part))
                place[:] = np.clip(total, -MOST, MOST)

    def block(self, key: tuple[int, int]) -> Odds:
        """A block, from memory or the disk, or a new one."""
        if key in self.blocks:
            self.blocks.move_to_end(key)
            return self.blocks[key]
        path = self.path(key)
        block = np.load(path) if path.exists() else np.full((BLOCK, BLOCK), np.nan, np.float32)
        self.blocks[key] = block
        self.all.add(key)
        if len(self.blocks) > IN_MEMORY:
            old, values = self.blocks.popitem(last=False)
            np.save(self.path(old), values)
        return block

    def path(self, key: tuple[int, int]) -> Path:
        return Path(self.spill.name) / f"{key[0]}_{key[1]}.npy"

    def picture(self) -> MapPicture | None:
        """The map in at most WIDEST cells a side, for a page."""
        if not self.all or self.cells is None:
            return None
        top, left, height, width = self.extent()
        step = -(-max(height, width) // WIDEST)
        step = next(each for each in DIVISORS if each >= min(step, BLOCK))
        levels, seen = (np.zeros((height // step, width // step), kind) for kind in (np.uint8, np.bool_))
        side = BLOCK // step
        for row, column in sorted(self.all):
            block = self.block((row, column))[::step, ::step]
            y, x = (row * BLOCK - top) // step, (column * BLOCK - left) // step
            levels[y : y + side, x : x + side] = as_levels(block)
            seen[y : y + side, x : x + side] = ~np.isnan(block)
        rows, columns = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return None
        shown = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        place = self.cells.transform(top + int(rows[0]) * step, left + int(columns[0]) * step)
        right, down = (columns[-1] + 1 - columns[0]) * step * place.a, (rows[-1] + 1 - rows[0]) * step * place.e
        xs, ys = [place.c, place.c + right, place.c], [place.f, place.f, place.f + down]
        lon, lat = transform(self.cells.crs, WGS84, xs, ys)
        return MapPicture(levels[shown], seen[shown], tuple(zip(lat, lon, strict=True)))

    def extent(self) -> tuple[int, int, int, int]:
        """The first row and column of all blocks, and how many rows and columns of cells they have."""
        rows, columns = ([key[i] for key in self.all] for i in (0, 1))
        size = (max(rows) - min(rows) + 1) * BLOCK, (max(columns) - min(columns) + 1) * BLOCK
        return min(rows) * BLOCK, min(columns) * BLOCK, *size

    def save(self, last: bool = False) -> None:
        """Write map.tif, whole or not at all; the `last` one as a Cloud Optimized GeoTIFF with overviews."""
        if not self.all or self.cells is None or not (self.changed or last):
            return
        with replacing(self.folder / NAME) as part:
            if last:
                plain = part.with_name(f".plain.{os.getpid()}.tif")
                try:
                    self.write(plain)
                    rasterio.shutil.copy(plain, part, **COG)
                finally:
                    plain.unlink(missing_ok=True)
            else:
                self.write(part)
        self.changed = False

    def write(self, path: Path) -> None:
        """Write all blocks as one raster; those where no frame was take no room."""
        assert self.cells is not None
        top, left, height, width = self.extent()
        place = {"crs": self.cells.crs, "transform": self.cells.transform(top, left)}
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", height=height, width=width, count=1, dtype="uint8", **place, **PLAIN) as file,
        ):
            file.update_tags(**TAGS, DLINK_FRAMES=str(self.frames))
            for row, column in sorted(self.all):
                block = self.block((row, column))
                window = Window(column * BLOCK - left, row * BLOCK - top, BLOCK, BLOCK)
                file.write(as_levels(block), 1, window=window)
                file.write_mask(~np.isnan(block), window=window)

    def close(self) -> None:
        self.spill.cleanup()


def as_levels(odds: Odds) -> NDArray[np.uint8]:
    """Log odds as probability in 255 steps; 0 where no frame was."""
    levels: NDArray[np.uint8] = np.where(np.isnan(odds), 0, 255 / (1 + np.exp(-odds)) + 0.5).astype(np.uint8)
    return levels
