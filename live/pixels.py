"""The pixels of an offered frame, and whether they are still those that were offered."""

import numpy as np

from dlink.live.frame import Frame, Image, Pixels
from dlink.runtime import BadInput

PROBES = 8  # pixels along each side that are compared, to notice that an array was used again


def probe(pixels: Pixels) -> bytes:
    """Some pixels of an array, to notice a change."""
    if callable(pixels):
        return b""
    rows, columns = (max(1, side // PROBES) for side in pixels.shape[:2])
    return pixels[::rows, ::columns].tobytes()


def pixels_of(frame: Frame, before: bytes) -> Image:
    """A frame's pixels, which nobody else changes."""
    if callable(frame.pixels):
        return np.asarray(frame.pixels())
    image = np.array(frame.pixels)
    if probe(image) != before or probe(frame.pixels) != before:  # it may be written to while it is copied
        raise BadInput(
            f"frame {frame.id}: its array was changed after it was offered; offer a copy, or a function that copies"
        )
    return image
