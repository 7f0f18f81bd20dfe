"""Areas have the outlines of the whole mask, whatever the blocks."""

import numpy as np
import pytest
import shapely

from dlink.maps.outlines import outlines
from tests.maps.masks import blobs


def found(mask, side, least=0.0, probable=None):
    def read(rows, cols):
        return mask[rows, cols], None if probable is None else probable[rows, cols]

    return sorted(
        (each.shape.wkt, each.pixels, round(each.probability, 6)) for each in outlines(read, mask.shape, side, least)
    )


def mask_of(*rows):
    return np.array([[pixel == "#" for pixel in row] for row in rows])


@pytest.mark.parametrize(("smooth", "shape"), [(0, (60, 70)), (1.5, (150, 170)), (5, (300, 260))])
def test_outlines_do_not_depend_on_the_blocks(smooth, shape):
    mask = blobs(4, shape, smooth)
    probable = np.random.default_rng(5).integers(0, 256, shape).astype(np.float32)
    whole = found(mask, 1000, probable=probable)
    assert len(whole) > 5
    for side in (7 if smooth < 5 else 29, 64, 100):
        assert found(mask, side, probable=probable) == whole
    assert sum(pixels for _, pixels, _ in whole) == mask.sum()
    assert sum(each for _, _, each in whole) == probable[mask].sum()


@pytest.mark.parametrize("side", [2, 100])
def test_outlines_are_valid_and_have_the_area_of_their_pixels(side):
    mask = blobs(9, (60, 60), 0)
    for wkt, pixels, _ in found(mask, side):
        shape = shapely.from_wkt(wkt)
        assert shape.is_valid
        assert shape.geom_type == "Polygon"
        assert shape.area == pixels


@pytest.mark.parametrize("side", [1, 2, 3, 100])
def test_areas_that_touch_at_a_corner_are_two_and_holes_that_do_are_holes(side):
    two = found(mask_of("##..", "##..", "..##", "..##"), side)
    assert [wkt for wkt, *_ in two] == [
        "POLYGON ((0 0, 0 2, 2 2, 2 0, 0 0))",
        "POLYGON ((2 2, 2 4, 4 4, 4 2, 2 2))",
    ]
    [(wkt, pixels, _)] = found(mask_of("####", "#.##", "##.#", "####"), side)
    assert (len(shapely.from_wkt(wkt).interiors), pixels) == (2, 14)
    [(wkt, pixels, _)] = found(mask_of("###", "#.#", "##."), side)  # a hole that touches the outside
    shape = shapely.from_wkt(wkt)
    assert (shape.is_valid, len(shape.interiors), shape.area) == (True, 1, 7)


@pytest.mark.parametrize("side", [2, 100])
def test_an_area_within_a_hole_is_another_area(side):
    mask = mask_of("#######", "#.....#", "#..##.#", "#.....#", "#######")
    areas = [shapely.from_wkt(wkt) for wkt, *_ in found(mask, side)]
    assert sorted((len(shape.interiors), shape.area) for shape in areas) == [(0, 2), (1, 20)]


@pytest.mark.parametrize("side", [2, 3, 100])
def test_areas_below_a_size_are_left_out_also_where_seams_cut_them(side):
    mask = mask_of("###....", "###..#.", "......#", "..####.")
    assert [pixels for _, pixels, _ in found(mask, side, least=4)] == [6, 4]


def test_no_mask_gives_no_areas():
    assert found(np.zeros((50, 40), bool), 16) == []
