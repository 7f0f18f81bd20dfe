import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from dlink.cli.calibrate import calibrate
from dlink.cli.check import check
from dlink.cli.models import exported
from dlink.imagery.images import write_image
from dlink.openvino_runtime.saturation import saturates
from dlink.runtime import Spec, open_model
from dlink.runtime.spec import INT8_KEY
from dlink.scenes import with_roads
from tests.support.calibrated import folder_of
from tests.support.models import save

SIDE = 256
MOST_KEPT = ("--keep", "fp16:encoder[234]*", "--keep", "fp16:d*")  # so that few layers are to be ranked
AT_ONCE = ("--prefer", "roads")  # where what is tested is not which layers are int8


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The embedded network at a small tile as FP16, tiles, and its INT8 file with what the command said."""
    home = tmp_path_factory.mktemp("int8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLINK_CACHE", str(home))
        made = exported(None, SIDE, "fp16")
    made.rename(home / "fp16.onnx")
    folder_of(home / "tiles", 16, SIDE)
    said = call(
        home / "fp16.onnx", home / "tiles", home / "int8.onnx", "--ranges", str(home / "r.json"), "--layers", *AT_ONCE
    )
    (home / "said").write_text(said.stdout)
    return home


def call(source, tiles, out, *options, code=0):
    done = CliRunner().invoke(calibrate, [str(source), str(tiles), "-o", str(out), *options])
    assert done.exit_code == code, done.output
    return done


def test_an_int8_file_draws_the_roads_of_the_float_one(home):
    done = CliRunner().invoke(
        check, [str(home / "int8.onnx"), str(home / "tiles"), "--against", str(home / "fp16.onnx")]
    )
    assert done.exit_code == 0, done.output
    assert "same roads" in done.output


def test_openvino_really_runs_int8_where_that_is_right(home):
    if saturates():
        with open_model(home / "int8.onnx") as model:
            assert "int8" not in model.backend.executed
        return
    with open_model(home / "int8.onnx") as model:
        assert model.backend.executed["int8"] >= 0.95
        assert re.search(r", int8( 9\d %)?,", model.backend.engine)
    with open_model(home / "fp16.onnx") as model:
        assert "int8" not in model.backend.executed


def test_the_file_says_what_it_is(home):
    model = onnx.load(home / "int8.onnx")
    properties = {p.key: p.value for p in model.metadata_props}
    spec = Spec.from_json(properties["dlink.spec"], "int8.onnx")
    source = Spec.of_onnx({p.key: p.value for p in onnx.load(home / "fp16.onnx").metadata_props}, "fp16.onnx")
    assert (spec.precision, spec.checkpoint_sha256) == ("int8", source.checkpoint_sha256)
    assert spec.int8_method in ("entropy", "percentile", "mse", "max")
    assert spec.int8_tiles_sha256 == json.loads((home / "r.json").read_text())["tiles_sha256"]
    assert "masks agree 0.9" in spec.int8_verdict
    made = json.loads(properties[INT8_KEY])
    assert {u["name"] for u in made["layers"]} >= {"firstconv", "dblock.dilate4", "finalconv3", "encoder2.0.Add"}
    assert made["int8_share"] > 0.95
    assert "model_type" in properties  # Deepness's keys stay


def test_weights_are_stored_as_int8(home):
    assert (home / "int8.onnx").stat().st_size < 0.58 * (home / "fp16.onnx").stat().st_size


def test_the_table_names_every_layer_and_why_it_is_not_int8(home):
    lines = (home / "said").read_text().splitlines()
    assert any(line.startswith("finalconv3") and line.endswith("fp16  the last convolution") for line in lines)
    assert any(line.startswith("encoder4.2.conv2") and line.endswith("int8") for line in lines)


def test_ranges_are_reused_and_give_the_same_file(home, tmp_path):
    before = (home / "r.json").read_bytes()
    call(home / "fp16.onnx", home / "tiles", tmp_path / "again.onnx", "--ranges", str(home / "r.json"), *AT_ONCE)
    assert (home / "r.json").read_bytes() == before
    assert (tmp_path / "again.onnx").read_bytes() == (home / "int8.onnx").read_bytes()


def test_ranges_of_other_tiles_are_used_with_a_note(home, tmp_path):
    options = ("--ranges", str(home / "r.json"), "--samples", "6", "--method", "max", *AT_ONCE)
    done = call(home / "fp16.onnx", home / "tiles", tmp_path / "out.onnx", *options)
    assert "r.json was gathered on other tiles, which may include those kept back now" in done.stderr


def test_layers_are_reverted_until_the_masks_agree(home, tmp_path):
    options = ("--method", "max", *MOST_KEPT)
    with_all = json.loads(call_json(home, tmp_path / "a.onnx", *options))
    found = min(s["agreement"] for s in with_all["scores"])
    wanted = f"{found + 0.25 * (1 - found):.4f}"  # a quarter of what is lost
    some = json.loads(call_json(home, tmp_path / "b.onnx", *options, "--min-agreement", wanted))
    assert min(s["agreement"] for s in some["scores"]) >= float(wanted)
    reverted = [u for u in some["layers"] if u["why"].startswith("reverted: ")]
    assert 0 < len(reverted) < 10
    assert some["int8_share"] <= with_all["int8_share"]


def call_json(home, out, *options):
    ranges = ("--ranges", str(home / "r.json"))
    return call(home / "fp16.onnx", home / "tiles", out, *ranges, "--json", *options).stdout


def test_where_no_placement_agrees_nothing_is_written(home, tmp_path):
    options = ("--ranges", str(home / "r.json"), "--min-agreement", "1", *MOST_KEPT)
    done = call(home / "fp16.onnx", home / "tiles", tmp_path / "out.onnx", *options, code=1)
    assert "INT8 does not draw the same roads with any useful placement" in done.stderr
    assert "finalconv3" in done.stderr  # the table
    assert list(tmp_path.iterdir()) == []


def test_where_no_fast_file_agrees_roads_come_first_and_a_note_says_so(home, tmp_path, monkeypatch):
    monkeypatch.setattr("dlink.calib.evaluator.ENOUGH", {1: 2.0, 8: 2.0})
    options = ("--ranges", str(home / "r.json"), "--method", "max", "--layers", *MOST_KEPT)
    done = call(home / "fp16.onnx", home / "tiles", tmp_path / "out.onnx", *options)
    assert "no fast file agrees to 2 with 1 view, 2 with 8 views, so roads came first" in done.stderr
    assert any(line.endswith("fp16  the last convolution") for line in done.stdout.splitlines())


def test_tiles_where_the_network_finds_no_road_judge_nothing(home, tmp_path):
    folder = tmp_path / "tiles"
    folder.mkdir()
    for i in range(6):
        write_image(folder / f"{i}.png", np.full((SIDE, SIDE, 3), 40 + i, np.uint8))
    done = call(home / "fp16.onnx", folder, tmp_path / "out.onnx", code=1)
    assert "finds no road on 2 tiles kept back" in done.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_tiles_without_labels_are_judged_by_agreement_alone(home, tmp_path):
    folder = tmp_path / "tiles"
    folder.mkdir()
    for i, made in enumerate(with_roads(8, SIDE, 6_000_000)):
        write_image(folder / f"{i}.png", made.image)
    done = call(home / "fp16.onnx", folder, tmp_path / "out.onnx", "--method", "mse", *AT_ONCE)
    assert "IoU drop" not in done.stdout
    assert "2 tiles, 0 with labels" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ranges", "nowhere/r.json"], "nowhere/r.json: there is no folder nowhere; make it first"),
        (["--keep", "int8:firstconv"], "--keep int8:firstconv: expected fp16:NAME"),
        (["--keep", "fp16:nothing"], "--keep fp16:nothing: there is no such layer, only firstconv,"),
        (["-o", "out.png"], "out.png: the name must end in .onnx"),
    ],
)
def test_bad_options_are_refused_at_once(home, tmp_path, options, message):
    done = call(home / "fp16.onnx", home / "tiles", tmp_path / "out.onnx", *options, code=1)
    assert message in done.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_the_source_is_never_replaced(home):
    before = (home / "fp16.onnx").read_bytes()
    done = call(home / "fp16.onnx", home / "tiles", home / "fp16.onnx", code=1)
    assert "is the file to calibrate, and would be replaced" in done.stderr
    assert (home / "fp16.onnx").read_bytes() == before


def test_an_int8_file_is_not_calibrated_again(home, tmp_path):
    done = call(home / "int8.onnx", home / "tiles", tmp_path / "out.onnx", code=1)
    assert "already quantised" in done.stderr


def test_ranges_of_another_file_are_refused(home, tmp_path):
    other = tmp_path / "other.onnx"
    model = onnx.load(home / "fp16.onnx")
    model.producer_version = "another"
    save(model, other)
    done = call(other, home / "tiles", tmp_path / "out.onnx", "--ranges", str(home / "r.json"), code=1)
    assert "ranges of another ONNX file" in done.stderr


def test_an_interrupted_calibration_leaves_nothing(home, tmp_path, monkeypatch):
    from dlink.calib import calibrate as module

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "stamp", stop)
    options = ("--ranges", str(tmp_path / "r.json"), "--method", "max", *AT_ONCE)
    done = CliRunner().invoke(
        calibrate, [str(home / "fp16.onnx"), str(home / "tiles"), "-o", str(tmp_path / "out.onnx"), *options]
    )
    assert done.exit_code != 0
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]  # the next run goes on from these
    monkeypatch.undo()
    call(home / "fp16.onnx", home / "tiles", tmp_path / "out.onnx", *options)
    assert Path(tmp_path / "out.onnx").exists()
