"""Places on the WGS 84 ellipsoid, and metres north, east and down around one of them."""

import numpy as np
from numpy.typing import NDArray

AXIS_M, FLATTENING = 6_378_137.0, 1 / 298.257223563
SQUARED = FLATTENING * (2 - FLATTENING)  # eccentricity

Values = NDArray[np.float64]


def earth_centred(latitude: Values | float, longitude: Values | float, height: Values | float) -> Values:
    """Degrees and metres above the ellipsoid -> metres (..., 3) from the Earth's centre."""
    lat, lon = np.radians(latitude), np.radians(longitude)
    normal = AXIS_M / np.sqrt(1 - SQUARED * np.sin(lat) ** 2)
    parallel = (normal + height) * np.cos(lat)
    return np.stack(
        [parallel * np.cos(lon), parallel * np.sin(lon), (normal * (1 - SQUARED) + height) * np.sin(lat)], axis=-1
    )


def geodetic(place: Values) -> tuple[Values, Values, Values]:
    """Metres (..., 3) from the Earth's centre -> latitude, longitude, height above the ellipsoid (Bowring 1985)."""
    x, y, z = place[..., 0], place[..., 1], place[..., 2]
    p = np.hypot(x, y)
    polar = AXIS_M * (1 - FLATTENING)
    reduced = np.arctan2(z * AXIS_M, p * polar)
    second = SQUARED / (1 - SQUARED)
    lat = np.arctan2(z + second * polar * np.sin(reduced) ** 3, p - SQUARED * AXIS_M * np.cos(reduced) ** 3)
    normal = AXIS_M / np.sqrt(1 - SQUARED * np.sin(lat) ** 2)
    height = p * np.cos(lat) + z * np.sin(lat) - AXIS_M**2 / normal
    return np.degrees(lat), np.degrees(np.arctan2(y, x)), height


def axes(latitude: float, longitude: float) -> Values:
    """North, east and down at a place, as rows (3, 3) in metres from the Earth's centre."""
    lat, lon = np.radians(latitude), np.radians(longitude)
    return np.array(
        [
            [-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)],
            [-np.sin(lon), np.cos(lon), 0.0],
            [-np.cos(lat) * np.cos(lon), -np.cos(lat) * np.sin(lon), -np.sin(lat)],
        ]
    )


def to_local(latitude: float, longitude: float, lat: Values, lon: Values) -> Values:
    """Metres north and east (..., 2) of places at height 0, from a place."""
    apart = earth_centred(lat, lon, 0.0) - earth_centred(latitude, longitude, 0.0)
    local: Values = apart @ axes(latitude, longitude)[:2].T
    return local


def from_local(latitude: float, longitude: float, local: Values) -> tuple[Values, Values]:
    """Inverse of `to_local`: the places below (..., 2) metres north and east of a place."""
    at = earth_centred(latitude, longitude, 0.0) + local @ axes(latitude, longitude)[:2]
    lat, lon, _ = geodetic(at)
    return lat, lon
