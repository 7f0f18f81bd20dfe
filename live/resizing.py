"""Pictures in another size. Needs OpenCV."""

import cv2
import numpy as np

from dlink.live.frame import Image


def resize(image: Image, height: int, width: int) -> Image:
    """uint8 (H, W) or (H, W, C) in another size: averaged where there are fewer pixels, else interpolated."""
    finer = height > image.shape[0] or width > image.shape[1]
    out = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR if finer else cv2.INTER_AREA)
    return np.asarray(out, np.uint8).reshape(height, width, *image.shape[2:])
