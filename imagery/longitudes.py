"""Longitudes across 180 degrees, where they begin anew: without a jump, or within -180 to 180. Needs rasterio."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from dlink.runtime.errors import BadInput

HALF_TURN, TURN = 180.0, 360.0
Bounds = tuple[float, float, float, float]  # left, bottom, right, top
# In WKT: the meridian of Greenwich, and the number of a system, which would bring it back.
GREENWICH, NUMBER = re.compile(r'PRIMEM\["Greenwich",0[^\]]*(\[[^\]]*\])?\]'), re.compile(r",AUTHORITY\[[^\]]*\]")
Values = NDArray[np.float64]


def unwrapped(bounds: Bounds, crs: Any) -> Bounds:
    """Bounds whose right is more than their left: east of 180 degrees longitudes go on."""
    left, bottom, right, top = bounds
    return left, bottom, right + TURN if crs.is_geographic and right < left else right, top


def unwrapped_ring(ring: Values) -> Values:
    """A ring (N, 2) in degrees whose edges are the short way: across 180 rather than around the Earth.

    An edge from -180 to 180 itself stays: it is that of an area around the Earth. So does a ring around a pole.
    """
    steps = np.diff(ring[:, 0])
    long = (np.abs(steps) > HALF_TURN) & (np.abs(steps) < TURN)
    turns = np.concatenate([[0.0], np.cumsum(np.where(long, -TURN * np.sign(steps), 0.0))])
    return ring if turns[-1] else np.column_stack([ring[:, 0] + turns, ring[:, 1]])


def near(longitudes: Values, middle: float) -> Values:
    """The same longitudes, within half a turn of another one."""
    return longitudes - TURN * np.round((longitudes - middle) / TURN)


def wrapped(longitudes: Values) -> Values:
    """The same longitudes within -180 to 180."""
    beyond = np.abs(longitudes) > HALF_TURN
    return np.where(beyond, near(longitudes, 0.0), longitudes)


def continued(crs: CRS, transform: Affine, shape: tuple[int, int]) -> tuple[CRS, Affine]:
    """The same place of a raster, for GDAL's warper: it finds no pixel beyond 180 degrees.

    A raster in degrees that reaches there is given in longitudes from 180 on.

    Raises:
        BadInput: Its system is of another meridian, or of another kind.
    """
    a, b, c, d, e, f = tuple(transform)[:6]
    corners = [a * column + b * row + c for column in (0, shape[1]) for row in (0, shape[0])]
    if not crs.is_geographic or max(map(abs, corners)) <= HALF_TURN:
        return crs, transform
    wkt, count = GREENWICH.subn(f'PRIMEM["From 180 on",{HALF_TURN:g}]', NUMBER.sub("", crs.to_wkt()))
    try:
        other = CRS.from_wkt(wkt) if count else None
    except CRSError:
        other = None
    if other is None:
        raise BadInput(
            f"reaches beyond 180 degrees of longitude, and cannot be moved in {crs.to_string()[:60]}; name a common "
            f"system of degrees (gdal_edit.py -a_srs EPSG:4326), or one of metres (gdalwarp -t_srs)"
        )
    return other, Affine(a, b, float(near(np.array(c - HALF_TURN), 0.0)), d, e, f)
