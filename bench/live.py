"""Measures Live: what offering costs, what it adds to the network, how it holds a deadline, how it replaces a worker.

    python -m dlink.bench.live roads.onnx [--seconds 110] [--soak 600]

Frames are noise of 720 p at 0.1 m a pixel; a network of 0.5 m sees them in a fifth of the size. Each figure is a line.
"""

import json
import multiprocessing
import os
import resource
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from dlink.bench.machine import machine
from dlink.live import Live

HEIGHT, WIDTH, GROUND, RATE = 720, 1280, 0.1, 30.0
ROUNDS = 60


def frame(seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def milliseconds(values: list[float]) -> dict[str, float]:
    each = sorted(1000 * v for v in values)
    return {"p50": round(statistics.median(each), 3), "p99": round(each[min(len(each) - 1, int(0.99 * len(each)))], 3)}


def added(model: Path, process: bool) -> dict[str, float]:
    """Milliseconds from offering a frame to its roads, less the network's own."""
    image, found = frame(), []
    with Live(model, deadline=None, views=1, ground=GROUND, process=process) as live:
        engine = live.engine
        seconds: list[float] = []
        levels = engine.levels

        def watched(*args: Any) -> Any:
            made = levels(*args)
            seconds.append(made.seconds)
            return made

        vars(engine)["levels"] = watched
        for i in range(ROUNDS):
            begun = time.monotonic()
            live.offer(lambda: image)
            live.latest(newer_than=i - 1, timeout=60)
            found.append(time.monotonic() - begun - seconds[-1])
    return milliseconds(found[5:])


def boundary(model: Path) -> dict[str, float]:
    """Milliseconds that the process boundary adds at 720 p, without scaling."""
    image, found = frame(), []
    with Live(model, deadline=None, views=1) as live:
        for _ in range(12):
            begun = time.monotonic()
            made = live.engine.levels(image, 1, 10.0)
            found.append(time.monotonic() - begun - made.seconds)
    return milliseconds(found[2:])


def held(model: Path, seconds: float, hogs: int, deadline: float = 0.2) -> dict[str, Any]:
    """30 frames a second for so long, beside processes that spin."""
    beside = [multiprocessing.get_context("spawn").Process(target=spin, daemon=True) for _ in range(hogs)]
    for each in beside:
        each.start()
    pictures, offers, ages, views = [frame(i) for i in range(8)], [], [], []
    try:
        with Live(model, deadline=deadline, ground=GROUND) as live:
            begun, number, last = time.monotonic(), 0, -1
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            while (now := time.monotonic()) - begun < seconds:
                image = pictures[number % len(pictures)]
                clock = time.perf_counter()
                live.offer(image, captured=now)
                offers.append(time.perf_counter() - clock)
                if (roads := live.latest(newer_than=last)) is not None:
                    last = roads.frame.id
                    ages.append((now - begun, roads.done - roads.frame.captured, roads.late))
                    views.append(float(roads.views))
                number += 1
                time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
            counts, changes = live.counts, live.ladder.changes
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    finally:
        for each in beside:
            each.kill()
    minute = min(60.0, seconds / 2)
    first, final = ([a for t, a, _ in ages if lo <= t < lo + minute] for lo in (0.0, seconds - minute))
    return {
        "seconds": seconds,
        "hogs": hogs,
        "offer_ms": milliseconds(offers),
        "in_time_age_ms": milliseconds([a for _, a, late in ages if not late]),
        "late_share": round(counts.late / max(1, counts.late + counts.roads), 4),
        "roads_a_second": round((counts.roads + counts.late) / seconds, 2),
        "mean_views": round(statistics.mean(views), 2),
        "changes": changes,
        "adds_up": counts.add_up,
        "grown_mb": round(grown / 1024, 1),
        "p99_of_first_and_last_minute_ms": [milliseconds(part)["p99"] for part in (first, final)],
    }


def spin() -> None:
    while True:
        pass


def killed(model: Path) -> dict[str, Any]:
    """Milliseconds until a killed worker is noticed, and until a new one is ready."""
    seen: list[float] = []
    ready: list[float] = []
    for _ in range(5):
        with Live(model, deadline=None) as live:
            begun = time.monotonic()
            os.kill(live.engine.engine.pid, signal.SIGKILL)  # type: ignore[union-attr]
            while live.engine.ready:
                time.sleep(0.001)
            seen.append(time.monotonic() - begun)
            live.engine.wait(60)
            ready.append(time.monotonic() - begun)
    return {"seen_ms": milliseconds(seen), "ready_ms": milliseconds(ready)}


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--seconds", default=110.0, show_default=True, help="Of the deadline's measurement.")
@click.option("--soak", default=0.0, help="Seconds of a long run without anything beside it.")
def main(model: Path, seconds: float, soak: float) -> None:
    """Print what Live does with MODEL on this machine."""
    rows: list[tuple[str, Any]] = [
        ("added, in this process", lambda: added(model, process=False)),
        ("added, in another process", lambda: added(model, process=True)),
        ("process boundary, 720 p", lambda: boundary(model)),
        ("worker killed", lambda: killed(model)),
        ("deadline beside two hogs", lambda: held(model, seconds, hogs=2)),
        ("deadline, quiet", lambda: held(model, min(30.0, seconds), hogs=0)),
    ]
    if soak:
        rows.append(("soak", lambda: held(model, soak, hogs=0)))
    about = machine()
    for name, measure in rows:
        values = {"figure": f"live: {name}", "file": model.name, **measure(), "machine": about}
        click.echo(json.dumps(values))


if __name__ == "__main__":
    main()
