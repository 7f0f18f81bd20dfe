"""Reads a mask of any size by windows: a raster of two values, or of probabilities.

A mask has two values, of which 0 is no road, or the values that `road_value` says. Real numbers are probabilities, road
where they are greater than the threshold. Whole numbers become probabilities if a threshold is given: of 8 bits 255 is
1, of 16 bits 65535. A pixel without data is no road.

Beyond its edges a mask goes on for a few pixels as it ends there, because thinning shortens roads by half their width.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlink.imagery.notes import say
from dlink.imagery.reading import COLOUR, TARGET_TAG, Reading
from dlink.imagery.source import WHITE, Source, opened
from dlink.maps.blocks import Metres, Probable
from dlink.maps.thinning import Mask
from dlink.runtime.errors import BadInput

MARGIN = 16  # px by which roads are prolonged at the mask's edge
ASSUMED = 0.5  # metres a pixel where nobody says it
THRESHOLD = 0.5
BANDS = 3
UNUSUAL = re.compile(r"[^\w-]")  # in a name
ROAD = "road"  # the target of masks that become lines


@contextmanager
def opened_mask(path: Path, how: Reading, threshold: float | None, gsd_m: float | None) -> Iterator["RoadMask"]:
    """An open mask.

    Raises:
        BadInput: The file is not a raster, is damaged, or has a folder's name.
    """
    if path.is_dir():
        raise BadInput(f"{path}: is a folder; give one mask, or a VRT of several (gdalbuildvrt all.vrt {path}/*.tif)")
    with opened(path, how) as source:
        yield RoadMask(source, threshold, gsd_m)


class RoadMask:
    """An open mask: its `shape`, `metres` a pixel down and across, `crs` and `transform`, and its road by windows."""

    def __init__(self, source: Source, threshold: float | None, gsd_m: float | None) -> None:
        self.source = source
        self.path = source.path
        self.shape = source.native
        self.crs = source.dataset.crs
        self.transform = source.dataset.transform
        self.target = target_of(source)
        self.values: set[float] = set()  # those that are road, as far as the mask is read
        self.real = source.dtype.kind == "f"
        self.probable = self.real or threshold is not None
        self.threshold = THRESHOLD if threshold is None else threshold
        self.metres = self.resolution(gsd_m)
        nodata = source.dataset.nodata
        self.all_count = not self.probable and nodata in (1, WHITE) and self.has_no_other(nodata)
        if self.probable and len(source.bands.numbers) >= BANDS:
            raise BadInput(f"{self.path}: has several bands; probabilities are in one (gdal_translate -b 1)")

    def has_no_other(self, value: float) -> bool:
        """Whether the mask has no value but 0 and this one. It is its road then, though declared to be no data."""
        return all(((samples == 0) | (samples == value)).all() for samples, _ in self.source.parts())

    def resolution(self, gsd_m: float | None) -> Metres:
        if self.source.metres:
            if gsd_m is not None:
                raise BadInput(f"{self.path}: says its ground resolution; leave --gsd out")
            return self.source.metres
        if gsd_m is not None:
            return gsd_m, gsd_m
        say(self.path, f"does not say its ground resolution; {ASSUMED} m a pixel is assumed, --gsd says another")
        return ASSUMED, ASSUMED

    def read(self, rows: slice, cols: slice) -> tuple[Mask, Probable | None]:
        """Where there is road in a window, which may go beyond the mask, and its probability if the file has it."""
        down, across = (slice(max(s.start, 0), min(s.stop, n)) for s, n in zip((rows, cols), self.shape, strict=True))
        samples = self.source.samples(down, across, self.shape)
        valid = None if self.all_count else self.source.valid(down, across, self.shape, samples)
        probable = self.probability(samples[0], valid) if self.probable else None
        road = probable > self.threshold if probable is not None else self.two_values(samples, valid)
        lacking = [(max(-s.start, 0), max(s.stop - n, 0)) for s, n in zip((rows, cols), self.shape, strict=True)]
        return beyond(road, lacking), None if probable is None else beyond(probable, lacking)

    def probability(self, samples: NDArray[Any], valid: Mask | None) -> Probable:
        if not self.real:
            most = np.iinfo(samples.dtype).max
            samples = (most - samples if self.source.white_is_least else samples) / np.float32(most)
        found = samples.astype(np.float32)
        found = np.where(np.isfinite(found) if valid is None else valid & np.isfinite(found), found, np.float32(0))
        if found.size and (found.min() < 0 or found.max() > 1):
            far = found.max() if found.max() > 1 else found.min()
            raise BadInput(f"{self.path}: has {far:g}; real numbers are probabilities, from 0 to 1")
        return found

    def two_values(self, samples: NDArray[Any], valid: Mask | None) -> Mask:
        values = self.source.turned(coded(samples))
        named = self.source.how.road_values
        road = np.isin(values, named) if named else values != 0
        road = road if valid is None else road & valid
        if not named:
            self.check_values(values[road])
        return np.asarray(road)

    def check_values(self, found: NDArray[Any]) -> None:
        """Raise BadInput if the mask has a second value that is not 0."""
        if not found.size:
            return
        other = found[found != found[0]]
        self.values |= {float(found[0]), *map(float, other[:1])}
        if len(self.values) > 1:
            one, two = sorted(self.values)[:2]
            raise BadInput(
                f"{self.path}: has values 0, {one:g}, {two:g}; a mask has two. --road-value {two:g} says which is "
                f"road, and --threshold 0.5 reads them as probabilities"
            )


def target_of(source: Source) -> str:
    """What a mask shows, such as building, by its metadata; empty: it does not say."""
    return str(source.dataset.tags().get(TARGET_TAG, ""))


def name_of(target: str) -> str:
    """What a mask shows as the name of a file and of a layer."""
    return UNUSUAL.sub("_", target)


def coded(samples: NDArray[Any]) -> NDArray[Any]:
    """The samples (bands, H, W) as one number a pixel; a colour as COLOUR + 0xRRGGBB."""
    if len(samples) < BANDS:
        return np.asarray(samples[0])
    red, green, blue = (band.astype(np.int64) for band in samples[:BANDS])
    return np.asarray(np.where((red == green) & (green == blue), red, COLOUR + (red << 16) + (green << 8) + blue))


def beyond(pixels: NDArray[Any], lacking: list[tuple[int, int]]) -> NDArray[Any]:
    """Pixels with more around them: MARGIN like the edge, then 0."""
    near = [(min(before, MARGIN), min(after, MARGIN)) for before, after in lacking]
    far = [(before - a, after - b) for (before, after), (a, b) in zip(lacking, near, strict=True)]
    return np.pad(np.pad(pixels, near, mode="edge"), far)
