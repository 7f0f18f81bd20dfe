"""Pictures in another size. Needs OpenCV."""

import cv2
import numpy as np

from dlink.live.frame import Image

LAST = 2  # the least factor of the last averaging, so that its pixels are close to whole averages


def resize(image: Image, height: int, width: int) -> Image:
    """uint8 (H, W) or (H, W, C) in another size: averaged where there are fewer pixels, else interpolated.

    Averages of two by two pixels come first, because OpenCV has fast code for them and for no other number.
    """
    out = image
    while min(out.shape[0] / height, out.shape[1] / width) >= 2 * LAST and not (out.shape[0] % 2 or out.shape[1] % 2):
        out = resized(out, out.shape[0] // 2, out.shape[1] // 2, cv2.INTER_AREA)
    finer = height > out.shape[0] or width > out.shape[1]
    return resized(out, height, width, cv2.INTER_LINEAR if finer else cv2.INTER_AREA)


def resized(image: Image, height: int, width: int, how: int) -> Image:
    out = cv2.resize(image, (width, height), interpolation=how)
    return np.asarray(out, np.uint8).reshape(height, width, *image.shape[2:])
