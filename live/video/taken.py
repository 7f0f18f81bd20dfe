"""A frame as it came out of a video."""

from collections.abc import Callable
from dataclasses import dataclass

from dlink.live.frame import Image


@dataclass(frozen=True, eq=False, kw_only=True)
class Taken:
    """A frame of a video.

    Args:
        pixels: Gives uint8 (H, W, 3) RGB. It converts when it is called.
        captured: When the frame was ready to be sent, as far as its time stamp and its arrival tell; seconds of
            `time.monotonic()`. What an encoder and a link add before is not known.
        pts: The video's own time stamp, seconds. It may repeat and jump.
        index: Its number in the connection, from 0, of all frames that were decoded: its place in the recording.
        connection: Counts the connections of a Source, from 1; time stamps that jump back begin one too.
        video: The recording's file that has it.
    """

    pixels: Callable[[], Image]
    captured: float
    pts: float | None
    index: int
    connection: int
    video: str | None = None
