"""A small network looks first, and tiles in which it is sure of no road skip the large one."""

import json
import os
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from dlink.runtime import (
    BadInput,
    BadModel,
    Closed,
    EngineFailed,
    HostBackend,
    NoProbability,
    Segmenter,
    Spec,
    open_model,
)
from dlink.runtime.adaptive import Adaptive
from dlink.runtime.backend import open_backend
from dlink.runtime.files import file_sha256
from dlink.runtime.scout import Scouted
from dlink.runtime.scout_limit import ScoutLimit, least_limit
from dlink.runtime.slotted import Slotted
from tests.support.models import write_pointwise

SIDE = 64
LIMIT = ScoutLimit(
    level=100, missed=0.01, confidence=0.95, tiles=300, threshold=0.5, large_sha256="a" * 64, views=8, halo=0
)
SPEC = Spec(tile=SIDE)


class Counting(HostBackend):
    """Road where a pixel is bright; it counts its tiles. NaN in tiles of 77, a failure in tiles of 78."""

    def __init__(self, spec=SPEC, most=4, bad=(77,), failing=(78,)):
        super().__init__(self.run_net, spec, max_tiles=most)
        self.seen, self.bad, self.failing = [], bad, failing

    def run_net(self, x):
        pixels = np.rint((x[:, 0] + 1.6) * 255 / 3.2)
        self.seen += [int(tile.max()) for tile in pixels]
        if set(self.failing) & set(pixels.max(axis=(1, 2))):
            raise RuntimeError("no memory")
        prob = (pixels / 255).astype(np.float32)
        return np.where(np.isin(pixels.max(axis=(1, 2)), self.bad)[:, None, None], np.float32(np.nan), prob)


def pair(most=4, **options):
    """A scout and a large network that see the same in a tile."""
    small, large = Counting(replace(SPEC, scout=LIMIT), most), Counting(SPEC, most, **options)
    return small, large, Scouted(small, large)


def tiles(*values):
    return np.stack([np.full((SIDE, SIDE, 3), value, np.uint8) for value in values])


def test_sure_tiles_skip_the_large_network_and_have_no_road():
    small, large, scouted = pair()
    found = scouted.probabilities(tiles(50, 200, 100, 101), views=(0,))
    assert (small.seen, large.seen) == ([50, 200, 100, 101], [200, 101])
    np.testing.assert_array_equal(found[[0, 2]], 0)
    np.testing.assert_allclose(found[[1, 3]], tiles(200, 101)[..., 0] / 255, atol=1e-6)
    assert (scouted.tiles, scouted.skipped) == (4, 2)


@pytest.mark.parametrize(("form", "road"), [("probability", 200 / 255), ("level", 200), ("mask", 255)])
def test_a_skipped_tile_is_empty_in_every_form(form, road):
    _, _, scouted = pair()
    found = scouted.start(tiles(50, 200), (0,), form)()
    assert found.dtype == (np.float32 if form == "probability" else np.uint8)
    np.testing.assert_allclose(found[:, 5, 5], [0, road], atol=1e-6)


def test_the_scout_takes_one_view_and_the_others_those_that_are_asked_for():
    small, large, scouted = pair()
    scouted.probabilities(tiles(50, 200))
    assert (len(small.seen), len(large.seen)) == (2, 8)


def test_where_all_tiles_are_skipped_the_large_network_does_nothing():
    _, large, scouted = pair()
    assert not scouted.start(tiles(1, 2), None, "mask")().any()
    assert (large.seen, scouted.skipped) == ([], 2)


def test_a_thousandth_of_a_tile_may_look_like_road():
    quiet = np.zeros((SIDE, SIDE), np.uint8)
    quiet.flat[:4] = 255  # of 4096 pixels
    assert LIMIT.skips(quiet)
    quiet.flat[4] = 101
    assert not LIMIT.skips(quiet)
    assert replace(LIMIT, level=101).skips(quiet)


def test_the_least_limit_is_the_first_that_skips():
    rng = np.random.default_rng(0)
    for shape in ((SIDE, SIDE), (32, 32)):
        for top in (0, 1, 200, 255):
            levels = rng.integers(0, top + 1, shape).astype(np.uint8)
            first = least_limit(levels)
            assert replace(LIMIT, level=min(first, 254)).skips(levels) == (first <= 254)
            assert first == 0 or not replace(LIMIT, level=first - 1).skips(levels)


def test_adaptive_views_come_behind_the_scout_which_looks_once():
    small, large, _ = pair()
    with Segmenter(Scouted(small, large), doubt=0.45) as model:
        image = np.concatenate([*tiles(10, 128, 255)], axis=1)
        model.mask(image[:, :SIDE], "adaptive")
        assert (len(small.seen), len(large.seen)) == (1, 0)
        model.mask(image[:, SIDE : 2 * SIDE], "adaptive")
        assert (len(small.seen), len(large.seen)) == (2, 8)
        model.mask(image[:, 2 * SIDE :], "adaptive")
        assert (len(small.seen), len(large.seen)) == (3, 9)
        assert (model.backend.tiles, model.backend.skipped) == (3, 1)
        assert (model.adaptive.tiles, model.adaptive.doubtful) == (2, 1)


@pytest.mark.parametrize("views", [1, 8, "adaptive"])
@pytest.mark.parametrize("slots", [1, 3])
def test_images_of_any_size_are_those_of_the_large_network_where_it_looked(views, slots):
    image = np.zeros((150, 300, 3), np.uint8)
    image[:, 180:] = np.random.default_rng(2).integers(120, 256, (150, 120, 3))
    spec = Spec(tile=SIDE)
    hosts = [Counting(spec, 1) for _ in range(slots)]
    large = Slotted(hosts) if slots > 1 else hosts[0]
    with (
        Segmenter(Scouted(Counting(replace(spec, scout=LIMIT), 1), large)) as model,
        Segmenter(Counting(spec)) as plain,
    ):
        assert model.backend.slots == slots
        expected, found = plain.mask(image, views), model.mask(image, views)
        np.testing.assert_array_equal(found, expected)
        futures = [model.submit(image, views) for _ in range(3)]
        assert all((future.result(30) == expected).all() for future in futures)
        assert 0 < model.backend.skipped < model.backend.tiles


@pytest.mark.parametrize("most", [1, 3])
def test_a_scout_of_smaller_batches_sees_all_tiles(most):
    small = Counting(replace(SPEC, scout=LIMIT), most)
    found = Scouted(small, Counting()).start(tiles(200, 1, 201, 2), (0,), "level")()
    assert [int(tile.max()) for tile in found] == [200, 0, 201, 0]
    assert small.seen == [200, 1, 201, 2]


def test_a_bad_tile_of_the_large_network_is_named_and_the_others_are_sound():
    _, _, scouted = pair(bad=(150,))
    with pytest.raises(NoProbability, match=r"tile 3 of 4: the network gives") as caught:
        scouted.start(tiles(20, 200, 150, 210), (0,), "level")()
    assert caught.value.tiles == (2,)
    assert [int(caught.value.roads[i].max()) for i in (0, 1, 3)] == [0, 200, 210]


def test_a_bad_tile_of_the_scout_is_not_taken_for_one_without_road():
    _, large, scouted = pair()
    with pytest.raises(
        NoProbability, match=r"tile 2 of 3: the scout gives values that are not probabilities"
    ) as caught:
        scouted.start(tiles(200, 77, 20), (0,), "level")()
    assert (caught.value.tiles, large.seen) == ((1,), [200])
    assert int(caught.value.roads[0].max()) == 200
    with Segmenter(pair()[2]) as model:
        image = np.concatenate([tiles(200)[0], tiles(77)[0]], axis=1)
        with pytest.raises(
            NoProbability, match=r"the tile at rows 0 to 64, columns \d+ to 128: the scout gives values"
        ):
            model.mask(image, 1)
        with pytest.raises(NoProbability, match="the scout gives"):
            model.submit(image, 1).result(30)


@pytest.mark.parametrize("failing", ["scout", "large"])
def test_a_failure_of_either_is_the_calls(failing):
    small = Counting(replace(SPEC, scout=LIMIT), failing=(200,) if failing == "scout" else ())
    large = Counting(failing=(200,) if failing == "large" else ())
    with pytest.raises(EngineFailed, match="NumPy failed while it ran the network: no memory"):
        Scouted(small, large).probabilities(tiles(200))


def test_what_is_wrong_with_a_call_is_refused_where_no_tile_would_be_computed():
    _, _, scouted = pair()
    for given, views, form in ((tiles(1)[:, 1:], None, "mask"), (tiles(1), [9], "mask"), (tiles(1), None, "image")):
        with pytest.raises(BadInput):
            scouted.start(given, views, form)
    with pytest.raises(BadInput, match="5 tiles at once"):
        scouted.probabilities(tiles(1, 2, 3, 4, 5))
    assert scouted.tiles == 0


def test_closing_closes_both_and_a_failure_of_one_does_not_keep_the_other_open():
    small, large, scouted = pair()
    model = Segmenter(scouted)
    model.close()
    assert small.net is None and large.net is None
    with pytest.raises(Closed):
        model.mask(tiles(1)[0])
    small, large, scouted = pair()
    small.close = lambda: (_ for _ in ()).throw(RuntimeError("stuck"))
    with pytest.raises(RuntimeError, match="stuck"):
        scouted.close()
    assert large.net is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_cannot_use_it():
    _, _, scouted = pair()
    child = os.fork()
    if not child:
        try:
            scouted.probabilities(tiles(1))
        except Closed:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_many_threads_are_counted_exactly():
    _, _, scouted = pair()
    threads = [
        threading.Thread(target=lambda: [scouted.probabilities(tiles(1, 200)) for _ in range(20)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (scouted.tiles, scouted.skipped) == (320, 160)


def test_reports_name_the_scout():
    small, large, _ = pair()
    small.engine, large.engine = "small engine", "large engine"
    scouted = Scouted(small, large)
    assert scouted.engine == "large engine; scout: small engine"
    scouted.probabilities(tiles(1, 200))
    assert scouted.spent.network == small.spent.network + large.spent.network > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tile": 32}, "the scout: has tiles of px 32, and the large network 64"),
        ({"bands": ("red", "green", "blue", "nir"), "scale": (0.01,) * 4, "shift": (0.0,) * 4}, "has bands red, green"),
        ({"stretch": "2,98"}, "has a stretch of 2,98, and the large network none"),
        ({"target": "building"}, "has a target of building, and the large network road"),
        ({"gsd_m": 0.6}, "is for 0.6 m a pixel, and the large network for 0.5 m"),
        ({"scout": None}, "is not calibrated as a scout; do it on your tiles: dlink-scout"),
    ],
)
def test_two_that_do_not_fit_are_refused(change, said):
    with pytest.raises(BadInput, match=said):
        Scouted(Counting(replace(SPEC, **{"scout": LIMIT, **change})), Counting())


def test_preparation_and_resolutions_within_a_tenth_may_differ():
    spec = replace(SPEC, channels="RGB", gsd_m=0.54, threshold=0.3, width=0.25, scout=LIMIT)
    assert Scouted(Counting(spec), Counting()).limit == LIMIT


def test_arrays_on_a_gpu_are_refused_with_a_scout():
    _, large, scouted = pair()
    large.segment_device = lambda *_: None
    with pytest.raises(BadInput, match="segment_device runs without a scout"):
        Segmenter(scouted).segment_device(None)


def files(folder, **limit):
    """A large file, and a scout calibrated for it."""
    large = write_pointwise(folder / "roads.onnx", SPEC)
    mark = {"large_sha256": file_sha256(large)} | limit
    return large, write_pointwise(folder / "scout.onnx", replace(SPEC, scout=replace(LIMIT, **mark)))


def test_a_file_has_its_scout_opened_beside_it(tmp_path):
    large, scout = files(tmp_path)
    image = np.zeros((SIDE, 2 * SIDE, 3), np.uint8)
    image[:, SIDE:] = 255
    with open_model(large, scout=scout, halo=0) as model, open_model(large, halo=0) as plain:
        np.testing.assert_array_equal(model.mask(image), plain.mask(image))
        assert (model.backend.tiles, model.backend.skipped) == (2, 1)
        assert not model.probabilities(image)[:, :SIDE].any()
        assert plain.probabilities(image)[:, :SIDE].all()
        assert "; scout: OpenVINO" in model.backend.engine
        assert model.spec == plain.spec


def test_a_scout_of_another_file_is_refused_with_the_command_that_mends_it(tmp_path):
    large, scout = files(tmp_path, large_sha256="b" * 64)
    with pytest.raises(BadInput) as caught:
        open_model(large, scout=scout)
    assert str(caught.value) == (
        f"{scout}: was calibrated for another file than {large}; calibrate it for this one: "
        f"dlink-scout {large} {scout} TILES -o scouted.onnx"
    )


def test_a_plan_goes_by_the_file_that_it_was_built_from(tmp_path, monkeypatch):
    large, scout = files(tmp_path)

    built = SimpleNamespace(onnx=SimpleNamespace(sha256=file_sha256(large)))

    plan = tmp_path / "roads.plan"
    plan.write_bytes(b"a plan")

    def opened(path, opening):
        backend = HostBackend(lambda x: x[:, 0], SPEC) if path == plan else open_backend(path, opening)
        backend.manifest = built
        return backend

    monkeypatch.setattr("dlink.runtime.open_backend", opened)
    with open_model(plan, scout=scout) as model:
        assert isinstance(model.backend, Scouted)
    built.onnx.sha256 = "c" * 64
    with pytest.raises(BadInput, match="was calibrated for another file"):
        open_model(plan, scout=scout)


def test_a_lower_threshold_than_the_calibrations_is_refused(tmp_path):
    large, scout = files(tmp_path)
    with pytest.raises(BadInput, match="was calibrated for roads above 0.5, and a threshold of 0.4 draws more"):
        open_model(large, scout=scout, threshold=0.4)
    open_model(large, scout=scout, threshold=0.6).close()


def test_keys_and_verdicts_are_asked_of_the_scout_too(tmp_path):
    large, scout = files(tmp_path)
    with pytest.raises(BadInput, match="only plans have signatures"):
        open_model(large, scout=scout, require_verdict=True)


def test_the_limit_is_in_the_files_spec_and_old_files_have_none():
    spec = replace(SPEC, scout=LIMIT)
    assert Spec.from_json(spec.to_json(), "x") == spec
    assert "scout" not in json.loads(SPEC.to_json())
    values = json.loads(spec.to_json())
    assert values["scout"] == {
        "level": 100,
        "missed": 0.01,
        "confidence": 0.95,
        "tiles": 300,
        "threshold": 0.5,
        "large_sha256": "a" * 64,
        "views": 8,
        "halo": 0,
    }
    for change in ({"level": 255}, {"missed": 0.0}, {"tiles": 0}, {"large_sha256": "a"}, {"level": "1"}, {"more": 1}):
        values["scout"] = {**vars(LIMIT), **change}
        with pytest.raises(BadModel, match="its spec is damaged"):
            Spec.of_values(values, "x")


def test_the_counts_are_one_for_all_views():
    _, _, scouted = pair()
    over = scouted.over(Adaptive(scouted.large))
    over.probabilities(tiles(1, 200))
    scouted.probabilities(tiles(1, 200))
    assert (over.tiles, scouted.tiles, scouted.skipped) == (4, 4, 2)
