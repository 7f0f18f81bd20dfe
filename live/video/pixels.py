"""The pixels of a decoded frame."""

import av
import numpy as np

from dlink.live.frame import Image

QUARTER = 90  # degrees


def pixels_of(frame: av.VideoFrame) -> Image:
    """uint8 (H, W, 3) RGB, upright: turned as the video says that it should be shown."""
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / QUARTER) % 4  # counter-clockwise
    return np.ascontiguousarray(np.rot90(image, turns) if turns else image)
