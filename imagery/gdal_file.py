"""Opens a file by GDAL, safely: which drivers, under which name, with which settings; and what GDAL says of it.

The internet is never asked: a path of GDAL's /vsi systems is opened only when it is given. Needs rasterio.
"""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from dlink.imagery.formats import check_format
from dlink.imagery.kinds import TIFFS, remote
from dlink.imagery.tiff import Checker

CACHE = 24 << 20  # bytes that GDAL may keep of decoded blocks
GDAL_ERRORS = (RasterioError, CPLE_BaseError)  # rasterio wraps most of GDAL's errors, not all
DECODER = re.compile(r"\b(\w*Decode|JPEGLib):")  # marks a warning about pixels, not about tags
NETWORK = {"DAAS", "EEDA", "EEDAI", "HTTP", "PLMOSAIC", "STACIT", "STACTA", "WCS", "WMS", "WMTS"}  # drivers
OFFLINE = {"CPL_VSIL_CURL_ALLOWED_EXTENSIONS": "{none}"}  # so that a VRT does not lead to the network
PATIENT = {"GDAL_HTTP_CONNECTTIMEOUT": 20, "GDAL_HTTP_TIMEOUT": 120}  # seconds, of a server that does not answer


networked = False  # whether all files may lead to the network, since one of a job's is there


def allow_network() -> None:
    """From here on, in this process, a file may lead to the network."""
    global networked
    networked = True


@contextmanager
def gdal(path: Path) -> Iterator[None]:
    """GDAL's settings while a raster is read, without rasterio's warnings."""
    offline = PATIENT if networked or remote(path) else OFFLINE
    with rasterio.Env(GDAL_CACHEMAX=CACHE, GDAL_TIFF_INTERNAL_MASK=True, **offline), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # raised for RPCs and control points too
        warnings.simplefilter("ignore", NodataShadowWarning)
        yield


def open_file(path: Path, checker: Checker | None, stack: ExitStack) -> Any:
    """The open file, closed by `stack`."""
    return stack.enter_context(DatasetReader(name_of(path, stack), driver=drivers(checker)))


def without_overviews(dataset: Any, stack: ExitStack) -> Any:
    """The file opened anew so that its full resolution is read: most overviews leave pixels out, and some are old.

    What is opened so lacks the bands' descriptions and the place. A VRT of a VRT keeps the overviews of its sources.
    """
    if dataset.driver == "VRT" and Path(dataset.name).is_file():
        return stack.enter_context(rasterio.open(with_plain_sources(Path(dataset.name)), driver="VRT"))
    if not any(dataset.overviews(band) for band in dataset.indexes):
        return dataset
    return stack.enter_context(DatasetReader(dataset.name, driver=[dataset.driver], OVERVIEW_LEVEL="NONE"))


def with_plain_sources(vrt: Path) -> str:
    """The XML of a VRT whose sources are opened without their overviews, by absolute names."""
    tree = ElementTree.parse(vrt).getroot()
    for source in tree.iter():
        name = source.find("SourceFilename")
        if name is None or name.text is None:
            continue
        if name.get("relativeToVRT") == "1":
            name.text = str(vrt.absolute().parent / name.text)
            name.set("relativeToVRT", "0")
        if source.find("OpenOptions") is None:
            options = ElementTree.Element("OpenOptions")
            ElementTree.SubElement(options, "OOI", key="OVERVIEW_LEVEL").text = "NONE"
            source.insert(list(source).index(name) + 1, options)
    return ElementTree.tostring(tree, encoding="unicode")


def checker_of(path: Path, stack: ExitStack) -> Checker | None:
    """What checks the blocks of a TIFF before GDAL reads them. A PNG or a JPEG is checked here as a whole."""
    if remote(path):
        return None
    file = stack.enter_context(path.open("rb"))
    head = file.read(4)
    if head in TIFFS:
        return Checker(path, file)
    if head.startswith((b"\x89PNG", b"\xff\xd8")):
        check_format(path, path.read_bytes())
    return None


def drivers(tiff: Checker | None) -> list[str]:
    """The drivers that may open a file: TIFF's, or all without those that ask a network."""
    if tiff:
        return ["GTiff"]
    with rasterio.Env() as env:
        return sorted(set(env.drivers()) - NETWORK)


def name_of(path: Path, stack: ExitStack) -> str:
    """The file's name for GDAL. One that is not UTF-8 is linked, with the files beside it, under another name."""
    if remote(path):
        return remote_name(path)
    if is_utf_8(path):
        return str(path.absolute()) if ":" in str(path) else str(path)  # `zip:a.tif` would be an archive's file
    folder = Path(stack.enter_context(TemporaryDirectory()))
    for beside in path.parent.iterdir():
        if beside.name.startswith(path.stem):
            (folder / f"picture{beside.name.removeprefix(path.stem)}").symlink_to(beside.absolute())
    return str(folder / f"picture{path.suffix}")


def remote_name(path: Path) -> str:
    """The name of a file in GDAL's file systems with the double slashes that pathlib makes single."""
    name = re.sub(r"^(/vsi\w+/(?:https?|ftp)):/+", r"\1://", path.as_posix())
    _, system, *rest = path.parts
    if "://" not in name and Path("/", *rest[:1]).exists() and not Path(*rest[:1]).exists():
        return f"/{system}//{'/'.join(rest)}"  # an archive by its absolute path
    return name


def is_utf_8(path: Path) -> bool:
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


def with_colours(dataset: Any, stack: ExitStack) -> Any:
    """The dataset; of a palette a dataset of its red, green and blue."""
    if ColorInterp.palette not in dataset.colorinterp:
        return dataset
    band = dataset.colorinterp.index(ColorInterp.palette) + 1
    height, width = dataset.height, dataset.width
    rect = f'xOff="0" yOff="0" xSize="{width}" ySize="{height}"'
    block = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}"><ColorInterp>{name}</ColorInterp><ComplexSource><SourceFilename>'
        f'{escape(dataset.name)}</SourceFilename><OpenOptions><OOI key="OVERVIEW_LEVEL">NONE</OOI></OpenOptions>'
        f"<SourceBand>{band}</SourceBand><ColorTableComponent>{i}</ColorTableComponent><SrcRect {rect}/>"
        f"<DstRect {rect}/></ComplexSource></VRTRasterBand>"
        for i, name in enumerate(("Red", "Green", "Blue"), 1)
    )
    xml = f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">{block}</VRTDataset>'
    return stack.enter_context(rasterio.open(xml))


@contextmanager
def decoder_warnings() -> Iterator[list[str]]:
    """Collects the warnings of GDAL's decoders, which rasterio only logs. After one the pixels are wrong."""
    messages: list[str] = []
    log, handler = logging.getLogger("rasterio"), logging.Handler(logging.WARNING)
    handler.addFilter(lambda record: bool(DECODER.search(record.getMessage())))
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.WARNING)
    try:
        yield messages
    finally:
        log.setLevel(before)
        log.removeHandler(handler)


def why(e: BaseException) -> str:
    """GDAL's own message, which rasterio keeps in the cause."""
    return str(e.__cause__ or e)
