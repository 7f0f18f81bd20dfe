"""Locates tiles on the ground: by a GeoTIFF, a world file beside the picture, or a CSV of bounds."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.warp import transform

from dlink.imagery.images import read_image
from dlink.imagery.kinds import place_beside
from dlink.imagery.reading import NATIVE, Reading
from dlink.imagery.resolution import metres_a_pixel
from dlink.imagery.source import opened
from dlink.runtime.errors import BadInput

WGS84 = CRS.from_epsg(4326)
COLUMNS = ("id", "west", "south", "east", "north")
PICTURES = (".png", ".jpg", ".jpeg")  # these have no georeference inside
WORLD_FILES = {".jpg": ".jgw", ".jpeg": ".jgw", ".png": ".pgw", ".tif": ".tfw", ".tiff": ".tfw"}


@dataclass(frozen=True)
class Place:
    """A picture's size and grid. `affine` maps (column, row) of a pixel's corner to `crs`."""

    height: int
    width: int
    affine: Affine
    crs: CRS

    def pixels(self, lonlat: NDArray[np.float64]) -> NDArray[np.float64]:
        """Degrees (N, 2) -> pixels (N, 2) as x, y; a pixel's centre is at 0.5. Infinite outside the projection."""
        x, y = transform(WGS84, self.crs, lonlat[:, 0], lonlat[:, 1]) if self.crs != WGS84 else lonlat.T
        back = ~self.affine
        a = np.array([[back.a, back.b], [back.d, back.e]])
        pixels: NDArray[np.float64] = np.column_stack([x, y]) @ a.T + (back.c, back.f)
        return pixels

    def ground(self, x: float, y: float) -> tuple[float, float]:
        """The coordinates of a pixel in `crs`."""
        grid = self.affine
        return grid.a * x + grid.b * y + grid.c, grid.d * x + grid.e * y + grid.f

    @property
    def gsd_m(self) -> float:
        """Metres a pixel at the picture's middle: the geometric mean of a pixel's sides."""
        sizes = metres_a_pixel(self.affine, self.crs, self.height, self.width)
        if sizes is None:
            raise BadInput(f"{self.crs}: gives the picture no place on Earth; give --crs, such as EPSG:32633")
        return float((sizes[0] * sizes[1]) ** 0.5)

    @property
    def centre(self) -> tuple[float, float]:
        """Longitude and latitude of the middle, in degrees."""
        x, y = self.ground(self.width / 2, self.height / 2)
        lon, lat = transform(self.crs, WGS84, [x], [y])
        return float(lon[0]), float(lat[0])

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in degrees, around the four corners."""
        corners = [self.ground(x, y) for x in (0, self.width) for y in (0, self.height)]
        lon, lat = transform(self.crs, WGS84, *map(list, zip(*corners, strict=True)))
        return min(lon), min(lat), max(lon), max(lat)


def place_of(image: Path, table: Mapping[str, tuple[float, float, float, float]] | None, crs: CRS | None) -> Place:
    """Locate a picture by the table if there is one, else by its own georeference or a world file."""
    if table is not None:
        name = image.stem.removesuffix("_sat")
        if name not in table:
            raise BadInput(f"{image}: no row with the id {name} in the table of bounds")
        height, width = read_image(image).shape[:2]
        west, south, east, north = table[name]
        grid = Affine((east - west) / width, 0, west, 0, (south - north) / height, north)
        return Place(height, width, grid, crs or WGS84)
    if image.suffix.lower() not in PICTURES or place_beside(image):
        with opened(image, Reading(bands="1", gsd=NATIVE)) as source:
            own, grid = crs or source.dataset.crs, source.dataset.transform
            if own and not grid.is_identity:
                return Place(*source.native, grid, own)
    world = world_file(image)
    if world is None:
        raise BadInput(f"{image}: has no georeference; a GeoTIFF has one, else a world file or --bounds CSV gives it")
    if crs is None:
        raise BadInput(f"{world}: a world file does not say its coordinate system; give --crs, such as EPSG:32633")
    height, width = read_image(image).shape[:2]
    return Place(height, width, read_world(world), crs)


def world_file(image: Path) -> Path | None:
    names = [WORLD_FILES.get(image.suffix.lower(), ".wld"), ".wld", f"{image.suffix}w"]
    return next((p for name in names if (p := image.with_suffix(name)).exists()), None)


def read_world(path: Path) -> Affine:
    """Six lines: column steps, row steps, and the centre of the first pixel."""
    try:
        a, d, b, e, x, y = (float(word) for word in path.read_text().split())
    except ValueError as error:
        raise BadInput(f"{path}: a world file has six numbers: {error}") from error
    affine = Affine(a, b, x - (a + b) / 2, d, e, y - (d + e) / 2)
    if not np.isfinite([a, b, d, e, x, y]).all() or not affine.determinant:
        raise BadInput(f"{path}: its pixels cover no ground")
    return affine


def read_bounds(path: Path) -> dict[str, tuple[float, float, float, float]]:
    """A CSV with the columns id, west, south, east, north."""
    found = {}
    with path.open(newline="", encoding="utf-8-sig") as f:
        rows = csv.DictReader(f)
        if missing := [c for c in COLUMNS if c not in (rows.fieldnames or [])]:
            raise BadInput(f"{path}: no column {missing[0]}; expected {', '.join(COLUMNS)}")
        for row in rows:
            try:
                west, south, east, north = (float(row[c]) for c in COLUMNS[1:])
            except (TypeError, ValueError) as e:
                raise BadInput(f"{path}: line {rows.line_num}: {e}") from e
            if not (west < east and south < north):
                raise BadInput(f"{path}: line {rows.line_num}: west must be below east, and south below north")
            found[row["id"]] = (west, south, east, north)
    return found
