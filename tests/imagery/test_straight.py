"""Straight edges stay where they belong in another system, and rasters beyond 180 degrees keep their pixels."""

import json

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.warp import transform

from dlink.imagery.longitudes import continued, unwrapped_ring, wrapped
from dlink.imagery.reading import Reading
from dlink.imagery.straight import straight
from dlink.imagery.vectors import read_vectors
from dlink.imagery.warped import Onto, opened_onto
from dlink.runtime.errors import BadInput


def circle(points):
    """An angle and a radius as a place."""
    angle, radius = points.T
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])


def test_an_edge_that_is_curved_there_gets_points_to_within_the_tolerance():
    [arc] = straight([np.array([(0.0, 10.0), (3.0, 10.0)])], circle, 0.01)
    assert np.hypot(*((arc[1:] + arc[:-1]) / 2).T).min() > 10 - 0.011
    assert len(arc) < 70
    np.testing.assert_allclose(arc[[0, -1]], circle(np.array([(0.0, 10.0), (3.0, 10.0)])))


def test_lines_that_stay_straight_get_none_and_stay_apart():
    lines = [np.array([(0.0, 1.0), (0.0, 9.0)]), np.array([(3.0, 1.0), (3.0, 2.0), (3.0, 3.0)])]
    made = straight(lines, circle, 1e-9)
    for line, found in zip(lines, made, strict=True):
        np.testing.assert_allclose(found, circle(line))
    assert straight([], circle, 1) == []


def test_lines_of_another_system_are_right_in_degrees_between_their_points(tmp_path):
    """A parallel of the web's Mercator is a parallel; a straight line of a UTM zone is none."""
    line = {"type": "LineString", "coordinates": [[300_000, 6_000_000], [700_000, 6_000_000]]}
    crs = {"type": "name", "properties": {"name": "EPSG:32633"}}
    (tmp_path / "a.geojson").write_text(json.dumps({**line, "crs": crs}))
    [found] = read_vectors(tmp_path / "a.geojson").degrees().lines
    _, north = transform("EPSG:4326", "EPSG:32633", *((found.parts[0][1:] + found.parts[0][:-1]) / 2).T)
    assert len(found.parts[0]) > 10
    assert np.abs(np.array(north) - 6_000_000).max() < 0.2


def test_a_ring_across_180_degrees_goes_the_short_way_and_one_around_the_earth_stays():
    box = np.array([(179.0, 1), (-179, 1), (-179, 2), (179, 2), (179, 1)])
    np.testing.assert_array_equal(unwrapped_ring(box)[:, 0], [179, 181, 181, 179, 179])
    for lon in ([-180, 180, 180, -180, -180], [10, 130, -110, 10, 10]):
        ring = np.column_stack([np.array(lon, float), [1, 1, 2, 2, 1]])
        np.testing.assert_array_equal(unwrapped_ring(ring), ring)


def test_longitudes_are_written_within_180_degrees():
    np.testing.assert_allclose(wrapped(np.array([179.5, 180.0, 180.5, -180.5, 370])), [179.5, 180, -179.5, 179.5, 10])


@pytest.mark.parametrize("code", [4326, 4167])
def test_a_raster_in_degrees_across_180_is_warped_whole(tmp_path, code):
    place = Affine(1e-5, 0, 179.999, 0, -1e-5, -20)
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", height=100, width=200, count=3, dtype="uint8", crs=f"EPSG:{code}",
        transform=place,
    ) as file:  # fmt: skip
        file.write(np.full((3, 100, 200), 99, np.uint8))
    utm = CRS.from_epsg(32760)
    x, y = (values[0] for values in transform("EPSG:4326", utm, [180.0], [-20.0005]))
    onto = Onto(utm, Affine(1, 0, x - 90, 0, -1, y + 40), (80, 180), 1.0)
    with opened_onto(tmp_path / "a.tif", Reading(gsd="native"), onto) as source:
        pixels, valid = source.read(slice(0, 80), slice(0, 180))
    assert valid.all() and (pixels == 99).all()


def test_a_raster_beyond_180_in_a_system_that_cannot_be_moved_is_refused():
    with pytest.raises(BadInput, match="reaches beyond 180 degrees of longitude, and cannot be moved in"):
        continued(CRS.from_epsg(4979), Affine(1e-5, 0, 179.999, 0, -1e-5, -20), (100, 200))
