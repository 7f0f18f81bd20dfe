"""`dlink-segment`: model + images -> road masks."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click

from dlink.cli.plans import open_here, plan_options
from dlink.cli.step import IN_FILE, OUT_PATH, VIEWS, Step, one_line, progress
from dlink.runtime.errors import BadInput, DlinkError, within

if TYPE_CHECKING:
    from dlink.imagery.jobs import Job, OutputOptions
    from dlink.imagery.pictures import Doing
    from dlink.runtime.progress import Count
    from dlink.runtime.segmenter import Segmenter, Views

    Work: TypeAlias = Callable[[Job, Segmenter, OutputOptions, Count, Doing], None]


@click.command(cls=Step)
@click.argument("model", type=IN_FILE)
@click.argument("images", type=click.Path(readable=False, path_type=Path), nargs=-1, required=True)
@click.option(
    "-o", "--output", "out", type=OUT_PATH, required=True, help="A file (.png, .tif) for one image, or a folder."
)
@click.option("--probability", is_flag=True, help="Write probabilities: PNG 0..65535, GeoTIFF float32 0..1.")
@click.option("--overlay", is_flag=True, help="Also write the image with its roads painted over it.")
@click.option("--views", type=VIEWS, help="Test-time augmentation: 8, 4, 1 or adaptive.  [default: the model's]")
@click.option("--threshold", type=float, help="Road where the probability is greater.  [default: the model's]")
@click.option(
    "--halo", type=int, help="Context kept around every window's core, px.  [default: 64, or less by the tile]"
)
@click.option("--threads", type=int, help="CPU threads.  [default: all]")
@click.option("--require-verdict", is_flag=True, help="Take only a plan that dlink-check has passed.")
@plan_options
def segment(
    model: Path,
    images: tuple[Path, ...],
    out: Path,
    probability: bool,
    overlay: bool,
    views: "Views",
    threshold: float | None,
    halo: int | None,
    threads: int | None,
    require_verdict: bool,
    keys: tuple[Path, ...],
    rebuild: bool,
) -> None:
    """Write the roads that MODEL finds in IMAGES to OUT.

    IMAGES are PNG, JPEG and TIFF files of any size, or folders of them. 104_sat.jpg becomes 104_mask.png, 255 where
    there is road. A GeoTIFF becomes a GeoTIFF on the same grid. Existing outputs are replaced, inputs never.
    """
    from dlink.imagery.jobs import OutputOptions, find_jobs
    from dlink.runtime.segmenter import views_of

    how = OutputOptions(views=views, probability=probability, overlay=overlay)
    if views != "adaptive":
        views_of(views)
    jobs = find_jobs(images, out, how)
    work = workers(jobs)
    how_opened = {"halo": halo, "threshold": threshold, "threads": threads, "require_verdict": require_verdict}
    with open_here(model, keys, rebuild, **how_opened) as segmenter:
        failed = run(jobs, work, segmenter, how)
    if failed:
        raise click.ClickException(f"{failed} of {len(jobs)} images failed; the others are done")


def workers(jobs: "list[Job]") -> "dict[bool, Work]":
    """What does a picture (False) and what does a GeoTIFF (True)."""
    from dlink.imagery.pictures import segment_picture

    geo = next((job.image for job in jobs if job.geo), None)
    if geo is None:
        return {False: segment_picture}
    try:
        from dlink.imagery.raster import segment_raster
    except ModuleNotFoundError as e:
        raise BadInput(f"{geo}: a GeoTIFF; to keep its georeference, pip install 'dlink[geo]'") from e
    return {False: segment_picture, True: segment_raster}


def run(jobs: "list[Job]", work: "dict[bool, Work]", model: "Segmenter", how: "OutputOptions") -> int:
    """Do the jobs; how many failed. A single one's error is raised; of many, each is a line on stderr."""
    show = progress("segment")
    alone = len(jobs) == 1
    failed = 0
    for i, job in enumerate(jobs):

        def tick(done: int, total: int, i: int = i, job: "Job" = job) -> None:
            if alone:
                show(done, total, "windows")
            else:
                show(i, len(jobs), f"images, {job.image.name} {done}/{total}")

        def doing(words: str, i: int = i, job: "Job" = job) -> None:
            if alone:
                show(0, 0, words, at_once=True)
            else:
                show(i, len(jobs), f"images, {job.image.name}: {words}", at_once=True)

        try:
            with within(job.image):
                work[job.geo](job, model, how, tick, doing)
        except DlinkError as e:
            if alone:
                raise
            failed += 1
            say(f"Error: {one_line(e)}", err=True)
        else:
            say(str(job.out))
        if not alone:
            show(i + 1, len(jobs), "images")
    return failed


def say(line: str, err: bool = False) -> None:
    """Print a line, over the progress line where there is one on a terminal."""
    if sys.stderr.isatty():
        click.echo("\r\033[K", nl=False, err=True)
    click.echo(line, err=err)
