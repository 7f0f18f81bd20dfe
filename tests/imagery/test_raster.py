import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

from dlink.imagery import geotiff, raster
from dlink.imagery.jobs import Job, OutputOptions
from dlink.imagery.pictures import paint
from dlink.imagery.reading import Reading
from dlink.imagery.source import opened
from dlink.runtime import BadInput, Spec, open_model
from dlink.runtime.windows import cover
from tests.support.models import red, shared, write_blur, write_pointwise

CRS, TRANSFORM = "EPSG:32633", rasterio.Affine(0.3, 0, 300000.5, 0, -0.5, 5000000.5)
ROTATED = "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +to_meter=0.0174532925199433"
NATIVE = Reading(gsd="native")
HEIGHT, WIDTH = 600, 1100  # more than a block either way, and no multiple of one
GREY_RGB = [ColorInterp.gray, ColorInterp.red, ColorInterp.green, ColorInterp.blue]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = write_blur(tmp_path_factory.mktemp("model") / "blur.onnx", Spec(tile=128, views=(0,)), radius=3)
    with open_model(path, halo=8) as model:
        yield model


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The model whose probability at a pixel is `red` of it."""
    path = write_pointwise(tmp_path_factory.mktemp("model") / "red.onnx", Spec(tile=128, views=(0,)))
    with open_model(path, halo=8) as model:
        yield model


@pytest.fixture(scope="module")
def image():
    """uint8 (H, W, 3), smooth enough that the blurred red crosses one half in many places."""
    coarse = np.random.default_rng(0).integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), np.uint8)
    return np.repeat(np.repeat(coarse, 4, axis=0), 4, axis=1)


def write(path, image, interp=None, valid=None, **kind):
    """A GeoTIFF of an image (H, W, bands)."""
    bands = np.moveaxis(image, -1, 0)
    size = {"width": image.shape[1], "height": image.shape[0], "count": len(bands), "dtype": image.dtype}
    place = {} if "gcps" in kind else {"crs": CRS, "transform": TRANSFORM}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **{**size, **place, **kind}) as file:
        if interp:
            file.colorinterp = interp
        file.write(bands)
        if valid is not None:
            file.write_mask(valid)
    return path


def segment(path, model, probability=False, overlay=None, reading=NATIVE):
    """Segment a GeoTIFF; the open result."""
    out = path.with_name("out.tif")
    ticks = []
    job = Job(path, out, overlay, True, reading)
    raster.segment_raster(job, model, OutputOptions(probability=probability), lambda *tick: ticks.append(tick), print)
    assert ticks[-1][0] == ticks[-1][1] == len(ticks)
    return rasterio.open(out)


def test_size_crs_and_transform_are_the_sources(tmp_path, image, plain):
    with segment(write(tmp_path / "a.tif", image), plain) as out:
        assert (out.shape, out.count, out.crs, out.transform) == ((HEIGHT, WIDTH), 1, CRS, TRANSFORM)


def test_the_file_is_tiled_deflated_uint8(tmp_path, image, plain):
    with segment(write(tmp_path / "a.tif", image), plain) as out:
        assert (out.profile["compress"], out.block_shapes, out.dtypes) == ("deflate", [(256, 256)], ("uint8",))


@pytest.mark.parametrize("ahead", [0, 1 << 17, 1 << 30])  # bytes: a window, a few, all columns at once
@pytest.mark.parametrize(
    "layout",
    [{"tiled": True, "blockxsize": 256, "blockysize": 256}, {"interleave": "pixel"}, {"interleave": "band"}],
    ids=["tiled", "lines", "bands"],
)
def test_windows_give_what_the_whole_image_gives(tmp_path, monkeypatch, image, model, layout, ahead):
    monkeypatch.setattr(raster, "AHEAD", ahead)
    with segment(write(tmp_path / "a.tif", image, compress="deflate", **layout), model) as out:
        mask = out.read(1)
    assert 0.1 < mask.mean() / 255 < 0.9
    np.testing.assert_array_equal(mask, model.mask(image))


def test_an_image_smaller_than_a_tile_works(tmp_path, image, model):
    with segment(write(tmp_path / "a.tif", image[:40, :30]), model) as out:
        np.testing.assert_array_equal(out.read(1), model.mask(image[:40, :30]))


def test_probabilities_are_float32(tmp_path, image, plain):
    with segment(write(tmp_path / "a.tif", image), plain, probability=True) as out:
        assert out.dtypes == ("float32",)
        np.testing.assert_allclose(out.read(1), red(image), atol=1e-6)


def test_without_gaps_everything_is_valid(tmp_path, image, plain):
    with segment(write(tmp_path / "a.tif", image), plain) as out:
        assert out.mask_flag_enums == ([rasterio.enums.MaskFlags.all_valid],)


@pytest.fixture(params=["nodata", "alpha", "mask"])
def holed(request, tmp_path, image):
    """A GeoTIFF with a hole over the corner of four blocks, and the same image as an array, and where it is valid."""
    valid = np.ones((HEIGHT, WIDTH), np.bool_)
    valid[450:560, 400:700] = False
    bright = np.maximum(image, 200)
    path = tmp_path / "holed.tif"
    if request.param == "nodata":
        bright[~valid] = 7
        write(path, bright, nodata=7)
    elif request.param == "alpha":
        write(path, np.dstack([bright, np.where(valid, 255, 0).astype(np.uint8)]), photometric="RGB", alpha="YES")
    else:
        write(path, bright, valid=valid)
    return path, bright, valid


def test_what_has_no_data_stays_without(holed, plain):
    path, _, valid = holed
    with segment(path, plain) as out:
        np.testing.assert_array_equal(out.dataset_mask() > 0, valid)
        np.testing.assert_array_equal(out.read(1), np.where(valid, 255, 0))
    assert not list(path.parent.glob("*.msk"))


def test_probabilities_are_zero_where_there_is_no_data(holed, model):
    path, bright, valid = holed
    with segment(path, model, probability=True) as out:
        np.testing.assert_array_equal(out.read(1), np.where(valid, model.probabilities(bright), 0))


@pytest.mark.parametrize(
    ("bands", "interp", "order"),
    [
        ([0, 1, 2], None, [0, 1, 2]),
        ([2, 1, 0], [ColorInterp.blue, ColorInterp.green, ColorInterp.red], [0, 1, 2]),
        ([1, 0, 1, 2], GREY_RGB, [0, 1, 2]),
        ([1, 2, 0, 0, 2], None, [1, 2, 0]),
        ([1, 2], None, [1, 1, 1]),
        ([1], None, [1, 1, 1]),
    ],
    ids=["rgb", "bgr by name", "rgb by name", "first of five", "first of two", "grey"],
)
def test_colours_are_those_named_or_the_first(tmp_path, image, plain, bands, interp, order):
    path = write(tmp_path / "a.tif", image[..., bands], interp=interp, photometric="MINISBLACK")
    with segment(path, plain) as out:
        np.testing.assert_array_equal(out.read(1), plain.mask(np.ascontiguousarray(image[..., order])))


def test_alpha_is_no_colour(tmp_path, image, plain):
    bands = np.insert(image, 1, 255, axis=-1)
    interp = [ColorInterp.gray, ColorInterp.alpha, ColorInterp.undefined, ColorInterp.undefined]
    path = write(tmp_path / "a.tif", bands, interp=interp, photometric="MINISBLACK")
    with opened(path, NATIVE) as source:
        assert source.bands.numbers == (1, 3, 4)


def test_what_is_read_ahead_stays_within_its_bytes(tmp_path, image, monkeypatch):
    monkeypatch.setattr(raster, "AHEAD", 200_000)  # of the 400,000 that a row of windows has
    window = cover(HEIGHT, WIDTH, tile=128, halo=8)[0]
    with opened(write(tmp_path / "a.tif", image), NATIVE) as source:
        ahead = raster.Ahead(source, tile=128)
        ahead.read(window)
        assert 70_000 < ahead.strip.pixels.nbytes <= 200_000


def test_a_crs_that_geotiff_cannot_say_is_kept_beside_it(tmp_path, image, plain):
    path = write(tmp_path / "a.tif", image, crs=ROTATED)
    with rasterio.open(path) as source, segment(path, plain) as out:
        assert out.crs == source.crs
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "a.tif.aux.xml", "out.tif", "out.tif.aux.xml"]


def test_ground_control_points_are_kept(tmp_path, image, plain):
    points = [GroundControlPoint(r, c, 1e5 + c, 2e5 - r) for r, c in [(0, 0), (0, 900), (500, 0), (500, 900)]]
    with segment(write(tmp_path / "a.tif", image, gcps=points, crs=CRS), plain) as out:
        got, crs = out.gcps
    assert crs == CRS
    assert [(p.row, p.col, p.x, p.y) for p in got] == [(p.row, p.col, p.x, p.y) for p in points]


def test_overlay_is_a_geotiff_with_roads_painted(tmp_path, image, plain):
    overlay = tmp_path / "overlay.tif"
    segment(write(tmp_path / "a.tif", image), plain, overlay=overlay).close()
    with rasterio.open(overlay) as file:
        assert (file.crs, file.transform, file.count) == (CRS, TRANSFORM, 3)
        painted = np.moveaxis(file.read(), 0, -1)
    mask = plain.mask(image)
    np.testing.assert_array_equal(painted[mask == 0], image[mask == 0])
    same = (painted == paint(image, mask)).all(axis=-1)
    assert same.mean() > 0.99  # outlines alone may differ, where a road ends exactly at a core's edge


@pytest.mark.parametrize(
    ("share", "message"), [(0.5, "cut short, its compressed block .+ lacks .+"), (0.001, "GDAL says: .+")]
)
def test_a_truncated_file_leaves_nothing_behind(tmp_path, image, plain, share, message):
    layout = {"compress": "deflate", "tiled": True, "blockxsize": 128, "blockysize": 128}
    path = write(tmp_path / "a.tif", image, crs=ROTATED, **layout)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BadInput, match=message):
        segment(path, plain)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_georeference_that_gdal_drops_is_not_lost_silently(tmp_path, image, plain):
    path = write(tmp_path / "a.tif", image, transform=None)
    key = struct.pack("<4H", 1024, 0, 1, 1)  # GTModelType: one value, projected
    assert path.read_bytes().count(key) == 1
    path.write_bytes(path.read_bytes().replace(key, struct.pack("<4H", 1024, 0, 31, 1)))
    with pytest.raises(BadInput, match="a.tif: its georeference is damaged; restore it with gdal_edit.py"):
        segment(path, plain)


def test_a_block_that_is_not_what_was_written_is_noticed(tmp_path, image):
    path = write(tmp_path / "a.tif", image[..., :1])
    box = geotiff.Box(0, 0, 8, 8)
    true = image[None, :8, :8, 0]
    geotiff.check_sums(path, {box: geotiff.checksum(true, np.ones((8, 8), np.bool_))})
    with pytest.raises(rasterio.errors.RasterioError, match="row 0, column 0 is not what was written"):
        geotiff.check_sums(path, {box: geotiff.checksum(true ^ 1, np.ones((8, 8), np.bool_))})


def test_sidecars_of_a_replaced_result_go_with_it(tmp_path, image, plain):
    stale = [tmp_path / f"out.tif{suffix}" for suffix in (".aux.xml", ".ovr", ".msk")]
    for path in stale:
        path.write_text("of the old file")
    segment(write(tmp_path / "a.tif", image), plain).close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "out.tif"]


def test_a_real_scene_keeps_its_grid(tmp_path, plain):
    path = shared("tiles/vegas/RGB-PanSharpen_AOI_2_Vegas_img0.tif")
    copy = tmp_path / "vegas.tif"
    copy.write_bytes(path.read_bytes())
    with rasterio.open(path) as scene, segment(copy, plain) as out:
        assert (out.crs, out.transform, out.shape) == (scene.crs, scene.transform, (1300, 1300))
        np.testing.assert_array_equal(out.dataset_mask() > 0, scene.dataset_mask() > 0)
        np.testing.assert_array_equal(
            out.read(1) > 0, (red(np.moveaxis(scene.read(), 0, -1)) > 0.5) & (scene.read(4) > 0)
        )


GROWTH = """
import sys
from pathlib import Path
from dlink.runtime import open_model
from dlink.imagery.jobs import Job, OutputOptions
from dlink.imagery.raster import segment_raster
from dlink.imagery.reading import Reading

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) >> 10

with open_model(sys.argv[1], threads=1) as model:
    for path in map(Path, sys.argv[2:]):
        job = Job(path, path.with_name("out.tif"), None, True, Reading())
        segment_raster(job, model, OutputOptions(), lambda done, total: None, lambda words: None)
        print(peak())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux: it tells the memory of a process")
@pytest.mark.parametrize(
    ("dtype", "metres", "most"),
    [("uint8", 0.5, 120), ("uint16", 0.25, 250)],  # MB; pixels alone are 140 and 280, probabilities 187
    ids=["as they are", "stretched and resampled"],
)
def test_memory_does_not_grow_with_the_scene(tmp_path, dtype, metres, most):
    model = write_pointwise(tmp_path / "red.onnx", Spec(tile=1024, views=(0,)))
    scenes = [tmp_path / "tile.tif", tmp_path / "scene.tif"]
    place = {"crs": CRS, "transform": rasterio.Affine(metres, 0, 300000, 0, -metres, 5000000)}
    for path, side in zip(scenes, (1024, 7000), strict=True):
        size = {"width": side, "height": side, "count": 3, "dtype": dtype}
        rasterio.open(path, "w", **size, **place, tiled=True, sparse_ok=True, photometric="RGB").close()
    run = subprocess.run([sys.executable, "-c", GROWTH, model, *scenes], capture_output=True, text=True, check=True)
    tile, scene = map(int, run.stdout.split())
    assert scene - tile < most
