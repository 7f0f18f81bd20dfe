"""`dlink-vectorize --osm`: from a mask to what OpenStreetMap lacks, in every format, and what is refused."""

import subprocess
import sys

import numpy as np
import osmium
import pyogrio
import pytest
import shapely
from click.testing import CliRunner
from rasterio import Affine

from dlink.cli.vectorize import vectorize as command
from dlink.imagery.notes import SAID
from dlink.maps.osm_options import OsmOptions
from dlink.maps.vectorize import vectorize
from tests.maps.extracts import Drawing, drawn, read_osm
from tests.maps.masks import blobs, cross, write_mask

MIDDLE = 100.25  # metres from the mask's corner to the middle of both roads of `cross`


@pytest.fixture(autouse=True)
def unsaid():
    SAID.clear()


@pytest.fixture
def mask(tmp_path):
    return write_mask(tmp_path / "mask.tif", cross())


@pytest.fixture
def extract(tmp_path):
    """The road from west to east, 3 m to the south of the mask's, and one far in the north."""
    drawing = Drawing().way((-200, -MIDDLE - 3), (400, -MIDDLE - 3), highway="tertiary").way((-300, 400), (500, 400))
    return drawing.way((-300, -400), (500, -400)).write(tmp_path / "x.osm.pbf")


def call(*args):
    return CliRunner().invoke(command, [str(arg) for arg in args])


def test_a_cross_of_which_one_road_exists_gives_the_other_one_joined(mask, extract, tmp_path):
    out = tmp_path / "roads.osm"
    done = call(mask, "-o", out, "--osm", extract)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == (
        f"{out}: 2 lines, 0.20 km, 3 nodes\n"
        f"{extract}: has 0.20 km of the roads already; 2 lines new, 1 join, 1 existing way with new nodes, "
        "0 lines to review\n"
    )
    found = read_osm(out)
    [(nodes, tags, version)] = found.old.values()
    assert (nodes[0], nodes[2], tags, version) == (101, 102, {"highway": "tertiary"}, 3)
    at = drawn([found.nodes[nodes[1]][:2]])[0]
    np.testing.assert_allclose(at, [MIDDLE, -MIDDLE - 3], atol=0.3)
    assert all(nodes[1] in way[0] for way in found.new.values())
    ends = np.array([found.line(id)[[0, -1], 1] for id in found.new])
    np.testing.assert_allclose([ends.max(), ends.min()], [48.753010, 48.751213], atol=1e-5)  # still the mask's edges


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".geojson", ".geojsonl"])
def test_other_formats_have_fields_of_the_comparison(mask, extract, tmp_path, suffix):
    out = tmp_path / f"roads{suffix}"
    done = call(mask, "-o", out, "--osm", extract)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.endswith("has 0.20 km of the roads already; 2 lines new, 1 join, 0 lines to review\n")
    layer = "roads" if suffix != ".geojsonl" else None
    meta, _, shapes, columns = pyogrio.raw.read(out, layer=layer)
    fields = dict(zip(meta["fields"], columns, strict=True))
    assert list(fields)[-3:] == ["review", "from_osm", "to_osm"]
    joined = [a or b for a, b in zip(fields["from_osm"], fields["to_osm"], strict=True)]
    assert joined == ["way 1", "way 1"]
    lengths = shapely.length(shapely.from_wkb(shapes))
    if suffix in (".gpkg", ".fgb"):
        np.testing.assert_allclose(sorted(lengths), [96.5, 103], atol=0.5)
        np.testing.assert_allclose(sorted(fields["length_m"]), [96.5, 103], atol=0.5)


@pytest.mark.parametrize(
    ("crs", "grid", "origin"),
    [
        ("EPSG:3857", Affine(0.75, 0, 1_669_792.36, 0, -0.75, 6_230_000), (1_669_792.36, 6_230_000)),
        ("EPSG:4326", Affine(0.7e-5, 0, 15, 0, -0.45e-5, 48.75), (15, 48.75)),
    ],
)
def test_masks_in_mercator_and_degrees_are_compared_on_the_ground(crs, grid, origin, tmp_path):
    mask = write_mask(tmp_path / "mask.tif", cross(), crs=crs, transform=grid)
    x, y = grid.a * 400, grid.e * 200.5
    drawing = Drawing(origin, crs).way((-x, y), (2 * x, y)).way((-x, -y), (2 * x, -y)).way((-x, 4 * y), (2 * x, 4 * y))
    done = call(mask, "-o", tmp_path / "roads.osm", "--osm", drawing.write(tmp_path / "x.osm.gz"))
    assert (done.exit_code, done.stderr) == (0, "")
    assert "2 lines new, 1 join, 1 existing way with new nodes, 0 lines to review" in done.stdout


def test_the_distance_says_what_is_the_same_road(mask, extract, tmp_path):
    done = call(mask, "-o", tmp_path / "roads.osm", "--osm", extract, "--osm-distance", 1)
    # Half the road's width and 4 m are more than 1 m: a mask 8.5 m wide is no more exact.
    assert "has 0.20 km of the roads already" in done.stdout
    thin = write_mask(tmp_path / "thin.tif", cross(half=2))
    far = Drawing().way((-200, -MIDDLE - 8), (400, -MIDDLE - 8)).way((-300, 400), (500, 400)).way((0, -400), (9, -400))
    path = far.write(tmp_path / "far.osm")
    assert "0.20 km of the roads already" in call(thin, "-o", tmp_path / "x.osm", "--osm", path).stdout
    done = call(thin, "-o", tmp_path / "x.osm", "--osm", path, "--osm-distance", 2)
    assert "0.00 km of the roads already" in done.stdout
    assert "4 lines new, 0 joins, 0 existing ways with new nodes, 1 line to review" in done.stdout


def test_a_mask_whose_roads_all_exist_gives_an_empty_file_and_says_so(mask, tmp_path):
    both = Drawing().way((-200, -MIDDLE), (400, -MIDDLE)).way((MIDDLE, 200), (MIDDLE, -400))
    path, out = both.write(tmp_path / "x.osm.bz2"), tmp_path / "roads.gpkg"
    done = call(mask, "-o", out, "--osm", path)
    assert (done.exit_code, done.stderr) == (0, f"note: {mask}: no road is new; {out} has no lines\n")
    assert "has 0.40 km of the roads already; 0 lines new" in done.stdout
    assert len(pyogrio.raw.read(out, layer="roads")[2]) == 0


@pytest.mark.parametrize("seed", [0, 3])
def test_roads_that_are_taken_out_of_a_map_come_back_at_their_junctions(seed, tmp_path):
    """The map is of the mask's own lines, of which two in five are missing."""
    mask = write_mask(tmp_path / "mask.tif", blobs(seed, (1200, 1200), 14, 0.6))
    vectorize(mask, tmp_path / "all.osm")
    all = read_osm(tmp_path / "all.osm")
    rng = np.random.default_rng(seed)
    old = [id for id in all.ways if rng.random() < 0.6]
    with osmium.SimpleWriter(str(tmp_path / "x.osm.pbf")) as writer:
        for node in sorted({node for id in old for node in all.ways[id][0]}, reverse=True):
            writer.add_node(osmium.osm.mutable.Node(id=-node, version=1, location=all.nodes[node][:2]))
        for id in old:
            nodes = [-node for node in all.ways[id][0]]
            writer.add_way(osmium.osm.mutable.Way(id=-id, version=1, nodes=nodes, tags={"highway": "road"}))
    vectorize(mask, tmp_path / "new.osm", osm=OsmOptions(extract=tmp_path / "x.osm.pbf"))
    new = read_osm(tmp_path / "new.osm")
    missing = [id for id in all.ways if id not in old]
    was, came = (
        shapely.MultiLineString([drawn(file.line(id)) for id in ids]) for file, ids in ((all, missing), (new, new.new))
    )
    assert was.length > 1000
    assert was.difference(came.buffer(2)).length < 0.05 * was.length
    assert came.difference(was.buffer(2)).length < 0.02 * was.length
    had = {node for id in old for node in all.ways[id][0]}
    junctions = {-node for id in missing for node in (all.ways[id][0][0], all.ways[id][0][-1]) if node in had}
    joined = {node for nodes, _, _ in new.new.values() for node in nodes if node > 0}
    assert len(junctions) > 10
    assert len(junctions & joined) >= 0.85 * len(junctions)


def test_probabilities_and_bridges_keep_their_fields(extract, tmp_path):
    prob = np.where(cross(), np.float32(0.7), np.float32(0.2))
    prob[90:100] = 0
    mask = write_mask(tmp_path / "prob.tif", prob)
    assert call(mask, "-o", tmp_path / "roads.osm", "--osm", extract, "--bridge", 10).exit_code == 0
    ways = read_osm(tmp_path / "roads.osm").new.values()
    assert sorted(tags.get("fixme", "") for _, tags, _ in ways) == ["", "", "", "bridges a gap of the mask"]
    assert sorted(tags.get("dlink:probability", "") for _, tags, _ in ways) == ["", "0.70", "0.70", "0.70"]


def test_what_cannot_be_compared_is_refused_in_one_line(mask, extract, tmp_path):
    out = tmp_path / "roads.osm"
    (tmp_path / "x.geojson").write_text("{}")
    (tmp_path / "bad.osm.pbf").write_bytes(extract.read_bytes()[:90])
    (tmp_path / "empty.osm").write_text('<?xml version="1.0"?><osm version="0.6"></osm>')
    other = Drawing().way((90_000, 0), (91_000, 500)).write(tmp_path / "other.osm.pbf")
    nowhere = write_mask(tmp_path / "nowhere.tif", cross(), crs=None, transform=None)
    for args, words in (
        ((mask, "--osm", tmp_path / "x.geojson"), "no OpenStreetMap extract by its name; expected .osm, .osm.pbf"),
        ((mask, "--osm", tmp_path / "bad.osm.pbf"), "not an OpenStreetMap extract, or a damaged one; pyosmium says"),
        ((mask, "--osm", tmp_path / "empty.osm"), "has no roads, which are ways with the tag `highway`"),
        ((mask, "--osm", other), "does not cover the roads: it has 16.22"),
        ((mask, "--osm", extract, "--osm-distance", "inf"), "--osm-distance inf: must be more than 0"),
        ((nowhere, "--osm", extract), "the mask has no coordinate system; give it one"),
    ):
        done = call(*args, "-o", out)
        *notes, line = done.stderr.splitlines()
        assert all(note.startswith("note: ") for note in notes)
        assert done.exit_code == 1, args
        assert words in line
        assert not out.exists()


def test_the_extract_is_not_replaced_by_the_output(mask, extract, tmp_path):
    path = Drawing().way((-200, -MIDDLE), (400, -MIDDLE)).write(tmp_path / "x.osm")
    before = path.read_bytes()
    done = call(mask, "-o", path, "--osm", path)
    assert done.exit_code == 1
    assert "x.osm: is the extract, and would be replaced; choose another output" in done.stderr
    assert path.read_bytes() == before


def test_a_mask_is_vectorized_without_pyosmium():
    code = (
        "import sys; sys.modules['osmium'] = None; import dlink.maps.vectorize, dlink.maps.write, dlink.cli.vectorize"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_pyosmium_is_said_before_any_work(mask, extract, tmp_path):
    code = "import sys; sys.modules['osmium'] = None; from dlink.cli.main import dlink; dlink()"
    args = ["vectorize", mask, "-o", tmp_path / "roads.osm", "--osm", extract]
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: this needs osmium: pip install 'dlink[osm]'\n"
