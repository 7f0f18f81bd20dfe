"""The map of a flight: frames add up where the world has them, the same view counts once, and a crash leaves a map."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import MaskFlags

from dlink.live.ground.ground import Flat
from dlink.live.session import road_map
from dlink.live.session.road_map import NAME, RoadMap
from tests.live.ground.test_ground import CELL, EAST, NORTH, SIDE, WORLD, pose_at, rendered


def flown(map_, views):
    return [map_.add(rendered(*view), pose_at(*view)) for view in views]


def lines(step=25):
    """A flight in parallel lines, with the camera turned and tilted a little."""
    return [
        (x, y, 120, (90 if row % 2 else 270) + 7, -88, 2)
        for row, y in enumerate(range(-150, 151, 50))
        for x in range(-150, 151, step)
    ]


def read(folder):
    with rasterio.open(folder / NAME) as file:
        return file.read(1), file.read_masks(1) > 0, file.transform, file.crs, file.tags(), file.overviews(1)


def world_on(transform, shape):
    x = transform.c + (np.arange(shape[1]) + 0.5) * CELL - EAST + SIDE * CELL / 2
    y = SIDE * CELL / 2 - (transform.f - (np.arange(shape[0]) + 0.5) * CELL - NORTH)
    rows, columns = np.floor(y / CELL).astype(int), np.floor(x / CELL).astype(int)
    return np.pad(WORLD, 4000)[np.ix_(np.clip(rows + 4000, 0, 9599), np.clip(columns + 4000, 0, 9599))] > 0


def test_a_flight_maps_the_world_without_a_shift(tmp_path):
    map_ = RoadMap(tmp_path, Flat(), CELL)
    assert sum(flown(map_, lines())) > 50
    map_.save(last=True)
    map_.close()
    levels, seen, transform, crs, tags, overviews = read(tmp_path)
    assert crs.to_epsg() == 32632 and transform.a == CELL and overviews and "log odds" in tags["DLINK_VALUES"]
    wanted = world_on(transform, levels.shape) & seen
    scores = {
        (dy, dx): iou(np.roll(levels > 127, (dy, dx), (0, 1)) & seen, wanted) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
    }
    assert max(scores, key=scores.get) == (0, 0) and scores[0, 0] > 0.9
    assert not levels[~seen].any() and 0.2 < seen.mean() < 1


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_a_view_that_does_not_change_counts_once(tmp_path):
    map_ = RoadMap(tmp_path, Flat(), CELL)
    view = (0, 0, 120, 0, -90, 0)
    assert flown(map_, [view] * 5) == [True, False, False, False, False]
    assert flown(map_, [(30, 0, 120, 0, -90, 0), (30, 0, 120, 20, -90, 0)]) == [True, True]
    map_.close()


def test_one_frame_does_not_make_sure_and_several_do(tmp_path):
    map_ = RoadMap(tmp_path, Flat(), CELL)
    everywhere = np.full((320, 480), 255, np.uint8)
    tops = []
    for x in (0, 30, 60, 90):
        map_.add(everywhere, pose_at(x, 0, 120, 0, -90, 0))
        map_.save()
        tops.append(int(read(tmp_path)[0].max()))
    assert tops == [round(255 * odds / (1 + odds)) for odds in (4, 4**2, 4**3, 4**4)]
    map_.close()


@pytest.mark.parametrize("missing", ["height_m", "fov", "yaw"])
def test_a_frame_whose_place_is_not_known_is_left_out(tmp_path, missing):
    map_ = RoadMap(tmp_path, Flat(), CELL)
    pose = pose_at(0, 0, 120, 0, -90, 0)
    assert not map_.add(np.zeros((320, 480), np.uint8), type(pose)(**(vars(pose) | {missing: None})))
    map_.save(last=True)
    assert not (tmp_path / NAME).exists()
    map_.close()


def test_blocks_that_memory_does_not_hold_wait_on_the_disk(tmp_path, monkeypatch):
    maps = []
    for name, most in (("a", 256), ("b", 1)):
        monkeypatch.setattr(road_map, "IN_MEMORY", most)
        (tmp_path / name).mkdir()
        map_ = RoadMap(tmp_path / name, Flat(), CELL)
        flown(map_, lines(step=75))
        assert len(map_.blocks) <= most
        map_.save(last=True)
        map_.close()
        maps.append(read(tmp_path / name))
    np.testing.assert_array_equal(maps[0][0], maps[1][0])
    np.testing.assert_array_equal(maps[0][1], maps[1][1])
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [NAME]


def test_a_map_that_is_saved_on_the_way_has_a_mask_in_the_same_file(tmp_path):
    map_ = RoadMap(tmp_path, Flat(), CELL)
    flown(map_, lines()[:3])
    map_.save()
    map_.close()
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    with rasterio.open(tmp_path / NAME) as file:
        assert MaskFlags.per_dataset in file.mask_flag_enums[0]
