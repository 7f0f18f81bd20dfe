import json

import numpy as np
import pytest

from dlink.calib.limits import METHODS, entropy, maximum, mse, percentile
from dlink.calib.network import read_network
from dlink.calib.observe import BINS, Counts, Inputs, observed, runner, see
from dlink.calib.ranges import Ranges, gather
from dlink.calib.sample import Sample, Tile, sample
from dlink.imagery.images import write_image
from dlink.runtime import BadInput, Spec
from tests.export.test_export import SIDE
from tests.support.calibrated import QUIET, folder_of, ranges_of, scenes, small


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return read_network(small("linknet34", tmp_path_factory.mktemp("net") / "net.onnx"))


def bins_of(values, peak):
    return np.histogram(np.abs(values), bins=BINS, range=(0, peak))[0]


def test_max_clips_nothing():
    assert maximum(np.ones(BINS, np.int64), 3.0) == 3.0


def test_percentile_keeps_all_but_one_in_ten_thousand():
    assert percentile(np.ones(10_000, np.int64), 1.0) == pytest.approx(0.9999, abs=2e-4)


@pytest.mark.parametrize("method", ["percentile", "mse", "entropy"])
def test_an_outlier_is_clipped(method):
    bins = 1000 * bins_of(np.random.default_rng(0).normal(size=100_000), 40.0)
    bins[-1] = 1
    assert 2.5 < METHODS[method](bins, 40.0) < 10


@pytest.mark.parametrize("method", ["percentile", "mse"])
def test_values_that_fill_their_range_are_hardly_clipped(method):
    values = np.random.default_rng(0).uniform(0, 1, 200_000)
    assert METHODS[method](bins_of(values, 1.0), 1.0) > 0.97


def test_mse_finds_the_limit_of_least_error():
    values = np.abs(np.random.default_rng(0).laplace(size=300_000)).astype(np.float32)
    peak = float(values.max())
    error = {}
    for limit in np.linspace(0.2, 1, 41) * peak:
        step = limit / 127
        error[limit] = np.mean((np.minimum(np.rint(values / step), 127) * step - values) ** 2)
    assert mse(bins_of(values, peak), peak) == pytest.approx(min(error, key=error.get), rel=0.06)


def test_entropy_ignores_how_many_zeros_relu_leaves():
    values = np.abs(np.random.default_rng(0).normal(size=100_000))
    some, many = bins_of(values, 6.0), bins_of(values, 6.0)
    many[0] += 10_000_000
    assert entropy(some, 6.0) == entropy(many, 6.0)


def test_counts_are_of_values_times_factors():
    counts = Counts.of(np.array([1.0, 2.0]), np.array([4.0, 1.0]))
    assert counts.peak == 4.0
    counts.add(np.array([[[1.0]], [[2.0]]], np.float32), 0)
    assert np.flatnonzero(counts.bins).tolist() == [BINS // 2, BINS - 1]


def test_peaks_and_means_are_those_of_all_tiles(graph):
    inputs = Inputs(graph.spec, scenes(4), views=True)
    seen = see(graph, inputs, QUIET)
    names = observed(graph)
    run = runner(graph, names)
    values = [run(x) for _, x in inputs]
    for i, name in enumerate(names):
        every = np.stack([v[i] for v in values])
        np.testing.assert_allclose(seen[name].peak, np.abs(every).max(axis=(0, 2, 3)), rtol=1e-5)
        np.testing.assert_allclose(seen[name].total / len(inputs), every.mean(axis=(0, 2, 3)), rtol=1e-3, atol=1e-5)


def test_tiles_are_seen_through_the_eight_views_in_turn(graph):
    tile = scenes(2).tiles[0]
    inputs = list(Inputs(graph.spec, Sample((tile,) * 9, (), (), ""), views=True))
    np.testing.assert_array_equal(inputs[2][1], inputs[0][1][..., ::-1, :])
    np.testing.assert_array_equal(inputs[8][1], inputs[0][1])
    plain = list(Inputs(graph.spec, Sample((tile,) * 9, (), (), ""), views=False))
    np.testing.assert_array_equal(plain[2][1], plain[0][1])


def test_ranges_come_back_from_their_file(graph, tmp_path):
    ranges = ranges_of(graph)
    ranges.write(tmp_path / "r.json")
    back = Ranges.read(tmp_path / "r.json", graph)
    assert back.limits("mse") == ranges.limits("mse")
    assert back.tiles_sha256 == ranges.tiles_sha256
    for name, mean in ranges.means(graph).items():
        np.testing.assert_array_equal(back.means(graph)[name], mean)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace('"format": 1', '"format": 2'), "has ranges of format 2, and this dlink reads 1"),
        (lambda text: text[:-300], "not a file of ranges, or a damaged one"),
        (lambda text: text.replace('"tiles"', '"teils"'), "not a file of ranges, or a damaged one"),
        (lambda text: "[]", "not a file of ranges, or a damaged one"),
        (lambda text: text.replace(json.loads(text)["onnx_sha256"], "0" * 64), "ranges of another ONNX file"),
    ],
)
def test_a_damaged_file_of_ranges_is_refused(graph, tmp_path, damage, message):
    path = tmp_path / "r.json"
    ranges_of(graph).write(path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(BadInput, match=f"r.json: {message}.*to gather the ranges again"):
        Ranges.read(path, graph)


def test_values_that_are_not_finite_name_their_layer(graph):
    name = "net.encoder2.0.conv1.weight"
    broken = graph.with_weights({name: graph.weights[name] * np.float32(np.nan)})
    with pytest.raises(BadInput, match="scene 0: not finite at layer encoder2.0.conv1"):
        gather(broken, scenes(2), True, QUIET)


def test_a_tensor_of_zeros_gets_a_limit_all_the_same(graph):
    dead = {
        f"net.encoder2.0.conv1.{kind}": 0 * graph.weights[f"net.encoder2.0.conv1.{kind}"] for kind in ("weight", "bias")
    }
    ranges = ranges_of(graph.with_weights(dead))
    silent = [t for t in ranges.tensors.values() if not any(t.peak)]
    assert len(silent) == 1
    assert set(silent[0].limit.values()) == {1.0}


def test_a_sample_is_the_same_for_a_seed_and_another_for_another(tmp_path):
    folder = folder_of(tmp_path / "tiles", 12, SIDE)
    ids = [[t.id for t in sample(folder, SIDE, 4, 2, seed).tiles] for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]


def test_what_is_held_back_is_never_calibrated_on(tmp_path):
    found = sample(folder_of(tmp_path / "tiles", 8, SIDE), SIDE, 32, 8, 0)
    assert (len(found.tiles), len(found.holdout)) == (6, 2)
    assert not {t.id for t in found.tiles} & {t.id for t in found.holdout}


def test_a_sample_holds_tiles_with_roads_and_without(tmp_path):
    folder = folder_of(tmp_path / "tiles", 6, SIDE)
    for i in range(6, 12):
        write_image(folder / f"{i}_sat.png", np.full((SIDE, SIDE, 3), 90 + i, np.uint8))
        write_image(folder / f"{i}_mask.png", np.zeros((SIDE, SIDE), np.uint8))
    for seed in range(5):
        found = sample(folder, SIDE, 4, 2, seed)
        for part in (found.tiles, found.holdout):
            assert {bool(t.label.any()) for t in part} == {True, False}


def test_a_large_image_gives_several_tiles_with_their_labels(tmp_path):
    folder = folder_of(tmp_path / "tiles", 1, 4 * SIDE)
    found = sample(folder, SIDE, 8, 2, 0)
    assert len(found.tiles) + len(found.holdout) == 8 + 2
    assert all(t.image.shape == (SIDE, SIDE, 3) and t.label.shape == (SIDE, SIDE) for t in found.tiles)
    one = sample(folder / "0_sat.png", SIDE, 8, 2, 0)  # the picture alone: its label is not looked for
    assert one.tiles[0].label is None


def test_unusable_images_are_named_and_left_out(tmp_path):
    folder = folder_of(tmp_path / "tiles", 5, SIDE)
    write_image(folder / "small_sat.png", np.zeros((SIDE // 2 - 1, SIDE, 3), np.uint8))
    (folder / "broken_sat.png").write_bytes(b"no picture")
    found = sample(folder, SIDE, 8, 2, 0)
    assert len(found.tiles) + len(found.holdout) == 5
    assert len(found.skipped) == 2
    assert any("small_sat.png: 128 x 63 px is too small for a tile of 128 x 128" in line for line in found.skipped)


def test_with_too_few_tiles_there_is_no_calibration(tmp_path):
    folder = folder_of(tmp_path / "tiles", 3, SIDE)
    (folder / "broken_sat.png").write_bytes(b"no picture")
    with pytest.raises(BadInput, match="3 usable tiles of 4 images; calibration needs 4 or more.*first: .*broken"):
        sample(folder, SIDE, 8, 2, 0)


def test_a_tile_a_little_smaller_than_the_networks_is_mirrored(tmp_path):
    found = sample(folder_of(tmp_path / "tiles", 4, SIDE), SIDE + 32, 3, 1, 0)
    tile: Tile = found.tiles[0]
    np.testing.assert_array_equal(tile.image[:, SIDE], tile.image[:, SIDE - 1])
    np.testing.assert_array_equal(tile.label[SIDE], tile.label[SIDE - 1])
    assert Spec(tile=SIDE + 32).prepare(tile.image[None]).shape == (1, 3, SIDE + 32, SIDE + 32)
