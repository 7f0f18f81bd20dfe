"""Drawn houses come back with their corners, area and angle; what is no house stays as it is."""

import math

import numpy as np
import pytest
import shapely

from dlink.maps.outlines import outlines
from dlink.maps.shaping import Shaping, overlapping, shaped, without_holes
from tests.maps.masks import blobs, rectangle, town

PIXEL = 0.5  # metres


def shapes_of(mask, square=True, simplify=1.0):
    """The polygons of a mask of 0.5 m a pixel, which are squared, and their outlines."""
    found = outlines(lambda rows, cols: (mask[rows, cols], None), mask.shape, 4096)
    raw = [shapely.transform(each.shape, lambda points: points * PIXEL) for each in found]
    return *shaped(raw, Shaping(simplify, square, PIXEL)), raw


def angles(shape):
    """Of each edge to the right angles of the axes, degrees from 0 to 90."""
    steps = np.diff(shapely.get_coordinates(shape.exterior), axis=0)
    return np.degrees(np.arctan2(steps[:, 1], steps[:, 0])) % 90


@pytest.mark.parametrize("degrees", [0, 7, 21, 35, 45, 63, 77, 89])
@pytest.mark.parametrize("sides", [(40, 24), (120, 60)])
def test_a_rectangle_at_any_angle_has_four_corners_its_area_and_its_angle(degrees, sides):
    [shape], [squared], _ = shapes_of(rectangle((200, 200), (100.3, 99.6), sides, degrees))
    assert squared
    assert len(shape.exterior.coords) - 1 == 4
    assert shape.area == pytest.approx(sides[0] * sides[1] * PIXEL**2, rel=0.01)
    assert np.abs((angles(shape) - degrees + 45) % 90 - 45).max() < 0.7


@pytest.mark.parametrize("degrees", [0, 30, 52])
def test_wings_and_courtyards_keep_their_right_angles(degrees):
    mask = rectangle((300, 300), (150, 150), (200, 60), degrees)
    turn = math.radians(degrees)
    wing = 150 - 70 * math.cos(turn) + 60 * math.sin(turn), 150 - 70 * math.sin(turn) - 60 * math.cos(turn)
    mask |= rectangle((300, 300), wing, (60, 100), degrees)
    mask &= ~rectangle((300, 300), (150, 150), (40, 24), degrees)
    [shape], [squared], _ = shapes_of(mask)
    assert squared
    assert len(shape.exterior.coords) - 1 == 6
    assert [len(ring.coords) - 1 for ring in shape.interiors] == [4]
    assert shape.area == pytest.approx(mask.sum() * PIXEL**2, rel=0.005)
    assert np.abs((angles(shape) - degrees + 45) % 90 - 45).max() < 0.7


def test_a_round_tank_and_a_triangle_are_not_squared():
    y, x = np.mgrid[:200, :200] - 100
    for mask in (np.hypot(x, y) < 60, (y > -60) & (y < 1.7 * x + 20) & (y < 20 - 1.7 * x)):
        [shape], [squared], _ = shapes_of(mask)
        assert not squared
        assert shape.equals(shapes_of(mask, square=False)[0][0])


@pytest.mark.parametrize("smooth", [0, 1, 2, 5])
@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("simplify", [0.0, 1.0, 4.0])
def test_polygons_are_valid_and_none_lies_over_another(smooth, square, simplify):
    shapes, squared, raw = shapes_of(blobs(8, (120, 140) if smooth < 5 else (500, 500), smooth), square, simplify)
    assert shapely.is_valid(shapes).all()
    assert {shape.geom_type for shape in shapes} == {"Polygon"}
    assert len(overlapping(shapes)) == 0
    assert len(shapes) == len(raw) > 10
    assert square or not squared.any()
    if not square and not simplify:
        assert all(shape.equals(outline) for shape, outline in zip(shapes, raw, strict=True))


def test_houses_a_pixel_apart_do_not_lie_over_each_other():
    mask = np.zeros((200, 400), bool)
    for left in range(10, 380, 37):
        mask |= rectangle((200, 400), (left + 18, 100), (36.2, 80), 20)
    gaps = np.random.default_rng(2).random(mask.shape) < 0.01
    shapes, _, _ = shapes_of(mask & ~gaps)
    assert len(overlapping(shapes)) == 0


def test_a_squared_house_covers_what_the_other_covers():
    shapes, squared, raw = shapes_of(town())
    assert squared.mean() > 0.95
    share = shapely.area(shapely.intersection(shapes, raw)) / shapely.area(shapely.union(shapes, raw))
    assert share[squared].min() > 0.85
    assert np.median(share) > 0.95
    assert shapely.area(shapes).sum() == pytest.approx(town().sum() * PIXEL**2, rel=0.005)


def test_small_holes_are_filled():
    shape = shapely.Polygon(
        shapely.box(0, 0, 20, 20).exterior, [shapely.box(1, 1, 3, 3).exterior, shapely.box(5, 5, 9, 9).exterior]
    )
    assert without_holes(shape, 4.5).area == 400 - 16
    assert without_holes(shape, 20).area == 400
    assert without_holes(shape, 0).area == shape.area
