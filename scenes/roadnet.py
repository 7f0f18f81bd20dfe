"""Plans road networks for each kind of place: grid town, suburb, village, farmland, open country.

A plan is a list of `Road`s: centre lines with a width, a surface and a rank. Nothing is drawn here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dlink.scenes.canvas import Canvas, Points, crop_lines, resample, rounded
from dlink.scenes.terrain import Frame

PAVED = ("asphalt", "asphalt", "asphalt", "old", "concrete")
LOOSE = ("dirt", "dirt", "gravel", "laterite")


@dataclass
class Road:
    """A centre line (N, 2) in pixels, a width in metres; `rank` is track, alley, ring (a
    roundabout), street, avenue or highway."""

    points: Points
    width: float
    rank: str
    surface: str
    marked: bool = False
    verge: float = 0.0
    median: bool = False


def make(canvas: Canvas, points: Points, rank: str, surface: str, scale: float = 1.0) -> Road:
    """A road of `rank` with the width, verge and markings that are usual for it."""
    rng = canvas.rng
    low, high = {"track": (2.4, 4.2), "alley": (3.5, 5.5), "street": (6, 15), "avenue": (12, 20), "highway": (16, 26)}[
        rank
    ]
    width = rng.uniform(low, high) if scale == 1.0 else np.clip(scale * (low + high) / 2, low, high)
    paved = surface not in LOOSE
    marked = paved and rng.random() < {"track": 0, "alley": 0, "street": 0.4, "avenue": 0.85, "highway": 0.97}[rank]
    verge = float(rng.uniform(1.0, 4.0)) if rank != "alley" else 0.3
    median = rank == "highway" or (rank == "avenue" and rng.random() < 0.25)
    return Road(visible(resample(points, 6.0), canvas.size), float(width), rank, surface, bool(marked), verge, median)


def visible(points: Points, size: int, margin: float = 80) -> Points:
    """The polyline without the ends that lie outside the canvas grown by `margin`."""
    seen = np.flatnonzero(((points > -margin) & (points < size + margin)).all(1))
    if not len(seen):
        return points[:2]
    return points[max(0, seen[0] - 1) : seen[-1] + 2]


def wander(canvas: Canvas, wiggle: float, start: Points | None = None, length_m: float | None = None) -> Points:
    """A smooth line across the canvas, or from `start` on for `length_m`; `wiggle` is its turning per step (rad)."""
    rng, size = canvas.rng, canvas.size
    heading = rng.uniform(0, 2 * np.pi)
    at = start
    if at is None:
        middle = rng.uniform(0.15, 0.85, 2) * size
        at = middle - 1.1 * size * np.array([np.cos(heading), np.sin(heading)])
    reach = 2.4 * size if length_m is None else canvas.px(length_m)
    step = max(canvas.px(rng.uniform(25, 60)), reach / 60)
    turns = rng.normal(0, wiggle, int(reach / step) + 2)
    bearing = heading + np.cumsum(turns) * 0.7 + turns
    if length_m is None:
        bearing -= np.linspace(0, 1, len(bearing)) * (bearing[-1] - heading)
    moves = step * np.stack([np.cos(bearing), np.sin(bearing)], 1)
    return rounded(np.vstack([at, at + np.cumsum(moves, axis=0)]))


def surface_for(canvas: Canvas, loose: float) -> str:
    """A surface name, loose (unpaved) with the given chance."""
    names = LOOSE if canvas.rng.random() < loose else PAVED
    return str(canvas.rng.choice(names))


def spaced(rng: np.random.Generator, span: float, low: float, high: float) -> list[float]:
    """Rising positions over [-span/2, span/2] with gaps in [low, high], mostly alike."""
    usual = rng.uniform(low, high)
    at, out = -span / 2 + rng.uniform(0, usual), []
    while at < span / 2:
        out.append(at)
        at += usual if rng.random() < 0.6 else rng.uniform(low, high)
    return out


def straight(axis: int, at: float, low: float, high: float, step: float) -> Points:
    """Plan points of a line where coordinate `axis` is `at` and the other runs from low to high."""
    run = np.linspace(low, high, max(2, int((high - low) / step) + 2))
    other = np.full_like(run, at)
    return np.stack([other, run] if axis == 0 else [run, other], 1)


def grid(
    canvas: Canvas,
    frame: Frame,
    across: tuple[float, float],
    along: tuple[float, float],
    gaps: float,
    alleys: float,
    loose: float,
) -> list[Road]:
    """A street grid: block sizes in metres, share of street pieces left out, chance of alleys inside blocks."""
    rng, span, step = canvas.rng, canvas.size * 1.6, canvas.px(15)
    columns = spaced(rng, span, canvas.px(across[0]), canvas.px(across[1]))
    rows = spaced(rng, span, canvas.px(along[0]), canvas.px(along[1]))
    common, alley_surface = surface_for(canvas, loose), surface_for(canvas, loose)
    width, alike = float(rng.uniform(0.65, 1.35)), rng.choice([0.6, 1.0])
    roads: list[Road] = []
    for axis, places, crossings in ((0, columns, rows), (1, rows, columns)):
        for at in places:
            rank = "avenue" if rng.random() < 0.14 else "street"
            surface = common if rng.random() < alike else surface_for(canvas, loose)
            low, high = -span / 2, span / 2
            if rank == "street" and rng.random() < gaps and len(crossings) > 3:
                first, last = sorted(rng.choice(len(crossings), 2, replace=False))
                low, high = crossings[first], crossings[last]
            roads.append(make(canvas, frame(straight(axis, at, low, high, step)), rank, surface, width))
    if rng.random() < alleys:
        roads += back_lanes(canvas, frame, columns, rows, alley_surface)
    if rng.random() < 0.2:
        spots = [frame(np.array([[x, y]]))[0] for x in columns for y in rows if rng.random() < 0.2]
        roads += [circle(canvas, spot, common) for spot in spots if crossing(roads, spot)]
    if rng.random() < 0.2:
        roads.append(make(canvas, wander(canvas, 0.03), "avenue", common))
    return [road for road in roads if crop_lines(road.points, canvas.size)]


def crossing(roads: list[Road], spot: Points) -> bool:
    """Whether at least two roads pass through a point."""
    near = [float(np.abs(road.points - spot).sum(1).min()) < 10 for road in roads]
    return sum(near) > 1


def back_lanes(canvas: Canvas, frame: Frame, columns: list[float], rows: list[float], surface: str) -> list[Road]:
    """Alleys down the middle of the blocks of a grid."""
    rng, step = canvas.rng, canvas.px(15)
    axis = int(rng.integers(2))
    places, crossings = (columns, rows) if axis == 0 else (rows, columns)
    lanes: list[Road] = []
    for left, right in pairwise(places):
        at = left + (right - left) * rng.uniform(0.42, 0.58)
        for low, high in pairwise(crossings):
            if rng.random() < 0.8:
                lanes.append(make(canvas, frame(straight(axis, at, low, high, step)), "alley", surface))
    return lanes


def branches(canvas: Canvas, trunks: list[Road], count: int, length_m: tuple[float, float], wiggle: float, rank: str,
             loose: float) -> list[Road]:  # fmt: skip
    """Side roads that leave the trunks (or each other) at about right angles."""
    rng, out = canvas.rng, list(trunks)
    for _ in range(count):
        inside = [road for road in out if len(road.points) > 4]
        if not inside:
            break
        parent = inside[int(rng.integers(len(inside)))].points
        seen = np.flatnonzero(((parent > 0) & (parent < canvas.size)).all(1))
        if len(seen) < 3:
            continue
        index = int(rng.choice(seen[1:-1]))
        slope = parent[min(index + 1, len(parent) - 1)] - parent[index - 1]
        side = np.arctan2(slope[1], slope[0]) + rng.choice([-1, 1]) * (np.pi / 2 + rng.normal(0, 0.2))
        reach = canvas.px(rng.uniform(*length_m))
        line = aimed(rng, parent[index], float(side), reach, wiggle)
        out.append(make(canvas, line, rank, surface_for(canvas, loose)))
    return out[len(trunks) :]


def aimed(rng: np.random.Generator, start: Points, heading: float, reach: float, wiggle: float) -> Points:
    """A smooth line of length `reach` (pixels) from `start` towards `heading`."""
    turns = np.cumsum(rng.normal(0, wiggle, 8)) + rng.normal(0, wiggle / 2) * np.arange(8)
    bearing = heading + np.concatenate([[0.0], turns])
    moves = reach / 9 * np.stack([np.cos(bearing), np.sin(bearing)], 1)
    return rounded(np.vstack([start, start + np.cumsum(moves, axis=0)]))


def suburb(canvas: Canvas) -> list[Road]:
    """Curved collectors, a strongly bent grid with gaps, and cul-de-sacs with turning circles."""
    rng = canvas.rng
    frame = Frame(canvas, rng.uniform(0, np.pi), rng.uniform(15, 70), rng.uniform(250, 600))
    roads = grid(canvas, frame, (70, 130), (120, 260), 0.6, 0.15, 0.04)
    stubs = branches(
        canvas, roads, int(rng.integers(2, 9) * (canvas.metres / 500) ** 2), (35, 90), 0.12, "street", 0.03
    )
    for stub in stubs:
        stub.width, stub.marked = min(stub.width, 8.0), False
        roads.append(bulb(canvas, stub))
    return roads + stubs


def bulb(canvas: Canvas, stub: Road) -> Road:
    """The turning circle at the end of a cul-de-sac, as a very short, very wide road."""
    end = stub.points[-1]
    width = stub.width * float(canvas.rng.uniform(1.6, 2.4))
    return Road(np.stack([end, end + 1.0]), width, "alley", stub.surface, False, stub.verge)


def circle(canvas: Canvas, centre: Points, surface: str) -> Road:
    """A roundabout: a closed ring about `centre`."""
    radius = canvas.px(canvas.rng.uniform(9, 22))
    turn = np.linspace(0, 2 * np.pi, 40)
    ring = centre + radius * np.stack([np.cos(turn), np.sin(turn)], 1)
    return Road(ring, float(canvas.rng.uniform(6, 9)), "ring", surface, False, 1.5)


def village(canvas: Canvas, loose: float) -> list[Road]:
    """One to three through roads and a tangle of short lanes."""
    rng = canvas.rng
    trunks = [
        make(canvas, wander(canvas, 0.12), "street", surface_for(canvas, loose * 0.6))
        for _ in range(rng.integers(1, 4))
    ]
    for trunk in trunks:
        trunk.width = float(rng.uniform(4.5, 9))
    count = int(rng.integers(6, 22) * max(0.3, (canvas.metres / 500) ** 2))
    lanes = branches(canvas, trunks, count, (30, 200), 0.15, "alley", loose)
    for lane in lanes:
        lane.width = float(rng.uniform(3, 6))
    return trunks + lanes


def country(canvas: Canvas, outlines: list[Points], loose: float) -> list[Road]:
    """Zero to two roads across, tracks along some field edges, and free tracks."""
    rng = canvas.rng
    roads: list[Road] = []
    for _ in range(int(rng.choice([0, 1, 1, 1, 2]))):
        rank = "highway" if rng.random() < 0.12 else "street"
        road = make(canvas, wander(canvas, rng.uniform(0.02, 0.15)), rank, surface_for(canvas, loose * 0.4))
        road.width = road.width if rank == "highway" else float(rng.uniform(4, 9))
        roads.append(road)
    for _ in range(int(rng.integers(0, 7)) if outlines else 0):
        outline = outlines[int(rng.integers(len(outlines)))]
        edge = outline[: max(3, int(len(outline) * rng.choice([0.26, 0.5])))]
        roads.append(make(canvas, edge, "track", surface_for(canvas, 0.9)))
    for _ in range(int(rng.integers(0 if roads else 1, 4))):
        roads.append(make(canvas, wander(canvas, rng.uniform(0.08, 0.35)), "track", surface_for(canvas, 0.85)))
    roads += branches(canvas, roads, int(rng.integers(0, 6)), (40, 400), 0.15, "track", 0.85)
    return [road for road in roads if crop_lines(road.points, canvas.size)]
