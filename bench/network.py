"""Times the network alone on the GPU: a batch between two events, without copies, as trtexec does."""

from collections.abc import Callable
from statistics import median

import numpy as np
import pycuda.driver as cuda
from numpy.typing import NDArray

from dlink.trt_runtime.tensorrt_backend import TensorRTBackend

WARMUP = 10
OCTAVES = 6


def network_times(backend: TensorRTBackend, batch: int, calls: int) -> list[float]:
    """Times of the network on a batch of views of a picture, in ms."""
    fill(backend)
    with backend.lock, backend.free_slot() as slot:
        return stream_times(slot.stream, lambda: slot.context(batch).run(batch, slot.stream.handle), calls)


def copy_times(backend: TensorRTBackend, tiles: int, calls: int) -> list[float]:
    """Times of copying tiles to the GPU and their masks back, in ms; 0 if CPU and GPU share their memory."""
    if backend.shared_memory:
        return [0.0] * calls
    with backend.lock, backend.free_slot() as slot:
        masks = slot.roads[: tiles * backend.spec.tile**2]

        def both_ways() -> None:
            cuda.memcpy_htod_async(slot.tiles_at, slot.tiles[:tiles], slot.stream)
            cuda.memcpy_dtoh_async(masks, slot.roads_at, slot.stream)

        return stream_times(slot.stream, both_ways, calls)


def stream_times(stream: cuda.Stream, work: Callable[[], object], calls: int) -> list[float]:
    """Times of work on a stream between two events, in ms, after warm-up."""
    times, before, after = [], cuda.Event(), cuda.Event()
    for _ in range(WARMUP + calls):
        before.record(stream)
        work()
        after.record(stream)
        after.synchronize()
        times.append(before.time_till(after))
    return times[WARMUP:]


def fill(backend: TensorRTBackend) -> None:
    """Run a full batch of a picture in each slot, so that the network's input and all later tensors hold real values.

    Unwritten memory holds zeros or other values that no picture gives. A GPU computes those at another clock.
    """
    pictures = np.stack([picture(backend.spec.tile, planes=len(backend.spec.bands))] * backend.max_tiles)
    for _ in range(backend.slots):
        backend.start(pictures, (0,))()


def picture(side: int, seed: int = 0, planes: int = 3) -> NDArray[np.uint8]:
    """uint8 (side, side, planes) with large and small features, as pictures of the ground have."""
    rng = np.random.default_rng(seed)
    total = np.zeros((side, side, planes))
    for octave in range(OCTAVES):
        cell = max(1, side >> (octave + 2))
        coarse = rng.standard_normal((-(-side // cell), -(-side // cell), planes)) / 2**octave
        total += coarse.repeat(cell, 0).repeat(cell, 1)[:side, :side]
    return np.clip(total * 40 + 110, 0, 255).astype(np.uint8)


def network_ms(backend: TensorRTBackend, batch: int, calls: int) -> dict[str, float]:
    """Median, least and greatest time of the network for a batch of views."""
    times = network_times(backend, batch, calls)
    return {"p50": median(times), "least": min(times), "most": max(times), "runs": float(len(times))}
