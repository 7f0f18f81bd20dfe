"""The area of a polygon of longitude and latitude on the ground: on the ellipsoid of WGS 84."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dlink.imagery.resolution import AXIS_M, FLATTENING

SQUARED = FLATTENING * (2 - FLATTENING)  # of the eccentricity
ECCENTRICITY = math.sqrt(SQUARED)


def ground_area(rings: Sequence[NDArray[np.float64]]) -> float:
    """Square metres of closed rings (K, 2) of degrees, the first around, the others holes.

    An edge is a straight line of longitude and the area below it, which for a building is no other than the geodesic.
    """
    first, *holes = (abs(ring_area(ring)) for ring in rings)
    return first - sum(holes)


def ring_area(degrees: NDArray[np.float64]) -> float:
    """Square metres, positive if the ring is clockwise."""
    lon, lat = np.radians(degrees).T
    below = below_of(lat)
    below -= below[0]  # so that little is lost by rounding
    east = (np.diff(lon) + np.pi) % (2 * np.pi) - np.pi
    return float((east * (below[1:] + below[:-1]) / 2).sum())


def below_of(lat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Square metres between the equator and a latitude, for each radian of longitude.

    Half of the squared axis by Snyder's q (Map Projections: A Working Manual, USGS 1987, equation 3-12).
    """
    sine = np.sin(lat)
    part = np.arctanh(ECCENTRICITY * sine) / ECCENTRICITY
    return np.asarray(AXIS_M**2 / 2 * (1 - SQUARED) * (sine / (1 - SQUARED * sine**2) + part))
