"""Decodes plain pictures by OpenCV, and refuses damaged ones. Needs OpenCV.

A damaged picture is refused if its checksums are wrong (formats.py, tiff.py) or if a decoder complains, even where the
decoder returns pixels. Some damage cannot be seen: a changed bit in an uncompressed TIFF, and most single bits of a
JPEG or of an LZW or PackBits TIFF, decode to other valid pixels.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from dlink.imagery.captured_stderr import captured_stderr
from dlink.imagery.formats import check_format
from dlink.imagery.tiff import Checker
from dlink.runtime.errors import BadInput

LOG_ALL = 5  # OpenCV's LOG_LEVEL_DEBUG
LOGGED = re.compile(r"\[ ?[A-Z]+:\d+@|OpenCV TIFF: |> |\s*$")  # beginnings of lines of OpenCV's log
# Messages about damaged pixels: libjpeg's warnings (its jerror.h), libpng's errors, and libtiff's errors and decoder
# warnings in the forms of OpenCV 5 and 4. Messages about tags are left out.
DAMAGE = re.compile(
    r"^(Corrupt JPEG data: (?!bad ICC).*|Premature end of JPEG.*|Inconsistent progression.*)"
    r"|^libpng error: (.*)|TIFF_Error (.*)|TIFF_Warning ((?:(?!OJPEG)\w*Decode|JPEGLib)\b.*)"
    r"|^OpenCV TIFF: (?!TIFF(?:Read\w*Dir|Fetch|Advance)|OJPEG)\w*: Warning, (.*)"
)

Begin: TypeAlias = Callable[[int, int], None]  # called with a picture's height and width before decoding


def decode(path: Path, flags: int, begin: Begin | None = None) -> NDArray[Any]:
    """Decode a picture by OpenCV; damage raises BadInput. All plain pictures are decoded here."""
    data = path.read_bytes()
    if not data:
        raise BadInput(f"{path}: an empty file, not a picture")
    shape = check_format(path, data)
    tiff = Checker(path, BytesIO(data))
    if begin and (known := shape or (tiff.blocks and tiff.blocks.shape)):
        begin(*known)
    tiff.check()
    try:
        with decoder_messages() as messages:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as e:  # the header claims more pixels than OpenCV takes
        raise BadInput(f"{path}: can't be decoded as a picture; OpenCV says: {e.err or e}") from e
    reason = next(filter(None, map(damage, messages)), "")
    if pixels is None:
        why = f"; OpenCV says: {reason}" if reason else ""
        raise BadInput(f"{path}: no picture, or a damaged one; PNG, JPEG and TIFF are read{why}")
    if reason:
        raise BadInput(f"{path}: damaged, {reason}; copy it again, or save it anew to take what is left as it is")
    return pixels


@contextmanager
def decoder_messages() -> Iterator[list[str]]:
    """The messages of OpenCV's decoders: libjpeg writes to stderr, libtiff to OpenCV's log at the level of LOG_ALL."""
    log: Any = cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2  # OpenCV 5, OpenCV 4
    with captured_stderr(lambda line: bool(LOGGED.match(line) or damage(line))) as messages:
        before = log.setLogLevel(LOG_ALL)
        try:
            yield messages
        finally:
            log.setLogLevel(before)


def damage(line: str) -> str:
    """The part of a line that reports damaged pixels; empty for any other line."""
    found = DAMAGE.search(line)
    return next(filter(None, found.groups()), "").rstrip(". ") if found else ""
