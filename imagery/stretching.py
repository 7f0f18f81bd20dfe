"""Turns samples of any type into 8 bits by a range for each band. Needs NumPy alone.

A range by percentiles is of the whole picture, found once, so that it is the same for every window. A histogram of
65536 bins finds it: exact for samples of up to 16 bits; for others the bins are float32 numbers of 16 bits (sign,
exponent, seven digits of the fraction), and each end is within 0.8 % of its value.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlink.runtime.errors import BadInput
from dlink.runtime.stretch import Range, Stretch

PERCENTILES = (2.0, 98.0)  # of samples that are not 8 bits, where nobody says another stretch
BINS = 1 << 16
CUT = 1 << 20  # samples that are counted at once, for a count's temporary numbers are of 8 bytes
BYTE = 255
Samples = NDArray[Any]


@dataclass(frozen=True)
class Levels:
    """How samples of a type become 0..255: `ranges` holds one range for each band."""

    ranges: tuple[Range, ...]
    note: str = ""  # what was assumed, if nobody said it

    @property
    def stretch(self) -> Stretch:
        """The ranges as they are written."""
        return Stretch(ranges=self.ranges)

    def bytes_of(self, samples: Samples) -> NDArray[np.uint8]:
        """uint8 of samples (bands, H, W), rounded, cut off at both ends; NaN becomes 0."""
        out = np.empty(samples.shape, np.uint8)
        ranges = self.ranges * (len(samples) // len(self.ranges))
        for band, into, (low, high) in zip(samples, out, ranges, strict=True):
            if band.dtype.kind in "ui" and band.dtype.itemsize <= 2:
                info = np.iinfo(band.dtype)
                table = scaled(np.arange(info.min, info.max + 1, dtype=np.float64), low, high)
                np.take(table, band if info.min == 0 else band.astype(np.int32) - info.min, out=into)
            else:
                into[:] = scaled(band.astype(np.float64), low, high)
        return out


def scaled(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    with np.errstate(invalid="ignore", over="ignore"):
        levels = np.rint((values - low) * (BYTE / (high - low)))
    return np.nan_to_num(levels, nan=0, posinf=BYTE, neginf=0).clip(0, BYTE).astype(np.uint8)


class Histogram:
    """The samples of a picture, counted in BINS for each band."""

    def __init__(self, bands: int, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.counts = np.zeros((bands, BINS), np.int64)

    def add(self, samples: Samples, valid: NDArray[np.bool_] | None) -> None:
        """Count samples (bands, H, W) where they are valid (H, W) and finite."""
        for counts, band in zip(self.counts, samples, strict=True):
            flat = (band if valid is None else band[valid]).ravel()
            for start in range(0, len(flat), CUT):
                counts += np.bincount(self.bins(flat[start : start + CUT]), minlength=BINS)

    def bins(self, samples: Samples) -> NDArray[Any]:
        if self.small:
            return samples.astype(np.int32) - np.iinfo(self.dtype).min
        return float_bins(samples[np.isfinite(samples)].astype(np.float32))

    @property
    def small(self) -> bool:
        return self.dtype.kind in "ui" and self.dtype.itemsize <= 2

    @property
    def values(self) -> NDArray[np.float64]:
        """The value of each bin."""
        if self.small:
            return np.arange(BINS, dtype=np.float64) + float(np.iinfo(self.dtype).min)
        return float_values()

    def percentiles(self, low: float, high: float) -> tuple[Range, ...]:
        """The range of each band."""
        return tuple(self.range_of(counts, low, high) for counts in self.counts)

    def range_of(self, counts: NDArray[np.int64], low: float, high: float) -> Range:
        below = np.cumsum(counts)
        if not below[-1]:
            return 0.0, 1.0  # a band without data
        ends = [int(np.searchsorted(below, max(p / 100 * below[-1], 1))) for p in (low, high)]
        first, last = (float(self.values[end]) for end in ends)
        return (first, last) if first < last else (first, first + 1.0)

    @property
    def extent(self) -> Range:
        """The least and the greatest value of all bands."""
        there = np.flatnonzero(self.counts.any(axis=0))
        return (float(self.values[there[0]]), float(self.values[there[-1]])) if len(there) else (0.0, 0.0)


def float_bins(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Bins that lie as the numbers do: the upper 16 bits, those of negative numbers turned."""
    upper = (values.view(np.uint32) >> 16).astype(np.int64)
    return np.where(upper >= BINS // 2, BINS - 1 - upper, upper + BINS // 2)


def float_values() -> NDArray[np.float64]:
    bins = np.arange(BINS)
    upper = np.where(bins < BINS // 2, BINS - 1 - bins, bins - BINS // 2).astype(np.uint32)
    with np.errstate(invalid="ignore"):
        return (upper << 16).view(np.float32).astype(np.float64)


def levels_of(dtype: np.dtype[Any], stretch: Stretch | None, bands: int, all: "Iterable[Part]") -> Levels | None:
    """How samples become 8 bits; None for samples of 8 bits, which are taken as they are whatever the stretch.

    `all` gives the samples of the whole picture, piece by piece. It is read only if the range depends on them.
    """
    if dtype == np.uint8:
        return None
    if stretch and stretch.ranges:
        if len(stretch.ranges) not in (1, bands):
            raise BadInput(
                f"--stretch {stretch}: {len(stretch.ranges)} ranges for {bands} bands; give one, or one each"
            )
        return Levels(stretch.ranges)
    histogram = Histogram(bands, dtype)
    for samples, valid in all:
        histogram.add(samples, valid)
    if stretch is None and (told := of_extent(histogram)):
        return told
    low, high = (stretch and stretch.percentiles) or PERCENTILES
    ranges = histogram.percentiles(low, high)
    note = f"{dtype} samples, stretched by percentiles {low:g},{high:g} of the picture; --stretch gives another range"
    return Levels(ranges, note)


def of_extent(histogram: Histogram) -> Levels | None:
    """The range of samples that are 8 bits in another type, or fractions: their values show it."""
    least, most = histogram.extent
    if histogram.dtype.kind == "f" and least >= 0 and 0.5 < most <= 1:
        words, range_ = "between 0 and 1", (0.0, 1.0)
    elif least >= 0 and BYTE / 2 < most <= BYTE:
        words, range_ = "between 0 and 255", (0.0, float(BYTE))
    else:
        return None
    note = f"{histogram.dtype} samples, all {words}, which became 0..255; --stretch gives another range"
    return Levels((range_,), note)


Part = tuple[Samples, NDArray[np.bool_] | None]
