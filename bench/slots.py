"""Measures one slot and two of an ONNX file on a CPU: tiles a second, alone and beside a process that spins.

    python -m dlink.bench.slots roads.onnx --append bench/results.jsonl

The models run in turn, so other load meets all of them. The best round is the one with the least of it.
"""

import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import numpy as np

from dlink.bench.machine import machine
from dlink.bench.rows import append_row
from dlink.runtime import Backend, open_model
from dlink.runtime.backend import Running

SLOTS = (1, 2)
SPIN = [sys.executable, "-c", "while True: pass"]


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--seconds", default=2.0, show_default=True, help="Time for each model in a round.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--append", type=click.Path(path_type=Path), help="Append the figures to this file of rows.")
def main(model: Path, seconds: float, rounds: int, append: Path | None) -> None:
    """Print tiles a second, one view each: the best round and the median."""
    with ExitStack() as stack:
        opened = {slots: stack.enter_context(open_model(model, slots=slots)) for slots in SLOTS}
        if found := [s for s, m in opened.items() if m.backend.slots != s]:
            raise click.ClickException(f"{model}: {found[0]} slots need {found[0]} CPU threads")
        for beside in ("nothing", "a process that spins"):
            rates: dict[int, list[float]] = {slots: [] for slots in SLOTS}
            with spinning(beside != "nothing"):
                for _ in range(rounds):
                    for slots, segmenter in opened.items():
                        rates[slots].append(rate(segmenter.backend, seconds))
            best = {slots: max(each) for slots, each in rates.items()}
            median = {slots: float(np.median(each)) for slots, each in rates.items()}
            for slots in SLOTS:
                click.echo(f"beside {beside}, slots {slots}: {best[slots]:.2f} tiles/s, median {median[slots]:.2f}")
            row = {
                "when": time.strftime("%Y-%m-%d", time.gmtime()),
                "figure": "slots",
                "file": model.name,
                "engine": opened[1].backend.engine,
                "tile": opened[1].spec.tile,
                "beside": beside,
                "best": best,
                "median": median,
                "rounds": rates,
                "machine": machine(),
            }
            append_row(append, row)


@contextmanager
def spinning(wanted: bool) -> Iterator[None]:
    """A process that uses one core, if it is wanted."""
    process = subprocess.Popen(SPIN) if wanted else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def rate(backend: Backend, seconds: float) -> float:
    """Tiles a second with a run under way in each slot. One run of each slot before that does not count."""
    side, planes = backend.spec.tile, len(backend.spec.bands)
    tile = np.random.default_rng(0).integers(0, 256, (1, side, side, planes), np.uint8)
    for run in [backend.start(tile, (0,)) for _ in range(backend.slots)]:
        run()
    running: deque[Running] = deque()
    done, begun = 0, time.perf_counter()
    while time.perf_counter() < begun + seconds:
        running.append(backend.start(tile, (0,)))
        if len(running) == backend.slots:
            running.popleft()()
            done += 1
    for run in running:
        run()
    return (done + len(running)) / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
