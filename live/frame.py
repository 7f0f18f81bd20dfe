"""A frame of a live video, and its roads."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlink.live.pose import Pose
from dlink.runtime.segmenter import Views

Image: TypeAlias = NDArray[np.uint8]
Pixels: TypeAlias = Image | Callable[[], Image]
What: TypeAlias = Literal["roads", "late", "replaced", "expired", "failed", "left"]  # see counts.py


@dataclass(frozen=True, eq=False, kw_only=True)
class Frame:
    """A frame that was offered.

    Args:
        id: Counted by the Live from 0. No id is used twice; the video's own time stamps may repeat.
        captured: When the camera took it, seconds of `time.monotonic()`.
        pixels: uint8 (H, W, 3) RGB, or a function that gives them: it is called if the frame is computed.
        pts: The video's own time stamp, seconds.
        utc: When the camera took it, seconds since 1970-01-01 UTC.
        pose: The camera at that time.
        tag: Whatever the caller gave with it, such as its place in a recording.
    """

    id: int
    captured: float
    pixels: Pixels = field(repr=False)
    pts: float | None = None
    utc: float | None = None
    pose: Pose | None = None
    tag: Any = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Roads:
    """The roads of a frame.

    Args:
        frame: The frame.
        image: uint8 (H, W, 3) RGB, the frame's pixels.
        levels: uint8 (H, W), road probability in 255 steps, in the frame's size.
        threshold: A pixel is road where its probability is greater.
        rung: Which views it got: 8, 4, 1 or "adaptive".
        views: How many views each tile got; a mean with adaptive views.
        scale: Pixels of the network a pixel of the frame: 0.25 where the frame was made four times coarser.
        begun: When its computation began, seconds of `time.monotonic()`.
        done: When it ended.
        late: Whether it was done later than the deadline after `captured`.
    """

    frame: Frame
    image: Image = field(repr=False)
    levels: NDArray[np.uint8] = field(repr=False)
    threshold: float
    rung: Views
    views: float
    scale: float
    begun: float
    done: float
    late: bool

    @cached_property
    def mask(self) -> NDArray[np.uint8]:
        """The mask, uint8 (H, W), 255 where the probability in 255 steps is greater than the threshold, 0 elsewhere."""
        mask = (self.levels > self.threshold * 255).astype(np.uint8)
        mask *= 255
        return mask

    def age(self, now: float | None = None) -> float:
        """Seconds since the camera took the frame."""
        return (time.monotonic() if now is None else now) - self.frame.captured


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of an offered frame.

    Args:
        frame: The frame.
        what: "roads" in time, "late", "replaced" by a newer one, "expired", "failed" or "left"; see counts.py.
        roads: Its roads, where they were computed.
        error: Why it failed.
    """

    frame: Frame
    what: What
    roads: Roads | None = None
    error: str = ""
