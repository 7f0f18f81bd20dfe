"""A map with a scout: its plan names the scout, another one is refused, and the mask is that of dlink-segment."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from dlink.cli.map import map as command
from dlink.cli.segment import segment
from dlink.maps.job.plan import MapOptions, Plan
from dlink.runtime import BadInput, CheckFailed, open_model
from dlink.runtime.files import file_sha256
from dlink.runtime.scout_limit import least_limit
from dlink.runtime.windows import cover, square
from tests.maps.job.scenes import blocks_of, made, options, read, roads, scene, write
from tests.support.models import write_scout


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, a scout for it, and a scene, of which the scout skips a part."""
    folder = tmp_path_factory.mktemp("scout")
    model = roads(folder / "roads.onnx")
    write(folder / "scene.tif", scene())
    write_scout(folder / "scout.onnx", model, level_of(write_scout(folder / "scout.onnx", model)))
    return folder


def level_of(scout):
    """The limit by which seven of ten windows of the scene are skipped."""
    image = np.ascontiguousarray(scene().transpose(1, 2, 0))
    with open_model(scout) as model:
        windows = cover(*image.shape[:2], model.spec.tile, model.halo)
        tiles = [square(image[w.outer], model.spec.tile)[None] for w in windows]
        return int(np.quantile([least_limit(model.backend.start(tile, (0,), "level")()[0]) for tile in tiles], 0.7))


def call(*args):
    return CliRunner().invoke(command, [str(arg) for arg in args])


def test_a_map_with_a_scout_is_what_segment_makes_with_it(files, tmp_path):
    model, scout, picture = (files / name for name in ("roads.onnx", "scout.onnx", "scene.tif"))
    for name, more in (("with", ["--scout", str(scout)]), ("without", [])):
        out = CliRunner().invoke(segment, [str(model), str(picture), "-o", str(tmp_path / f"{name}.tif"), *more])
        assert out.exit_code == 0, out.output
    result = call(model, picture, "-o", tmp_path / "map", "--scout", scout, "--windows", 2)
    assert result.exit_code == 0, result.output
    mask, expected, whole = (read(tmp_path / name)[0] for name in ("map/roads.tif", "with.tif", "without.tif"))
    np.testing.assert_array_equal(mask, expected)
    assert 0 < (mask == 255).sum() < (whole == 255).sum()


def test_the_plans_hash_knows_the_scout_and_goes_on_with_no_other(files, tmp_path):
    model, scout, picture = (files / name for name in ("roads.onnx", "scout.onnx", "scene.tif"))
    folder = tmp_path / "map"
    made(folder, model, [picture], options(scout=str(scout)))
    plan = Plan.read(folder)
    assert plan.scout.sha256 == file_sha256(scout)
    assert len({plan.mark, replace(plan, scout=replace(plan.scout, sha256="c" * 64)).mark}) == 2
    before = blocks_of(folder)
    made(folder, model, [picture], options(scout=scout))
    assert blocks_of(folder) == before
    with pytest.raises(BadInput, match="is another map, with another --scout"):
        made(folder, model, [picture])
    other = tmp_path / "other.onnx"
    write_scout(other, model, level=10)
    with pytest.raises(BadInput, match="with another --scout"):
        made(folder, model, [picture], options(scout=other))


def test_a_scout_that_was_replaced_meanwhile_is_not_taken(files, tmp_path):
    model, picture = files / "roads.onnx", files / "scene.tif"
    scout = write_scout(tmp_path / "scout.onnx", model)
    made(tmp_path / "map", model, [picture], options(scout=scout))
    next((tmp_path / "map" / "blocks").glob("*.tif")).unlink()
    write_scout(scout, model, level=10)
    with pytest.raises(CheckFailed, match=r"scout\.onnx: is another scout than the map was planned with"):
        made(tmp_path / "map", None, [], how=None)


def test_a_finished_map_is_not_one_with_a_scout_that_was_replaced(files, tmp_path):
    model, picture = files / "roads.onnx", files / "scene.tif"
    scout = write_scout(tmp_path / "scout.onnx", model)
    made(tmp_path / "map", model, [picture], options(scout=scout))
    made(tmp_path / "map", model, [picture], options(scout=scout))
    write_scout(scout, model, level=10)
    with pytest.raises(BadInput, match=r"is another map, with another scout than .*scout\.onnx is now"):
        made(tmp_path / "map", model, [picture], options(scout=scout))


def test_a_scout_of_another_model_is_refused_before_anything_is_planned(files, tmp_path):
    model, picture = files / "roads.onnx", files / "scene.tif"
    scout = write_scout(tmp_path / "scout.onnx", model, sha256="d" * 64)
    with pytest.raises(BadInput, match="was calibrated for another file"):
        made(tmp_path / "map", model, [picture], options(scout=scout))
    assert not (tmp_path / "map" / "plan.json").exists()
    good = files / "scout.onnx"
    with pytest.raises(BadInput, match="draws more"):
        made(tmp_path / "map", model, [picture], options(scout=good, threshold=0.1))


def test_plans_without_a_scout_are_as_they_were(files, tmp_path):
    made(tmp_path / "map", files / "roads.onnx", [files / "scene.tif"])
    values = json.loads((tmp_path / "map" / "plan.json").read_text())
    assert "scout" not in values and "scout" not in values["asked"]
    assert Plan.read(tmp_path / "map").asked.scout is None
    assert MapOptions().scout is None
