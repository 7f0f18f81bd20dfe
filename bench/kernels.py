"""spread and gather on the GPU at hand: HostBackend's numbers? And what share of the memory's bandwidth?

    python -m dlink.bench.kernels [--side 1024] [--check]

With --check alone nothing is timed: for `compute-sanitizer --tool memcheck python -m dlink.bench.kernels --check`. The
memory's bandwidth is that of a copy on the GPU, read and written; a kernel's counts what it must read and write.
"""

from collections.abc import Callable
from statistics import median
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pycuda.driver as cuda

from dlink.trt_runtime import CheckFailed, Spec
from dlink.trt_runtime.backend import HostBackend
from dlink.trt_runtime.slot import Kernels
from dlink.trt_runtime.tensorrt_backend import PTX
from dlink.trt_runtime.views import ALL, FLIPS, look

SETS = ((0,), FLIPS, ALL[1:], ALL)
CHECKED = (32, 33, 160)  # sides, px
RUNS = 50


@click.command()
@click.option("--side", default=1024, show_default=True, help="Of the tiles that are timed, px.")
@click.option("--check", is_flag=True, help="Compare alone.")
def main(side: int, check: bool) -> None:
    """Compare both kernels with NumPy's numbers, then time them."""
    cuda.init()
    context = cuda.Device(0).retain_primary_context()
    context.push()
    try:
        for dtype in (np.float32, np.float16):
            for views in SETS:
                for each in CHECKED:
                    compare(Bench(each, 2, views, dtype))
        click.echo("spread and gather give HostBackend's numbers")
        if not check:
            report(side)
    finally:
        cuda.Context.pop()


class Bench:
    """Both kernels with buffers of their own."""

    def __init__(self, side: int, tiles: int, views: tuple[int, ...], dtype: type) -> None:
        self.spec, self.tiles, self.views = spec_of(side), tiles, views
        types = [np.dtype(dtype)] * 2
        self.kernels = Kernels(PTX.read_bytes(), SimpleNamespace(spec=self.spec, loaded=SimpleNamespace(types=types)))  # type: ignore[arg-type]
        self.dtype, area = types[0], side * side
        self.stream = cuda.Stream()
        self.pixels = area * tiles * 3
        self.planes = area * tiles * len(views)
        sizes = (
            self.pixels,
            self.planes * 3 * self.dtype.itemsize,
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
        """Bytes that each must read and write."""
        size = self.dtype.itemsize
        mask = self.pixels // 3
        return {"spread": self.pixels + self.planes * 3 * size, "gather": self.planes * size + mask}


def spec_of(side: int) -> Spec:
    """Any side: kernels take those that a network does not."""
    spec = Spec(tile=32)
    object.__setattr__(spec, "tile", side)
    return spec


def compare(bench: Bench) -> None:
    """CheckFailed where a kernel differs from NumPy."""
    rng, side, views = np.random.default_rng(0), bench.spec.tile, bench.views
    tiles = rng.integers(0, 256, (bench.tiles, side, side, 3), np.uint8)
    put(bench.source, tiles, bench.stream)
    bench.spread()
    x = bench.spec.prepare(tiles)
    expected = np.stack([look(x, view) for view in views], 1).reshape(-1, 3, side, side).astype(bench.dtype)
    same(f"spread, {side} px, views {views}", get(bench.batch, expected, bench.stream), expected)
    answers = rng.random((bench.tiles, len(views), side, side)).astype(bench.dtype)
    put(bench.answers, answers, bench.stream)
    bench.gather()
    said = iter([a.astype(np.float32) for a in sorted_as_host(answers, views)])
    host = HostBackend(lambda x: next(said), bench.spec, max_tiles=bench.tiles)
    mean = host.probabilities(tiles, views)
    same(f"gather, {side} px, views {views}", get(bench.roads, mean, bench.stream), mean)


def sorted_as_host(answers: np.ndarray, views: tuple[int, ...]) -> list[np.ndarray]:
    """Views' answers in the order in which HostBackend asks for them."""
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


def report(side: int) -> None:
    """A row for each kernel, type and set of views."""
    size = 256 * side * side  # far beyond caches
    ends = [cuda.mem_alloc(size) for _ in range(2)]
    stream = cuda.Stream()
    full = 2 * size / seconds(lambda: cuda.memcpy_dtod_async(int(ends[0]), int(ends[1]), size, stream), stream)
    click.echo(f"copy {full / 1e9:.0f} GB/s\nkernel  type     views     us    GB/s  of copy")
    for dtype in (np.float32, np.float16):
        for views in (ALL, FLIPS, (0,)):
            bench = Bench(side, 1, views, dtype)
            for name, run in (("spread", bench.spread), ("gather", lambda b=bench: b.gather(2))):
                took = seconds(run, bench.stream)
                rate = bench.moved[name] / took
                row = f"{name}  {bench.dtype.name:7}  {len(views):5} {took * 1e6:6.1f}"
                click.echo(f"{row}  {rate / 1e9:6.0f}  {rate / full:7.2f}")


def seconds(run: Callable[[], None], stream: Any) -> float:
    """The median of some runs between two events."""
    before, after = cuda.Event(), cuda.Event()
    times = []
    for _ in range(RUNS):
        before.record(stream)
        run()
        after.record(stream)
        after.synchronize()
        times.append(before.time_till(after) / 1e3)
    return float(median(times))


if __name__ == "__main__":
    main()
