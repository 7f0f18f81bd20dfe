"""Synthetic overhead road scenes with exact road masks, for training without labelled images.

`scene(seed)` draws one place of a wide mix (grid town, suburb, village, farmland, forest, desert, industry, roadless
country) with ground, roads, buildings, cars, trees, shadows and things that look like roads. Then a random camera
photographs it. The mask has every carriageway, also where trees, cars or shadows hide it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dlink.runtime.errors import BadInput
from dlink.scenes import buildings, paving, roadnet, terrain, traffic, trees
from dlink.scenes.buildings import BRIGHT, FLAT, GREYS, ROOFS, Style
from dlink.scenes.camera import photograph
from dlink.scenes.canvas import Canvas, Points, blank
from dlink.scenes.clutter import beds, footpaths, hedges, orchards, railway, strips
from dlink.scenes.roadnet import Road
from dlink.scenes.terrain import CITY, DRY, GRASS, SAND, SOIL, URBAN, WOODS, Frame

SMALLEST, LARGEST, MULTIPLE = 128, 4096, 32


@dataclass(frozen=True)
class Scene:
    """One scene: `image` (S, S, 3) RGB uint8, `mask` (S, S) uint8 0 or 255, `gsd_m` metres for each pixel."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    gsd_m: float


def scene(seed: int, size: int = 1024) -> Scene:
    """Draw the scene of `seed`, `size` pixels square; the same pair always gives the same scene."""
    if not SMALLEST <= size <= LARGEST or size % MULTIPLE:
        raise BadInput(f"size must be a multiple of {MULTIPLE} in {SMALLEST}..{LARGEST}, got {size}")
    rng = np.random.default_rng([int(seed), size])
    canvas = blank(rng, size, float(rng.uniform(0.3, 0.75)))
    kind = str(rng.choice(list(KINDS), p=[share for _, share in KINDS.values()]))
    KINDS[kind][0](canvas)
    return Scene(photograph(rng, canvas.image), canvas.mask, canvas.gsd)


def finish(canvas: Canvas, roofs: list[buildings.Roof], clear_m: float = 0.0) -> None:
    """Shadows, roofs and trees over ground that is already drawn; few trees stand within `clear_m` of a road."""
    buildings.cast(canvas, roofs)
    trees.darken(canvas)
    if roofs:
        buildings.raise_roofs(canvas, roofs)
    trees.grow(canvas, 0.85, clear_m)


def paved(canvas: Canvas, roads: list[Road]) -> None:
    """Roads with their markings."""
    if roads:
        paving.pave(canvas, roads)
        paving.markings(canvas, roads)


def area(canvas: Canvas) -> float:
    """Scene area in units of 500 m squares, for counts of things."""
    return max(0.1, (canvas.metres / 500) ** 2)


def town(canvas: Canvas) -> None:
    """Dense blocks on a grid: rows of houses, large roofs, car parks, street trees."""
    rng = canvas.rng
    canvas.gsd = float(rng.uniform(0.35, 0.8))
    grey = bool(rng.random() < 0.55)
    terrain.ground(canvas, CITY if grey else URBAN + GRASS, rng.uniform(0.4, 1))
    share = rng.uniform(0.02, 0.2) if grey else rng.uniform(0.1, 0.5)
    terrain.patches(canvas, GRASS if rng.random() < 0.7 else SOIL, share, 40)
    if rng.random() < 0.12:
        terrain.water(canvas, [roadnet.wander(canvas, 0.05)], canvas.px(rng.uniform(10, 60)), False)
    angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.05) if rng.random() < 0.5 else rng.uniform(0, np.pi)
    frame = Frame(canvas, float(angle), rng.uniform(0, 8) if rng.random() < 0.7 else rng.uniform(8, 25))
    roads = roadnet.grid(canvas, frame, (55, 130), (80, 220), 0.35, 0.6, 0.03)
    if rng.random() < 0.3:
        railway(canvas)
    paved(canvas, roads)
    roofs = built(canvas, roads, float(angle), rng.uniform(0.05, 0.5), False, grey)
    traffic.drive_along(canvas, roads, rng.uniform(0.1, 0.8), rng.uniform(0.2, 1.5))
    trees.rows(canvas, roads, rng.uniform(0, 0.5))
    trees.scattered(canvas, rng.uniform(0.02, 0.25), 9, 60, 1.5, rng.uniform(4, 8))
    finish(canvas, roofs)


def built(canvas: Canvas, roads: list[Road], angle: float, big: float, works: bool, grey: bool) -> list[buildings.Roof]:
    """Buildings of a town: first a share `big` of large ones, then houses, then what still fits.

    A `grey` town is dense, paved between the houses, and built in dull colours.
    """
    rng = canvas.rng
    flat = buildings.palette(rng, FLAT, int(rng.integers(3, 8)))
    base = GREYS + BRIGHT + (ROOFS if rng.random() < 0.3 else []) if grey else ROOFS + BRIGHT
    kinds = buildings.palette(rng, base, int(rng.integers(4, 10)))
    large = Style((18, 60), (20, 55), (0.5, 1.0), (5, 22), (0, 6), big, 0.95, rng.uniform(0.1, 0.4), 0.2)
    narrow = rng.random() < 0.6
    front = (7, 11) if narrow else (11, 20)
    house = Style(front, (22, 40), (0.3, 0.75), (4, 9), (1, 7), 0.95, rng.choice([0.1, 0.3, 0.9]), 0.02, 0.8)
    if grey:
        house = replace(house, fill=(0.5, 0.95), green=0.35, setback=(0.5, 5))
    streets = [road for road in roads if road.rank != "alley"]
    busy = [road for road in streets if road.rank == "avenue" or rng.random() < big]
    roofs = buildings.lots_along(canvas, busy, large, flat)
    if not works:
        roofs += buildings.lots_along(canvas, roads, house, kinds)
    spare = Style((12, 60), (12, 50), (0.4, 1.0), (4, 16), (0, 3), 1, 0.9, 0.3, 0.4, courts=0.03)
    roofs += buildings.infill(canvas, angle, int(300 * area(canvas)), spare, flat)
    if works:
        return roofs
    back = Style(front, (9, 20), (0.45, 0.95), (3, 7), (0, 2), 1, house.flat, 0.02, 0.7, green=house.green)
    return roofs + buildings.infill(
        canvas, angle, int(rng.uniform(400 if grey else 0, 1000) * area(canvas)), back, kinds
    )


def suburb(canvas: Canvas) -> None:
    """Curved streets, detached houses with drives and gardens, many trees."""
    rng = canvas.rng
    terrain.ground(canvas, GRASS if rng.random() < 0.7 else DRY + SAND, rng.uniform(0.4, 1))
    terrain.patches(canvas, DRY + SOIL, rng.uniform(0.05, 0.4), 60)
    if rng.random() < 0.25:
        terrain.water(canvas, [], 0, True)
    roads = roadnet.suburb(canvas)
    footpaths(canvas, int(rng.integers(0, 4)))
    paved(canvas, roads)
    kinds = buildings.palette(rng, ROOFS, int(rng.integers(2, 7)))
    house = Style(
        (14, 26), (24, 42), (0.22, 0.5), (4, 8), (3, 10), rng.uniform(0.7, 1), 0.12, 0.02, rng.uniform(0, 0.9), 0.1
    )
    roofs = buildings.lots_along(canvas, roads, house, kinds)
    traffic.drive_along(canvas, roads, rng.uniform(0, 0.25), rng.uniform(0.1, 0.6))
    trees.rows(canvas, roads, rng.uniform(0, 0.6))
    trees.scattered(canvas, rng.uniform(0.1, 0.5), 11, 80, 2, 5.5)
    finish(canvas, roofs)


def village(canvas: Canvas) -> None:
    """A tangle of lanes among crowded small houses, fields around."""
    rng = canvas.rng
    land(canvas, 0.7)
    roads = roadnet.village(canvas, rng.uniform(0.1, 0.9))
    beds(canvas, int(rng.integers(0, 2)))
    paved(canvas, roads)
    kinds = buildings.palette(rng, ROOFS + BRIGHT, int(rng.integers(3, 9)))
    house = Style(
        (6, 14), (8, 24), (0.4, 0.9), (3, 6.5), (0, 4), rng.uniform(0.5, 0.98), rng.uniform(0.2, 0.9), 0.03, 0.4, 0.15
    )
    roofs = buildings.lots_along(canvas, roads, house, kinds)
    huts = Style((6, 14), (6, 14), (0.5, 0.95), (3, 6), (0, 2), 1, 0.6, 0.03, 0.2, 0.2)
    dense = int(rng.uniform(0, 1500) * area(canvas))
    roofs += buildings.infill(canvas, rng.uniform(0, 3), dense, huts, kinds, roads)
    traffic.drive_along(canvas, roads, 0.03, rng.uniform(0.1, 0.8))
    trees.rows(canvas, roads, rng.uniform(0, 0.4))
    trees.scattered(canvas, rng.uniform(0.05, 0.3), 9, 70, 1.5, 5.5)
    finish(canvas, roofs)


def land(canvas: Canvas, fields: float) -> list[Points]:
    """Open ground, with crop fields at the given chance; returns the fields' outlines."""
    rng = canvas.rng
    palettes = [GRASS, DRY + GRASS, SOIL + DRY, SAND, SAND + SOIL, GRASS + SOIL]
    terrain.ground(canvas, palettes[int(rng.integers(len(palettes)))], rng.uniform(0.4, 1.2))
    terrain.patches(canvas, SOIL + GRASS + DRY, rng.uniform(0.05, 0.5), rng.uniform(20, 120))
    if rng.random() > fields:
        return []
    frame = Frame(canvas, rng.uniform(0, np.pi), rng.uniform(0, 12 if rng.random() < 0.75 else 40))
    outlines = terrain.fields(canvas, frame, rng.uniform(20, 90), rng.uniform(0.3, 1))
    hedges(canvas, outlines)
    if rng.random() < 0.5:
        orchards(canvas, outlines)
    return outlines


def farmland(canvas: Canvas) -> None:
    """Fields, tracks along their edges, one or two thin roads, lone farms."""
    rng = canvas.rng
    outlines = land(canvas, 0.92)
    strips(canvas, int(rng.integers(0, 5)))
    if rng.random() < 0.3:
        terrain.water(canvas, [roadnet.wander(canvas, 0.15)], canvas.px(rng.uniform(2, 30)), rng.random() < 0.3)
    if rng.random() < 0.1:
        railway(canvas)
    open_country(canvas, roadnet.country(canvas, outlines, rng.uniform(0, 1)), rng.uniform(0, 0.12))


def open_country(canvas: Canvas, roads: list[Road], settled: float) -> None:
    """Everything above ground in thinly settled country."""
    rng = canvas.rng
    footpaths(canvas, int(rng.integers(0, 3)))
    paved(canvas, roads)
    kinds = buildings.palette(rng, ROOFS + BRIGHT, 5)
    farm = Style((10, 30), (12, 30), (0.2, 0.6), (3, 7), (1, 10), settled, 0.4, 0.04, 0.4, 0.2)
    roofs = buildings.lots_along(canvas, roads, farm, kinds)
    roofs += buildings.infill(canvas, rng.uniform(0, 3), int(rng.uniform(0, 15) * area(canvas)), farm, kinds)
    traffic.drive_along(canvas, roads, 0.0, rng.uniform(0, 0.4))
    trees.rows(canvas, roads, rng.uniform(0, 0.4))
    trees.scattered(canvas, rng.uniform(0.0, 0.3), rng.uniform(7, 20), rng.uniform(30, 150), 1, 5)
    finish(canvas, roofs, 2.0)


def forest(canvas: Canvas) -> None:
    """Closed woods with clearings, crossed by a few roads and tracks."""
    rng = canvas.rng
    terrain.ground(canvas, WOODS + GRASS, rng.uniform(0.5, 1.2))
    terrain.patches(canvas, GRASS + DRY, rng.uniform(0.05, 0.4), 80)
    if rng.random() < 0.3:
        terrain.water(canvas, [roadnet.wander(canvas, 0.2)], canvas.px(rng.uniform(3, 40)), rng.random() < 0.4)
    roads = roadnet.country(canvas, [], rng.uniform(0.2, 1))
    trees.scattered(canvas, rng.uniform(0.4, 0.95), rng.uniform(4.5, 8), rng.uniform(80, 250), 2, 5.5)
    open_country(canvas, roads, rng.uniform(0, 0.06))


def desert(canvas: Canvas) -> None:
    """Dry ground with faint tracks, dry river beds and shrubs, at times a new settlement on a grid."""
    rng = canvas.rng
    terrain.ground(canvas, SAND if rng.random() < 0.6 else SOIL + SAND, rng.uniform(0.5, 1.4))
    terrain.patches(canvas, SAND + DRY + SOIL, rng.uniform(0.1, 0.6), rng.uniform(20, 150), 0.8)
    terrain.patches(canvas, WOODS + SOIL, rng.uniform(0.01, 0.15), rng.uniform(2, 7), 0.5)
    beds(canvas, int(rng.integers(0, 4)))
    if rng.random() < 0.4:
        frame = Frame(canvas, rng.uniform(0, np.pi), 10)
        roads = roadnet.grid(canvas, frame, (45, 120), (60, 200), 0.7, 0, 0.75)
        for road in roads:
            road.width = min(road.width, 9.0)
    else:
        roads = roadnet.country(canvas, [], rng.uniform(0.5, 1))
    open_country(canvas, roads, rng.uniform(0, 0.25))


def industry(canvas: Canvas) -> None:
    """Halls, yards and car parks along wide roads, a railway."""
    rng = canvas.rng
    terrain.ground(canvas, URBAN + DRY[2:], rng.uniform(0.4, 1))
    terrain.patches(canvas, GRASS + DRY, rng.uniform(0.1, 0.6), 50)
    frame = Frame(canvas, rng.uniform(0, np.pi), rng.uniform(0, 25))
    roads = roadnet.grid(canvas, frame, (100, 260), (120, 300), 0.5, 0.1, 0.08)
    if rng.random() < 0.5:
        railway(canvas)
    strips(canvas, int(rng.integers(0, 2)))
    paved(canvas, roads)
    roofs = built(canvas, roads, frame.angle, 0.9, True, bool(rng.random() < 0.4))
    traffic.drive_along(canvas, roads, rng.uniform(0, 0.3), rng.uniform(0.2, 1))
    trees.rows(canvas, roads, rng.uniform(0, 0.4))
    trees.scattered(canvas, rng.uniform(0.02, 0.15), 8, 50, 1.5, 4.5)
    finish(canvas, roofs)


def wild(canvas: Canvas) -> None:
    """No road at all: any ground, with road look-alikes."""
    rng = canvas.rng
    outlines = land(canvas, 0.5)
    beds(canvas, int(rng.integers(0, 3)))
    hedges(canvas, outlines)
    if rng.random() < 0.5:
        terrain.water(canvas, [roadnet.wander(canvas, 0.15)], canvas.px(rng.uniform(3, 40)), rng.random() < 0.5)
    if rng.random() < 0.3:
        railway(canvas)
    strips(canvas, int(rng.integers(0, 4)))
    open_country(canvas, [], 0.0)


KINDS: dict[str, tuple[Callable[[Canvas], None], float]] = {
    "town": (town, 0.32),
    "suburb": (suburb, 0.11),
    "village": (village, 0.14),
    "farmland": (farmland, 0.17),
    "forest": (forest, 0.06),
    "desert": (desert, 0.08),
    "industry": (industry, 0.07),
    "wild": (wild, 0.05),
}


def with_roads(count: int, size: int, seed: int = 0, least: float = 0.02) -> list[Scene]:
    """The first `count` scenes from `seed` on of which at least the share `least` is road."""
    found: list[Scene] = []
    while len(found) < count:
        made = scene(seed, size)
        if (made.mask > 0).mean() >= least:
            found.append(made)
        seed += 1
    return found
