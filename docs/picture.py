"""The picture on top of README and of the site, of what `make demo` left.

python docs/picture.py demo docs/images/demo.jpg
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from dlink.imagery.images import read_image

SIDE, SHOWN = 960, 560  # px of the scene, and of the picture
GAP = np.full((SHOWN, 8, 3), 255, np.uint8)


def picture(demo: Path) -> np.ndarray:
    """The scene beside its roads, and the roads beside the label."""
    panels = []
    for name in ("scene", "overlay", "agreement"):
        pixels = read_image(demo / f"{name}.png")[-SIDE:, -SIDE:]
        panels += [GAP, cv2.resize(pixels, (SHOWN, SHOWN), interpolation=cv2.INTER_AREA)]
    return np.hstack(panels[1:])


if __name__ == "__main__":
    demo, out = map(Path, sys.argv[1:])
    cv2.imwrite(str(out), picture(demo)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 72, cv2.IMWRITE_JPEG_OPTIMIZE, 1])
