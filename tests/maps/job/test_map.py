"""A map of many rasters is that of one, by blocks as a whole; what does not fit is refused."""

import json
import re
import shutil

import numpy as np
import pyogrio
import pytest
import rasterio
from click.testing import CliRunner
from rasterio import Affine
from rasterio.warp import transform
from rasterio.windows import Window

from dlink.cli.map import map as command
from dlink.cli.segment import segment
from dlink.imagery.affine import scaled, shifted
from dlink.imagery.notes import SAID
from dlink.imagery.tiff import TILES, WIDTH, directories
from dlink.maps.job.finish import ResultOptions
from dlink.maps.job.plan import Plan
from dlink.maps.job.run import Where, make_map, progress_of
from dlink.maps.job.sources import found_sources
from dlink.maps.vectorize import vectorize
from dlink.runtime.errors import CheckFailed
from dlink.runtime.spec import Spec
from tests.maps.job.scenes import (
    BLOCK,
    GRID,
    ZONE,
    blocks_of,
    cut,
    leftovers,
    made,
    options,
    read,
    roads,
    scene,
    warped,
    write,
)
from tests.support.models import write_pointwise


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """A folder with a scene, what dlink-segment makes of it, its lines, and its map."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder / "scene.tif", scene())
    assert (
        CliRunner().invoke(segment, [str(model), str(folder / "scene.tif"), "-o", str(folder / "mask.tif")]).exit_code
        == 0
    )
    vectorize(folder / "mask.tif", folder / "roads.geojson")
    made(folder / "map", model, [folder / "scene.tif"], results=ResultOptions(formats=("geojson", "gpkg")))
    return folder


def call(*args):
    return CliRunner().invoke(command, [str(arg) for arg in args])


def geometries(path):
    return [feature["geometry"] for feature in json.loads(path.read_text())["features"]]


def test_a_map_of_one_raster_is_its_mask_and_its_lines(whole):
    mask, _ = read(whole / "mask.tif")
    assert 0.05 < (mask == 255).mean() < 0.5
    np.testing.assert_array_equal(read(whole / "map" / "roads.tif")[0], mask)
    assert geometries(whole / "map" / "roads.geojson") == geometries(whole / "roads.geojson")


def test_rasters_that_overlap_on_one_grid_make_the_map_of_the_whole(whole, model, tmp_path):
    made(tmp_path / "map", model, [cut(tmp_path / "parts", scene())], results=ResultOptions(formats=("geojson",)))
    mask, valid = read(tmp_path / "map" / "roads.tif")
    np.testing.assert_array_equal(mask, read(whole / "mask.tif")[0])
    assert valid.all()
    assert geometries(tmp_path / "map" / "roads.geojson") == geometries(whole / "roads.geojson")


@pytest.mark.parametrize("windows", [2, 3, 40])
def test_blocks_of_any_size_make_the_same_map(whole, model, tmp_path, windows):
    how = options(windows=windows)
    made(tmp_path / "map", model, [whole / "scene.tif"], how, results=ResultOptions(formats=("geojson",)))
    np.testing.assert_array_equal(read(tmp_path / "map" / "roads.tif")[0], read(whole / "mask.tif")[0])
    assert geometries(tmp_path / "map" / "roads.geojson") == geometries(whole / "roads.geojson")


def test_rasters_of_two_zones_are_one_map(whole, model, tmp_path):
    """The half that is warped to the other zone and back is as near to the whole as interpolation lets it be."""
    image = scene()
    write(tmp_path / "west.tif", image[:, :, :350])
    warped(tmp_path / "east.tif", image[:, :, 310:], transform=shifted(GRID, 0, 310))
    made(tmp_path / "map", model, [tmp_path / "west.tif", tmp_path / "east.tif"])
    with rasterio.open(tmp_path / "map" / "roads.tif") as file:
        assert file.crs == "EPSG:32633"
        row, col = round((file.transform.f - GRID.f) / GRID.e), round((file.transform.c - GRID.c) / GRID.a)
        found, valid = file.read(1), file.dataset_mask() > 0
    found, valid = (pixels[-row : 400 - row, -col : 500 - col] for pixels in (found, valid))
    mask, _ = read(whole / "mask.tif")
    assert valid[:, :498].mean() > 0.999
    inner = slice(8, 392)  # outside there is black, and not the end of the picture
    parts = (slice(8, 300), slice(300, 400), slice(400, 490))
    shares = [iou(found[inner, part], mask[inner, part]) for part in parts]
    assert shares[0] == 1  # read as it is
    assert min(shares[1:]) > 0.97
    assert abs(shares[1] - shares[2]) < 0.015


def iou(one, other):
    return ((one > 0) & (other > 0)).sum() / ((one > 0) | (other > 0)).sum()


@pytest.mark.parametrize("metres", [0.125, 0.25])
def test_finer_rasters_are_averaged_to_the_networks_resolution(model, tmp_path, metres):
    """Pixels that are repeated are those of the coarse raster again."""
    times = round(0.5 / metres)
    image = scene((200, 300))
    fine = image.repeat(times, axis=1).repeat(times, axis=2)
    write(tmp_path / "fine.tif", fine, transform=scaled(GRID, 1 / times, 1 / times))
    write(tmp_path / "coarse.tif", image)
    for name in ("fine", "coarse"):
        made(tmp_path / name, model, [tmp_path / f"{name}.tif"])
    np.testing.assert_array_equal(read(tmp_path / "fine" / "roads.tif")[0], read(tmp_path / "coarse" / "roads.tif")[0])


def test_the_first_raster_is_on_top_and_others_fill_its_holes(model, tmp_path):
    dark, bright = np.full((3, 128, 128), 30, np.uint8), np.full((3, 128, 128), 220, np.uint8)
    dark[:, 40:90, 40:90] = 0  # too large for a black thing
    write(tmp_path / "dark.tif", dark, nodata=0)
    write(tmp_path / "bright.tif", bright)
    made(tmp_path / "one", model, [tmp_path / "dark.tif", tmp_path / "bright.tif"])
    made(tmp_path / "other", model, [tmp_path / "bright.tif", tmp_path / "dark.tif"])
    mask, valid = read(tmp_path / "one" / "roads.tif")
    assert valid.all()
    assert (mask[45:85, 45:85] == 255).all()
    assert (mask[:35] == 0).all()
    assert (read(tmp_path / "other" / "roads.tif")[0] == 255).all()


def test_small_black_things_are_data_and_large_holes_are_none(model, tmp_path):
    image = np.full((3, 200, 200), 200, np.uint8)
    image[:, 60:70, 60:72] = 0  # 5 m x 6 m
    image[:, 120:160, 120:160] = 0
    write(tmp_path / "a.tif", image, nodata=0)
    made(tmp_path / "map", model, [tmp_path / "a.tif"], options(windows=1))
    _, valid = read(tmp_path / "map" / "roads.tif")
    expected = np.ones((200, 200), bool)
    expected[120:160, 120:160] = False
    np.testing.assert_array_equal(valid, expected)


@pytest.mark.parametrize("warped", [False, True], ids=["plain", "warped"])
def test_blocks_of_a_tiff_that_were_never_written_are_no_data(model, tmp_path, warped):
    image = np.full((3, 128, 192), 200, np.uint8)
    place = GRID if not warped else shifted(GRID, 0.5, 0.5)
    form = {"driver": "GTiff", "height": 128, "width": 192, "count": 3, "dtype": "uint8", "sparse_ok": True}
    form |= {"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "pixel"}
    with rasterio.open(tmp_path / "a.tif", "w", **form, crs=ZONE, transform=place) as file:
        for left in (0, 128):
            file.write(image[:, :, :64], window=Window(left, 0, 64, 128))
    write(tmp_path / "grid.tif", scene((64, 64)), transform=shifted(GRID, -64, -64))
    made(tmp_path / "map", model, [tmp_path / "a.tif", tmp_path / "grid.tif"])
    with rasterio.open(tmp_path / "map" / "roads.tif") as file:
        row, col = round((GRID.f - file.transform.f) / -0.5), round((GRID.c - file.transform.c) / 0.5)
        valid = file.dataset_mask()[row : row + 128, col : col + 192] > 0
    expected = np.ones((128, 192), bool)
    expected[:, 64:128] = False
    assert (valid == expected).mean() > (0.97 if warped else 0.999999)


def test_an_area_of_interest_cuts_the_map(whole, model, tmp_path):
    ring = [(0, 0), (60, 0), (60, 50), (0, 50), (0, 0)]
    at = [(718_050 + x, 5_399_950 - y) for x, y in ring]
    lon, lat = transform("EPSG:32633", "EPSG:4326", *zip(*at, strict=True))
    shape = {"type": "Polygon", "coordinates": [list(zip(lon, lat, strict=True))]}
    (tmp_path / "area.geojson").write_text(json.dumps(shape))
    made(tmp_path / "map", model, [whole / "scene.tif"], options(aoi=str(tmp_path / "area.geojson")))
    with rasterio.open(tmp_path / "map" / "roads.tif") as file:
        assert file.bounds == pytest.approx((718_050, 5_399_900, 718_110, 5_399_950), abs=0.5)
        assert (file.dataset_mask() > 0).mean() > 0.97


def test_samples_of_16_bits_share_one_range_over_all_rasters(model, tmp_path):
    """Also where one raster alone would be stretched to another."""
    image = scene((200, 300)).astype(np.uint16) * 7 + 200
    write(tmp_path / "whole.tif", image)
    for name, part in (("west", slice(0, 100)), ("east", slice(100, 300))):
        write(tmp_path / f"{name}.tif", image[:, :, part], transform=shifted(GRID, 0, part.start))
    made(tmp_path / "one", model, [tmp_path / "whole.tif"])
    made(tmp_path / "two", model, [tmp_path / "west.tif", tmp_path / "east.tif"])
    np.testing.assert_array_equal(read(tmp_path / "one" / "roads.tif")[0], read(tmp_path / "two" / "roads.tif")[0])
    assert Plan.read(tmp_path / "one").stretch == Plan.read(tmp_path / "two").stretch


def test_parts_of_an_array_of_jobs_make_the_map(whole, model, tmp_path):
    for part in ("1/3", "2/3", "3/3"):
        where = Where(folder=tmp_path / "map", part=part)
        assert make_map(model, [str(whole / "scene.tif")], where, BLOCK) is None
    assert not (tmp_path / "map" / "roads.tif").exists()
    done = progress_of(Where(folder=tmp_path / "map"))
    assert (done.roads, done.lines, done.finished) == (done.all, 0, False)
    made(tmp_path / "map", None, [], None)
    assert blocks_of(tmp_path / "map") == blocks_of(whole / "map")


def test_the_mask_is_a_cloud_optimized_geotiff(whole):
    """Its directories come first, then the overviews' blocks, the smallest first, then its own."""
    with (whole / "map" / "roads.tif").open("rb") as file:
        found = [(tags[WIDTH][0], tags[TILES]) for tags in directories(file)]
        file.seek(0)
        assert b"LAYOUT=IFDS_BEFORE_DATA" in file.read(400)
    assert [width for width, _ in found] == [500, 500]
    assert min(start for _, starts in found for start in starts) > 400


def test_results_are_written_again_with_other_options_without_the_network(whole, tmp_path):
    shutil.copytree(whole / "map", tmp_path / "map")
    before = blocks_of(tmp_path / "map")
    done = call("-o", tmp_path / "map", "--bridge", 15, "--format", "fgb")
    assert done.exit_code == 0, done.output
    assert blocks_of(tmp_path / "map") == before
    assert pyogrio.read_info(tmp_path / "map" / "roads.fgb")["fields"].tolist()[-2:] == ["bridge", "probability"]
    said = json.loads((tmp_path / "map" / "report.json").read_text())
    assert "gaps bridged up to 15 m" in said["how"]["Lines"]


def test_the_report_names_what_was_left_out_and_loads_nothing(model, tmp_path):
    write(tmp_path / "good.tif", scene((100, 100)))
    (tmp_path / "bad <b>.tif").write_bytes(b"II*\0 no picture")
    made(tmp_path / "map", model, [tmp_path / "good.tif", tmp_path / "bad <b>.tif"], options(skip_bad=True))
    page = (tmp_path / "map" / "report.html").read_text()
    assert "bad &lt;b&gt;.tif" in page
    assert "<b>" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    said = json.loads((tmp_path / "map" / "report.json").read_text())
    [left_out] = said["left_out"]
    assert left_out["name"].endswith("bad <b>.tif")
    assert "GDAL says" in left_out["why"]


REFUSED = {
    "no CRS": (lambda t: write(t / "a.tif", scene((99, 99)), crs=None), "a.tif: has no coordinate system; give it one"),
    "a folder without rasters": (lambda t: (t / "in").mkdir() or t / "in", "in: no rasters in it"),
    "no such file": (lambda t: t / "a.tif", "a.tif: no such file or folder"),
    "a pattern without files": (lambda t: t / "*.tif", r"\*.tif: no file matches it"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_rasters_that_cannot_be_used_are_refused_by_name(model, tmp_path, kind):
    make, words = REFUSED[kind]
    done = call(model, make(tmp_path), "-o", tmp_path / "map")
    assert done.exit_code == 1
    assert re.search(words, done.stderr.splitlines()[-1]), done.stderr
    assert not (tmp_path / "map" / "plan.json").exists()


def test_rasters_that_lack_a_band_of_the_network_are_refused(tmp_path):
    model = write_pointwise(
        tmp_path / "four.onnx", Spec(tile=64, bands=("red", "green", "blue", "nir"), scale=(0.01,) * 4, shift=(-1,) * 4)
    )
    done = call(model, write(tmp_path / "a.tif", scene((99, 99))), "-o", tmp_path / "map")
    assert done.exit_code == 1
    assert "a.tif: " in done.stderr and "nir" in done.stderr


def test_a_rotated_raster_is_laid_on_the_grid(model, tmp_path):
    turned = Affine(0.4, 0.3, 718_000, 0.3, -0.4, 5_400_000)
    write(tmp_path / "turned.tif", np.full((3, 200, 200), 220, np.uint8), transform=turned)
    made(tmp_path / "map", model, [tmp_path / "turned.tif"])
    mask, valid = read(tmp_path / "map" / "roads.tif")
    assert valid.sum() == pytest.approx(200 * 200, rel=0.02)
    assert (mask[valid] == 255).mean() > 0.95


def test_another_plan_in_the_folder_is_refused(whole, model, tmp_path):
    shutil.copytree(whole / "map", tmp_path / "map")
    other = roads(tmp_path / "other.onnx", 2)
    again = [model, whole / "scene.tif", "-o", tmp_path / "map", "--windows", 4]
    for args, words in (
        ([other, *again[1:]], "is another map, of the model roads.onnx"),
        ([*again, "--views", 1], "is another map, with another --views"),
        ([model, cut(tmp_path / "parts", scene()), *again[2:]], "is another map, without"),
    ):
        done = call(*args)
        assert done.exit_code == 1
        assert words in done.stderr, done.stderr
    assert call(*again).exit_code == 0


def test_blocks_of_another_plan_are_refused(whole, model, tmp_path):
    shutil.copytree(whole / "map", tmp_path / "map")
    made(tmp_path / "other", model, [whole / "scene.tif"], options(views="1"))
    shutil.copy(tmp_path / "other" / "blocks" / "0001_0001.tif", tmp_path / "map" / "blocks")
    done = call("-o", tmp_path / "map")
    assert done.exit_code == 1
    assert "0001_0001.tif: a block of another map" in done.stderr


def test_the_geopackage_says_which_model_and_plan_made_it(whole):
    said = pyogrio.read_info(whole / "map" / "roads.gpkg", layer="roads")["layer_metadata"]
    plan = Plan.read(whole / "map")
    assert said["DLINK_PLAN"] == plan.mark
    assert plan.model.sha256 in said["DLINK_MODEL"]


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:700] + b"abc" + data[703:]])
def test_a_damaged_block_is_named_and_made_again_once_it_is_removed(whole, tmp_path, damage):
    shutil.copytree(whole / "map", tmp_path / "map")
    block = tmp_path / "map" / "blocks" / "0001_0001.tif"
    block.write_bytes(damage(block.read_bytes()))
    done = call("-o", tmp_path / "map")
    assert done.exit_code == 1
    assert f"{block}: " in done.stderr and "remove it and run this again" in done.stderr
    block.unlink()
    assert call("-o", tmp_path / "map").exit_code == 0
    assert blocks_of(tmp_path / "map") == blocks_of(whole / "map")


def test_rasters_in_degrees_are_read_as_they_are_where_that_is_the_grid(model, tmp_path):
    at = Affine(4.5e-6 * 1.49, 0, 15.123456789, 0, -4.5e-6, 48.123456789)
    image = scene((200, 300))
    write(tmp_path / "one.tif", image[:, :, :170], "EPSG:4326", at)
    write(tmp_path / "two.tif", image[:, :, 120:], "EPSG:4326", shifted(at, 0, 120))
    write(tmp_path / "whole.tif", image, "EPSG:4326", at)
    made(tmp_path / "map", model, [tmp_path / "one.tif", tmp_path / "two.tif"])
    made(tmp_path / "all", model, [tmp_path / "whole.tif"])
    assert all(source.plain for source in Plan.read(tmp_path / "map").sources)
    np.testing.assert_array_equal(read(tmp_path / "map" / "roads.tif")[0], read(tmp_path / "all" / "roads.tif")[0])


def test_the_status_is_told_without_a_change(whole):
    done = call("-o", whole / "map", "--status")
    assert (done.exit_code, done.output) == (0, f"{whole / 'map'}: finished, 12 blocks\n")
    nothing = call("-o", whole / "nothing", "--status")
    assert nothing.exit_code == 1
    assert "no map is planned there" in nothing.stderr
    assert not (whole / "nothing").exists()


def test_a_stac_item_is_a_source_and_a_result(whole, model, tmp_path):
    """The item's raster makes the map of the raster, and the map's own item names all that was made."""
    thumb = {"href": "thumb.png", "type": "image/png", "roles": ["thumbnail"]}
    image = {"href": "../" + (whole / "scene.tif").relative_to(tmp_path.parent).as_posix(), "type": "image/tiff"}
    (tmp_path / "scene.json").write_text(json.dumps({"type": "Feature", "assets": {"image": image, "thumb": thumb}}))
    args = (model, tmp_path / "scene.json", "-o", tmp_path / "map", "--format", "pmtiles", "--format", "geojson")
    done = call(*args, "--windows", 4, "--workers", 1)
    assert done.exit_code == 0, done.stderr
    assert geometries(tmp_path / "map" / "roads.geojson") == geometries(whole / "map" / "roads.geojson")
    found = json.loads((tmp_path / "map" / "item.json").read_text())
    names = {asset["href"]: asset["file:size"] for asset in found["assets"].values()}
    assert names == {
        f"./{name}": (tmp_path / "map" / name).stat().st_size
        for name in ("roads.tif", "roads.pmtiles", "roads.geojson", "report.html")
    }
    with rasterio.open(tmp_path / "map" / "roads.tif") as mask:
        assert found["assets"]["mask"]["proj:transform"] == list(mask.transform)
        assert found["assets"]["mask"]["proj:shape"] == list(mask.shape)
    assert "item.json" in json.loads((tmp_path / "map" / "report.json").read_text())["files"]
    assert leftovers(tmp_path / "map") == []


def test_a_map_without_roads_has_no_tiles_and_says_so(model, tmp_path, caplog):
    write(tmp_path / "dark.tif", np.full((3, 64, 64), 20, np.uint8))
    made(tmp_path / "map", model, [tmp_path / "dark.tif"], results=ResultOptions(formats=("pmtiles",)))
    assert not (tmp_path / "map" / "roads.pmtiles").exists()
    assert "is not made: there is no road" in caplog.text
    assert "lines-pmtiles" not in json.loads((tmp_path / "map" / "item.json").read_text())["assets"]


def test_a_raster_that_was_damaged_is_replaced_and_the_map_goes_on(model, tmp_path):
    cut(tmp_path / "parts", scene((200, 300)))
    bad = tmp_path / "parts" / "000_150.tif"
    sound = bad.read_bytes()
    with rasterio.open(bad) as file:
        image = file.read()
    write(bad, image, transform=shifted(GRID, 0, 150), compress="deflate", blockysize=16)
    damaged = bytearray(bad.read_bytes())
    damaged[len(damaged) // 2 :] = bytes(len(damaged) - len(damaged) // 2)
    bad.write_bytes(damaged)
    how = options(windows=40)
    with pytest.raises(CheckFailed, match="000_150.tif"):
        made(tmp_path / "map", model, [tmp_path / "parts"], how)
    bad.write_bytes(sound)
    made(tmp_path / "map", None, [], None)
    made(tmp_path / "whole", model, [write(tmp_path / "whole.tif", scene((200, 300)))], how)
    np.testing.assert_array_equal(read(tmp_path / "map" / "roads.tif")[0], read(tmp_path / "whole" / "roads.tif")[0])


def test_blocks_that_are_removed_are_made_again_with_the_lines_around_them(whole, tmp_path):
    shutil.copytree(whole / "map", tmp_path / "map")
    (tmp_path / "map" / "blocks" / "0001_0001.tif").unlink()
    made(tmp_path / "map", None, [], None)
    assert blocks_of(tmp_path / "map") == blocks_of(whole / "map")


def test_the_folder_alone_makes_the_results_of_the_last_run(whole, tmp_path):
    shutil.copytree(whole / "map", tmp_path / "map")
    call("-o", tmp_path / "map", "--bridge", 15, "--format", "geojson")
    before = (tmp_path / "map" / "roads.geojson").read_bytes()
    assert call("-o", tmp_path / "map").exit_code == 0
    assert (tmp_path / "map" / "roads.geojson").read_bytes() == before
    assert not (tmp_path / "map" / "roads.gpkg").exists()


def test_maps_below_a_folder_of_rasters_are_no_rasters(whole, model, tmp_path):
    cut(tmp_path / "in", scene((200, 300)))
    shutil.copytree(whole / "map", tmp_path / "in" / "old")
    assert len(found_sources([str(tmp_path / "in")], tmp_path / "map")) == 4
    assert found_sources([f"{tmp_path}/in/../in/000_000.tif"], tmp_path) == [f"{tmp_path}/in/000_000.tif"]


def test_a_subfolder_with_the_plan_of_another_program_is_no_map(tmp_path, caplog):
    monthly = tmp_path / "in" / "monthly"
    monthly.mkdir(parents=True)
    for i, text in enumerate(('{"format": 1, "steps": []}', "[1]", "no JSON")):
        write(monthly / f"{i}.tif", scene((50, 50)))
        (monthly / "plan.json").write_text(text)
        assert len(found_sources([str(tmp_path / "in")], tmp_path / "map")) == i + 1
    assert "is a map" not in caplog.text


def test_links_to_folders_are_followed_once_and_what_is_left_out_is_said(whole, tmp_path, caplog):
    SAID.clear()
    cut(tmp_path / "elsewhere", scene((200, 300)))
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "old").symlink_to(whole / "map")
    write(tmp_path / "in" / "a_mask.tif", scene((50, 50)))
    found = found_sources([str(tmp_path / "in")], tmp_path / "map")
    assert found == [
        f"{tmp_path}/in/link/{name}" for name in ("000_000.tif", "000_150.tif", "150_000.tif", "150_150.tif")
    ]
    assert f"{tmp_path}/in/old: is a map, whose results are no pictures" in caplog.text
    assert "a_mask.tif: is left out: names ending in _mask" in caplog.text


def test_a_raster_that_is_too_coarse_is_refused_as_dlink_segment_does(tmp_path):
    model = write_pointwise(tmp_path / "roads.onnx", Spec(tile=64, gsd_m=0.5))
    coarse = write(tmp_path / "a.tif", scene((60, 60)), transform=scaled(GRID, 60, 60))
    words = "a.tif: has 30 m a pixel, too coarse to be read at 0.5 m; --gsd native reads it as it is"
    for command_, args in (
        (segment, (model, coarse, "-o", tmp_path / "m.tif")),
        (command, (model, coarse, "-o", tmp_path / "map")),
    ):
        done = CliRunner().invoke(command_, [str(arg) for arg in args])
        assert done.exit_code == 1
        assert words in done.stderr
    fine = write(tmp_path / "b.tif", scene((60, 60)))
    done = call(model, coarse, fine, "-o", tmp_path / "both", "--skip-bad", "--workers", 1)
    assert done.exit_code == 0, done.output
    assert "a.tif: has 30 m a pixel" in done.stderr


def test_a_folder_in_object_storage_is_refused_before_the_work(whole, model):
    done = call(model, whole / "scene.tif", "-o", "s3://bucket/map")
    assert done.exit_code == 1
    assert "a map's folder is on a disk; its blocks may lie elsewhere: --blocks" in done.stderr


def test_a_refused_run_leaves_no_folder(model, tmp_path):
    assert call(model, tmp_path / "nothing", "-o", tmp_path / "map").exit_code == 1
    assert not (tmp_path / "map").exists()
