"""Checks that capturing CUDA graphs and a PyTorch thread on the legacy default stream do not break each other.

    python -m dlink.bench.gpu.beside [--append rows.jsonl]

One thread multiplies, allocates, frees and waits, as programs with PyTorch do. Another thread captures both of dlink's
kernels with their copies, launches them and compares the results with NumPy.
"""

import json
import threading
import time
from pathlib import Path

import click
import numpy as np
import pycuda.driver as cuda
import torch

from dlink.bench.kernels import Bench
from dlink.bench.rows import append_row
from dlink.runtime import CheckFailed
from dlink.runtime.views import ALL, apply_view
from dlink.trt_runtime.cuda_graphs import NON_BLOCKING, capture
from dlink.trt_runtime.primary_context import pycudas

SIDE = 160


@click.command()
@click.option("--captures", default=200, show_default=True)
@click.option("--append", type=click.Path(path_type=Path), help="Append the result as a line to this file.")
def main(captures: int, append: Path | None) -> None:
    """Capture and launch while PyTorch works."""
    where = "cuda" if torch.cuda.is_available() else "cpu"
    other = Other(where)
    other.start()
    while not (other.done or other.fault):
        time.sleep(0.01)
    begun = other.done
    try:
        capture_and_compare(captures)
    finally:
        other.stop.set()
        other.join()
    if other.fault:
        raise CheckFailed(f"PyTorch's thread failed beside dlink's captures: {other.fault}")
    result = {"beside": where, "captures": captures, "torch_rounds": other.done - begun}
    click.echo(json.dumps(result))
    append_row(append, result)


class Other(threading.Thread):
    """A thread in which PyTorch works on the default stream until `stop` is set."""

    def __init__(self, where: str) -> None:
        super().__init__(daemon=True)
        self.where, self.stop, self.done, self.fault = where, threading.Event(), 0, ""

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                a = torch.ones(512 + self.done % 7, 512, device=self.where)
                found = float((a @ a.T).sum().item())
                if found != 512.0 * len(a) ** 2:
                    raise CheckFailed(f"PyTorch's own result is {found}")
                if self.where == "cuda" and self.done % 50 == 0:
                    torch.cuda.empty_cache()
                self.done += 1
        except Exception as e:
            self.fault = f"{type(e).__name__}: {e}"


def capture_and_compare(captures: int) -> None:
    """Capture and launch graphs, and compare each result with NumPy's."""
    with pycudas():
        bench = Bench(SIDE, 1, ALL, np.float32)
        bench.stream = cuda.Stream(NON_BLOCKING)
        pinned = cuda.pagelocked_empty((1, SIDE, SIDE, 3), np.uint8)
        back = cuda.pagelocked_empty((len(ALL), 3, SIDE, SIDE), np.float32)

        def enqueue() -> None:
            cuda.memcpy_htod_async(bench.source, pinned, bench.stream)
            bench.spread()
            bench.gather()
            cuda.memcpy_dtoh_async(back, bench.batch, bench.stream)

        rng = np.random.default_rng(0)
        for _ in range(captures):
            graph = capture(bench.stream.handle, enqueue)
            pinned[...] = rng.integers(0, 256, pinned.shape, np.uint8)
            graph.launch(bench.stream.handle)
            bench.stream.synchronize()
            graph.close()
            x = bench.spec.prepare(pinned)
            if not np.array_equal(back, np.concatenate([apply_view(x, view) for view in ALL])):
                raise CheckFailed("a graph that was captured beside PyTorch gives other numbers")


if __name__ == "__main__":
    main()
