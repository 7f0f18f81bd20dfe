"""What goes between an application and the worker: a socket of small messages, and memory that both see.

The socket is a stream (AF_UNIX). Numbers are little endian. All messages begin with the four bytes "DLK1".

The application to the worker, 40 bytes each:

    kind      u32   1: here is memory, in place of an earlier one. Its file descriptor comes along (SCM_RIGHTS).
                    2: compute the image in the memory.
    id        u64   of the image; the answer has the same
    height    u32   px, of the image; for memory 0
    width     u32   px
    channels  u32   bytes a pixel
    views     u32   1, 4 or 8; 0: adaptive views
    size      u64   of the memory, in bytes; for an image 0

The worker to the application, 48 bytes and a text:

    status    u32   0: done. 1: this image has no roads, and the worker goes on. 2: the worker ends.
    id        u64
    seconds   f64   that the network took
    views     f64   a tile, a mean with adaptive views or a scout
    doubtful  f64   share of tiles that adaptive views would give eight views
    length    u64   of the text that follows, in bytes
    text            UTF-8. Of an error its message, before it the error's class and a colon.

The worker's first message has id 0 and status 0 when the model is open: its text is JSON with `spec` (as in the model
file), `halo`, `threshold`, `engine`, `seconds` (of one view of one tile), `scout` (its seconds a tile; 0: none) and
`pid`. The image is uint8 (height, width, channels) at the memory's first byte, rows without padding. Its roads, uint8
(height, width) in 255 steps, follow at the next multiple of 64 bytes. The application does not touch the memory between
its message and the answer.
"""

import mmap
import os
import socket
import struct
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlink.live.frame import Image
from dlink.runtime import BadModel

MARK = b"DLK1"
REQUEST, REPLY = struct.Struct("<4sIQIIIIQ"), struct.Struct("<4sIQdddQ")
MEMORY, COMPUTE = 1, 2
DONE, NO_ROADS, ENDS = 0, 1, 2
ADAPTIVE = 0
LONGEST_TEXT = 1 << 20
ALIGNED = 64


@dataclass(frozen=True)
class Request:
    kind: int
    id: int = 0
    height: int = 0
    width: int = 0
    channels: int = 0
    views: int = 1
    size: int = 0


@dataclass(frozen=True)
class Reply:
    status: int
    id: int
    seconds: float = 0.0
    views: float = 0.0
    doubtful: float = 0.0
    text: str = ""


class Memory:
    """Pixels and roads of one picture, seen by two processes. It is freed when nothing refers to it.

    Args:
        fd: File descriptor of the memory, which may be closed once this is made.
        size: Bytes.
    """

    def __init__(self, fd: int, size: int) -> None:
        self.size = size
        self.bytes: NDArray[np.uint8] = np.frombuffer(mmap.mmap(fd, size), np.uint8)

    def image(self, height: int, width: int, channels: int) -> Image:
        """The image in the memory, uint8 (H, W, C), not copied."""
        return self.bytes[: height * width * channels].reshape(height, width, channels)

    def levels(self, height: int, width: int, channels: int) -> NDArray[np.uint8]:
        """Its roads, uint8 (H, W), not copied."""
        begin = aligned(height * width * channels)
        return self.bytes[begin : begin + height * width].reshape(height, width)


def new_memory(size: int) -> int:
    """File descriptor of new memory. It is freed when the last process closes it, however that process ends."""
    if sys.platform == "linux":
        fd = os.memfd_create("dlink")
    else:
        fd, path = tempfile.mkstemp("dlink")
        Path(path).unlink()
    try:
        os.ftruncate(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def aligned(size: int) -> int:
    """The next multiple of 64 bytes."""
    return -(-size // ALIGNED) * ALIGNED


def needed(height: int, width: int, channels: int) -> int:
    """Bytes of memory for an image and its roads."""
    return aligned(height * width * channels) + height * width


def send_request(link: socket.socket, request: Request, fd: int | None = None) -> None:
    """Send a request, with a file descriptor where one is given."""
    r = request
    message = REQUEST.pack(MARK, r.kind, r.id, r.height, r.width, r.channels, r.views, r.size)
    if fd is None:
        link.sendall(message)
    else:
        sent = socket.send_fds(link, [message], [fd])
        link.sendall(message[sent:])


def receive_request(link: socket.socket) -> tuple[Request, int | None]:
    """The next request and its file descriptor. EOFError where the other end has closed."""
    message, fds, _, _ = socket.recv_fds(link, REQUEST.size, 1)
    message += receive(link, REQUEST.size - len(message)) if message else b""
    if not message:
        raise EOFError
    mark, *values = REQUEST.unpack(message)
    check_mark(mark)
    return Request(*values), fds[0] if fds else None


def send_reply(link: socket.socket, reply: Reply) -> None:
    text = reply.text.encode()
    r = reply
    link.sendall(REPLY.pack(MARK, r.status, r.id, r.seconds, r.views, r.doubtful, len(text)) + text)


def receive_reply(link: socket.socket) -> Reply:
    """The next reply. EOFError where the other end has closed; TimeoutError after the socket's own time."""
    mark, status, id, seconds, views, doubtful, length = REPLY.unpack(receive(link, REPLY.size))
    check_mark(mark)
    if length > LONGEST_TEXT:
        raise BadModel(f"the worker announced a text of {length} bytes; it is of another version")
    return Reply(status, id, seconds, views, doubtful, receive(link, length).decode(errors="replace"))


def receive(link: socket.socket, size: int) -> bytes:
    """So many bytes."""
    message = bytearray()
    while len(message) < size:
        part = link.recv(size - len(message))
        if not part:
            raise EOFError
        message += part
    return bytes(message)


def check_mark(mark: bytes) -> None:
    if mark != MARK:
        raise BadModel(f"a message begins with {mark!r}, not {MARK!r}: the other end is of another version of dlink")
