"""Times PyTorch from image to mask, both in host memory, for one tile with eight views and with one view.

    python -m dlink.bench.gpu.peer roads.th [--append rows.jsonl]

The ways are those of bench/runtime.py, for a Python that has PyTorch but no engine. Each way's line is written at once.
"""

import json
import time
from pathlib import Path

import click
import numpy as np

from dlink.bench.network import picture
from dlink.bench.rows import append_row
from dlink.bench.runtime import WARMUP, torch_ways


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option("--side", default=1024, show_default=True, help="Side of the tile, px.")
@click.option("--calls", default=30, show_default=True, help="Calls of each way.")
@click.option("--append", type=click.Path(path_type=Path), help="Append the results as lines to this file.")
def main(checkpoint: Path, side: int, calls: int, append: Path | None) -> None:
    """Time PyTorch's ways."""
    ways = torch_ways(checkpoint)
    if not ways:
        raise click.ClickException("this needs a PyTorch with a GPU")
    failed = 0
    images = picture(side)[None]
    for name, way in ways.items():
        for views in (8, 1) if name != "torch authors" else (8,):
            row: dict[str, object] = {"peer": name, "tiles": 1, "views": views, "tile": side}
            try:
                times = []
                for call in range(-WARMUP, calls):
                    begun = time.perf_counter()
                    way(images, views)
                    if call >= 0:
                        times.append((time.perf_counter() - begun) * 1e3)
                row |= dict(zip(("p50", "p99"), map(float, np.percentile(times, (50, 99))), strict=True))
            except Exception as e:  # torch.compile may lack a compiler
                row["error"] = f"{type(e).__name__}: {e}"[:500]
                failed += 1
            click.echo(json.dumps(row))
            append_row(append, row)
    if failed:
        raise click.ClickException(f"{failed} of PyTorch's ways failed; see the lines above")


if __name__ == "__main__":
    main()
