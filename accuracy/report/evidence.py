"""Collects what a report shows besides figures: histograms of probabilities, and pictures of the worst tiles.

Memory is bounded: 16 KB of each labelled tile, and the pictures of at most eight tiles. These are the four tiles with
the lowest IoU with their label, and the four whose masks agree least with the reference's. Needs OpenCV.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from dlink.accuracy.agreement import Each
from dlink.accuracy.curves import Histograms
from dlink.accuracy.pixels import Mask
from dlink.imagery.images import Image, shown
from dlink.runtime.rounding import Pair, settle

KEPT = 4  # tiles of each kind
SIDE = 512  # px, the longer side of a picture; larger tiles are shrunk
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 82]
SHARP = [*JPEG, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]  # thin lines keep their colours

# Okabe and Ito's sky blue, yellow and vermilion. Of their palette these three differ most from each other and from grey
# for protan, deutan and tritan eyes (CIELAB after Machado et al. 2009).
HITS, EXTRAS, MISSES = (86, 180, 233), (240, 228, 66), (213, 94, 0)
Colours: TypeAlias = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Picture:
    """One encoded picture, at most SIDE wide and high."""

    title: str
    kind: str  # jpeg or png
    data: bytes


@dataclass(frozen=True)
class Shown:
    """A tile that a report shows."""

    each: Each
    height: int  # of the tile itself, px
    width: int
    pictures: tuple[Picture, ...]


@dataclass
class Evidence:
    """Collects while `compare` runs, with the first number of views."""

    candidate: Histograms = field(default_factory=Histograms)
    reference: Histograms = field(default_factory=Histograms)
    thresholds: tuple[float, float] = (0.5, 0.5)  # the candidate's and the reference's own
    by_label: list[tuple[float, Shown]] = field(default_factory=list)  # the worst first
    by_masks: list[tuple[float, Shown]] = field(default_factory=list)

    def add(self, each: Each, image: Image, label: Mask | None, pair: Pair) -> None:
        """Add one tile; `pair` holds probabilities (H, W)."""
        self.thresholds = (pair[0][1], pair[1][1])
        if label is not None:
            for histograms, (prob, _) in zip((self.candidate, self.reference), pair, strict=True):
                histograms.add(prob, label)
        shown = None
        for ranking, value in ((self.by_label, each.candidate), (self.by_masks, each.agreement)):
            if value is None or (len(ranking) == KEPT and value >= ranking[-1][0]):
                continue
            shown = shown or show(each, image, label, pair)
            ranking.append((value, shown))
            ranking.sort(key=lambda entry: entry[0])
            del ranking[KEPT:]

    def worst(self) -> list[Shown]:
        """The tiles to show, each once. If there are labels, tiles whose masks agree entirely are left out."""
        masks = [(value, shown) for value, shown in self.by_masks if value < 1 or not self.by_label]
        return list({shown.each.id: shown for _, shown in self.by_label + masks}.values())


def show(each: Each, image: Image, label: Mask | None, pair: Pair) -> Shown:
    """The pictures of a tile: image, label, both masks, and the candidate's hits, misses and extras."""
    candidate, reference, _ = settle(pair)
    image = np.ascontiguousarray(shown(image))
    pictures = [picture("image", image, "jpeg", JPEG)]
    if label is not None:
        pictures.append(mask_picture("label", label))
    pictures += [mask_picture("reference", reference), mask_picture("candidate", candidate)]
    if label is not None:
        pictures.append(picture("candidate against label", difference(image, label, candidate), "jpeg", SHARP))
    pictures.append(picture("candidate against reference", difference(image, reference, candidate), "jpeg", SHARP))
    return Shown(each, image.shape[0], image.shape[1], tuple(pictures))


def mask_picture(title: str, mask: Mask) -> Picture:
    return picture(title, mask.astype(np.uint8) * 255, "png", [cv2.IMWRITE_PNG_COMPRESSION, 9])


def picture(title: str, pixels: NDArray[np.uint8], kind: str, options: list[int]) -> Picture:
    """Encode grey (H, W) or RGB (H, W, 3), shrunk to SIDE if it is larger."""
    height, width = pixels.shape[:2]
    if (scale := SIDE / max(height, width)) < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    bgr = pixels if pixels.ndim == 2 else pixels[..., ::-1]
    _, data = cv2.imencode(f".{kind}", np.ascontiguousarray(bgr), options)
    return Picture(title, kind, data.tobytes())


def difference(image: Image, truth: Mask, mask: Mask, colours: Colours = (HITS, EXTRAS, MISSES)) -> Image:
    """The image in dark grey, RGB (H, W, 3), with a mask's hits, extras and misses in colour."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) // 3 + 20
    out = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
    for where, colour in zip((truth & mask, mask & ~truth, truth & ~mask), colours, strict=True):
        out[where] = colour
    return out
