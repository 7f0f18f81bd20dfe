"""Measures the time from the start of a process to the first mask of a plan, and the process's peak memory.

    python -m dlink.bench.first roads.plan [--append rows.jsonl]

It runs in a process of its own, so that nothing else is loaded. The time counts from the start of the process.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path

import click

from dlink.bench.machine import peak_bytes
from dlink.bench.rows import append_row

IMPORTED = time.perf_counter()
STAT, UPTIME = Path("/proc/self/stat"), Path("/proc/uptime")
TICKS = 100  # a second
STARTED = 19  # index of the start time in /proc/self/stat, counted after the name in brackets


@click.command()
@click.argument("plan", type=click.Path(exists=True, path_type=Path))
@click.option("--append", type=click.Path(path_type=Path), help="Append the result as a line to this file.")
def main(plan: Path, append: Path | None) -> None:
    """Draw one mask of a picture."""
    from dlink.runtime import open_model

    begun = time.perf_counter()
    with open_model(plan) as model:
        opened = time.perf_counter()
        from dlink.bench.network import picture

        image = picture(model.spec.tile, planes=len(model.spec.bands))
        ready = time.perf_counter()
        model.mask(image)
        done = time.perf_counter()
        made = ready - opened  # the time to make the picture, which does not count
        result = {
            "engine": model.backend.engine,
            "file": {"name": plan.name},
            "first_mask_s": age(done) - made,
            "open_s": opened - begun,
            "mask_s": done - ready,
            "host_bytes": peak_bytes(),
        }
        if memory := getattr(model.backend, "memory", None):
            result["gpu_bytes"] = {**asdict(memory), "total": memory.total}
    click.echo(json.dumps(result))
    append_row(append, result)


def age(now: float) -> float:
    """The age of this process at a time, in seconds; without /proc the time since this module was imported."""
    if not STAT.exists():
        return now - IMPORTED
    started = int(STAT.read_text().rpartition(")")[2].split()[STARTED]) / TICKS
    since = float(UPTIME.read_text().split()[0]) - started
    return since - (time.perf_counter() - now)


if __name__ == "__main__":
    main()
