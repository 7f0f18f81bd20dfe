"""Where video comes from, as a user writes it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from dlink.runtime import BadInput

Kind: TypeAlias = Literal["udp", "rtsp", "net", "file", "device", "pipe", "raw"]
NET = ("http", "https", "rtmp", "rtp", "srt", "tcp")  # what FFmpeg opens by itself
RAW = re.compile(r"(?P<width>\d{1,5})x(?P<height>\d{1,5})(:(?P<format>rgb24|bgr24))?(@(?P<rate>\d+(\.\d+)?))?")
UDP = re.compile(r"(?i:udp):/*@?(?:(?P<host>[^:/?]*):)?(?P<port>\d+)(?P<query>\?.*)?")
LARGEST_SIDE = 16384


@dataclass(frozen=True)
class Raw:
    """Frames without a header: uint8 (height, width, 3), one after another."""

    width: int
    height: int
    format: str = "rgb24"
    rate: float | None = None  # frames a second, for their time stamps

    @property
    def size(self) -> int:
        """Bytes of a frame."""
        return self.width * self.height * 3


@dataclass(frozen=True)
class Address:
    """Where video comes from.

    Args:
        kind: How it is read.
        url: What FFmpeg opens, or a path.
        shown: The same for people, without a password.
        raw: Frames of a pipe without a container.
    """

    kind: Kind
    url: str
    shown: str
    raw: Raw | None = None

    @property
    def live(self) -> bool:
        """Whether video comes at its own pace, and a break of the link is not its end."""
        return self.kind in ("udp", "rtsp", "net", "device")


def address_of(text: str, raw: str | None = None) -> Address:
    """An address from what a user writes.

    Args:
        text: udp:5000, udp://239.0.0.1:5000, rtsp://camera/stream, a file, /dev/video0, or - for a pipe.
        raw: Of a pipe of frames without a container: 1280x720, 1280x720:bgr24@30.

    Raises:
        BadInput: It is none of these.
    """
    if raw is not None:
        if text != "-":
            raise BadInput(f"{text}: --raw is for frames from a pipe; write - as the source")
        return Address("raw", "-", "-", raw_of(raw))
    if text == "-":
        return Address("pipe", "pipe:0", "-")
    scheme = text.partition(":")[0].lower() if ":" in text else ""
    if scheme == "udp":
        return Address("udp", udp_of(text), text)
    if scheme in ("rtsp", "rtsps"):
        return Address("rtsp", text, without_password(text))
    if scheme in NET:
        return Address("net", text, without_password(text))
    if text.startswith("/dev/video"):
        return Address("device", text, text)
    path = Path(text)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise BadInput(
            f"{without_password(text)}: {found}; a source is a video file, udp:PORT, rtsp://..., /dev/video0 or -"
        )
    return Address("file", str(path), str(path))


def raw_of(text: str) -> Raw:
    """The shape of raw frames, 1280x720:rgb24@30."""
    found = RAW.fullmatch(text)
    sides = (int(found["width"]), int(found["height"])) if found else (0, 0)
    if not found or not all(0 < side <= LARGEST_SIDE for side in sides):
        raise BadInput(f"--raw must be such as 1280x720, 1280x720:bgr24 or 1280x720:rgb24@30, got {text[:40]!r}")
    return Raw(*sides, found["format"] or "rgb24", float(found["rate"]) if found["rate"] else None)


def udp_of(text: str) -> str:
    """A UDP address for FFmpeg: a port alone is this machine's, and bursts are buffered."""
    found = UDP.fullmatch(text)
    if not found or not 0 < int(found["port"]) < 65536:
        raise BadInput(f"{text[:80]}: a UDP source is udp:PORT or udp://GROUP:PORT, such as udp:5000")
    options = found["query"] or "?fifo_size=50000&overrun_nonfatal=1&buffer_size=4000000"
    return f"udp://{found['host'] or '0.0.0.0'}:{found['port']}{options}"


def without_password(url: str) -> str:
    """An address for people and files."""
    try:
        parts = urlsplit(url)
        if "@" not in parts.netloc:
            return url
        return urlunsplit(parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]))
    except ValueError:
        return url
