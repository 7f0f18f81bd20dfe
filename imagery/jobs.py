"""Which image becomes which files. Refuses clashes before anything is done.

A picture's mask is a PNG. In a folder `104_sat.jpg` becomes `104_mask.png`, as DeepGlobe names it, `104_prob.png` where
probabilities are asked for, and its overlay is `104_overlay.jpg`. A TIFF that says where on Earth it lies becomes a
.tif of each of these names instead (raster.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlink.imagery.images import SUFFIXES, find_images
from dlink.imagery.tiff import georeferenced
from dlink.runtime.backend import OutputForm
from dlink.runtime.errors import BadInput
from dlink.runtime.segmenter import Views

LOSSLESS = (".png", ".tif", ".tiff")


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
