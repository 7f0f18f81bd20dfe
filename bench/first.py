"""From the start of a process to the first mask of a plan, and the memory that the process then has had.

    python -m dlink.bench.first roads.plan [--append rows.jsonl]

Run it in a process of its own: nothing else is loaded, and the time counts from the process's beginning.
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
TICKS, STARTED = 100, 19  # a second, and where /proc says when a process began, after its name in brackets


@click.command()
@click.argument("plan", type=click.Path(exists=True, path_type=Path))
@click.option("--append", type=click.Path(path_type=Path), help="Append the result as a line here.")
def main(plan: Path, append: Path | None) -> None:
    """Draw one mask of a picture."""
    from dlink.runtime import open_model

    begun = time.perf_counter()
    with open_model(plan) as model:
        opened = time.perf_counter()
        from dlink.bench.network import picture

        image = picture(model.spec.tile)
        ready = time.perf_counter()
        model.mask(image)
        done = time.perf_counter()
        made = ready - opened  # the picture, which is nobody's cost
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
    """How old this process was at a time, in seconds; where the system does not say, how long its code runs."""
    if not STAT.exists():
        return now - IMPORTED
    started = int(STAT.read_text().rpartition(")")[2].split()[STARTED]) / TICKS
    since = float(UPTIME.read_text().split()[0]) - started
    return since - (time.perf_counter() - now)


if __name__ == "__main__":
    main()
