"""`dlink-demo`: every step from checkpoint to masks, on generated scenes, with pictures."""

from pathlib import Path

import click

from dlink.cli import options
from dlink.cli.options import IN_FILE, OUT_PATH
from dlink.cli.step import Step


@click.command(cls=Step, short_help="Run every step once, on generated scenes.")
@click.argument("image", type=IN_FILE, required=False)
@click.option("-o", "--output", "out", type=OUT_PATH, default=Path("demo"), show_default="demo", help="Folder to fill.")
@click.option("--size", default=2048, show_default=True, help="Side of the generated scene, px.")
@options.seed("Seed of the scene.", 1_000_007)
def demo(image: Path | None, out: Path, size: int, seed: int) -> None:
    """Take the embedded network from checkpoint to road masks: of a generated scene, and of IMAGE if given."""
    from dlink.bench.demo import Demo

    Demo(out, click.echo).run(image, size, seed)
