"""Frames of a pipe without a container: uint8 (height, width, 3), one after another."""

import os
import select
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from dlink.live.frame import Image
from dlink.live.video.address import Raw
from dlink.live.video.counters import Seen
from dlink.live.video.taken import Taken

LOOK = 0.2  # seconds between looks at whether the source was closed
CHUNK = 1 << 20  # bytes


def raw_frames(fd: int, raw: Raw, seen: Seen, closed: Callable[[], bool]) -> Iterator[Taken]:
    """The frames of a file descriptor. Bytes of a last frame that was cut off are counted."""
    index = 0
    while (buffer := whole_frame(fd, raw.size, seen, closed)) is not None:
        pixels = buffer.reshape(raw.height, raw.width, 3)
        seen.frames += 1
        yield Taken(
            pixels=lambda pixels=pixels: rgb(pixels, raw.format),  # type: ignore[misc] # the loop's value
            captured=time.monotonic(),
            pts=index / raw.rate if raw.rate else None,
            index=index,
            connection=seen.connections,
        )
        index += 1


def whole_frame(fd: int, size: int, seen: Seen, closed: Callable[[], bool]) -> NDArray[np.uint8] | None:
    """The bytes of a frame; None at the end."""
    buffer = np.empty(size, np.uint8)
    filled = 0
    while filled < size:
        while not select.select([fd], [], [], LOOK)[0]:
            if closed():
                return None
        part = os.read(fd, min(CHUNK, size - filled))
        if not part:
            seen.partial = filled
            return None
        buffer[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
        filled += len(part)
    return buffer


def rgb(pixels: Image, format: str) -> Image:
    """As RGB."""
    return np.ascontiguousarray(pixels[..., ::-1]) if format == "bgr24" else pixels
