"""Compares the kernels spread and gather with HostBackend on the GPU at hand, and measures their memory bandwidth.

    python -m dlink.bench.kernels [--side 1024] [--check] [--append rows.jsonl]

With --check nothing is timed, for `compute-sanitizer --tool memcheck python -m dlink.bench.kernels --check`. The
memory's bandwidth is that of a copy on the GPU, reads and writes together. A kernel's bandwidth counts the bytes that
it must read and write. Many launches are timed at once, as a CUDA graph, so that nothing waits for Python. They use
several buffers in turn, which together are larger than the GPU's cache.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import pycuda.driver as cuda

from dlink.bench.rows import append_row
from dlink.runtime import CheckFailed, Spec
from dlink.runtime.backend import HostBackend
from dlink.runtime.spec import COLOURS
from dlink.runtime.views import ALL, FLIPS, apply_view
from dlink.trt_runtime.cuda_graphs import CudaGraph, capture
from dlink.trt_runtime.kernels.launch import PTX, Kernels
from dlink.trt_runtime.primary_context import pycudas

SETS = ((0,), FLIPS, ALL[1:], ALL)
CHECKED = (32, 33, 160)  # sides, px
FOUR = (*COLOURS, "nir")
RUNS = 9
LAUNCHES = 40  # the least between two events
CACHES = 4  # the buffers' size, as a multiple of the cache


@click.command()
@click.option("--side", default=1024, show_default=True, help="Side of the timed tiles, px.")
@click.option("--check", is_flag=True, help="Compare, but do not time.")
@click.option("--append", type=click.Path(path_type=Path), help="Append the result as a line to this file.")
def main(side: int, check: bool, append: Path | None) -> None:
    """Compare both kernels with NumPy's numbers, then time them."""
    with pycudas():
        for dtype in (np.float32, np.float16):
            for views in SETS:
                for each in CHECKED:
                    compare(Bench(each, 2, views, dtype))
                    compare(Bench(each, 2, views, dtype, bands=FOUR))
        click.echo("spread and gather give HostBackend's numbers")
        result: dict[str, Any] = {"kernels": "same bits"} if check else {"kernels": bandwidths(side)}
        append_row(append, result)


class Bench:
    """Both kernels with their buffers. `beside`: a bench whose kernels and stream are shared."""

    def __init__(
        self, side: int, tiles: int, views: tuple[int, ...], dtype: type, beside: "Bench | None" = None,
        bands: tuple[str, ...] = COLOURS,
    ) -> None:  # fmt: skip
        self.spec, self.tiles, self.views = spec_of(side, bands), tiles, views
        self.dtype, area = np.dtype(dtype), side * side
        self.kernels: Kernels = (
            beside.kernels if beside else Kernels(PTX.read_bytes(), self.spec, self.dtype, self.dtype)
        )
        self.stream: Any = beside.stream if beside else cuda.Stream()
        self.pixels = area * tiles * len(bands)
        self.planes = area * tiles * len(views)
        sizes = (
            self.pixels,
            self.planes * len(bands) * self.dtype.itemsize,
            self.planes * self.dtype.itemsize,
            area * tiles * 4,
        )
        self.memory = [cuda.mem_alloc(size) for size in sizes]
        self.source, self.batch, self.answers, self.roads = map(int, self.memory)

    def spread(self) -> None:
        self.kernels.spread(self.stream, self.tiles, self.source, self.batch, self.views)

    def gather(self, form: int = 0) -> None:
        outs = [self.roads if i == form else 0 for i in range(3)]
        numbers = (True, len(self.views), 0.5)
        self.kernels.gather(self.stream, self.tiles, self.answers, 0, self.views, numbers, outs)

    @property
    def moved(self) -> dict[str, int]:
        """The bytes that each kernel must read and write."""
        size = self.dtype.itemsize
        bands = len(self.spec.bands)
        mask = self.pixels // bands
        return {"spread": self.pixels + self.planes * bands * size, "gather": self.planes * size + mask}


def spec_of(side: int, bands: tuple[str, ...] = COLOURS) -> Spec:
    """A Spec of any side. The kernels take sides that networks do not."""
    scale, shift = ((numbers[0],) * len(bands) for numbers in (Spec.scale, Spec.shift))
    spec = Spec(tile=32, bands=bands, scale=scale, shift=shift)
    object.__setattr__(spec, "tile", side)
    return spec


def compare(bench: Bench) -> None:
    """Raise CheckFailed if a kernel's result differs from NumPy's."""
    rng, side, views = np.random.default_rng(0), bench.spec.tile, bench.views
    tiles = rng.integers(0, 256, (bench.tiles, side, side, len(bench.spec.bands)), np.uint8)
    put(bench.source, tiles, bench.stream)
    bench.spread()
    x = bench.spec.prepare(tiles)
    expected = np.stack([apply_view(x, view) for view in views], 1).reshape(-1, *x.shape[1:]).astype(bench.dtype)
    same(f"spread, {side} px, views {views}", get(bench.batch, expected, bench.stream), expected)
    answers = rng.random((bench.tiles, len(views), side, side)).astype(bench.dtype)
    put(bench.answers, answers, bench.stream)
    bench.gather()
    ordered = iter([a.astype(np.float32) for a in sorted_as_host(answers, views)])
    host = HostBackend(lambda x: next(ordered), bench.spec, max_tiles=bench.tiles)
    mean = host.probabilities(tiles, views)
    same(f"gather, {side} px, views {views}", get(bench.roads, mean, bench.stream), mean)


def sorted_as_host(answers: np.ndarray, views: tuple[int, ...]) -> list[np.ndarray]:
    """The views' answers in the order in which HostBackend runs the views."""
    return [answers[:, i] for turned in (0, 1) for i, view in enumerate(views) if view & 1 == turned]


def put(address: int, array: np.ndarray, stream: Any) -> None:
    pinned = cuda.pagelocked_empty(array.shape, array.dtype)
    pinned[...] = array
    cuda.memcpy_htod_async(address, pinned, stream)
    stream.synchronize()


def get(address: int, like: np.ndarray, stream: Any) -> np.ndarray:
    pinned = cuda.pagelocked_empty(like.shape, like.dtype)
    cuda.memcpy_dtoh_async(pinned, address, stream)
    stream.synchronize()
    return np.array(pinned)


def same(what: str, found: np.ndarray, expected: np.ndarray) -> None:
    if not np.array_equal(found, expected):
        off = np.abs(found.astype(np.float64) - expected).max()
        raise CheckFailed(f"{what}: {np.mean(found != expected):.2%} of the numbers differ, by up to {off:.3g}")


def bandwidths(side: int) -> dict[str, Any]:
    """A row for each kernel, type and set of views; and the bandwidth of a copy in GB/s."""
    beyond = CACHES * max(cuda.Device(0).get_attribute(cuda.device_attribute.L2_CACHE_SIZE), 1)
    size = max(beyond, 64 * side * side)
    ends = [cuda.mem_alloc(size) for _ in range(2)]
    stream = cuda.Stream()
    full = 2 * size / seconds([lambda: cuda.memcpy_dtod_async(int(ends[0]), int(ends[1]), size, stream)], stream)
    click.echo(f"copy {full / 1e9:.0f} GB/s\nkernel  type     views     us    GB/s  of copy")
    rows = []
    for dtype in (np.float32, np.float16):
        for views in (ALL, FLIPS, (0,)):
            first = Bench(side, 1, views, dtype)
            around = -(-beyond // min(first.moved.values()))
            ring = [first, *(Bench(side, 1, views, dtype, first) for _ in range(around - 1))]
            for bench in ring:
                put(bench.source, np.zeros(bench.pixels, np.uint8) + 77, bench.stream)
                bench.spread()
                put(bench.answers, np.full(bench.planes, 0.3, dtype), bench.stream)
            runs: dict[str, list[Callable[[], None]]] = {
                "spread": [b.spread for b in ring],
                "gather": [partial(b.gather, 2) for b in ring],
            }
            for name, each in runs.items():
                took = seconds(each, first.stream)
                rate = first.moved[name] / took
                row = f"{name}  {first.dtype.name:7}  {len(views):5} {took * 1e6:6.1f}"
                click.echo(f"{row}  {rate / 1e9:6.0f}  {rate / full:7.2f}")
                rows.append(
                    {
                        "kernel": name,
                        "type": first.dtype.name,
                        "views": len(views),
                        "us": took * 1e6,
                        "share": rate / full,
                    }
                )
    return {"copy_gb_s": full / 1e9, "rows": rows}


def seconds(runs: list[Callable[[], None]], stream: Any) -> float:
    """The time of one launch: the median of RUNS rounds of many launches between two events, all `runs` in turn."""
    before, after = cuda.Event(), cuda.Event()
    rounds = -(-LAUNCHES // len(runs))
    times = []
    with as_graph([run for _ in range(rounds) for run in runs], stream) as graph:
        for run in range(-1, RUNS):
            before.record(stream)
            graph.launch(stream.handle)
            after.record(stream)
            after.synchronize()
            if run >= 0:
                times.append(before.time_till(after) / 1e3 / (rounds * len(runs)))
    return float(median(times))


@contextmanager
def as_graph(runs: list[Callable[[], None]], stream: Any) -> Iterator[CudaGraph]:
    """Many launches as one CUDA graph."""

    def all_of_them() -> None:
        for run in runs:
            run()

    graph = capture(stream.handle, all_of_them)
    try:
        yield graph
    finally:
        graph.close()


if __name__ == "__main__":
    main()
