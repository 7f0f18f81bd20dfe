"""Checks from its bytes alone whether a PNG or a JPEG is whole, before a decoder sees it.

A PNG is a signature and a row of chunks up to IEND, each with a checksum (PNG specification, 5.3). So all damage is
found. A JPEG is a row of markers up to EOI (ITU-T T.81, B.1) without checksums. Here its end is checked; images.py
listens to the decoder's complaints about the rest. A lost sector leaves zeros, which decoders often accept; they are
refused here where an encoder cannot have written them. tiff.py has TIFFs.
"""

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from zlib import crc32

from dlink.runtime.errors import BadInput

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"  # the first bytes of a file
# A byte after 0xff is a marker, except stuffing (00), fill (ff) and restarts (d0 to d7), which occur among the pixels.
MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
BASELINE, TABLES, SCAN, EOI, BARE = (0xC0, 0xC1), 0xC4, 0xDA, 0xD9, (0x01, 0xD8)  # T.81, table B.1; BARE have no length
FRAMES, FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}, struct.Struct(">xHH")  # with height and width (B.2.2)
ZEROS = bytes(128)  # with the tables of T.81, K.3, these are five blocks


def check_format(path: Path, data: bytes) -> tuple[int, int] | None:
    """Height and width of a PNG or a JPEG; None for other files. Raises BadInput for visible damage."""
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
            raise BadInput(f"{path}: a damaged PNG, the checksum of the chunk at byte {at} is wrong; copy it again")
        at += 12 + length


def check_jpeg(path: Path, data: bytes) -> tuple[int, int] | None:
    at, shape, zeros_mean = len(JPEG), None, dict[int, int]()
    baseline = lossy = False
    while found := MARKER.search(data, at):
        marker, start = found[1][0], found.start()
        if lossy and data.find(ZEROS, at, start) >= 0:
            raise BadInput(f"{path}: a damaged JPEG, it has zeros in place of pixels; copy it again")
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
    """The offset after a marker's segment, and the segment's content. Its first two bytes are its length."""
    end = at + int.from_bytes(data[at : at + 2], "big")
    return end, data[at + 2 : end]


def meaning_of_zeros(body: bytes) -> dict[int, int]:
    """The symbol whose code is all zeros (the first one), by class and number of its Huffman table (T.81, B.2.4.2)."""
    symbols, at = {}, 0
    while at + 17 < len(body):
        symbols[body[at]] = body[at + 17]
        at += 17 + sum(body[at + 1 : at + 17])
    return symbols


def zeros_are_lost(body: bytes, zeros_mean: Mapping[int, int]) -> bool:
    """Whether zeros in a scan are lost data: for some component they do not end a block but code a coefficient.

    A block of zeros would then be 63 equal coefficients, which no picture has. `body` is the scan's header (T.81,
    B.2.3).
    """
    tables = body[2 : 1 + 2 * body[0] : 2] if body else b""
    return any(zeros_mean.get(0x10 | (table & 15), 0) for table in tables)
