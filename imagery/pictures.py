"""Plans which image becomes which mask file, and segments plain pictures. Needs OpenCV.

A picture's mask is a PNG, uint8 (H, W), 255 where there is road and 0 elsewhere. Probabilities are a 16-bit PNG, 65535
for 1. In a folder `104_sat.jpg` becomes `104_mask.png` (DeepGlobe's name) or `104_prob.png`, and its overlay is
`104_overlay.jpg`. A georeferenced TIFF becomes a .tif of the same names (raster.py).

Pixels come from read_image. A JPEG with an EXIF orientation is turned first, so its mask lies as viewers show the JPEG.
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
# An overlay's new value for each value of a road pixel, (256, 1, 3).
TINT = ((np.arange(256)[:, None, None] * 6 + np.array(COLOUR) * 4) // 10).astype(np.uint8)
LARGE = 50_000_000  # pixels; from this size on, reading, writing and painting take seconds each
STRIPE = 1024  # rows

Tick: TypeAlias = Callable[[int, int], None]  # called with (windows done, all windows)
Doing: TypeAlias = Callable[[str], None]  # called with the name of a step that takes seconds, before it begins


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What to write for every image."""

    views: Views = None  # 8, 4, 1 or "adaptive"; None: the model's own
    probability: bool = False  # write probabilities instead of the mask
    overlay: bool = False  # write an overlay too

    @property
    def form(self) -> OutputForm:
        return "probability" if self.probability else "mask"


@dataclass(frozen=True)
class Job:
    """One image and the files to write for it."""

    image: Path
    out: Path
    overlay: Path | None
    geo: bool  # a GeoTIFF: segment_raster does it, not segment_picture

    @property
    def outs(self) -> list[Path]:
        return [self.out] if self.overlay is None else [self.out, self.overlay]


def find_jobs(arguments: Sequence[Path], out: Path, how: OutputOptions) -> list[Job]:
    """Plan the output of images and folders. Clashes are refused before anything is written.

    Args:
        arguments: Images and folders of images.
        out: The file to write, if there is one image and the name ends like an image's; otherwise a folder.
        how: What to write.

    Returns:
        One job for each image.

    Raises:
        BadInput: A path does not exist, two jobs would write one file, or an output would replace an input.

    Example:
        >>> from pathlib import Path
        >>> from dlink.imagery.pictures import OutputOptions, find_jobs
        >>> jobs = find_jobs([Path("tiles")], Path("masks"), OutputOptions(overlay=True))
        >>> [path.as_posix() for job in jobs for path in job.outs]
        ['masks/104_mask.png', 'masks/104_overlay.jpg']
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
    """The pictures directly in a folder, without masks, probabilities and overlays of others; at least one."""
    images = find_images(folder)
    ids = {p.stem.removesuffix("_sat") for p in images}
    has_tiles = any(p.stem.endswith("_sat") for p in images)

    def is_output(path: Path) -> bool:
        id, _, kind = path.stem.rpartition("_")
        return (kind == "mask" and has_tiles) or (kind in ("mask", "prob", "overlay") and id in ids)

    if pictures := [p for p in images if not is_output(p)]:
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
    """Raise BadInput if two images would write one file, or an output would replace an input or its label."""
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
    """Device and inode: equal for all names of one file."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def label_of(image: Path) -> Path:
    """The path of the label of `<id>_sat.*` in DeepGlobe; for other names the image itself."""
    id, sat, rest = image.stem.rpartition("_sat")
    return image.with_name(f"{id}_mask.png") if sat and not rest else image


def georeferenced(path: Path) -> bool:
    """Whether a file is a TIFF with a georeference, in its first directory's tags or in a world file beside it.

    Needs no library, because only tags are read. An unreadable file gives False: reading it later says why.
    """
    try:
        with path.open("rb") as file:
            tags = next(directories(file), {})
    except OSError:
        return False
    return bool(tags.keys() & GEO_TAGS) or (bool(tags) and any(path.with_suffix(s).exists() for s in WORLD_FILES))


def begin(doing: Doing, what: str, height: int, width: int) -> None:
    """Announce a step if so many pixels make it long."""
    if height * width >= LARGE:
        doing(f"{what} {width} x {height} px")


def segment_picture(job: Job, model: Segmenter, how: OutputOptions, tick: Tick, doing: Doing) -> None:
    """Write the mask or the probabilities of a picture, and its overlay if the job has one.

    Args:
        job: The image and its outputs, from find_jobs; not a GeoTIFF.
        model: The open model.
        how: What to write.
        tick: Called with (windows done, all windows).
        doing: Called with the name of each long step of a picture of 50 megapixels or more.

    Raises:
        BadInput: The picture is damaged or cannot be read.
        EngineFailed: The engine failed, or a result is not a probability.
        OSError: An output cannot be written.

    Example:
        >>> from pathlib import Path
        >>> from dlink.imagery.images import read_label
        >>> from dlink.imagery.pictures import OutputOptions, find_jobs, segment_picture
        >>> from dlink.runtime import open_model
        >>> how = OutputOptions(views=1)
        >>> [job] = find_jobs([Path("tiles/104_sat.png")], Path("roads.png"), how)
        >>> with open_model("roads.onnx") as model:
        ...     segment_picture(job, model, how, tick=lambda done, total: None, doing=print)
        >>> int(read_label(Path("roads.png")).sum())  # road pixels
        3000
    """
    try:
        image = read_image(job.image, partial(begin, doing, "reading"))
    except OSError as e:  # concerns this image only, unlike an output that can't be written
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
    """A picture's rows in stripes with one row more on either side, so that no copy of a large picture is needed."""
    return spans(height, STRIPE, 1)


def pieces(
    model: Segmenter, read: Callable[[Window], Image], shape: tuple[int, ...], how: OutputOptions, tick: Tick
) -> Iterator[tuple[Window, Roads]]:
    """Segmenter.pieces of an image (H, W) in the output form, with a tick after each piece."""
    height, width = shape
    total = len(cover(height, width, model.spec.tile, model.halo))
    for done, piece in enumerate(model.pieces(read, height, width, how.views, how.form), 1):
        yield piece
        tick(done, total)


def mask_of(roads: Roads, model: Segmenter, how: OutputOptions) -> Mask:
    """The mask, from roads in the output form."""
    return as_mask(roads, model.threshold) if how.probability else roads


def paint(image: Image, mask: Mask, inner: slice = slice(None)) -> Image:
    """The image (H, W, 3) with its roads tinted and a line one pixel wide along their inside.

    The mask may have further rows above and below; `inner` are the image's.
    """
    line = ((mask > 0) & (cv2.erode(mask, np.ones((3, 3), np.uint8)) == 0))[inner]
    out: Image = image.copy()
    cv2.copyTo(cv2.LUT(image, TINT), np.ascontiguousarray(mask[inner]), out)
    out[line] = COLOUR
    return out
