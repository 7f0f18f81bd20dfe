"""Which image becomes which files. Refuses clashes before anything is done.

A picture's mask is a PNG. In a folder `104_sat.jpg` becomes `104_mask.png`, as DeepGlobe names it, `104_prob.png` where
probabilities are asked for, and its overlay is `104_overlay.jpg`. Of scene.jp2 and scene.tif in one folder the
names are scene_jp2_mask and scene_tif_mask. A picture that says where on Earth it lies becomes a
.tif of each of these names instead (raster.py).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlink.imagery.images import find_images, raster_source
from dlink.imagery.kinds import PLAIN, SUFFIXES, georeferenced, remote
from dlink.imagery.reading import RGB, Reading
from dlink.runtime.backend import OutputForm
from dlink.runtime.errors import BadInput
from dlink.runtime.segmenter import Views

LOSSLESS = (".png", ".tif", ".tiff")


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
    geo: bool  # says where on Earth it lies: segment_raster does it, not segment_picture
    reading: Reading = RGB

    @property
    def outs(self) -> list[Path]:
        return [self.out] if self.overlay is None else [self.out, self.overlay]


def find_jobs(arguments: Sequence[Path], out: Path, how: OutputOptions, reading: Reading = RGB) -> list[Job]:
    """Plan the output of images and folders. Clashes are refused before anything is written.

    Args:
        arguments: Images and folders of images.
        out: The file to write, if there is one image and the name ends like an image's; otherwise a folder.
        how: What to write.
        reading: How the images are read.

    Returns:
        One job for each image.

    Raises:
        BadInput: A path does not exist, two jobs would write one file, or an output would replace an input.

    Example:
        >>> from pathlib import Path
        >>> from dlink.imagery.jobs import OutputOptions, find_jobs
        >>> jobs = find_jobs([Path("tiles")], Path("masks"), OutputOptions(overlay=True))
        >>> [path.as_posix() for job in jobs for path in job.outs]
        ['masks/104_mask.png', 'masks/104_overlay.jpg']
    """
    for path in arguments:
        if not (path.exists() or remote(path)):
            raise BadInput(f"{path}: no such file or folder")
    images = [image for path in arguments for image in (find_pictures(path) if path.is_dir() else [path])]
    named = out.suffix.lower() in SUFFIXES and not out.is_dir()
    if len(arguments) == 1 and not arguments[0].is_dir() and named:
        jobs = [named_job(images[0], out, how, reading)]
    elif named or (out.exists() and not out.is_dir()):
        raise BadInput(
            f"{out}: a file; {'one image' if len(images) == 1 else f'{len(images)} images'} of "
            f"{arguments[0]} need the name of a folder"
        )
    else:
        stems = Counter((image.parent, base_of(image)) for image in images)
        jobs = [folder_job(image, out, how, reading, stems[image.parent, base_of(image)] > 1) for image in images]
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


def named_job(image: Path, out: Path, how: OutputOptions, reading: Reading) -> Job:
    geo = placed(image)
    if geo and out.suffix.lower() == ".png":
        raise BadInput(f"{out}: a PNG would lose the georeference of {image.name}; name it .tif")
    if out.suffix.lower() not in LOSSLESS:
        raise BadInput(f"{out}: JPEG blurs masks; name it {'.tif' if geo else '.png'}")
    stem = out.stem.removesuffix("_mask").removesuffix("_prob")
    return Job(image, out, overlay_of(out.with_name(stem), geo) if how.overlay else None, geo, reading)


def folder_job(image: Path, folder: Path, how: OutputOptions, reading: Reading, doubled: bool) -> Job:
    """The job of an image of a folder. `doubled`: another image has its name, apart from the suffix."""
    geo = placed(image)
    stem = base_of(image) + (f"_{image.suffix[1:]}" if doubled else "")
    out = folder / f"{stem}_{'prob' if how.probability else 'mask'}{'.tif' if geo else '.png'}"
    return Job(image, out, overlay_of(folder / stem, geo) if how.overlay else None, geo, reading)


def base_of(image: Path) -> str:
    return image.stem.removesuffix("_sat")


def placed(image: Path) -> bool:
    """Whether an image says where on Earth it lies. Of other formats than PNG, JPEG and TIFF only GDAL knows it.

    True if GDAL can't tell: segmenting the image says why.
    """
    if image.suffix.lower() in PLAIN and not remote(image):
        return georeferenced(image)
    try:
        with raster_source(image, Reading(gsd="native"), "of another format") as source:
            return source.placed
    except BadInput:
        return True


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
