"""Frames in the ground resolution that the network was trained at, and their roads in the frame's own size.

A network knows roads of some pixels' width. Frames from half the height show them twice as wide, and it finds few.
"""

from typing import Protocol

from dlink.live.frame import Frame, Image
from dlink.live.pose import Pose
from dlink.runtime import BadInput, Spec
from dlink.runtime.values import real

MOST_PIXELS = 100_000_000  # of a scaled frame
NEAR = 0.05  # a resolution that differs less is taken for the network's own
COARSEST = 8.0  # times the network's resolution; roads of few pixels' width are less than one pixel wide beyond it


class Resolution(Protocol):
    """Knows what a camera sees. `dlink.live.ground` has two."""

    def resolution(self, pose: Pose, width: int, height: int) -> float | None:
        """Metres a pixel in the middle of a frame of so many pixels, or None where the pose does not tell."""
        ...

    def missing(self, pose: Pose, width: int, height: int) -> str:
        """What the pose lacks, where it does not tell, in words that follow "because"."""
        ...


class Scaling:
    """The scale of each frame.

    Args:
        spec: Of the network.
        ground: Metres a pixel of all frames; or what tells it from a frame's pose; None: frames are computed as they
            come.
    """

    def __init__(self, spec: Spec, ground: float | Resolution | None) -> None:
        self.spec = spec
        self.ground: float | Resolution | None = ground
        if ground is not None and not hasattr(ground, "resolution"):
            self.ground = real("ground", ground, "metres a pixel, greater than 0", lambda g: 0 < g < float("inf"))
            self.scale_of(self.ground)

    @property
    def assumes(self) -> str:
        """What is assumed of frames, in a sentence; empty where nothing is."""
        if self.ground is not None:
            return ""
        return (
            f"frames are computed as they come, as if they showed {self.spec.gsd_m:g} m a pixel, which the network was "
            f"trained at; the ground resolution of the frames is not given"
        )

    def scale(self, frame: Frame, height: int, width: int) -> float:
        """Pixels of the network a pixel of the frame. BadInput where it is not known."""
        if self.ground is None:
            return 1.0
        if isinstance(self.ground, float):
            return self.limited(frame, self.scale_of(self.ground), height, width)
        metres = None if frame.pose is None else self.ground.resolution(frame.pose, width, height)
        if metres is None:
            missing = "it has no pose" if frame.pose is None else self.ground.missing(frame.pose, width, height)
            raise BadInput(
                f"frame {frame.id}: its ground resolution is not known, because {missing}; metres a pixel can be given "
                f"instead (--gsd, ground=)"
            )
        return self.limited(frame, self.scale_of(metres), height, width)

    def limited(self, frame: Frame, scale: float, height: int, width: int) -> float:
        if height * width * scale**2 > MOST_PIXELS:
            raise BadInput(
                f"frame {frame.id}: {width} x {height} pixels of {scale * self.spec.gsd_m:.3g} m would be "
                f"{height * width * scale**2 / 1e6:.0f} million pixels of {self.spec.gsd_m:g} m, more than "
                f"{MOST_PIXELS / 1e6:.0f}; offer smaller frames"
            )
        return scale

    def scale_of(self, metres: float) -> float:
        scale = metres / self.spec.gsd_m
        if not scale < COARSEST:
            raise BadInput(
                f"frames of {metres:.3g} m a pixel are over {COARSEST:g} times coarser than the {self.spec.gsd_m:g} m "
                f"that the network was trained at; fly lower, or use a network for that resolution"
            )
        return 1.0 if abs(scale - 1) <= NEAR else scale


def scaled(image: Image, scale: float) -> Image:
    """An image (H, W, C) with so many times its pixels in each direction, averaged where there are fewer."""
    if scale == 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return resized(image, height, width)


def resized(image: Image, height: int, width: int) -> Image:
    """An image or levels in another size."""
    if image.shape[:2] == (height, width):
        return image
    from dlink.live.resizing import resize  # needs OpenCV

    return resize(image, height, width)
