"""Times the runtime around a network on a GPU beside PyTorch, in turn, in one process.

    python -m dlink.bench.runtime roads.plan [--against roads.th] [--soak 10000] [--append bench/results.jsonl]

Times are from the image in host memory to the mask in host memory. "network" is the network alone between two events,
as in trtexec. "copies" is the copy of the pixels to the GPU and of the masks back. "graph" is dlink; "plain" is dlink
without CUDA graphs. "torch authors" is the authors' eight-view procedure as published. "torch fp16" runs the same views
in one batch, channels last, and "torch compiled" is that by torch.compile. PyTorch's rows need a checkpoint and a
PyTorch with CUDA.
"""

import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pycuda.driver as cuda
from numpy.typing import NDArray

from dlink.bench.network import copy_times, network_ms, network_times, picture
from dlink.bench.rows import append_row
from dlink.runtime import BadInput, Spec, open_model
from dlink.runtime.backend import Running
from dlink.runtime.views import BY_COUNT
from dlink.trt_runtime.tensorrt_backend import TensorRTBackend

TILES = (1, 2, 4)
WARMUP = 3
AT_END = 1000  # tiles at the start and at the end of a soak, whose times are compared


@dataclass(frozen=True)
class Timing:
    """The times of one way, in ms, for a number of tiles and of views."""

    way: str
    tiles: int
    views: int
    p50: float
    p99: float


@click.command()
@click.argument("plan", type=click.Path(exists=True, path_type=Path))
@click.option("--against", type=click.Path(exists=True, path_type=Path), help="The checkpoint, for PyTorch's rows.")
@click.option("--calls", default=100, show_default=True, help="Calls of each way.")
@click.option("--soak", default=10_000, show_default=True, help="Tiles of the soak, without a pause.")
@click.option("--append", type=click.Path(path_type=Path), help="Append the result as a line to this file.")
def main(plan: Path, against: Path | None, calls: int, soak: int, append: Path | None) -> None:
    """Print a row for each way, number of tiles and number of views."""
    with open_model(plan) as model, open_model(plan) as second:
        backend, plain = model.backend, second.backend
        if not isinstance(backend, TensorRTBackend) or not isinstance(plain, TensorRTBackend):
            raise BadInput(f"{plan}: expected a plan (.plan)")
        plain.share.captures = False
        side = model.spec.tile
        images = np.stack([picture(side, seed) for seed in range(max(TILES))])
        ways = {"graph": run_of(backend), "plain": run_of(plain), **torch_ways(against, model.spec)}
        rows = []
        for tiles in TILES:
            for views in sorted(BY_COUNT):
                if tiles * views <= backend.max_tiles:
                    rows += timings(backend, ways, images[:tiles], views, calls)
        for row in rows:
            click.echo(
                f"{row.way:16} {row.tiles} tiles {row.views} views  p50 {row.p50:8.3f} ms  p99 {row.p99:8.3f} ms"
            )
        result = {
            "when": time.strftime("%Y-%m-%d", time.gmtime()),
            "engine": backend.engine,
            "tile": side,
            "file": {"name": plan.name, "sha256": backend.manifest.plan.sha256},
            "rows": [asdict(row) for row in rows],
            "memory": {**asdict(backend.memory), "total": backend.memory.total},
            "soak": soaked(backend, images[0], soak, calls),
        }
    click.echo(json.dumps({k: result[k] for k in ("memory", "soak")}))
    append_row(append, result)


Way = Callable[[NDArray[np.uint8], int], object]  # images (N, S, S, 3) and a number of views -> their masks


def run_of(backend: TensorRTBackend) -> Way:
    return lambda images, views: backend.start(images, BY_COUNT[views], "mask", backend.spec.threshold)()


def timings(
    backend: TensorRTBackend, ways: dict[str, Way], images: NDArray[np.uint8], views: int, calls: int
) -> list[Timing]:
    """Time all ways in turn."""
    chosen = {name: way for name, way in ways.items() if name != "torch authors" or (len(images), views) == (1, 8)}
    times = {
        "network": network_times(backend, len(images) * views, calls),
        "copies": copy_times(backend, len(images), calls),
    }
    for call in range(-WARMUP, calls):
        for name, way in chosen.items():
            begun = time.perf_counter()
            way(images, views)
            if call >= 0:
                times.setdefault(name, []).append((time.perf_counter() - begun) * 1e3)
    return [Timing(name, len(images), views, *map(float, np.percentile(t, (50, 99)))) for name, t in times.items()]


def soaked(backend: TensorRTBackend, image: NDArray[np.uint8], tiles: int, calls: int) -> dict[str, float]:
    """Run tiles through all slots without a pause: measure throughput, and the growth of memory and times."""
    views = len(backend.spec.views)
    parts = -(-views // backend.max_tiles)
    alone_ms = parts * network_ms(backend, views // parts, calls)["p50"]
    times, free = [], [memory_free(backend)]
    running: deque[Running] = deque()
    resident = [resident_bytes()]
    begun = last = time.perf_counter()
    for _ in range(tiles):
        running.append(backend.start([image], None, "mask", backend.spec.threshold))
        if len(running) == backend.slots:
            running.popleft()()
            now = time.perf_counter()
            times.append((now - last) * 1e3)
            last = now
    for run in running:
        run()
    took = time.perf_counter() - begun
    most = min(AT_END, len(times) // 2)
    free.append(memory_free(backend))
    resident.append(resident_bytes())
    return {
        "tiles": tiles,
        "tiles_per_s": tiles / took,
        "of_network_alone": tiles * alone_ms / 1e3 / took,
        "p99_ms_at_start": float(np.percentile(times[:most], 99)),
        "p99_ms_at_end": float(np.percentile(times[-most:], 99)),
        "gpu_bytes_lost": free[0] - free[1],
        "host_bytes_gained": resident[1] - resident[0],
    }


def memory_free(backend: TensorRTBackend) -> int:
    with backend.working():
        return int(cuda.mem_get_info()[0])


def resident_bytes() -> int:
    """The resident memory of this process now; 0 if the system does not report it."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * 4096 if statm.exists() else 0


def torch_ways(checkpoint: Path | None, spec: Spec | None = None) -> dict[str, Way]:
    """PyTorch's ways; none without a checkpoint or a PyTorch with a GPU. Without a Spec the network's published one."""
    if checkpoint is None:
        return {}
    try:
        import torch
    except ModuleNotFoundError:
        return {}
    if not torch.cuda.is_available():
        return {}
    from dlink.bench.authors import eight_view_sum
    from dlink.nets.checkpoint import read_checkpoint
    from dlink.nets.zoo import spec_of

    read = read_checkpoint(checkpoint)
    spec = spec or spec_of(read.arch, width=read.width)
    eager = read.net.cuda().eval()
    half = read_checkpoint(checkpoint).net.cuda().eval().half().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return {
        "torch authors": lambda images, views: eight_view_sum(eager, images[0]) > 4,
        "torch fp16": torch_way(half, spec),
        "torch compiled": torch_way(torch.compile(half), spec),
    }


def torch_way(net: Any, spec: Spec) -> Way:
    """A way that runs all views of all images in one batch on the GPU, in float16, channels last."""
    import torch

    from dlink.bench.torch_views import torch_look, torch_unlook

    scale, shift = (torch.tensor(v).half().cuda()[:, None, None] for v in (spec.scale, spec.shift))

    def masks(images: NDArray[np.uint8], views: int) -> NDArray[np.uint8]:
        with torch.inference_mode():
            pixels = torch.from_numpy(images).cuda().permute(0, 3, 1, 2)
            x = (pixels if spec.channels == "RGB" else pixels.flip(1)).half() * scale + shift
            chosen = BY_COUNT[views]
            batch = torch.cat([torch_look(x, view) for view in chosen]).contiguous(memory_format=torch.channels_last)
            prob = net(batch)[:, 0].float().chunk(len(chosen))
            mean = torch.stack([torch_unlook(p, view) for p, view in zip(prob, chosen, strict=True)]).mean(0)
            mask: NDArray[np.uint8] = ((mean > spec.threshold) * 255).to(torch.uint8).cpu().numpy()
        return mask

    return masks


if __name__ == "__main__":
    main()
