import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from dlink.accuracy.tune import tune
from dlink.imagery.images import find_tiles, write_image
from dlink.onnx_graph.retuned import write_retuned
from dlink.runtime import BadInput, EngineFailed, Spec, open_model
from dlink.runtime.onnx_bytes import DIGEST_KEY
from dlink.runtime.spec import ONNX_KEY
from tests.support.models import red, save, write_conv, write_pointwise

SIDE = 32
SPEC = Spec(tile=SIDE, threshold=0.95, checkpoint_sha256="a" * 64)


@pytest.fixture
def model(tmp_path):
    return write_pointwise(tmp_path / "model.onnx", SPEC)


def write(folder, id, reds, road):
    """A tile of one row of pixels: their values of red, and whether the label says road."""
    image = np.zeros((8, len(reds), 3), np.uint8)
    image[..., 0] = reds
    write_image(folder / f"{id}_sat.png", image)
    if road is not None:
        write_image(folder / f"{id}_mask.png", np.repeat(np.where(road, 255, 0).astype(np.uint8)[None], 8, 0))


def tuned(model, folder, **options):
    with open_model(model, threads=1) as opened:
        return tune(opened, find_tiles(folder), **options)


def probability(value):
    return float(red(np.array([value, 0, 0])))


def test_the_best_threshold_parts_road_from_the_rest(model, tmp_path):
    for id in "ab":
        write(tmp_path, id, [100, 150, 200, 220], [False, False, True, True])
    found = tuned(model, tmp_path)
    assert probability(150) < found.best < probability(200)
    assert found.best == pytest.approx((probability(150) + probability(200)) / 2, abs=0.002)
    assert (found.iou.value, found.iou.low, found.iou.high) == (1, 1, 1)
    assert (found.before, found.iou_before) == (0.95, 0)
    assert (found.gain.value, found.tiles, found.views) == (1, 2, 8)


def test_iou_is_pooled_over_tiles(model, tmp_path):
    # Alone, tile a is best above 150, tile b below; together b's three pixels of 150 outweigh a's one.
    write(tmp_path, "a", [150, 200], [False, True])
    write(tmp_path, "b", [150, 150, 150, 200], [True] * 4)
    found = tuned(model, tmp_path)
    assert found.best < probability(150)
    assert found.iou.value == 5 / 6


def test_the_interval_covers_the_thresholds_that_other_draws_would_choose(model, tmp_path):
    write(tmp_path, "a", [150, 200], [False, True])
    write(tmp_path, "b", [150, 200], [True, True])
    found = tuned(model, tmp_path)
    assert found.threshold.low < probability(150) < found.threshold.high


def test_the_iou_of_the_models_own_threshold_is_exact(tmp_path):
    # 0.50005 lies between the thresholds that are tried.
    write(tmp_path, "a", [128, 255], [True, True])
    own = probability(128) + 0.00005
    found = tuned(write_pointwise(tmp_path / "m.onnx", replace(SPEC, threshold=own)), tmp_path)
    assert (found.iou_before, found.gain.value) == (0.5, 0.5)


def test_tiles_without_labels_are_left_out(model, tmp_path):
    write(tmp_path, "a", [100, 200], [False, True])
    write(tmp_path, "b", [100, 200], None)
    assert tuned(model, tmp_path).tiles == 1


def test_no_labels_are_refused(model, tmp_path):
    write(tmp_path, "a", [100, 200], None)
    with pytest.raises(BadInput, match=r"no label among 1 tile; tuning needs <id>_mask\.png"):
        tuned(model, tmp_path)


def test_labels_without_road_are_refused(model, tmp_path):
    write(tmp_path, "a", [100, 200], [False, False])
    with pytest.raises(BadInput, match="no road in any of 1 label: give labels with roads"):
        tuned(model, tmp_path)


def test_probabilities_that_are_no_numbers_are_named(tmp_path):
    write(tmp_path, "a", [100, 200], [False, True])
    broken = write_conv(tmp_path / "nan.onnx", SPEC, np.full((1, 1), np.nan))
    with pytest.raises(EngineFailed, match="tile a: the tile at rows 0 to 8, columns 0 to 2: the network gives values"):
        tuned(broken, tmp_path)


def test_progress_is_told_after_each_tile(model, tmp_path):
    for id in "ab":
        write(tmp_path, id, [100, 200], [False, True])
    told = []
    tuned(model, tmp_path, report=lambda *words: told.append(words))
    assert told == [(1, 2, "a"), (2, 2, "b")]


def test_json_has_plain_values(model, tmp_path):
    write(tmp_path, "a", [100, 200], [False, True])
    values = json.loads(json.dumps(tuned(model, tmp_path).to_json()))
    assert (values["tiles"], values["before"], values["threshold"]["low"]) == (1, 0.95, None)


def test_the_copy_differs_in_its_threshold_alone(model, tmp_path):
    loaded = onnx.load_model(model)
    onnx.helper.set_model_props(loaded, {ONNX_KEY: SPEC.to_json(), "seg_thresh": "0.95", "owner": "me"})
    save(loaded, model)
    write_retuned(model, tmp_path / "tuned.onnx", SPEC, 0.417)
    copy = onnx.load_model(tmp_path / "tuned.onnx")
    assert copy.graph.SerializeToString(deterministic=True) == loaded.graph.SerializeToString(deterministic=True)
    assert {e.key: e.value for e in copy.metadata_props if e.key != DIGEST_KEY} == {
        ONNX_KEY: replace(SPEC, threshold=0.417).to_json(),
        "seg_thresh": "0.417",
        "owner": "me",
    }
    with open_model(tmp_path / "tuned.onnx") as opened:
        assert opened.threshold == 0.417


def test_a_copy_that_cannot_be_written_leaves_nothing(model, tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match=r"folder\.onnx"):
        write_retuned(model, tmp_path / "folder.onnx", SPEC, 0.4)
    assert sorted(tmp_path.iterdir()) == before
