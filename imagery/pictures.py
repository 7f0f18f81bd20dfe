"""Files in, files out: which image becomes which mask, and the plain pictures among them. Needs OpenCV.

A picture's mask is a PNG, uint8 (H, W), 255 where there is road and 0 elsewhere; its probabilities are a 16-bit PNG,
65535 for 1. In a folder `104_sat.jpg` becomes `104_mask.png`, as DeepGlobe names it, `104_prob.png` where
probabilities are asked for, and its overlay is `104_overlay.jpg`. A TIFF that says where on Earth it lies becomes a
.tif of each of these names instead (raster.py).

Pixels come as read_image gives them: a JPEG that its EXIF tag turns is turned first, so that its mask lies as viewers
show it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from dlink.imagery.images import SUFFIXES, Image, find_images, read_image, write_image
from dlink.imagery.tiff import directories
from dlink.runtime.backend import OutputForm, Roads
from dlink.runtime.errors import BadInput
from dlink.runtime.segmenter import Mask, Segmenter, Views, as_mask
from dlink.runtime.windows import Span, Window, cover, spans

# ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory (OGC 19-008r4) and RPCCoefficient (GDAL's)
GEO_TAGS = {33550, 33922, 34264, 34735, 50844}
WORLD_FILES = (".tfw", ".tifw", ".tiffw", ".wld")
LOSSLESS = (".png", ".tif", ".tiff")
COLOUR = (255, 0, 255)  # of roads in an overlay: magenta, which the ground seldom is
# What an overlay makes of each value of a pixel where there is road, (256, 1, 3).
TINT = ((np.arange(256)[:, None, None] * 6 + np.array(COLOUR) * 4) // 10).astype(np.uint8)
LARGE = 50_000_000  # pixels from which on reading, writing and painting take seconds each
STRIPE = 1024  # rows

Tick: TypeAlias = Callable[[int, int], None]  # called with (windows done, all windows)
Doing: TypeAlias = Callable[[str], None]  # called with what begins now and takes seconds


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is asked of every image. `views` is 8, 4, 1 or adaptive; None is the model's own."""

    views: Views = None
    probability: bool = False  # instead of the mask
    overlay: bool = False  # beside it

    @property
    def form(self) -> OutputForm:
        return "probability" if self.probability else "mask"


@dataclass(frozen=True)
class Job:
    """One image and the files that it becomes."""

    image: Path
    out: Path
    overlay: Path | None
    geo: bool  # a GeoTIFF, for raster.py

    @property
    def outs(self) -> list[Path]:
        return [self.out] if self.overlay is None else [self.out, self.overlay]


def find_jobs(arguments: Sequence[Path], out: Path, how: OutputOptions) -> list[Job]:
    """What is to be done for files and folders on a command line. Refuses clashes before anything is done.

    `out` is the file to write where there is one image and the name ends like an image's, otherwise a folder.
    """
    for path in arguments:
        if not path.exists():
            raise BadInput(f"{path}: no such file or folder")
    images = [image for path in arguments for image in (find_pictures(path) if path.is_dir() else [path])]
    named = out.suffix.lower() in SUFFIXES and not out.is_dir()
    if len(arguments) == 1 and not arguments[0].is_dir() and named:
        jobs = [named_job(images[0], out, how)]
    elif named or (out.exists() and not out.is_dir()):
        raise BadInput(
            f"{out}: a file; {'one image' if len(images) == 1 else f'{len(images)} images'} of "
            f"{arguments[0]} need the name of a folder"
        )
    else:
        jobs = [folder_job(image, out, how) for image in images]
    check_clashes(jobs)
    return jobs


def find_pictures(folder: Path) -> list[Path]:
    """The pictures directly in a folder without the masks and overlays of others there; at least one."""
    found = find_images(folder)
    ids = {p.stem.removesuffix("_sat") for p in found}
    tiles = any(p.stem.endswith("_sat") for p in found)

    def is_made(path: Path) -> bool:
        id, _, kind = path.stem.rpartition("_")
        return (kind == "mask" and tiles) or (kind in ("mask", "prob", "overlay") and id in ids)

    if pictures := [p for p in found if not is_made(p)]:
        return pictures
    raise BadInput(f"{folder}: no pictures in it; expected names ending in {', '.join(SUFFIXES)}")


def named_job(image: Path, out: Path, how: OutputOptions) -> Job:
    geo = georeferenced(image)
    if geo and out.suffix.lower() == ".png":
        raise BadInput(f"{out}: a PNG would lose the georeference of {image.name}; name it .tif")
    if out.suffix.lower() not in LOSSLESS:
        raise BadInput(f"{out}: JPEG blurs masks; name it {'.tif' if geo else '.png'}")
    stem = out.stem.removesuffix("_mask").removesuffix("_prob")
    return Job(image, out, overlay_of(out.with_name(stem), geo) if how.overlay else None, geo)


def folder_job(image: Path, folder: Path, how: OutputOptions) -> Job:
    geo = georeferenced(image)
    stem = image.stem.removesuffix("_sat")
    out = folder / f"{stem}_{'prob' if how.probability else 'mask'}{'.tif' if geo else '.png'}"
    return Job(image, out, overlay_of(folder / stem, geo) if how.overlay else None, geo)


def overlay_of(base: Path, geo: bool) -> Path:
    return base.with_name(f"{base.name}_overlay{'.tif' if geo else '.jpg'}")


def check_clashes(jobs: Sequence[Job]) -> None:
    """Refuse two images that would write one file, and whatever would replace an input or an input's label."""
    kept = {identity(p) for job in jobs for p in (job.image, label_of(job.image)) if p.exists()}
    writers: dict[Path, Path] = {}
    for job in jobs:
        for out in job.outs:
            if out in writers:
                raise BadInput(f"{writers[out]} and {job.image} would both write {out}; segment them into two folders")
            if out.exists() and identity(out) in kept:
                raise BadInput(f"{out}: is an input, or the label of one, and would be replaced; choose another output")
            writers[out] = job.image


def identity(path: Path) -> tuple[int, int]:
    """The same for all names of one file."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def label_of(image: Path) -> Path:
    """Where DeepGlobe keeps the label of `<id>_sat.*`; of other names, the image itself."""
    id, sat, rest = image.stem.rpartition("_sat")
    return image.with_name(f"{id}_mask.png") if sat and not rest else image


def georeferenced(path: Path) -> bool:
    """Whether a file is a TIFF with a place on Earth, in its first directory's tags or in a world file beside it.

    Looks at the tags alone, so that it needs no library. What can't be read is not: whoever reads it then says why.
    """
    try:
        with path.open("rb") as file:
            tags = next(directories(file), {})
    except OSError:
        return False
    return bool(tags.keys() & GEO_TAGS) or (bool(tags) and any(path.with_suffix(s).exists() for s in WORLD_FILES))


def begin(doing: Doing, what: str, height: int, width: int) -> None:
    """Tell what begins now, where so many pixels make it long."""
    if height * width >= LARGE:
        doing(f"{what} {width} x {height} px")


def segment_picture(job: Job, model: Segmenter, how: OutputOptions, tick: Tick, doing: Doing) -> None:
    """Write the mask of a picture, and its overlay if the job has one."""
    try:
        image = read_image(job.image, partial(begin, doing, "reading"))
    except OSError as e:  # of this image alone, unlike an output that can't be written
        raise BadInput(f"{job.image}: {e.strerror}") from e
    shape = image.shape[0], image.shape[1]
    begin(doing, "finding the roads in", *shape)
    roads = np.empty(shape, np.float32 if how.probability else np.uint8)
    for window, core in pieces(model, lambda w: image[w.outer], shape, how, tick):
        roads[window.core] = core
    job.out.parent.mkdir(parents=True, exist_ok=True)
    begin(doing, "writing", *shape)
    write_image(job.out, levels(roads) if how.probability else roads)
    if job.overlay:
        begin(doing, "painting", *shape)
        for rows in stripes(shape[0]):
            image[rows.core] = paint(image[rows.core], mask_of(roads[rows.start : rows.stop], model, how), rows.inner)
        write_image(job.overlay, image)


def levels(roads: Roads) -> NDArray[np.uint16]:
    """Probabilities in 16 bits, 65535 for 1."""
    out = np.empty(roads.shape, np.uint16)
    for rows in stripes(len(roads)):
        out[rows.core] = np.rint(roads[rows.core] * 65535)
    return out


def stripes(height: int) -> list[Span]:
    """A picture's rows a few at a time, with one more on either side: what is made of a large one is not made twice."""
    return spans(height, STRIPE, 1)


def pieces(
    model: Segmenter, read: Callable[[Window], Image], shape: tuple[int, ...], how: OutputOptions, tick: Tick
) -> Iterator[tuple[Window, Roads]]:
    """Segmenter.pieces of an image (H, W), in the form that is asked for, with a tick after each."""
    height, width = shape
    total = len(cover(height, width, model.spec.tile, model.halo))
    for done, piece in enumerate(model.pieces(read, height, width, how.views, how.form), 1):
        yield piece
        tick(done, total)


def mask_of(roads: Roads, model: Segmenter, how: OutputOptions) -> Mask:
    """The mask, of roads in the form that was asked for."""
    return as_mask(roads, model.threshold) if how.probability else roads


def paint(image: Image, mask: Mask, inner: slice = slice(None)) -> Image:
    """The image (H, W, 3) with its roads tinted and a line of one pixel along their inside.

    The mask may have more rows around those of the image, which are its `inner` ones.
    """
    line = ((mask > 0) & (cv2.erode(mask, np.ones((3, 3), np.uint8)) == 0))[inner]
    out: Image = image.copy()
    cv2.copyTo(cv2.LUT(image, TINT), np.ascontiguousarray(mask[inner]), out)
    out[line] = COLOUR
    return out
