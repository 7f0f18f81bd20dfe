"""Whether a PNG or a JPEG is whole, from its bytes alone: what can be known before anything decodes it.

A PNG is a signature and chunks, each with a checksum, to IEND (PNG specification, 5.3); so no damage goes unseen. A
JPEG is a row of markers to EOI (ITU-T T.81, B.1) without any checksum: that it ends shows here, and whether what
stands between can be decoded only while that is done (images.py). But zeros, which a lost sector leaves, are often
decoded without complaint; where zeros cannot be what was written, they are found here. TIFFs are in tiff.py.
"""

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from zlib import crc32

from dlink.runtime.errors import BadInput

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"  # how they begin
# A byte after 0xff is a marker but for stuffing (00), fill (ff) and restarts (d0 to d7), which stand between pixels.
MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
BASELINE, TABLES, SCAN, EOI, BARE = (0xC0, 0xC1), 0xC4, 0xDA, 0xD9, (0x01, 0xD8)  # T.81, table B.1; BARE have no length
FRAMES, FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}, struct.Struct(">xHH")  # with height and width (B.2.2)
ZEROS = bytes(128)  # with the tables of T.81, K.3, these are five blocks


def check_format(path: Path, data: bytes) -> tuple[int, int] | None:
    """Height and width of a PNG or a JPEG, None of another file; BadInput if its bytes show that it is damaged."""
    if data.startswith(PNG):
        check_png(path, data)
        return struct.unpack_from(">I", data, 20)[0], struct.unpack_from(">I", data, 16)[0]
    return check_jpeg(path, data) if data.startswith(JPEG) else None


def check_png(path: Path, data: bytes) -> None:
    view, at, kind = memoryview(data), len(PNG), b""
    while kind != b"IEND":
        try:
            length, kind = struct.unpack_from(">I4s", data, at)
            (sum,) = struct.unpack_from(">I", data, at + 8 + length)
        except struct.error:
            raise BadInput(f"{path}: a PNG that is cut short or damaged; copy it again") from None
        if crc32(view[at + 4 : at + 8 + length]) != sum:
            raise BadInput(f"{path}: a damaged PNG, the checksum of what stands at byte {at} is wrong; copy it again")
        at += 12 + length


def check_jpeg(path: Path, data: bytes) -> tuple[int, int] | None:
    at, shape, zeros_mean = len(JPEG), None, dict[int, int]()
    baseline = lossy = False
    while found := MARKER.search(data, at):
        marker, start = found[1][0], found.start()
        if lossy and data.find(ZEROS, at, start) >= 0:
            raise BadInput(f"{path}: a damaged JPEG, zeros stand where its pixels should; copy it again")
        if marker == EOI:
            return shape
        at, body = segment(data, found.end()) if marker not in BARE else (found.end(), b"")
        if marker in FRAMES and len(body) >= FRAME.size:
            shape = FRAME.unpack_from(body)
        baseline = baseline or marker in BASELINE
        if marker == TABLES:
            zeros_mean |= meaning_of_zeros(body)
        lossy = marker == SCAN and baseline and zeros_are_lost(body, zeros_mean)
    raise BadInput(f"{path}: a JPEG that is cut short or damaged, its end is missing; copy it again")


def segment(data: bytes, at: int) -> tuple[int, bytes]:
    """Where a marker's segment ends, and what is in it; its first two bytes are its length."""
    end = at + int.from_bytes(data[at : at + 2], "big")
    return end, data[at + 2 : end]


def meaning_of_zeros(body: bytes) -> dict[int, int]:
    """By class and number (T.81, B.2.4.2) of Huffman tables: the symbol whose code is all zeros, which comes first."""
    found, at = {}, 0
    while at + 17 < len(body):
        found[body[at]] = body[at + 17]
        at += 17 + sum(body[at + 1 : at + 17])
    return found


def zeros_are_lost(body: bytes, zeros_mean: Mapping[int, int]) -> bool:
    """Whether zeros can't be the pixels of a scan: to some component they are no end of a block, but coefficients.

    A block is then 63 times the same value, which no picture has. `body` is the scan's header (T.81, B.2.3).
    """
    tables = body[2 : 1 + 2 * body[0] : 2] if body else b""
    return any(zeros_mean.get(0x10 | (table & 15), 0) for table in tables)
