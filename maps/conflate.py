"""New roads beside those that OpenStreetMap has: what it has is dropped, ends join it, and doubtful places are said.

    extract.py   what the extract has around the roads     near.py     metres, distances, walks along lines
    covered.py   which stretches are there already         joining.py  where ends join existing ways
    review.py    crossings, and lines beside each other    osm_file.py the .osm file

What counts: a road (`highway`, for vehicles) covers what runs along it within the tolerance, and can be joined. A path
(footway, cycleway, busway and others) covers within half the tolerance, and is not joined. Bridges cover, but are not
joined. What is in a tunnel does neither. Railways, waterways, and roads that are planned or not yet open are only said,
where new roads cross them or run along them. Areas (`area=yes`) are no lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlink.imagery.notes import say
from dlink.maps.covered import Left, Part, left_of
from dlink.maps.cutting import between, with_begin
from dlink.maps.extract import Box, Existing, check_extract, eastward, in_words, read_existing
from dlink.maps.joining import Join, Joiner, ends_of
from dlink.maps.near import Frame, Points, Segments, Walk, distances
from dlink.maps.osm_file import Beside
from dlink.maps.osm_options import OsmOptions
from dlink.maps.review import crossings, neighbours
from dlink.maps.write import Roads, ground_length, in_degrees
from dlink.runtime.errors import BadInput

MARGIN = 100.0  # metres around the roads that are read
FEW = 3  # tolerances of a line that leaves a node and comes back to it, at least


@dataclass(frozen=True)
class Conflated:
    """What is new."""

    roads: Roads  # with the fields review, from_osm and to_osm, and what write_roads needs for .osm
    nodes: int
    covered_km: float
    rest_km: float  # dropped because it was short
    joins: int  # nodes at which new roads join existing ones
    changed: int  # existing ways that get nodes, in .osm
    flagged: int  # lines for review


def check_conflation(crs: Any, how: OsmOptions) -> None:
    """Raise BadInput for what can't be compared, before any work is done."""
    if how.extract is not None:
        check_extract(how.extract)
        if not crs:
            raise BadInput(
                f"--osm {how.extract}: the mask has no coordinate system; give it one (gdal_edit.py -a_srs EPSG:N)"
            )


def conflated(roads: Roads, how: OsmOptions, shortest: float) -> Conflated:
    """Roads without what an extract has.

    Args:
        roads: Lines in a coordinate system, with length_m, width_m, from_node and to_node.
        how: The extract, and how near is the same road.
        shortest: Metres; what is left of a partly covered line goes if it is shorter and leads nowhere.

    Raises:
        BadInput: The extract can't be read, or is of another place.
    """
    assert how.extract is not None
    check_conflation(roads.crs, how)
    degrees = in_degrees(roads.lines, roads.crs, how.extract)
    if not degrees:
        fields = {**roads.fields, **extra_fields([], [], [])}
        return Conflated(replace(roads, fields=fields), 0, 0.0, 0.0, 0, 0, 0)
    points = np.concatenate(degrees)
    frame = Frame.around(points)
    box = frame.box(points, MARGIN)
    existing = read_existing(how.extract, box)
    say_beyond(existing, frame.box(points, 0.0))
    work = Work(roads, how, frame, existing, Segments.of(existing.ways, frame))
    return work.compared(shortest)


def say_beyond(existing: Existing, box: Box) -> None:
    """Say that some roads lie where the extract has nothing, which can't be told from new roads."""
    west, south, east, north = existing.extent
    x = eastward(np.array([west, east]), box.lon)
    if not existing.ways:
        say(existing.path, "has no line near the roads; all of them are taken as new")
    elif x[0] > box.west or x[1] < box.east or south - box.lat > box.south or north - box.lat < box.north:
        say(
            existing.path,
            "ends before the roads do; roads beyond it are taken as new",
            f": it has lines from {in_words(*existing.extent)}, the roads are in {box}",
        )


@dataclass(frozen=True)
class Work:
    """The roads and what exists, in one frame."""

    roads: Roads
    how: OsmOptions
    frame: Frame
    existing: Existing
    segments: Segments

    def compared(self, shortest: float) -> Conflated:
        points = np.concatenate(in_degrees(self.roads.lines, self.roads.crs, self.existing.path))
        sizes = np.cumsum([len(line) for line in self.roads.lines])[:-1]
        # x, y in metres, and the vertex's number, by which it keeps its own coordinates; -1 is a new one.
        rows = np.column_stack([self.frame.metres(points), np.arange(len(points))])
        lines = np.split(rows, sizes)
        ends = np.column_stack([self.roads.fields["from_node"], self.roads.fields["to_node"]]).astype(np.int64)
        tolerance = np.array([self.how.tolerance(width) for width in self.roads.fields["width_m"].tolist()])
        walk = Walk.along([line[:, :2] for line in lines])
        covered = self.covered(walk, tolerance)
        left = left_of(walk, covered, ends, tolerance.tolist(), shortest)
        parts = [(part, between(lines[part.line], part.begin, part.end)) for part in left.parts]
        joiner = Joiner(self.existing, self.segments, self.frame)
        joins = joiner.joins(self.ends(parts, left, tolerance))
        kept, rest = [], float(walk.length[left.gone & ~covered].sum())
        for part, line in parts:
            moved = self.moved(line, [joins.get(node) for node in part.nodes])
            length = float(distances(moved[:, :2])[-1])
            if leads_back(part, joins) and length < FEW * tolerance[part.line]:
                rest += length
            else:
                kept.append((part, moved))
        km = float(walk.length[left.gone & covered].sum()) / 1000, rest / 1000
        return self.result(kept, joins, joiner, tolerance, km)

    def covered(self, walk: Walk, tolerance: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Of each piece of a walk, whether a road or a path is there already."""
        by_road = walk.beside(self.segments, self.segments.roads, tolerance[walk.line]) >= 0
        by_path = walk.beside(self.segments, self.segments.paths, np.full(len(walk.line), self.how.distance / 2)) >= 0
        return by_road | by_path

    def ends(self, parts: "Sequence[tuple[Part, Points]]", left: Left, tolerance: NDArray[np.float64]) -> Any:
        """The ends of parts that may join."""
        places: dict[int, Points] = {}
        degrees: dict[int, int] = {}
        reach: dict[int, float] = {}
        for part, line in parts:
            for node, k in zip(part.nodes, (0, -1), strict=True):
                places[node] = line[k, :2]
                degrees[node] = degrees.get(node, 0) + 1
                reach[node] = max(reach.get(node, 0.0), float(tolerance[part.line]))
        return ends_of(places, degrees, left.touching, reach)

    def moved(self, line: Points, joins: "Sequence[Join | None]") -> Points:
        """A line whose ends go to where they join."""
        for join in joins:
            line = (line if join is None else with_begin(line, join.place))[::-1]
        return line

    def result(
        self, kept: "list[tuple[Part, Points]]", joins: dict[int, Join], joiner: Joiner, tolerance: NDArray[np.float64],
        km: tuple[float, float],
    ) -> Conflated:  # fmt: skip
        lines = [line for _, line in kept]
        of = np.array([part.line for part, _ in kept], np.int64)
        at = [[joins.get(node) for node in part.nodes] for part, _ in kept]
        review = self.reviews(lines, at, tolerance[of])
        number, used = numbered([part.nodes for part, _ in kept], joins)
        nodes, ways = joiner.changed({id for id in used.values() if id < 0})
        nodes += [joiner.nodes[id] for id in sorted({id for id in used.values() if id > 0})]
        have = {node.id for node in nodes}
        inside = {id for way in ways for id in way.nodes} - have
        nodes += [joiner.nodes[id] for id in sorted(inside)]
        shapes = self.in_system(lines)
        fields = {name: values[of] for name, values in self.roads.fields.items()}
        fields["id"] = np.arange(1, len(lines) + 1)
        long = [ground_length(line) for line in in_degrees(shapes, self.roads.crs, self.existing.path)]
        fields["length_m"] = np.round(np.array(long, np.float64), 2)
        fields["from_node"], fields["to_node"] = number[:, 0], number[:, 1]
        names = [[join.name if join else "" for join in both] for both in at]
        fields |= extra_fields(review, [a for a, _ in names], [b for _, b in names])
        roads = replace(self.roads, lines=shapes, fields=fields, beside=Beside(nodes, ways, used))
        return Conflated(
            roads, int(number.max(initial=0)), *km, len(set(used.values())), len(ways), sum(map(bool, review))
        )

    def reviews(
        self, lines: "list[Points]", at: "list[list[Join | None]]", tolerance: NDArray[np.float64]
    ) -> list[str]:
        """Of each line what must be looked at; empty if nothing."""
        flat = [line[:, :2] for line in lines]
        across = crossings(flat, [[join.place for join in both if join] for both in at], self.segments)
        along = neighbours(flat, tolerance, self.segments)
        ends = [[join.review for join in both if join and join.review] for both in at]
        return ["; ".join(dict.fromkeys([*a, *b, *c])) for a, b, c in zip(across, along, ends, strict=True)]

    def in_system(self, lines: "list[Points]") -> list[Points]:
        """Lines in the roads' own system. A vertex that was there keeps its coordinates to the last bit."""
        if not lines:
            return []
        rows, own = np.concatenate(lines), np.concatenate(self.roads.lines)
        was = rows[:, 2] >= 0
        found = np.empty((len(rows), 2))
        found[was] = own[rows[was, 2].astype(np.int64)]
        found[~was] = self.frame.places(rows[~was, :2], self.roads.crs)
        if self.roads.crs.is_geographic:  # a mask across the antimeridian goes on beyond 180 degrees
            found[~was, 0] += 360 * np.round((own[0, 0] - found[~was, 0]) / 360)
        return np.split(found, np.cumsum([len(line) for line in lines])[:-1])


def extra_fields(review: list[str], first: list[str], last: list[str]) -> dict[str, NDArray[Any]]:
    return {
        name: np.array(values, object) for name, values in (("review", review), ("from_osm", first), ("to_osm", last))
    }


def leads_back(part: Part, joins: dict[int, Join]) -> bool:
    """Whether both ends of a part become one node."""
    first, last = (joins[node].osm if node in joins else None for node in part.nodes)
    return first is not None and first == last


def numbered(ends: list[tuple[int, int]], joins: dict[int, Join]) -> tuple[NDArray[np.int64], dict[int, int]]:
    """New numbers of nodes (L, 2) from 1 on, one for those that become one node; and OpenStreetMap's ids by number."""
    numbers: dict[tuple[str, int], int] = {}
    used: dict[int, int] = {}
    rows = []
    for both in ends:
        row = []
        for node in both:
            id = joins[node].osm if node in joins else None
            number = numbers.setdefault(("own", node) if id is None else ("osm", id), len(numbers) + 1)
            if id is not None:
                used[number] = id
            row.append(number)
        rows.append(row)
    return np.array(rows, np.int64).reshape(-1, 2), used
