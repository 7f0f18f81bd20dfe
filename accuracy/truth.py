"""Reads masks and graphs from disk and pairs them with their truths.

A truth is a label (labels.py): two values, of which 0 is no road. So is a mask; but a mask of 16 bits with values above
255, or of float32, is probabilities, where 65535 and 1 are certain, and road is above the threshold.

A graph is a file of lines: GeoJSON, GeoPackage and others (imagery/vectors.py). It is in any system that the file
declares, or in a plane whose unit is given in metres. Buildings are masks, or such files of polygons.

Files are paired by id: 104 for `104_mask.png`, the whole stem for other names. `_sat`, `_prob` and `_overlay` pictures
beside masks are ignored.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dlink.accuracy.pixels import Mask
from dlink.accuracy.road_graphs.graph import RoadGraph
from dlink.imagery.kinds import SUFFIXES, georeferenced
from dlink.imagery.labels import WHITE, UnclearLabel, read_label, road_of, values_of
from dlink.imagery.reading import RGB, Reading
from dlink.imagery.vectors import AREA, VECTORS, Shape, Vectors, read_vectors
from dlink.runtime.errors import BadInput

TIFF = (".tif", ".tiff")
BESIDE = ("_sat", "_prob", "_overlay")  # other files with the same id
DEGREE_M = 111_320.0  # metres a degree of latitude; times the cosine for longitude; at most 0.6 % off (WGS 84)
SHOWN = 5  # ids in a message
CERTAIN = 65535  # of probabilities in 16 bits


@dataclass(frozen=True)
class Pair:
    """A file to score, and its truth."""

    id: str
    mask: Path
    truth: Path

    @property
    def graphs(self) -> bool:
        return self.mask.suffix.lower() in VECTORS


def find_pairs(masks: Path, truth: Path, common: bool = False) -> list[Pair]:
    """Pair the files of two folders by id, or two files. An id on one side only is an error unless `common`."""
    if masks.is_dir() != truth.is_dir():
        raise BadInput(f"{masks} and {truth}: give two folders or two files")
    if masks.is_file():
        mask_of, truth_of = {masks.stem: masks}, {masks.stem: truth}
    else:
        mask_of, truth_of = by_id(masks), by_id(truth)
    both = mask_of.keys() & truth_of.keys()
    if not both:
        raise BadInput(f"{masks} and {truth}: no id is in both; expected <id>_mask.png, .tif or .geojson in each")
    if not common:
        for folder, own, other in ((truth, mask_of, truth_of), (masks, truth_of, mask_of)):
            if missing := sorted(own.keys() - other.keys()):
                listed = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
                raise BadInput(
                    f"{folder}: nothing for {len(missing)} of {len(own)} ids: {listed}; add them, or give --common to "
                    f"score the {len(both)} that are in both"
                )
    pairs = [Pair(id, mask_of[id], truth_of[id]) for id in sorted(both)]
    for pair in pairs:
        if (pair.truth.suffix.lower() in VECTORS) != pair.graphs:
            raise BadInput(
                f"{pair.mask} and {pair.truth}: a mask and a graph; give two of a kind (dlink-osm draws lines as masks)"
            )
    return pairs


def by_id(folder: Path) -> dict[str, Path]:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in (*SUFFIXES, *VECTORS) and p.name[0] != ".")
    files = [p for p in files if not p.stem.endswith(BESIDE)]
    if any(p.stem.endswith("_mask") for p in files):
        files = [p for p in files if p.stem.endswith("_mask")]
    found: dict[str, Path] = {}
    for path in files:
        id = path.stem.removesuffix("_mask")
        if id in found:
            raise BadInput(f"{path} and {found[id]}: two files of one id; move one away")
        found[id] = path
    return found


def read_mask(path: Path, threshold: float, how: Reading = RGB) -> Mask:
    """Read a mask or probabilities, bool (H, W), True where there is road. `how` names the values of road."""
    values = values_of(path, how.road_values)
    if values.dtype == np.uint16 and values.max(initial=0) > WHITE and not how.road_values:
        return np.asarray(values > threshold * CERTAIN)
    if values.dtype == np.float32 and not how.road_values:
        if not (values.min(initial=0) >= 0 and values.max(initial=0) <= 1):
            raise BadInput(f"{path}: float32 values outside 0 .. 1, no probabilities")
        return np.asarray(values > threshold)
    return road_of(values, path, how)


def read_pair(pair: Pair, threshold: float, how: Reading) -> tuple[Mask, Mask]:
    """The mask and its truth. The values that `how` names are the truth's; the mask's only if it has more than two."""
    truth = read_label(pair.truth, how)
    try:
        return read_mask(pair.mask, threshold), truth
    except UnclearLabel:
        return read_mask(pair.mask, threshold, how), truth


def metres_a_pixel(pair: Pair) -> float | None:
    """Metres a pixel of a pair with a GeoTIFF, or of a truth beside its `_sat.tif`. Two must lie on one grid.

    None for other pictures.
    """
    pictures = [path for path in (pair.mask, pair.truth) if path.suffix.lower() in TIFF]
    id = pair.truth.stem.removesuffix("_mask")
    beside = [path for path in (pair.truth.with_name(f"{id}_sat{kind}") for kind in TIFF) if path.exists()]
    placed = [path for path in pictures if georeferenced(path)] or [path for path in beside if georeferenced(path)]
    if not placed:
        return None
    import rasterio

    from dlink.imagery.resolution import resolution

    with rasterio.open(placed[0]) as a, rasterio.open(placed[-1]) as b:
        if a.crs != b.crs or not a.transform.almost_equals(b.transform, precision=abs(a.transform.a) / 100):
            raise BadInput(f"{pair.mask} and {pair.truth}: on different grids; warp one (gdalwarp -te -tr)")
        height, width = resolution(a) or (abs(a.transform.e), abs(a.transform.a))
        return (height + width) / 2


def read_graphs(pair: Pair, unit_m: float | None) -> tuple[RoadGraph, RoadGraph]:
    """Both graphs in metres. `unit_m` is the length of a unit in files whose coordinates are not degrees."""
    files = [read_vectors(path) for path in (pair.mask, pair.truth)]
    for file in files:
        if file.areas and not file.lines:
            raise BadInput(f"{file.path}: has polygons and no lines; score buildings by --target building")
    if unit_m is not None:
        mask, truth = files
        if mask.system != truth.system:
            ours, theirs = (f"in {file.crs}" if file.crs else "of no declared system" for file in files)
            raise BadInput(
                f"{pair.mask} is {ours}, {pair.truth} {theirs}: --gsd is for two files of one plane; declare the "
                f"system of both (the member crs), or write both in longitude and latitude"
            )
        return graph_of(mask).scaled(unit_m), graph_of(truth).scaled(unit_m)
    try:
        mask, truth = (file.degrees() for file in files)
    except BadInput as e:
        raise BadInput(f"{e}; or say with --gsd how many metres a unit has") from e
    points = [shape.parts[0] for shape in (*mask.lines, *truth.lines)]
    middle = math.radians(float(np.concatenate(points)[:, 1].mean())) if points else 0.0
    place = (DEGREE_M * math.cos(middle), 0.0, 0.0, 0.0, DEGREE_M, 0.0)
    return graph_of(mask).placed(place), graph_of(truth).placed(place)


def read_polygons(pair: Pair) -> tuple[list[Shape], list[Shape]]:
    """The polygons of both files in one coordinate system."""
    mask, truth = (read_vectors(path, AREA) for path in (pair.mask, pair.truth))
    for file in (mask, truth):
        if file.lines and not file.areas:
            raise BadInput(f"{file.path}: has lines and no polygons; score roads without --target building")
    if mask.system != truth.system:
        mask, truth = mask.degrees(), truth.degrees()
    return mask.areas, truth.areas


def graph_of(file: Vectors) -> RoadGraph:
    return RoadGraph.from_lines(shape.parts[0] for shape in file.lines)
