"""Makes training tiles of a SpaceNet area: `<id>_sat.tif` and `<id>_mask.png`. Needs rasterio and OpenCV.

Images and labels are paired by their area and number, which their names have since SpaceNet 1:
`RGB-PanSharpen_AOI_2_Vegas_img0.tif` with `spacenetroads_AOI_2_Vegas_img0.geojson`, and
`SN5_roads_train_AOI_7_Moscow_PS-RGB_chip0.tif` with `SN5_roads_train_AOI_7_Moscow_geojson_roads_speed_chip0.geojson`.

Roads are centre lines. They are drawn 4 m wide, 2 m to each side, as the challenge's own preparation does
(create_spacenet_masks.py of https://github.com/CosmiQ/apls). PP-LinkNet's authors published their rule for
OpenStreetMap alone, 4 m for each lane; `lanes` draws SpaceNet's attribute `lane_number` by it. A road of one lane is
the same by both. Buildings are polygons: a pixel is building where its centre lies in one.

An image of more than 8 bits is stretched (imagery/stretching.py): each band from its own 2nd to its own 98th percentile
in that image, as the same preparation does, but for pixels without data; or as --stretch says for all alike.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.features import rasterize

from dlink.imagery.images import Image, write_image
from dlink.imagery.reading import NATIVE, RGB, Reading
from dlink.imagery.source import opened
from dlink.imagery.vectors import AREA, GEOJSON, LINE, Shape, read_vectors
from dlink.runtime.errors import BadInput
from dlink.runtime.files import replacing
from dlink.training.places import Place, place_of
from dlink.training.pseudo import draw
from dlink.training.streets import Street

ROADS, BUILDINGS = "road", "building"
SHAPES = {ROADS: LINE, BUILDINGS: AREA}
NUMBER = re.compile(r"(img|chip)(\d+)(?!\d)")
AREA_NAME = re.compile(r"AOI_\d+_([A-Z]+(?=_)|[A-Z][a-z]+(_[A-Z][a-z]+)*|[A-Za-z]+)")
# Words of folders and names. An area has the same picture in several products.
COLOUR = {"PS-RGB", "RGB-PanSharpen", "3band"}
EIGHT_BANDS = {"PS-MS", "MUL-PanSharpen", "8band"}
LEFT_OUT = {"PAN", "MUL", "MS"}  # one band, or not sharpened
EIGHT, WORLDVIEW = 8, "5,3,2"  # red, green and blue of its eight bands
LANES = "lane_number"
OURS = ("_sat", "_mask")


@dataclass(frozen=True, kw_only=True)
class SpaceNetOptions:
    """What is made of an area."""

    lanes: bool = False  # roads are as wide as their lanes
    reading: Reading = RGB  # bands and stretch of the images
    limit: int | None = None  # the most tiles


@dataclass(frozen=True)
class Chip:
    """An image of an area, and its labels."""

    id: str
    image: Path
    labels: Path


@dataclass(frozen=True)
class Area:
    """The chips of a folder, and the files that have no partner."""

    target: str
    chips: tuple[Chip, ...]
    alone: tuple[Path, ...]


Key: TypeAlias = tuple[str, int, str]  # an area, a number, and both as they are written
Rank: TypeAlias = Callable[[set[str]], int | None]  # of a file, by its words; less is better, None: not read


def find_chips(folder: Path, target: str | None = None) -> Area:
    """Pair the images of a folder, and of its subfolders, with labels of one kind."""
    files = sorted(p for p in folder.rglob("*") if not p.name.startswith(".") and not p.stem.endswith(OURS))
    images = best(folder, [p for p in files if p.suffix.lower() in (".tif", ".tiff")], image_rank)
    target, labels = labels_of(folder, [p for p in files if p.suffix.lower() in GEOJSON], target)
    both = sorted(images.keys() & labels.keys())
    if not both:
        raise BadInput(
            f"{folder}: no image has labels; expected names such as RGB-PanSharpen_AOI_2_Vegas_img0.tif and "
            f"spacenetroads_AOI_2_Vegas_img0.geojson"
        )
    alone = [found[key] for found in (images, labels) for key in sorted(found.keys() - set(both))]
    return Area(target, tuple(Chip(key[2], images[key], labels[key]) for key in both), tuple(alone))


def key_of(path: Path) -> Key | None:
    """The area and the number in a name; None if it has no number."""
    numbers = list(NUMBER.finditer(path.stem))
    if not numbers:
        return None
    area = found[0] if (found := AREA_NAME.search(path.stem)) else ""
    return area, int(numbers[-1][2]), f"{area}_{numbers[-1][0]}".lstrip("_")


def words_of(path: Path, folder: Path) -> set[str]:
    return set(re.split(r"[_/.]", path.relative_to(folder).as_posix()))


def image_rank(words: set[str]) -> int | None:
    if words & COLOUR or not words & (EIGHT_BANDS | LEFT_OUT):
        return 0
    return 1 if words & EIGHT_BANDS else None


def label_rank(words: set[str]) -> int:
    return int("speed" in words)  # the same lines, once more


def best(folder: Path, files: Iterable[Path], rank: Rank) -> dict[Key, Path]:
    """The file of the best rank of each chip."""
    found: dict[Key, tuple[int, Path]] = {}
    for path in files:
        key, own = key_of(path), rank(words_of(path, folder))
        if key is None or own is None:
            continue
        before = found.get(key)
        if before and before[0] == own:
            raise BadInput(f"{before[1]} and {path}: two files of one chip, {key[2]}; move one away")
        if not before or own < before[0]:
            found[key] = own, path
    return {key: path for key, (_, path) in found.items()}


def labels_of(folder: Path, files: Iterable[Path], target: str | None) -> tuple[str, dict[Key, Path]]:
    """The labels of the target, or of the one kind that there is."""
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        kinds[kind_by_name(words_of(path, folder))].append(path)
    if unnamed := kinds.pop("", []):
        kinds[kind_by_content(unnamed)] += unnamed
    if target is None and len(kinds) > 1:
        raise BadInput(f"{folder}: has roads and buildings; give --roads or --buildings")
    chosen = target or next(iter(kinds), ROADS)
    if kinds and chosen not in kinds:
        raise BadInput(f"{folder}: has no labels of {chosen}s, only of {next(iter(kinds))}s")
    return chosen, best(folder, kinds[chosen], label_rank)


def kind_by_name(words: set[str]) -> str:
    return next((kind for kind in SHAPES for word in words if kind in word.lower()), "")


def kind_by_content(files: Iterable[Path]) -> str:
    """The kind of the first shapes in files whose names do not say it."""
    for path in files:
        for shape in read_vectors(path).shapes:
            return BUILDINGS if shape.kind == AREA else ROADS
    return ROADS


@dataclass(frozen=True)
class Made:
    """What is said of a tile that was written."""

    empty: bool  # no label in it
    stretched: bool  # from more than 8 bits


def write_chip(chip: Chip, out: Path, target: str, how: SpaceNetOptions) -> Made:
    """Write a chip as a tile. The picture keeps its place on the ground."""
    place = place_of(chip.image, None, None)
    shapes = [s for s in read_vectors(chip.labels, SHAPES[target]).degrees().shapes if s.kind == SHAPES[target]]
    mask = draw([street_of(s, how.lanes) for s in shapes], place) if target == ROADS else fill(shapes, place)
    image, tags = tile_image(chip.image, how.reading)
    write_image(out / f"{chip.id}_mask.png", mask)
    write_geotiff(out / f"{chip.id}_sat.tif", image, place, tags)
    return Made(not mask.any(), "DLINK_STRETCH" in tags)


def street_of(shape: Shape, lanes: bool) -> Street:
    tags: Mapping[str, str] = {"lanes": shape.tags[LANES]} if lanes and LANES in shape.tags else {}
    return Street(shape.parts[0], tags)


def fill(shapes: Iterable[Shape], place: Place) -> NDArray[np.uint8]:
    """A mask, uint8 (H, W), 255 where a pixel's centre lies in a polygon."""
    rings = [[place.pixels(part) for part in shape.parts] for shape in shapes]
    whole = [polygon for polygon in rings if all(np.isfinite(ring).all() for ring in polygon)]
    polygons = [{"type": AREA, "coordinates": [ring.tolist() for ring in polygon]} for polygon in whole]
    size = (place.height, place.width)
    mask: NDArray[np.uint8] = np.zeros(size, np.uint8)
    return rasterize(polygons, size, default_value=255, dtype="uint8") if polygons else mask


def tile_image(path: Path, how: Reading) -> tuple[Image, dict[str, str]]:
    """A chip as uint8 (H, W, 3) RGB, black where there is no data; and its metadata: its bands, and the stretch."""
    with opened(path, replace(how, gsd=NATIVE, bands=how.bands or bands_of(path))) as source:
        image, valid = source.read(slice(0, source.shape[0]), slice(0, source.shape[1]))
        if valid is not None:
            image[~valid] = 0
        return image, source.tags()


def bands_of(path: Path) -> str | None:
    """The colours of WorldView's eight bands, which SpaceNet's files do not name; None for other pictures."""
    with opened(path, Reading(gsd=NATIVE, bands="1")) as source:
        unnamed = not any(source.dataset.descriptions)
        return WORLDVIEW if source.dataset.count == EIGHT and unnamed else None


def write_geotiff(path: Path, image: Image, place: Place, tags: Mapping[str, str]) -> None:
    """Write a picture with its place, whole or not at all."""
    kind = {"driver": "GTiff", "count": 3, "dtype": "uint8", "height": place.height, "width": place.width}
    where = {"crs": place.crs, "transform": place.affine}
    with replacing(path) as part, rasterio.open(part, "w", **kind, **where, photometric="RGB", compress="deflate") as f:
        f.write(np.moveaxis(image, -1, 0))
        f.update_tags(**tags)
