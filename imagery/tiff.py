"""Reads the directories of a TIFF and checks its compressed blocks. Needs NumPy alone.

Pixels are stored in blocks (tiles or strips), each compressed by itself. For a damaged block libtiff gives an error, a
warning, or pixels, depending on the compression. Deflate has a checksum, but libtiff does not read it. Zstandard and
WebP as libtiff writes them have no checksum, but they never contain 512 equal bytes of 0 or 255 in a row, which is what
a lost or erased sector looks like. These three are checked here; the decoder must find damage in the others.

A block of 0 bytes is sparse: it was never written, and means pixels without data, or 0.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dlink.runtime.errors import BadInput

# By version (42 TIFF, 43 BigTIFF): position of the directory's offset, its type, the type of the directory's tag count,
# and the bytes of a tag (TIFF 6.0, section 2; https://www.awaresystems.be/imaging/tiff/bigtiff.html)
LAYOUTS = {42: (4, "I", "H", 12), 43: (8, "Q", "Q", 20)}
ORDERS = {b"II": "<", b"MM": ">"}
LETTERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
MOST_TAGS = 4096  # read of a directory; real ones have about thirty
MOST_DIRECTORIES = 64
KIND, WIDTH, HEIGHT, COMPRESSION = 254, 256, 257, 259
STRIPS, ROWS, STRIP_BYTES, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 273, 278, 279, 322, 323, 324, 325
BITS, PHOTOMETRIC, SAMPLES, FORMAT = 258, 262, 277, 339
READ = {
    BITS,
    PHOTOMETRIC,
    SAMPLES,
    FORMAT,
    KIND,
    WIDTH,
    HEIGHT,
    COMPRESSION,
    STRIPS,
    ROWS,
    STRIP_BYTES,
    TILE_WIDTH,
    TILE_HEIGHT,
    TILES,
    TILE_BYTES,
}
REDUCED = 1  # bit of KIND: an overview
DEFLATE, WITHOUT_SUM = {8, 32946}, {50000, 34927, 50001}  # WITHOUT_SUM: Zstandard and WebP
LOST = bytes(512), b"\xff" * 512
STEP = 1 << 20  # bytes inflated at once

Entries = Mapping[int, tuple[int, ...]]


def directories(file: BinaryIO) -> Iterator[Entries]:
    """The directories of a TIFF or BigTIFF: numbers by tag, for the tags in READ; other tags have none.

    Damage ends the iteration, or leaves a tag without numbers. The decoder reports it later.
    """
    length = file.seek(0, 2)
    file.seek(0)
    head = file.read(16)
    try:
        order = ORDERS[head[:2]]
        where, offset, count, size = LAYOUTS[struct.unpack_from(order + "H", head, 2)[0]]
        (at,) = struct.unpack_from(order + offset, head, where)
        for _ in range(MOST_DIRECTORIES):
            file.seek(at)
            (many,) = struct.unpack(order + count, file.read(struct.calcsize(count)))
            entries = file.read(min(many, MOST_TAGS) * size)
            following = file.read(struct.calcsize(offset))
            layout = f"{order}HH{offset}{struct.calcsize(offset)}s"
            tags = struct.iter_unpack(layout, entries[: len(entries) // size * size])
            yield {tag: values_of(file, length, order + offset, *rest) if tag in READ else () for tag, *rest in tags}
            (at,) = struct.unpack(order + offset, following)
            if not at or many > MOST_TAGS:
                return
    except (struct.error, KeyError, ValueError, OverflowError):  # too short, unknown version, offset beyond the file
        return


def values_of(file: BinaryIO, length: int, pointer: str, type: int, count: int, field: bytes) -> tuple[int, ...]:
    """A tag's numbers, stored in its field or where the field points to."""
    layout = f"{pointer[0]}{count}{LETTERS.get(type, 'B')}"
    size = struct.calcsize(layout) if count <= length else length + 1
    if type not in LETTERS or size > length:
        return ()
    if size > len(field):
        file.seek(struct.unpack(pointer, field)[0])
        field = file.read(size)
    return struct.unpack_from(layout, field) if len(field) >= size else ()


@dataclass(frozen=True)
class Blocks:
    """Positions of one directory's blocks in the file and in the picture."""

    compression: int
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    high: int  # rows of a block
    wide: int
    shape: tuple[int, int]  # of the picture, px

    @classmethod
    def of(cls, tags: Entries) -> "Blocks | None":
        """The blocks of a directory; None if it lacks a tag."""
        first = {tag: numbers[0] for tag, numbers in tags.items() if numbers}
        tiled = TILES in first
        starts, sizes = (tags.get(tag, ()) for tag in ((TILES, TILE_BYTES) if tiled else (STRIPS, STRIP_BYTES)))
        try:
            height, width = first[HEIGHT], first[WIDTH]
            high = first[TILE_HEIGHT] if tiled else min(first.get(ROWS, height), height)
            wide = first[TILE_WIDTH] if tiled else width
            blocks = cls(first.get(COMPRESSION, 1), starts, sizes, high, wide, (height, width))
        except KeyError:
            return None
        if min(height, width, high, wide) < 1 or len(starts) != len(sizes):
            return None
        return blocks if len(starts) >= blocks.across * blocks.down else None

    @property
    def across(self) -> int:
        return -(-self.shape[1] // self.wide)

    @property
    def down(self) -> int:
        return -(-self.shape[0] // self.high)

    def touching(self, rows: slice, cols: slice) -> Iterator[int]:
        """The numbers of the blocks that hold these pixels, in every band."""
        a_plane = self.across * self.down
        for plane in range(0, len(self.starts) // a_plane * a_plane, a_plane):
            for row in range(rows.start // self.high, -(-rows.stop // self.high)):
                first = plane + row * self.across
                yield from range(first + cols.start // self.wide, first + -(-cols.stop // self.wide))


class Checker:
    """Checks each block of a TIFF's picture once, before it is read. Blocks of masks are checked at the beginning."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.file = file
        self.checked: set[int] = set()
        first, *others = [*directories(file)] or [{}]
        self.blocks = Blocks.of(first)
        for tags in others:
            mask = Blocks.of(tags)
            if mask and not tags.get(KIND, (0,))[0] & REDUCED and mask.shape == (self.blocks and self.blocks.shape):
                for i in range(len(mask.starts)):
                    self.check_block(mask, i)

    @cached_property
    def sparse(self) -> bool:
        """Whether blocks of the picture were never written."""
        return self.blocks is not None and 0 in self.blocks.sizes

    @cached_property
    def there(self) -> NDArray[np.bool_]:
        """Which blocks of the picture's first plane were written, (down, across)."""
        assert self.blocks
        shape = self.blocks.down, self.blocks.across
        return (np.array(self.blocks.sizes[: shape[0] * shape[1]]) > 0).reshape(shape)

    def check(self, rows: slice | None = None, cols: slice | None = None) -> None:
        """Raise BadInput if a block that holds any of these pixels (None: all) is damaged."""
        if self.blocks is None or self.blocks.compression not in DEFLATE | WITHOUT_SUM:
            return
        height, width = self.blocks.shape
        for i in self.blocks.touching(rows or slice(0, height), cols or slice(0, width)):
            if i not in self.checked:
                self.check_block(self.blocks, i)
                self.checked.add(i)

    def check_block(self, blocks: Blocks, i: int) -> None:
        size = blocks.sizes[i]
        if not size:
            return
        self.file.seek(blocks.starts[i])
        data = self.file.read(size)
        where = f"its compressed block {i} at byte {blocks.starts[i]}"
        if len(data) < size:
            raise BadInput(f"{self.path}: cut short, {where} lacks {size - len(data)} of {size} bytes; copy it again")
        if blocks.compression in DEFLATE:
            sound = inflates(data)
        else:
            sound = blocks.compression not in WITHOUT_SUM or not any(lost in data for lost in LOST)
        if not sound:
            raise BadInput(f"{self.path}: damaged, {where} is not what was written; copy it again")


def inflates(data: bytes) -> bool:
    """Whether a zlib stream is whole and its checksum right. Memory does not grow with its content."""
    stream = zlib.decompressobj()
    try:
        while not stream.eof:
            if not stream.decompress(data, STEP) and not stream.eof and not stream.unconsumed_tail:
                return False
            data = stream.unconsumed_tail
    except zlib.error:
        return False
    return True
