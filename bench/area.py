"""The ground that a model covers in an hour."""

HOUR = 3600.0  # seconds
KM2 = 1e-6  # of m2


def km2_per_h(tiles_per_s: float, tile: int, halo: int, gsd_m: float) -> float:
    """Square kilometres an hour inside a large raster, where a tile's core is what its halo leaves.

    tile, halo: pixels; gsd_m: metres a pixel.
    """
    core_m = (tile - 2 * halo) * gsd_m
    return tiles_per_s * HOUR * core_m**2 * KM2
