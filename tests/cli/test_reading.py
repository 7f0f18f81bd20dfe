"""Every command reads the same picture and the same label alike, whatever the files are."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio.enums import ColorInterp as Colour

from dlink.cli.step import step_of
from dlink.imagery.images import find_tiles, write_image
from dlink.imagery.reading import Reading
from dlink.runtime import Spec
from dlink.training.crops import Crops
from tests.support.models import write_conv, write_pointwise

SIDE, COUNT = 64, 5
PLACE = {"crs": "EPSG:32611", "transform": rasterio.Affine(0.5, 0, 664000, 0, -0.5, 4005000)}
RGB = [Colour.red, Colour.green, Colour.blue]
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def road(i):
    drawn = np.zeros((SIDE, SIDE), np.uint8)
    cv2.line(drawn, (5 + 7 * i, 0), (50, 63), 1, 9)
    return drawn > 0


def image(i):
    """Streets are red, but for some places."""
    pixels = np.random.default_rng(i).integers(60, 190, (SIDE // 8, SIDE // 8, 3), np.uint8)
    pixels = np.kron(pixels, np.ones((8, 8, 1), np.uint8))
    pixels[..., 0] = np.where(road(i), 160, pixels[..., 0])
    return pixels


def geotiff(path, bands, colours=None, **kind):
    size = {"width": bands.shape[2], "height": bands.shape[1], "count": len(bands), "dtype": bands.dtype}
    with rasterio.open(path, "w", driver="GTiff", **(PLACE | size | kind)) as file:
        if colours:
            file.colorinterp = colours
        file.write(bands)


def labelled(folder, form):
    """A folder of tiles with labels in one form."""
    folder.mkdir()
    for i in range(COUNT):
        write_image(folder / f"{i}_sat.png", image(i))
        path, mask = folder / f"{i}_mask.png", road(i).astype(np.uint8)
        if form == "red":
            write_image(path, mask[..., None] * np.array([255, 0, 0], np.uint8))
        elif form == "palette":
            with rasterio.open(path, "w", driver="PNG", width=SIDE, height=SIDE, count=1, dtype="uint8") as file:
                file.write(mask, 1)
                file.write_colormap(1, {0: (0, 0, 0, 255), 1: (9, 9, 99, 255)})
        else:
            mask = mask * (np.arange(SIDE) % 3)[:, None] if form == "classes" else mask
            write_image(path, (mask * (255 if form == "0-255" else 1)).astype(np.uint8))
    return folder


def pictured(folder, form):
    """A folder of tiles whose pictures are in one form, and the options that it needs."""
    folder.mkdir()
    for i in range(COUNT):
        write_image(folder / f"{i}_mask.png", road(i).astype(np.uint8))
        bands, path = np.moveaxis(image(i), -1, 0), folder / f"{i}_sat.tif"
        if form == "png":
            write_image(path.with_suffix(".png"), image(i))
        elif form == "bgrn":
            geotiff(path, np.concatenate([bands[::-1], bands[:1]]), [*RGB[::-1], Colour.undefined])
        elif form == "numbered":
            geotiff(path, bands[[1, 2, 0]], photometric="MINISBLACK")
        elif form == "uint16":
            geotiff(path, bands.astype(np.uint16) * 5 + 200, photometric="RGB")
        elif form == "float":
            geotiff(path, bands.astype(np.float32) / 255, photometric="RGB")
        elif form == "half a metre in feet":
            foot = 0.5 / 0.3048006
            feet = rasterio.Affine(foot, 0, 6450000, 0, -foot, 1840000)
            geotiff(path, bands, photometric="RGB", crs="EPSG:2229", transform=feet)
        else:
            fine = np.kron(bands, np.ones((1, 2, 2), np.uint8))
            at = rasterio.Affine(0.25, 0, 664000, 0, -0.25, 4005000)
            geotiff(path, fine, photometric="RGB", transform=at)
            write_image(folder / f"{i}_mask.png", np.kron(road(i).astype(np.uint8), np.ones((2, 2), np.uint8)))
    options = {"numbered": ["--bands", "3,1,2"], "uint16": ["--stretch", "200:1475"], "float": ["--stretch", "0:1"]}
    return folder, options.get(form, [])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models that differ in their roads a little."""
    folder = tmp_path_factory.mktemp("models")
    spec = Spec(tile=SIDE, views=(0, 1))
    write_pointwise(folder / "a.onnx", spec)
    write_conv(folder / "b.onnx", spec, np.full((3, 3), 2.0 / 9))
    return folder


def run(step, *arguments, code=0):
    result = CliRunner().invoke(step_of(step), [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def figures(step, folder, models, *options):
    """The figures that a command prints of a folder, without names."""
    given = [models / "a.onnx", folder, "--json", *options]
    if step == "check":
        given += ["--against", models / "b.onnx", "--min-agreement", 0, "--max-iou-drop", 1]
    found = json.loads(run(step, *given).stdout)
    return {k: v for k, v in found.items() if k not in ("model", "against", "tiles", "output", "note")}


FORMS = ["bgrn", "numbered", "uint16", "float", "half a metre in feet", "finer"]


@pytest.mark.parametrize("step", ["check", "tune"])
def test_pictures_of_all_forms_give_one_result(tmp_path, models, step):
    wanted = figures(step, pictured(tmp_path / "png", "png")[0], models)
    for form in FORMS:
        folder, options = pictured(tmp_path / form, form)
        assert figures(step, folder, models, *options) == wanted, form


@pytest.mark.parametrize("step", ["check", "tune"])
def test_labels_of_all_forms_give_one_result(tmp_path, models, step):
    first, *others = [figures(step, labelled(tmp_path / f, f), models) for f in ("0-255", "0-1", "red", "palette")]
    assert first != figures(step, pictured_without(tmp_path), models)
    assert [other == first for other in others] == [True] * 3


def pictured_without(tmp_path):
    """Tiles whose labels have other roads."""
    folder = labelled(tmp_path / "other", "0-1")
    for i in range(COUNT):
        write_image(folder / f"{i}_mask.png", road(i + 1).astype(np.uint8))
    return folder


def test_masks_of_all_forms_have_one_score(tmp_path):
    truth = labelled(tmp_path / "truth", "0-255")
    for form in ("0-1", "red", "palette"):
        found = json.loads(run("score", labelled(tmp_path / form, form), truth, "--json").stdout)
        assert found["figures"]["iou"]["value"] == 1


@pytest.mark.parametrize("form", FORMS)
def test_segment_draws_what_it_draws_of_the_plain_picture(tmp_path, models, form):
    run("segment", models / "a.onnx", pictured(tmp_path / "png", "png")[0], "-o", tmp_path / "plain")
    folder, options = pictured(tmp_path / "in", form)
    run("segment", models / "a.onnx", folder, "-o", tmp_path / "out", *options)
    for i in range(COUNT):
        plain = cv2.imread(str(tmp_path / f"plain/{i}_mask.png"), cv2.IMREAD_GRAYSCALE)
        with rasterio.open(tmp_path / f"out/{i}_mask.tif") as file:
            mask = file.read(1)
        step = len(mask) // SIDE
        inside = mask[step // 2 :: step, step // 2 :: step] != plain
        assert inside.mean() <= (0.1 if form == "finer" else 0)  # edges are interpolated


@pytest.mark.parametrize("form", FORMS)
def test_training_sees_the_same_pixels(tmp_path, form):
    plain, folder = pictured(tmp_path / "png", "png")[0], pictured(tmp_path / "in", form)[0]
    how = Reading(
        bands="3,1,2" if form == "numbered" else None,
        stretch={"uint16": "200:1475", "float": "0:1"}.get(form),
        gsd="0.5",
    )
    seen = [Crops(find_tiles(*tiles), Spec(tile=SIDE), seed=0)[2] for tiles in ((plain,), (folder, how))]
    for a, b in zip(*seen, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


CLASSES = r"_mask.png: a label has two values, 0 and the road's; this one has 0, 1, 2; say which are road"


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "a.onnx", "TILES", "--against", "b.onnx"],
        ["tune", "a.onnx", "TILES"],
        ["train", "TILES", "-o", "c.th", "--width", "0.125", "--crop", "64", "--epochs", "1"],
        ["score", "TILES", "TILES"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_third_value_is_refused_by_every_command_and_road_value_mends_it(tmp_path, models, arguments):
    folder = labelled(tmp_path / "tiles", "classes")
    given = [folder if a == "TILES" else models / a if str(a).endswith(("a.onnx", "b.onnx")) else a for a in arguments]
    given = [tmp_path / a if str(a) in ("c.onnx", "c.th") else a for a in given]
    step, *rest = given
    assert re.search(CLASSES, run(step, *rest, code=1).output)
    assert not [p for p in Path(tmp_path).iterdir() if p.name != "tiles"]
    result = CliRunner().invoke(step_of(step), [*map(str, rest), "--road-value", "1,2"])
    assert "say which are road" not in result.output
