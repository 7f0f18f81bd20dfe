"""Reads MISB ST 0601, the telemetry within military and many civil drones' video.

A local set is a key of 16 bytes, a length, and items of tag, length and value. Its last item is a checksum. A set is
refused unless the checksum is right, because one flipped bit moves an aircraft by kilometres. Values that the standard
reserves for "out of range" or "not known" are left out, and so is an item whose length is not the standard's.
Numbers and their ranges: MISB ST 0601.8, section 8, by tag.
"""

import math
from dataclasses import dataclass, field

KEY = bytes.fromhex("060e2b34020b01010e01030101000000")
CHECKSUM, TIME = 1, 2
LONGEST = 65535  # bytes of a set; more is damage
SHORTEST = 4  # bytes: the checksum's item
OF_LENGTH = 0x80  # this bit of the first byte of a length: the number of bytes that follow it


@dataclass(frozen=True)
class Range:
    """How an item's whole number stands for a value between two limits."""

    size: int  # bytes
    low: float
    high: float
    signed: bool = False  # the most negative number says that the value is not known

    def value(self, data: bytes) -> float | None:
        number = int.from_bytes(data, "big", signed=self.signed)
        if self.signed:
            most = (1 << 8 * self.size - 1) - 1
            return None if number < -most else self.high * number / most
        return self.low + (self.high - self.low) * number / ((1 << 8 * self.size) - 1)


def signed(size: int, high: float) -> Range:
    return Range(size, -high, high, signed=True)


RANGES = {
    5: Range(2, 0, 360),  # platform heading, degrees
    6: signed(2, 20),  # platform pitch
    7: signed(2, 50),  # platform roll
    13: signed(4, 90),  # sensor latitude
    14: signed(4, 180),  # sensor longitude
    15: Range(2, -900, 19000),  # sensor true altitude, metres above mean sea level
    16: Range(2, 0, 180),  # sensor horizontal field of view
    17: Range(2, 0, 180),  # sensor vertical field of view
    18: Range(4, 0, 360),  # sensor relative azimuth
    19: signed(4, 180),  # sensor relative elevation
    20: Range(4, 0, 360),  # sensor relative roll
    21: Range(4, 0, 5_000_000),  # slant range, metres
    22: Range(2, 0, 10_000),  # target width, metres
    23: signed(4, 90),  # frame centre latitude
    24: signed(4, 180),  # frame centre longitude
    25: Range(2, -900, 19000),  # frame centre elevation, metres
    75: Range(2, -900, 19000),  # sensor height above the ellipsoid, metres
    90: signed(4, 90),  # platform pitch, full range
    91: signed(4, 90),  # platform roll, full range
    104: Range(0, 0, 0),  # sensor height above the ellipsoid, extended: of any length, see extended()
}
EXTENDED = (104,)
LEAST_EXTENDED_M, MOST_EXTENDED_M = -900.0, 40_000.0
MICROSECONDS = 1e-6


@dataclass(frozen=True)
class LocalSet:
    """One set of telemetry. `values` has what is known, by tag, in the units of RANGES."""

    utc: float  # seconds since 1970-01-01
    values: dict[int, float]


@dataclass
class Refused:
    """What was not taken, by reason."""

    checksum: int = 0  # sets
    damaged: int = 0  # sets whose items do not fit, or without a checksum or a time
    items: int = 0  # of another length than the standard's
    skipped: int = 0  # bytes between sets


@dataclass
class KlvReader:
    """Reads sets from bytes as they come, however they are cut into packets."""

    refused: Refused = field(default_factory=Refused)
    buffer: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> list[LocalSet]:
        """The sets that are complete with these bytes."""
        self.buffer += data
        found: list[LocalSet] = []
        while (start := self.buffer.find(KEY)) >= 0:
            self.skip(start)
            length = ber_length(self.buffer, len(KEY))
            if length is None:  # its bytes are to come
                return found
            size, first = length
            if not SHORTEST <= size <= LONGEST:
                self.refused.damaged += 1
                self.skip(1)
                continue
            if len(self.buffer) < first + size:
                if self.buffer.find(KEY, 1) >= 0:  # the next set has begun: this one was cut off
                    self.refused.damaged += 1
                    self.skip(1)
                    continue
                return found
            found += self.read(bytes(self.buffer[: first + size]), first)
        self.skip(max(0, len(self.buffer) - len(KEY) + 1))
        return found

    def skip(self, count: int) -> None:
        del self.buffer[:count]
        self.refused.skipped += count

    def read(self, data: bytes, first: int) -> list[LocalSet]:
        """A whole set, or none where it is damaged: then the search goes on behind its key."""
        if data[-4:-2] != bytes((CHECKSUM, 2)) or checksum(data[:-2]) != int.from_bytes(data[-2:], "big"):
            self.refused.checksum += 1
            self.skip(1)
            return []
        del self.buffer[: len(data)]
        try:
            items = items_of(data, first)
            return [LocalSet(time_of(items), values_of(items, self.refused))]
        except (IndexError, ValueError):
            self.refused.damaged += 1
            return []


def checksum(data: bytes) -> int:
    """The sum of the 16-bit words of a set up to the checksum's length; an odd last byte is a word's upper half."""
    return (sum(data[0::2]) * 256 + sum(data[1::2])) & 0xFFFF


def ber_length(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """A length and where its value begins; None where bytes are missing."""
    if at >= len(data):
        return None
    if not data[at] & OF_LENGTH:
        return data[at], at + 1
    count = data[at] & ~OF_LENGTH
    if len(data) < at + 1 + count:
        return None
    return int.from_bytes(data[at + 1 : at + 1 + count], "big"), at + 1 + count


def ber_oid(data: bytes, at: int) -> tuple[int, int]:
    """A tag of seven bits a byte, and where its length begins."""
    tag = 0
    while True:
        tag = tag << 7 | data[at] & 0x7F
        at += 1
        if not data[at - 1] & 0x80:
            return tag, at


def items_of(data: bytes, at: int) -> dict[int, bytes]:
    """The items of a set by tag. ValueError or IndexError where they do not fill it."""
    items: dict[int, bytes] = {}
    while at < len(data):
        tag, at = ber_oid(data, at)
        length = ber_length(data, at)
        if length is None or length[1] + length[0] > len(data):
            raise ValueError("an item is longer than its set")
        size, at = length
        items[tag] = data[at : at + size]
        at += size
    return items


def time_of(items: dict[int, bytes]) -> float:
    if len(items.get(TIME, b"")) != 8:
        raise ValueError("it has no time")
    return int.from_bytes(items[TIME], "big") * MICROSECONDS


def values_of(items: dict[int, bytes], refused: Refused) -> dict[int, float]:
    """The known values of a set. An item of length 0 says that its value is not known any more."""
    values: dict[int, float] = {}
    for tag, data in items.items():
        if tag not in RANGES or not data:
            continue
        if tag in EXTENDED:
            value = extended(data)
        elif len(data) != RANGES[tag].size:
            refused.items += 1
            continue
        else:
            value = RANGES[tag].value(data)
        if value is not None:
            values[tag] = value
    return values


def extended(data: bytes) -> float | None:
    """A height as IMAPB (MISB ST 1201) between LEAST_EXTENDED_M and MOST_EXTENDED_M. None for its special values."""
    bits = 8 * len(data)
    number = int.from_bytes(data, "big")
    if number >> bits - 1 & 1 and number & (1 << bits - 1) - 1:  # the first bit marks special values, but for the end
        return None
    span = MOST_EXTENDED_M - LEAST_EXTENDED_M
    scale = 2.0 ** (math.ceil(math.log2(span)) - (bits - 1))
    return scale * number + LEAST_EXTENDED_M  # the offset that makes zero exact is 0 for these limits
