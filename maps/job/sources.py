"""Which rasters a map is made of: files, folders, patterns, lists of names, GDAL's file systems and addresses."""

import glob
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dlink.imagery.kinds import SUFFIXES
from dlink.imagery.notes import say
from dlink.maps.job.addresses import remote_path
from dlink.maps.stac import stac_sources
from dlink.runtime.errors import BadInput
from dlink.runtime.words import counted

LISTS = (".txt", ".lst")
ITEMS = (".json", ".geojson")  # of a STAC catalogue
RESULTS = ("_mask", "_prob", "_overlay")  # end the names of dlink-segment's files
PATTERN = "*?["
PLAN = "plan.json"
OF_A_PLAN = {"format", "dlink", "grid", "sources"}  # keys of every version


def found_sources(names: Sequence[str], without: Path, asset: str | None = None) -> list[str]:
    """The rasters that names stand for, each once, in the order of the names.

    Args:
        names: Files, folders (with their subfolders), patterns such as `*.tif`, `.txt` files of names, addresses,
            paths of GDAL's file systems, and files of STAC items.
        without: A folder that is left out, that of the map itself.
        asset: Which asset of STAC items; None: the only raster of each.

    Returns:
        Absolute paths, and paths of GDAL's file systems.

    Raises:
        BadInput: A name stands for nothing.
    """
    found = [each for name in names for each in expanded(name, Path(), without.absolute(), asset)]
    return list(dict.fromkeys(found))


def expanded(name: str, folder: Path, without: Path, asset: str | None) -> Iterator[str]:
    """The rasters of one name; relative names begin at `folder`."""
    if (remote := remote_path(name)) is not None:
        yield remote
        return
    path = folder / name
    if path.is_dir():
        yield from in_folder(path, without)
    elif path.suffix.lower() in LISTS and path.is_file():
        yield from listed(path, without, asset)
    elif path.suffix.lower() in ITEMS and path.is_file():
        yield from stac_sources(path, asset)
    elif path.exists():
        yield whole(path)
    elif any(sign in name for sign in PATTERN):
        matched = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - also absolute patterns
        if not matched:
            raise BadInput(f"{name}: no file matches it")
        for each in matched:
            if not Path(each).is_dir():
                yield whole(each)
    else:
        raise BadInput(f"{path}: no such file or folder")


def in_folder(folder: Path, without: Path) -> Iterator[str]:
    """The rasters of a folder and its subfolders, sorted, without hidden ones, results of dlink, and `without`.

    Links to folders are followed, each folder once. What is left out as a result is said.
    """
    found: list[str] = []
    seen = {identity(folder), identity(without)}
    for root, folders, files in os.walk(folder, followlinks=True):
        here = Path(whole(root))
        folders[:] = [name for name in sorted(folders) if is_wanted(here / name, seen)]
        rasters = [f for f in sorted(files) if Path(f).suffix.lower() in SUFFIXES and not f.startswith(".")]
        results = [f for f in rasters if Path(f).stem.endswith(RESULTS)]
        if results:
            many = counted(len(results), "file is", "files are")
            say(here / results[0], f"is left out: names ending in {', '.join(RESULTS)} are results", f"; here {many}")
        found += [str(here / f) for f in rasters if f not in results]
    if not found:
        raise BadInput(f"{folder}: no rasters in it; expected names ending in {', '.join(SUFFIXES)}")
    yield from found


def identity(folder: Path) -> tuple[int, int] | None:
    """What is the same for two names of a folder; None if there is none."""
    try:
        stat = folder.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def is_wanted(folder: Path, seen: set[tuple[int, int] | None]) -> bool:
    """Whether rasters are looked for in a subfolder: it is not hidden, was not seen yet, and is no map."""
    own = identity(folder)
    if folder.name.startswith(".") or own in seen:
        return False
    seen.add(own)
    if not is_map(folder):
        return True
    say(folder, "is a map, whose results are no pictures; its files are left out")
    return False


def is_map(folder: Path) -> bool:
    """Whether a folder is that of a map: a plan of another program is none."""
    try:
        values = json.loads((folder / PLAN).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and values.keys() >= OF_A_PLAN


def whole(path: Path | str) -> str:
    """An absolute path without `..`; links stay."""
    return os.path.abspath(path)  # noqa: PTH100 - Path.resolve follows links


def listed(path: Path, without: Path, asset: str | None) -> Iterator[str]:
    """The rasters that a list names, one a line; relative names begin at the list's folder."""
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError as e:
        raise BadInput(f"{path}: not a list of names, one a line in UTF-8") from e
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise BadInput(f"{path}: a list without names; write one raster a line")
    for name in names:
        if Path(name).suffix.lower() in LISTS:
            raise BadInput(f"{path}: names the list {name}; lists cannot hold lists")
        try:
            yield from expanded(name, path.parent, without, asset)
        except BadInput as e:
            raise BadInput(f"{path}: {e}") from e


def in_words(names: Sequence[str], most: int = 3) -> str:
    """The first of some names, and how many there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {counted(len(names) - most, 'more', 'more')}"
