"""Notices that a raster is no longer that of the plan: the files that GDAL reads for it, and what each was.

These are the raster, what a VRT points to (also through other VRTs), masks, world files and other files beside them. A
file's mark is its size and the time of its last change. The mark of an `.aux.xml` is what it says without statistics,
because viewers write those. Overviews are left out: no block is made of them.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import rasterio

from dlink.imagery.gdal_file import GDAL_ERRORS, is_utf_8
from dlink.imagery.kinds import remote

OVERVIEWS = ".ovr"
AUX, BESIDE = ".aux.xml", (".msk", ".aux.xml")  # BESIDE: files that change a raster as soon as they are there
STATISTICS = "STATISTICS_"
EMPTY = ("PAMRasterBand", "Metadata")  # elements that say nothing by themselves


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A file, and its mark when the map was planned."""

    name: str  # an absolute path
    mark: str


def watched_files(path: Path, dataset: Any) -> tuple[Watched, ...]:
    """The files of an open raster, the raster itself first. Those that are on no disk are not watched."""
    if not (own := on_disk(path)):
        return ()
    names = [str(own)]
    if is_utf_8(path):
        names += [str(on_disk(Path(name))) for name in named(dataset, set())]
    else:  # GDAL knows it by a link
        names += [str(each.absolute()) for each in path.parent.iterdir() if each.name.startswith(path.stem)]
    known = dict.fromkeys(name for name in names if name and not name.endswith(OVERVIEWS))
    found = (Watched(name=name, mark=mark_of(Path(name))) for name in known)
    return tuple(each for each in found if each.mark)


def named(dataset: Any, seen: set[str]) -> Iterator[str]:
    """The files that GDAL names, and those of the VRTs among them."""
    for name in dataset.files:
        if name in seen:
            continue
        seen.add(name)
        yield name
        if name.lower().endswith(".vrt") and name != dataset.name:
            try:
                with rasterio.open(name) as inner:
                    yield from named(inner, seen)
            except GDAL_ERRORS:  # whoever reads it says so
                continue


def on_disk(path: Path) -> Path | str:
    """The file that must be there: of a path into an archive the archive; empty if there is none on a disk."""
    if not remote(path):
        return path.absolute()
    inner = Path("/", *path.parts[2:])
    if not inner.exists() and not any(each.is_file() for each in inner.parents):
        inner = Path(*path.parts[2:]).absolute()
    return next((each for each in (inner, *inner.parents) if each.is_file()), "")


def mark_of(path: Path) -> str:
    """A file's mark; empty if it is not there, or says nothing but statistics."""
    try:
        if path.name.endswith(AUX):
            return said_by(path)
        stat = path.stat()
    except OSError:
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns}"


def said_by(path: Path) -> str:
    """A hash of an `.aux.xml` without its statistics and histograms; empty if nothing else is in it."""
    data = path.read_bytes()
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha256("\n".join(words).encode()).hexdigest() if (words := [*statements(root)]) else ""


def statements(element: ElementTree.Element) -> Iterator[str]:
    """What an element says, a line each."""
    if element.tag == "Histograms" or element.get("key", "").startswith(STATISTICS):
        return
    inner = [line for child in element for line in statements(child)]
    text = (element.text or "").strip()
    if inner or text or (element.items() and element.tag not in EMPTY):
        yield f"{element.tag} {sorted(element.items())} {text}"
        yield from inner


def difference(files: Iterable[Watched]) -> str:
    """The name of the first file that is not as it was; empty if all are."""
    known = {each.name: each.mark for each in files}
    for name, mark in known.items():
        if mark_of(Path(name)) != mark:
            return name
    for name in known:
        for beside in BESIDE:
            if (other := name + beside) not in known and mark_of(Path(other)):
                return other
    return ""
