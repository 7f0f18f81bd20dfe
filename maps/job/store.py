"""Where the blocks of a map lie: in a folder, or in object storage through GDAL's /vsi file systems.

A block exists or it does not. A file gets its name when it is whole and on the disk; an object appears when its upload
is complete. So there is no list of what is done, and no database. Two files make a block: its roads, a GeoTIFF of two
bands (255 where there is road; the probability, 255 is 1), and its lines, arrays as NumPy writes them. In object
storage the latter are the samples of a TIFF of one row, because what GDAL copies are rasters.
"""

import errno
import io
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from dlink.imagery.gdal_file import GDAL_ERRORS, why
from dlink.imagery.geotiff import writing
from dlink.imagery.kinds import VSI
from dlink.imagery.source import Valid
from dlink.maps.job.grid import Grid
from dlink.runtime.errors import BadInput
from dlink.runtime.files import replacing
from dlink.runtime.windows import Span, Window

ROADS, LINES = ".tif", ".npz"
LATEST = 40  # blocks whose times give the rate
PLAN_TAG = "DLINK_PLAN"
Arrays = Mapping[str, NDArray[Any]]


class Store:
    """The blocks' files. `place` is a folder, or a path such as /vsis3/bucket/folder."""

    def __init__(self, place: str, mark: str) -> None:
        self.place = place.rstrip("/")
        self.mark = mark  # the plan's hash
        self.remote = place.startswith(VSI)
        self.folder = Path(self.place)

    def path(self, name: str) -> str:
        return f"{self.place}/{name}"

    def names(self) -> set[str]:
        """The files that are there."""
        if not self.remote:
            return {path.name for path in self.folder.glob("[!.]*")}
        import pyogrio

        pyogrio.vsi_curl_clear_cache(self.place)
        with suppress(NotADirectoryError, FileNotFoundError):
            return {name.rpartition("/")[2] for name in pyogrio.vsi_listtree(self.place)}
        return set()

    def rate(self) -> float:
        """Blocks of roads a second, by the times of the latest; 0: not known."""
        times = sorted(path.stat().st_mtime for path in self.folder.glob(f"[!.]*{ROADS}"))[-LATEST:]
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0

    def times(self) -> tuple[str, str]:
        """When the first and the last of the blocks of roads were made, in UTC; empty: not known."""
        times = [path.stat().st_mtime for path in self.folder.glob(f"[!.]*{ROADS}")]
        if not times:
            return "", ""
        one, other = (datetime.fromtimestamp(when, timezone.utc) for when in (min(times), max(times)))
        return f"{one:%Y-%m-%d %H:%M:%S}", f"{other:%Y-%m-%d %H:%M:%S} UTC"

    def put_roads(
        self, name: str, grid: Grid, core: tuple[slice, slice], bands: NDArray[np.uint8], valid: Valid
    ) -> None:
        """Write a block's roads: bands (2, H, W) and where there is data (H, W)."""
        shape = valid.shape[0], valid.shape[1]
        like = SimpleNamespace(shape=shape, crs=grid.system, transform=grid.part(*core), gcps=([], None), rpcs=None)
        whole = Window(Span(0, shape[0], 0, shape[0]), Span(0, shape[1], 0, shape[1]))
        said = {PLAN_TAG: self.mark}
        kind: dict[str, Any] = {"count": 2, "dtype": "uint8", "sparse_ok": not valid.any(), "lasting": True}
        with self.writable(name + ROADS) as path, writing(path, like, True, said, **kind) as file:
            file.put(whole, bands, valid)

    def put_lines(self, name: str, arrays: Arrays) -> None:
        """Write arrays for a block's lines."""
        data = io.BytesIO()
        np.savez_compressed(data, **{"plan": np.array(self.mark), **arrays})  # type: ignore[arg-type]
        bytes = data.getvalue()
        if not self.remote:
            with replacing(self.folder / (name + LINES), lasting=True) as part:
                part.write_bytes(bytes)
            return
        with self.writable(name + LINES) as path, warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, "w", driver="GTiff", height=1, width=len(bytes), count=1, dtype="uint8") as file:
                file.write(np.frombuffer(bytes, np.uint8)[None, None])

    def lines(self, name: str) -> dict[str, NDArray[Any]]:
        """The arrays of a block's lines."""
        path = self.path(name + LINES)
        try:
            if self.remote:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", NotGeoreferencedWarning)
                    with rasterio.open(path) as file:
                        data = file.read(1).tobytes()
            else:
                data = Path(path).read_bytes()
            arrays = dict(np.load(io.BytesIO(data)))
        except (*GDAL_ERRORS, ValueError, EOFError, OSError) as e:
            raise BadInput(f"{path}: damaged: {e}; remove it and run this again") from e
        self.check(path, str(arrays.pop("plan", "")))
        return arrays

    def check(self, path: str, mark: str | None) -> None:
        """Raise BadInput unless a file is of this plan."""
        if mark != self.mark:
            raise BadInput(f"{path}: a block of another map; choose another folder for this one, or remove its blocks")

    @contextmanager
    def writable(self, name: str) -> Iterator[Path]:
        """A local path to write a file to, which is uploaded at the end where the store is not local."""
        if not self.remote:
            yield self.folder / name
            return
        with TemporaryDirectory() as folder:
            path = Path(folder) / name
            yield path
            try:
                rasterio.shutil.copyfiles(str(path), self.path(name))
            except GDAL_ERRORS as e:
                raise OSError(errno.EIO, f"can't be written; GDAL says: {why(e)}", self.path(name)) from e

    def remove_roads(self, blocks: Iterable[str]) -> None:
        """Remove the roads of some blocks."""
        for block in blocks:
            self.remove(block + ROADS)

    def remove_lines(self) -> None:
        """Remove the lines of all blocks."""
        for name in self.names():
            if name.endswith(LINES):
                self.remove(name)

    def remove(self, name: str) -> None:
        if self.remote:
            import pyogrio

            pyogrio.vsi_unlink(self.path(name))
        else:
            (self.folder / name).unlink(missing_ok=True)

    def remove_unfinished(self) -> None:
        """Remove what killed writers have left. Nobody else may be writing."""
        if not self.remote and self.folder.is_dir():
            for path in self.folder.iterdir():
                if path.name.startswith("."):
                    path.unlink(missing_ok=True)
