"""Measures an open model: one call after the other, at a fixed rate or for a long time, and what the machine did."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlink.bench.area import km2_per_h
from dlink.bench.headline import why_no_headline
from dlink.bench.latency import BenchOptions, Latency, latency, warm_up
from dlink.bench.open_loop import RateFigures, at_rate
from dlink.bench.opened import is_plan
from dlink.bench.soak import Soak, SoakFigures, one_after_the_other, seconds_of
from dlink.bench.watch.counters import NotRead
from dlink.bench.watch.energy import Energy, open_energy
from dlink.bench.watch.nvml import Nvml, open_nvml
from dlink.bench.watch.watch import Conditions, Sources, Watch
from dlink.runtime.progress import Tick
from dlink.runtime.segmenter import Segmenter, Views
from dlink.runtime.words import counted

Row = Latency | RateFigures | SoakFigures


@dataclass(frozen=True)
class Measured:
    """The rows of a run, of which one kind is there, and its conditions."""

    latency: tuple[Latency, ...]
    rate: tuple[RateFigures, ...]
    soak: SoakFigures | None
    conditions: Conditions
    energy: Energy

    def to_json(self) -> dict[str, Any]:
        rows: list[Row] = [*self.latency, *self.rate, *([self.soak] if self.soak else [])]
        why = why_no_headline(self.conditions, [asdict(row) for row in rows])
        return {
            "latency": [row.to_json() for row in self.latency],
            "rate": [row.to_json() for row in self.rate],
            "soak": self.soak.to_json() if self.soak else None,
            "energy": {"by": [meter.name for meter in self.energy.meters], "not_read": self.energy.absent},
            "conditions": self.conditions.to_json(),
            "headline": not why,
            "no_headline": why,
        }


@dataclass
class Meterings:
    """The energy since the last warm-up was over."""

    energy: Energy
    before: dict[str, float]

    def ready(self) -> None:
        self.before = self.energy.joules()

    def per_tile(self, tiles: int) -> float | None:
        """Joules a tile of all meters; None without any."""
        spent = self.energy.since(self.before)
        return sum(spent.values()) / tiles if spent else None


def measure(
    model: Segmenter, tiles: list[NDArray[np.uint8]], how: BenchOptions, gsd_m: float | None, tick: Tick
) -> Measured:
    """Measure a model on tiles.

    Args:
        gsd_m: Metres a pixel, for the ground that it covers; None where that is not known.
        tick: Is told each number of views that is done.
    """
    absent: list[str] = []
    gpu = gpu_of(model, absent)
    energy = open_energy(gpu)
    energy.absent += absent
    spent, counts = Meterings(energy, {}), how.counts
    rows: list[Row] = []
    with Watch(energy, Sources(gpu=gpu)) as watch:
        for i, views in enumerate(counts):
            row = measured_once(model, tiles, views, how, spent, gpu)
            rows.append(on_ground(row, model, gsd_m))
            tick(i + 1, len(counts), counted(views, "view") if isinstance(views, int) else f"{views} views")
    return Measured(
        tuple(row for row in rows if isinstance(row, Latency)),
        tuple(row for row in rows if isinstance(row, RateFigures)),
        next((row for row in rows if isinstance(row, SoakFigures)), None),
        watch.conditions,
        energy,
    )


def gpu_of(model: Segmenter, absent: list[str]) -> Nvml | None:
    """The GPU that runs a plan. Where it cannot be watched, or the model runs elsewhere, None."""
    if not is_plan(model):
        return None
    try:
        return open_nvml()
    except NotRead as e:
        absent.append(str(e))
        return None


def measured_once(
    model: Segmenter,
    tiles: list[NDArray[np.uint8]],
    views: Views,
    how: BenchOptions,
    spent: Meterings,
    gpu: Nvml | None,
) -> Row:
    """One row, with its energy."""
    if how.soak:
        return soaked(model, tiles, views, how, spent, gpu)
    if how.rate:
        frames = at_rate(model, tiles, views, how.rate, how.seconds, spent.ready)
        return replace(frames, joules_per_tile=spent.per_tile(frames.roads))
    row = latency(model, tiles, views, how.seconds, spent.ready)
    return replace(row, joules_per_tile=spent.per_tile(row.calls))


def soaked(
    model: Segmenter,
    tiles: list[NDArray[np.uint8]],
    views: Views,
    how: BenchOptions,
    spent: Meterings,
    gpu: Nvml | None,
) -> SoakFigures:
    soak = Soak(seconds_of(how.soak or ""), gpu_memory=gpu.memory_bytes if gpu else lambda: None)
    if how.rate:
        at_rate(model, tiles, views, how.rate, soak.seconds, spent.ready, soak.take)
    else:
        warm_up(model, tiles, views)
        spent.ready()
        one_after_the_other(lambda number: model.mask(tiles[number % len(tiles)], views), soak)
    figures = soak.figures(views, how.rate)
    return replace(figures, joules_per_tile=spent.per_tile(figures.calls))


def on_ground(row: Row, model: Segmenter, gsd_m: float | None) -> Row:
    """The row with the ground that its tiles cover."""
    if gsd_m is None or isinstance(row, SoakFigures):
        return row
    tiles_per_s = row.tiles_per_s if isinstance(row, Latency) else row.achieved_per_s
    return replace(row, km2_per_h=km2_per_h(tiles_per_s, model.spec.tile, model.halo, gsd_m))
