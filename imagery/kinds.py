"""Says what a file of a picture is, from its first bytes and from the files beside it. Needs no library.

A plain picture is decoded by OpenCV: PNG, JPEG, or TIFF of 8 bits in grey, RGB, CMYK or a palette, which does not say
where on Earth it lies. Everything else is a raster, and GDAL reads it: OpenCV would turn 16 bits, four bands, band
names or a georeference into something else without a word.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from dlink.imagery.formats import JPEG, PNG
from dlink.imagery.tiff import BITS, COMPRESSION, FORMAT, PHOTOMETRIC, SAMPLES, Entries, directories

TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PLAIN = (".png", ".jpg", ".jpeg", ".tif", ".tiff")  # names of pictures that need no GDAL
SUFFIXES = (*PLAIN, ".jp2", ".j2k", ".vrt", ".img", ".ntf", ".bil", ".ers", ".webp", ".bmp")  # of a folder's pictures
VSI = "/vsi"  # GDAL's file systems: archives, networks
# ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory (OGC 19-008r4) and RPCCoefficient (GDAL's)
GEO_TAGS = {33550, 33922, 34264, 34735, 50844}
PAM = ".aux.xml"  # GDAL's file of what a format can't hold
PAM_PLACE = re.compile(rb"<GeoTransform>|<GCPList|domain=\"RPC\"")
LIKE_GREY, LIKE_RGB, CMYK = {0, 1, 3}, {2, 6}, 5  # photometric values: white or black is 0, palette; RGB, YCbCr
# What OpenCV's libtiff decodes: none, CCITT, LZW, JPEG, Deflate, PackBits.
COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946}
BIT_DEPTH = 24  # offset in a PNG
EIGHT = 8


def remote(path: Path) -> bool:
    """Whether a path is one of GDAL's own file systems, such as /vsizip/ and /vsicurl/."""
    return path.as_posix().startswith(VSI)


def raster_reason(path: Path) -> str:
    """Why GDAL must read a picture, in words; empty for a plain picture. OSError if there is no such file."""
    if remote(path):
        return f"in GDAL's file system {path.parts[1]}"
    with path.open("rb") as file:
        head = file.read(BIT_DEPTH + 1)
        if head.startswith(TIFFS):
            reason = tiff_reason(next(directories(file), {}))
        elif head.startswith(PNG):
            reason = "of 16 bits" if len(head) > BIT_DEPTH and head[BIT_DEPTH] > EIGHT else ""
        elif head.startswith(JPEG) or path.suffix.lower() in PLAIN:  # OpenCV says what is wrong with such a file
            reason = ""
        else:
            reason = "of another format than PNG, JPEG and TIFF"
    return reason or ("with a georeference" if place_beside(path) else "")


def tiff_reason(tags: Entries) -> str:
    """Why GDAL must read a TIFF; empty if OpenCV can, or if its directory is damaged."""
    first = {tag: numbers[0] for tag, numbers in tags.items() if numbers}
    samples, photometric = first.get(SAMPLES, 1), first.get(PHOTOMETRIC, 1)
    if tags.keys() & GEO_TAGS:
        return "with a georeference"
    bits = max(tags.get(BITS) or (1,))
    if bits not in (1, EIGHT) or first.get(FORMAT, 1) != 1:
        return f"of {bits} bits"
    plain = {1: photometric in LIKE_GREY, 3: photometric in LIKE_RGB, 4: photometric == CMYK}
    if not plain.get(samples) and tags:
        return f"of {samples} bands"
    if first.get(COMPRESSION, 1) not in COMPRESSIONS:
        return f"of compression {first[COMPRESSION]}"
    return ""


def georeferenced(path: Path) -> bool:
    """Whether a PNG, JPEG or TIFF says where on Earth it lies: in its tags, or in a file beside it.

    An unreadable file gives False: reading it later says why. Of other formats only GDAL knows.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(PNG))
            if head.startswith(TIFFS) and next(directories(file), {}).keys() & GEO_TAGS:
                return True
            return head.startswith((*TIFFS, PNG, JPEG)) and place_beside(path)
    except OSError:
        return False


def place_beside(path: Path) -> bool:
    """Whether a world file, RPCs or GDAL's .aux.xml beside a picture says where it lies."""
    if any(beside.exists() for beside in places_beside(path)):
        return True
    try:
        return bool(PAM_PLACE.search(path.with_name(path.name + PAM).read_bytes()))
    except OSError:
        return False


def places_beside(path: Path) -> Iterator[Path]:
    """The names of world files and RPCs of a picture, as GDAL looks for them."""
    ext = path.suffix[1:].lower()
    for suffix in (f"{ext[:1]}{ext[-1:]}w", f"{ext}w", "wld", "rpb"):
        yield from (path.with_suffix(f".{suffix}"), path.with_suffix(f".{suffix.upper()}"))
    for end in ("_RPC.TXT", "_rpc.txt"):
        yield path.with_name(path.stem + end)
