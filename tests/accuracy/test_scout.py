"""Calibration of a scout: what counts, which limit is found, how often its bound holds, what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from dlink.accuracy.bounds import upper_bound
from dlink.accuracy.scout import ScoutOptions, Seen, contradicted, find_limit, greatest, looked_at, row_of
from dlink.imagery.images import find_tiles, write_image
from dlink.runtime import BadInput, CheckFailed, HostBackend, Segmenter, Spec

SIDE = 32
SPEC = Spec(tile=SIDE, views=(0,), channels="RGB", scale=(1 / 255,) * 3, shift=(0.0,) * 3)
HOW = ScoutOptions(missed=0.1)
PIXELS = 10_000


def seen(levels, roads, pixels=PIXELS):
    return Seen("a", tuple(levels), tuple(roads), pixels)


def one(level, road=500):
    return seen([level], [road])


def of_plane(plane):
    """A network whose probability is a plane's brightness."""
    return Segmenter(HostBackend(lambda x: np.ascontiguousarray(x[:, plane]), SPEC), halo=4)


@pytest.fixture
def pair():
    """The scout sees red, and the large network green."""
    return of_plane(0), of_plane(1)


def write(folder, id, scouts, larges, label=None, size=SIDE):
    image = np.zeros((size, size, 3), np.uint8)
    image[..., 0], image[..., 1] = scouts, larges
    write_image(folder / f"{id}_sat.png", image)
    if label is not None:
        write_image(folder / f"{id}_mask.png", np.full((size, size), label, np.uint8))


def test_road_is_what_the_large_network_draws_and_the_label_confirms(pair, tmp_path):
    half = np.repeat([[255] * 16 + [0] * 16], SIDE, 0)
    write(tmp_path, "a", 40, half)
    write(tmp_path, "b", 50, half, label=255)
    write(tmp_path, "c", 60, half, label=0)
    write(tmp_path, "d", 70, 0, label=255)
    found = list(looked_at(*pair, find_tiles(tmp_path), HOW, lambda *_: None))
    assert [(t.id, t.levels, t.roads, t.counts) for t in found] == [
        ("a", (40,), (512,), True),
        ("b", (50,), (512,), True),
        ("c", (60,), (0,), False),
        ("d", (70,), (0,), False),
    ]


def test_a_larger_picture_is_one_tile_of_several_windows_and_each_pixel_counts_once(pair, tmp_path):
    write(tmp_path, "a", 40, 255, size=80)
    [tile] = looked_at(*pair, find_tiles(tmp_path), HOW, lambda *_: None)
    assert len(tile.levels) > 4 and set(tile.levels) == {40}
    assert sum(tile.roads) == tile.pixels == 80 * 80


def test_a_tile_with_less_road_than_a_thousandth_does_not_count():
    assert not one(0, road=9).counts
    assert one(0, road=10).counts


def test_what_a_limit_does_is_counted_by_windows_tiles_and_pixels():
    tiles = [seen([10, 50], [300, 100]), one(60, road=400), one(5, road=0), one(5, road=8)]
    row = row_of(tiles, 10, 0.95)
    assert (row.tiles, row.windows, row.skipped) == (2, 5, 3 / 5)
    assert row.missed == pytest.approx((300 / 400 + 0) / 2)
    assert row.pixels == pytest.approx(308 / 808)
    assert row.bound == upper_bound([0.75, 0.0], 0.95, binary=False)
    whole = row_of([one(10), *[one(200)] * 99], 10, 0.95)
    assert whole.bound == upper_bound([1.0] + [0.0] * 99, 0.95, binary=True)


def test_the_greatest_limit_is_the_last_before_one_that_misses_too_much():
    tiles = [one(level) for level in (40, 60, 80, *[200] * 97)]  # 1 - CP: 0.0466, 0.0616, 0.0757 at 1, 2 and 3 of 100
    assert greatest(tiles, replace(HOW, missed=0.05)) == 59
    assert greatest(tiles, replace(HOW, missed=0.07)) == 79
    assert greatest([one(255)] * 100, HOW) == 254


def test_where_the_strictest_limit_misses_too_much_there_is_none():
    with pytest.raises(CheckFailed, match="no limit is good enough: the strictest one skips 50.0% of the windows"):
        greatest([one(0)] * 30 + [one(200)] * 30, HOW)


@pytest.mark.parametrize("windows", [1, 3])
def test_a_limit_misses_more_than_was_asked_as_rarely_as_it_says(windows):
    """Of 300 calibrations of 150 tiles whose true risk is known, at most a tenth may exceed it."""
    rng = np.random.default_rng(windows)
    how = ScoutOptions(missed=0.08, confidence=0.9)
    exceeded, levels = 0, []
    for _ in range(300):
        drawn = rng.integers(0, 256, (150, windows))  # uniform: a level of v skips (v + 1) / 256 of the road
        level = greatest([seen(row.tolist(), [400] * windows) for row in drawn], how)
        levels.append(level)
        exceeded += (level + 1) / 256 > how.missed
    assert exceeded <= 30 + 3 * np.sqrt(300 * 0.1 * 0.9)
    assert np.mean(levels) > 0.3 * how.missed * 256  # and it is not merely very careful


def test_tiles_kept_back_that_miss_much_more_contradict_the_limit():
    tiles = [one(10)] * 20 + [one(200)] * 30
    with pytest.raises(CheckFailed, match=r"contradict the limit: 40.00% .* at least 2\d\.\d+%, and --missed allows"):
        contradicted(tiles, row_of(tiles, 10, 0.95), HOW)
    few = [one(10)] * 2 + [one(200)] * 10
    contradicted(few, row_of(few, 10, 0.95), HOW)
    contradicted([], row_of([], 10, 0.95), HOW)


def folder_of(tmp_path, road, empty):
    """Tiles with road, which the scout sees at 200, and without, where it sees 20."""
    for i in range(road):
        write(tmp_path, f"r{i:03}", 200, 255)
    for i in range(empty):
        write(tmp_path, f"e{i:03}", 20, 0)
    return find_tiles(tmp_path)


def test_a_scout_that_parts_road_from_the_rest_gets_the_limit_between(pair, tmp_path):
    found = find_limit(*pair, folder_of(tmp_path, 45, 30), HOW)
    assert found.chosen.level == 199
    assert (found.chosen.missed, found.held.missed) == (0, 0)
    assert found.chosen.tiles + found.held.tiles == 45
    assert found.held.windows == 18
    assert found.chosen.skipped * found.chosen.windows + found.held.skipped * 18 == pytest.approx(30)
    assert [row.level for row in found.rows][-4:] == [192, 199, 200, 224]
    assert (found.threshold, found.views, found.labelled) == (0.5, 1, 0)


def test_too_few_tiles_are_refused_before_any_is_computed(pair, tmp_path):
    told = []
    with pytest.raises(BadInput, match="--missed 0.1 with confidence 0.95 takes 29 tiles with road"):
        find_limit(*pair, folder_of(tmp_path, 20, 0), HOW, lambda *words: told.append(words))
    assert told == []


def test_too_few_tiles_with_road_are_refused_with_what_would_do(pair, tmp_path):
    tiles = folder_of(tmp_path, 20, 24)
    with pytest.raises(
        BadInput, match=r"there are 1\d of 33 tiles: give --missed 0\.1\d*, or more tiles \(\d+ like these\)"
    ):
        find_limit(*pair, tiles, HOW)


def test_a_scout_that_is_sure_of_nothing_is_refused(pair, tmp_path):
    for i in range(40):
        write(tmp_path, f"{i:03}", 255, 255)
    with pytest.raises(CheckFailed, match="the scout is sure of no window: up to level 254 none is skipped"):
        find_limit(*pair, find_tiles(tmp_path), HOW)


@pytest.mark.parametrize("given", [{"missed": 0.0}, {"missed": 1.0}, {"confidence": 1.0}])
def test_shares_out_of_range_are_refused(given):
    with pytest.raises(BadInput, match=f"--{next(iter(given))} must be greater than 0"):
        ScoutOptions(**given)
