"""`dlink-scenes`: generated tiles with exact masks, in DeepGlobe's layout."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click

from dlink.cli import options
from dlink.cli.options import OUT_PATH
from dlink.cli.step import Step, progress


@click.command(cls=Step, short_help="Generate tiles with exact masks.")
@click.argument("out", type=OUT_PATH)
@click.option("--count", default=100, show_default=True, help="Number of scenes.")
@click.option("--size", default=1024, show_default=True, help="Side of a scene, px.")
@options.seed("Seed of the first scene; each next one adds 1.")
@options.workers("Processes.", 2)
def scenes(out: Path, count: int, size: int, seed: int, workers: int) -> None:
    """Write generated road scenes to the folder OUT: <seed>_sat.jpg and <seed>_mask.png."""
    out.mkdir(parents=True, exist_ok=True)
    show = progress("scenes")
    with ProcessPoolExecutor(workers) as pool:
        for i, _ in enumerate(pool.map(write_scene, *zip(*[(out, seed + i, size) for i in range(count)], strict=True))):
            show(i + 1, count, "")


def write_scene(out: Path, seed: int, size: int) -> None:
    from dlink.imagery.images import write_image
    from dlink.scenes import scene

    made = scene(seed, size)
    write_image(out / f"{seed:06d}_sat.jpg", made.image)
    write_image(out / f"{seed:06d}_mask.png", made.mask)
