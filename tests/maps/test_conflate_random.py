"""What holds for any roads beside any map: nothing new is lost, nothing old is damaged, and a second run finds nothing.

The maps are grids of streets with noise, of which some are missing. The roads are the same grid with another noise.
"""

from itertools import pairwise

import numpy as np
import pytest
import shapely

from dlink.maps.conflate import conflated
from dlink.maps.osm_options import OsmOptions
from dlink.maps.write import Roads, write_roads
from tests.maps.extracts import ORIGIN, UTM, Drawing, drawn, read_osm

DISTANCE, SHORTEST = 12.0, 20.0
SEEDS = range(12)
KINDS = (
    *({"highway": "residential"},) * 6,
    {"highway": "primary", "bridge": "yes"},
    {"highway": "service", "tunnel": "yes"},
    {"highway": "footway"},
    {"railway": "rail"},
)


def corners(rng, count=5, apart=90.0, noise=25.0):
    grid = np.stack(np.meshgrid(np.arange(count), np.arange(count), indexing="ij"), axis=-1) * apart
    return grid + rng.uniform(-noise, noise, grid.shape)


def streets(rng, at, share, noise):
    """Lines between neighbours of a grid, each with some share of being there, and with points between its ends."""
    count = len(at)
    pairs = [((i, j), (i + 1, j)) for i in range(count - 1) for j in range(count)]
    pairs += [((i, j), (i, j + 1)) for i in range(count) for j in range(count - 1)]
    lines = []
    for a, b in pairs:
        if rng.random() < share:
            t = np.linspace(0, 1, rng.integers(2, 6))[:, None]
            line = at[a] * (1 - t) + at[b] * t
            line[1:-1] += rng.normal(scale=noise, size=line[1:-1].shape)
            lines.append(((a, b), line))
    return lines


def scene(seed):
    """A map and roads: the roads' corners are some metres beside the map's."""
    rng = np.random.default_rng(seed)
    at = corners(rng)
    drawing = Drawing()
    for _, line in streets(rng, at, 0.6, 3.0):
        drawing.way(*map(tuple, line), **KINDS[rng.integers(len(KINDS))])
    made = streets(rng, at + rng.normal(scale=3.0, size=at.shape), 0.8, 2.0)
    names = sorted({corner for (a, b), _ in made for corner in (a, b)})
    ends = np.array([[names.index(a) + 1, names.index(b) + 1] for (a, b), _ in made])
    fields = {
        "id": np.arange(1, len(made) + 1),
        "length_m": np.array([shapely.LineString(line).length for _, line in made]),
        "width_m": rng.uniform(4, 12, len(made)),
        "from_node": ends[:, 0],
        "to_node": ends[:, 1],
    }
    return drawing, Roads([line + ORIGIN for _, line in made], UTM, fields, "mask.tif")


@pytest.fixture(params=SEEDS)
def case(request, tmp_path):
    drawing, roads = scene(request.param)
    extract = drawing.write(tmp_path / "x.osm.pbf")
    found = conflated(roads, OsmOptions(extract=extract, distance=DISTANCE), SHORTEST)
    write_roads(tmp_path / "roads.osm", found.roads)
    return drawing, roads, found, read_osm(tmp_path / "roads.osm"), tmp_path


def shapes_of(drawing, wanted):
    place = {id: at for at, id in drawing.ids.items()}
    return [shapely.LineString([place[id] for id in ids]) for _, ids, tags in drawing.ways if wanted(tags)]


def covers(tags):
    return "highway" in tags and "tunnel" not in tags


def walked(line, step=1.0):
    """Places along a line, and the line's directions there."""
    shape = shapely.LineString(line)
    where = np.arange(step / 2, shape.length, step)
    at = shapely.get_coordinates(shapely.line_interpolate_point(shape, where))
    ahead = shapely.get_coordinates(shapely.line_interpolate_point(shape, np.minimum(where + 5, shape.length)))
    behind = shapely.get_coordinates(shapely.line_interpolate_point(shape, np.maximum(where - 5, 0)))
    to = ahead - behind
    return at, to / np.maximum(np.hypot(*to.T), 1e-9)[:, None]


def test_what_is_dropped_lies_along_an_existing_line_or_is_a_short_rest(case):
    drawing, roads, found, _, _ = case
    old = shapely.MultiLineString(shapes_of(drawing, covers))
    kept = shapely.MultiLineString([line - ORIGIN for line in found.roads.lines])
    lost = 0.0
    for line in roads.lines:
        at = shapely.points(walked(line - ORIGIN)[0])
        away = shapely.distance(at, old) > DISTANCE + 0.1
        lost += float((away & (shapely.distance(at, kept) > DISTANCE / 2)).sum())
    assert found.covered_km > 0.5
    assert lost <= 1000 * found.rest_km + 5
    assert found.rest_km < 0.15


def test_what_is_kept_and_runs_along_an_existing_line_is_said(case):
    drawing, _, found, _, _ = case
    old = shapes_of(drawing, lambda tags: tags.get("highway", "x") in ("residential", "primary"))
    said = 0
    for line, review in zip(found.roads.lines, found.roads.fields["review"].tolist(), strict=True):
        at, to = walked(line - ORIGIN)
        for shape in old:
            near = shapely.distance(shapely.points(at), shape) < DISTANCE - 1.5
            where = shapely.line_locate_point(shape, shapely.points(at))
            there = shapely.get_coordinates(shapely.line_interpolate_point(shape, np.minimum(where + 1, shape.length)))
            back = shapely.get_coordinates(shapely.line_interpolate_point(shape, np.maximum(where - 1, 0)))
            side = there - back
            side /= np.maximum(np.hypot(*side.T), 1e-9)[:, None]
            along = near & (np.abs((to * side).sum(axis=1)) > np.cos(np.radians(20)))
            if along.sum() > DISTANCE + 4:
                said += 1
                assert "runs along" in review
    assert said < 5


def test_every_end_where_something_was_cut_is_joined_or_said(case):
    _, roads, found, _, _ = case
    first = {tuple(line[k]) for line in roads.lines for k in (0, -1)}
    fields = found.roads.fields
    cuts = 0
    for i, line in enumerate(found.roads.lines):
        for k, name in ((0, "from_osm"), (-1, "to_osm")):
            if tuple(line[k]) not in first:
                cuts += 1
                assert fields[name][i] or fields["review"][i]
    assert cuts > 5


def test_existing_ways_keep_all_that_they_have(case):
    drawing, _, found, osm, _ = case
    place = {id: at for at, id in drawing.ids.items()}
    ways = {id: (ids, tags) for id, ids, tags in drawing.ways}
    new = 0
    for id, (nodes, tags, version) in osm.old.items():
        ids, before = ways[id]
        assert (tags, version) == (before, 3)
        assert [node for node in nodes if node > 0] == ids
        assert "bridge" not in tags
        assert tags["highway"] == "residential"
        shape = shapely.LineString([place[node] for node in ids])
        for node in nodes:
            if node < 0:
                new += 1
                assert shape.distance(shapely.Point(drawn([osm.nodes[node][:2]])[0])) < 0.03
        assert any(node < 0 for node in nodes)
    assert found.changed == len(osm.old)
    for node, (_, _, version) in osm.nodes.items():
        assert version == (3 if node > 0 else 0)
        if node > 0:
            np.testing.assert_allclose(drawn([osm.nodes[node][:2]])[0], place[node], atol=0.02)


def test_the_file_is_whole_and_says_the_same_as_the_roads(case):
    _, _, found, osm, _ = case
    for nodes, _, _ in osm.ways.values():
        assert set(nodes) <= set(osm.nodes)
        assert 2 <= len(nodes) <= 2000
        assert all(a != b for a, b in pairwise(nodes))
    assert {node for nodes, _, _ in osm.ways.values() for node in nodes} == set(osm.nodes)
    fields = found.roads.fields
    assert len(osm.new) == len(found.roads.lines)
    at = {}
    for i, (nodes, tags, _) in enumerate(osm.new.values()):
        assert tags.get("fixme", "") == fields["review"][i][:255]
        for node, number, name in ((nodes[0], "from_node", "from_osm"), (nodes[-1], "to_node", "to_osm")):
            assert at.setdefault(fields[number][i], node) == node
            if fields[name][i].startswith("node"):
                assert fields[name][i] == f"node {node}"
    assert len(set(at.values())) == len(at) == found.nodes
    ends = {}
    for line, first, last in zip(found.roads.lines, fields["from_node"], fields["to_node"], strict=True):
        for node, point in ((first, line[0]), (last, line[-1])):
            assert ends.setdefault(node, tuple(point)) == tuple(point)


def test_a_second_run_beside_the_first_one_s_file_finds_nothing_new(case):
    _, _, found, _, folder = case
    again = conflated(found.roads, OsmOptions(extract=folder / "roads.osm", distance=DISTANCE), SHORTEST)
    assert len(found.roads.lines) > 3
    assert again.roads.lines == []
    assert again.rest_km < 0.002
