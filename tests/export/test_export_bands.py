"""Networks of one to eight bands as ONNX files: proven, run by OpenVINO and ONNX Runtime, calibrated to INT8."""

import json

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from dlink.calib.calibrate import CalibrationOptions, calibrate
from dlink.calib.evaluator import HoldoutLimits
from dlink.calib.sample import Sample, Tile, digest
from dlink.cli.main import dlink
from dlink.cli.models import made_up, with_bands
from dlink.export.export import export
from dlink.export.options import ExportOptions
from dlink.imagery.images import write_image
from dlink.nets.checkpoint import read_checkpoint, write_checkpoint
from dlink.nets.embedded import EMBEDDED
from dlink.nets.preparation import in_words
from dlink.nets.torch_backend import network, open_reference
from dlink.nets.zoo import build, spec_of
from dlink.onnx_graph.session import session
from dlink.runtime import BadInput, Spec, open_model
from dlink.scenes import with_roads

SIDE = 64
FOUR = ("red", "green", "blue", "nir")
EIGHT = (*FOUR, "b5", "b6", "b7", "b8")


def four_bands(path, of=0.1):
    """The embedded network with a fourth channel: a part of the first one's weights."""
    state = {k.removeprefix("module."): v.float() for k, v in torch.load(EMBEDDED, weights_only=True).items()}
    first = state["firstconv.weight"]
    torch.save(state | {"firstconv.weight": torch.cat([first, first[:, :1] * of], 1)}, path)
    return path


def images(planes, side=SIDE, count=2):
    """Scenes with further planes of numbers of their own."""
    rng = np.random.default_rng(0)
    made = [scene.image[:side, :side] for scene in with_roads(count, 128)]
    return [np.dstack([m, rng.integers(0, 256, (side, side, 8), np.uint8)])[..., :planes].copy() for m in made]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return four_bands(tmp_path_factory.mktemp("four") / "four.pth")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("bands", [("pan",), ("nir", "red"), FOUR, EIGHT], ids=len)
def test_a_network_of_any_bands_is_proven_and_runs(tmp_path, bands, precision):
    torch.manual_seed(len(bands))
    write_checkpoint(build("dlinknet34", 0.125, len(bands)).eval(), tmp_path / "net.th")
    read = read_checkpoint(tmp_path / "net.th")
    spec = spec_of("dlinknet34", width=0.125, tile=SIDE, bands=bands, precision=precision)
    tiles = images(len(bands))
    export(read, tmp_path / "net.onnx", spec, tiles)
    shape = onnx.load(tmp_path / "net.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in shape][1:] == [len(bands), SIDE, SIDE]
    expected = network(read.net)(spec.prepare(tiles[0][None]))[0]
    near = 1e-4 if precision == "fp32" else 0.02
    with open_model(tmp_path / "net.onnx", threads=1) as model:
        assert model.spec == spec
        np.testing.assert_allclose(model.probabilities(tiles[0], 1), expected, atol=near)
    ran = session(tmp_path / "net.onnx").run(None, {"image": spec.prepare(tiles[0][None])})[0]
    np.testing.assert_allclose(ran[0, 0], expected, atol=near)


def test_the_masks_of_four_bands_are_pytorchs_and_calibrated_nearly_so(checkpoint, tmp_path):
    path, int8 = tmp_path / "four.onnx", tmp_path / "four.int8.onnx"
    read = read_checkpoint(checkpoint)
    spec = spec_of("dlinknet34", width=read.width, tile=128, bands=FOUR)
    tiles = images(4, 128, 8)
    export(read, path, spec, tiles[:2])
    named = tuple(Tile(str(i), tile, None) for i, tile in enumerate(tiles))
    limits = HoldoutLimits(max_iou_drop=1.0, min_agreement=0.0)
    sample = Sample(named[:6], named[6:], (), digest(named[:6]))
    calibrate(
        path, int8, sample, CalibrationOptions(prefer="roads", limits=limits), None, lambda what: lambda *done: None
    )
    with open_model(path, threads=1) as model, open_reference(checkpoint, model.spec) as reference:
        masks = [reference.mask(tile) for tile in tiles]
        for tile, mask in zip(tiles, masks, strict=True):
            np.testing.assert_array_equal(model.mask(tile), mask)
    with open_model(int8, threads=1) as model:
        assert model.spec.bands == FOUR
        found = np.stack([model.mask(tile) for tile in tiles]) > 0
    wanted = np.stack(masks) > 0
    assert wanted.mean() > 0.01
    assert (found & wanted).sum() / (found | wanted).sum() > 0.95


def run(*arguments):
    return CliRunner().invoke(dlink, [*map(str, arguments)])


def test_dlink_export_needs_the_bands_and_says_which(checkpoint, tmp_path):
    out = tmp_path / "roads.onnx"
    result = run("export", checkpoint, out, "--tile", SIDE)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "Error: the network's first layer takes 4 channels, and the bands are red, green, blue: name what training "
        "gave it, such as dlink-export --bands red,green,blue,nir"
    )
    assert not out.exists()
    result = run("export", checkpoint, out, "--tile", SIDE, "--bands", "red, green,blue,extra")
    assert result.exit_code == 0, result.output
    assert "prepared as blue, green, red, extra, pixel / 255 * 3.2 - 1.6 (the D-LinkNet authors')" in result.stdout
    assert "where extra is copied from green: --tiles prove more" in result.stderr
    assert "4 bands (red, green, blue, extra), BGR" in run("inspect", out).stdout
    assert json.loads(run("inspect", out, "--json").stdout)["spec"]["bands"] == ["red", "green", "blue", "extra"]


def test_a_picture_of_three_planes_does_not_prove_a_network_of_four(checkpoint, tmp_path):
    write_image(tmp_path / "a.png", images(3)[0])
    given = ["--tile", SIDE, "--bands", "red,green,blue,nir", "--tiles", tmp_path]
    result = run("export", checkpoint, tmp_path / "roads.onnx", *given)
    assert "a.png: the network takes red, green, blue, nir; of its 3 bands" in result.stderr
    assert "none is nir; give a picture that has it" in result.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--bands", "red,red"], "bands must be 1 to 8 different names, got ['red', 'red']"),
        (["--bands", "a,b,c,d,e,f,g,h,i"], "bands must be 1 to 8 different names"),
        (
            ["--bands", "nir,red,green", "--channels", "BGR"],
            "channels BGR needs bands that begin with red, green, blue",
        ),
        (
            ["--bands", "a,b", "--mean", ".5,.5,.5", "--std", "1,1,1"],
            "--mean: 3 numbers for 2 bands (a, blue); give one",
        ),
        (["--mean", ".5,.5", "--std", "1,1,1"], "--mean: 2 numbers for 3 bands (red, green, blue); give one for each"),
        (["--mean", ".5,.5,.5", "--std", "1"], "--std: 1 number for 3 bands (red, green, blue); give one for each"),
    ],
)
def test_bands_that_do_not_fit_are_one_line(checkpoint, tmp_path, given, message):
    result = run("export", checkpoint, tmp_path / "roads.onnx", *given)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


MEAN, STD = (0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 0.8)


@pytest.mark.parametrize(("bands", "channels"), [(FOUR, None), (FOUR, "RGB"), (("nir", *FOUR[:3]), None)])
def test_mean_and_deviation_are_in_the_order_of_the_bands(bands, channels):
    how = ExportOptions(tile=32, bands=bands, channels=channels, mean=MEAN, std=STD)
    spec = how.on(spec_of("dlinknet34", bands=bands))
    pixel = np.array([10, 100, 200, 250], np.uint8)
    x = spec.prepare(np.broadcast_to(pixel, (1, 32, 32, 4)))[0, :, 0, 0]
    wanted = (pixel / 255 - MEAN) / STD
    np.testing.assert_allclose(x, wanted[[2, 1, 0, 3]] if spec.channels == "BGR" else wanted, atol=1e-5)
    assert spec.channels == ("BGR" if bands == FOUR and channels is None else "RGB")
    assert f"mean 0.1,0.2,0.3,0.4 and std 0.5,0.6,0.7,0.8 of {', '.join(bands)} in 0..1" in in_words(spec)


def test_a_scene_has_the_colours_that_are_named_and_green_for_the_rest():
    scene = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert with_bands(scene, Spec()) is scene
    spec = Spec(bands=("nir", "blue", "red", "b5"), channels="RGB", scale=(1,) * 4, shift=(0,) * 4)
    np.testing.assert_array_equal(with_bands(scene, spec), scene[..., [1, 2, 0, 1]])
    assert (made_up(spec), made_up(Spec())) == ("nir, b5 are", "")


def test_training_of_other_bands_is_refused(checkpoint, tmp_path):
    write_image(tmp_path / "1_sat.png", images(3)[0])
    write_image(tmp_path / "1_mask.png", images(1)[0][..., 0])
    given = ["--init", checkpoint, "--width", 0.25, "--crop", SIDE]
    result = run("train", tmp_path, "-o", tmp_path / "out.th", *given)
    assert (
        f"Error: {checkpoint}: its network takes 4 channels; dlink trains networks of red, green, blue" in result.stderr
    )


def test_a_file_of_other_bands_in_another_models_name_is_refused(checkpoint, tmp_path):
    spec = spec_of("dlinknet34", tile=SIDE, bands=FOUR)
    with pytest.raises(BadInput, match="takes 3 channels, and the bands are red, green, blue, nir: name what"):
        export(read_checkpoint(EMBEDDED), tmp_path / "x.onnx", spec, images(4))
