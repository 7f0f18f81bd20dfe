"""`dlink-segment`: model + images -> road masks."""

import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click

from dlink.cli import options
from dlink.cli.options import Picture, together
from dlink.cli.plans import OpenOptions, open_here
from dlink.cli.step import Step, one_line, progress
from dlink.runtime.errors import BadInput, DlinkError, within
from dlink.runtime.words import counted

if TYPE_CHECKING:
    from dlink.imagery.jobs import Job, OutputOptions
    from dlink.imagery.pictures import Doing
    from dlink.imagery.reading import Reading
    from dlink.runtime.progress import Count
    from dlink.runtime.segmenter import Segmenter

    Begin: TypeAlias = Callable[[Job, Segmenter, OutputOptions, Count, Doing], "Finish"]

Finish: TypeAlias = Callable[[], None]


@click.command(cls=Step, short_help="Draw the roads of images.")
@options.model
@click.argument("images", type=Picture(readable=False, path_type=Path), nargs=-1, required=True)
@options.output("A file (.png, .tif) for one image, or a folder.", required=True)
@together(
    "how",
    "imagery.pictures:OutputOptions",
    click.option("--probability", is_flag=True, help="Write probabilities: PNG 0..65535, GeoTIFF float32 0..1."),
    click.option("--overlay", is_flag=True, help="Also write the image with its roads painted over it."),
    options.any_views,
)
@options.reading()
@together(
    "opening",
    "cli.plans:OpenOptions",
    options.threshold("Road where the probability is greater.  [default: the model's]"),
    click.option(
        "--halo", type=int, help="Context around every window's core, px.  [default: 64, less for a small tile]"
    ),
    options.threads,
    options.require_verdict,
    options.key,
    options.rebuild,
    options.scout,
)
def segment(
    model: Path, images: tuple[Path, ...], out: Path, how: "OutputOptions", reading: "Reading", opening: OpenOptions
) -> None:
    """Write the roads that MODEL finds in IMAGES to OUT.

    IMAGES are pictures or rasters of any size, or folders of them: PNG, JPEG, TIFF, and what GDAL knows. 104_sat.jpg
    becomes 104_mask.png, 255 where there is road. A raster that says where it lies becomes a GeoTIFF on the same
    grid. Existing outputs are replaced, inputs never.
    """
    from dlink.imagery.jobs import find_jobs
    from dlink.imagery.side_by_side import slots_for
    from dlink.runtime.onnx_bytes import read_onnx
    from dlink.runtime.segmenter import views_of

    if how.views != "adaptive":
        views_of(how.views)
    jobs = find_jobs(images, out, how, reading)
    work = workers(jobs)
    # Of a plan there are two whatever the images. A model that can't be read is refused by open_here.
    slots = None
    if model.suffix == ".onnx" and model.is_file():
        slots = slots_for(jobs, read_onnx(model).spec, opening.halo, opening.threads)
    with open_here(model, opening, slots) as segmenter:
        failed = run(jobs, work, segmenter, how)
    if failed:
        raise click.ClickException(f"{failed} of {counted(len(jobs), 'image')} failed; the others are done")


def workers(jobs: "list[Job]") -> "dict[bool, Begin]":
    """The function for a picture (False), and the one for a raster that says where it lies (True)."""
    from dlink.imagery.pictures import begin_picture

    geo = next((job.image for job in jobs if job.geo), None)
    if geo is None:
        return {False: begin_picture}
    try:
        from dlink.imagery.raster import segment_raster
    except ModuleNotFoundError as e:
        raise BadInput(f"{geo}: to keep its georeference, pip install 'dlink[geo]'") from e
    return {False: begin_picture, True: partial(partial, segment_raster)}


def run(jobs: "list[Job]", work: "dict[bool, Begin]", model: "Segmenter", how: "OutputOptions") -> int:
    """Do the jobs, and count failures. The error of a single job is raised; of several, each is a line on stderr.

    A picture is begun before the one ahead of it is finished if the model has several slots. A raster is done alone,
    because GDAL's settings are those of the whole process.
    """
    show = progress("segment")
    alone = len(jobs) == 1
    failed = 0
    begun: deque[tuple[int, Job, Finish]] = deque()

    def begin(i: int, job: "Job") -> Finish:
        def tick(done: int, total: int) -> None:
            if alone:
                show(done, total, "windows")
            else:
                show(i, len(jobs), f"images, {job.image.name} {done}/{total}")

        def doing(words: str) -> None:
            if alone:
                show(0, 0, words, at_once=True)
            else:
                show(i, len(jobs), f"images, {job.image.name}: {words}", at_once=True)

        try:
            return work[job.geo](job, model, how, tick, doing)
        except DlinkError as e:
            return partial(fail, e)  # in its turn

    def finish(i: int, job: "Job", rest: Finish) -> None:
        nonlocal failed
        try:
            with within(job.image):
                rest()
        except DlinkError as e:
            if alone:
                raise
            failed += 1
            over_progress(f"Error: {one_line(e)}", err=True)
        else:
            over_progress(str(job.out))
        if not alone:
            show(i + 1, len(jobs), "images")

    for i, job in enumerate(jobs):
        while begun and (job.geo or len(begun) >= model.backend.slots):
            finish(*begun.popleft())
        begun.append((i, job, begin(i, job)))
        if job.geo:
            finish(*begun.popleft())
    while begun:
        finish(*begun.popleft())
    return failed


def fail(error: DlinkError) -> None:
    raise error


def over_progress(line: str, err: bool = False) -> None:
    """Print a line; on a terminal it replaces the progress line."""
    if sys.stderr.isatty():
        click.echo("\r\033[K", nl=False, err=True)
    click.echo(line, err=err)
