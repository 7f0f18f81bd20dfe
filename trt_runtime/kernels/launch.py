"""Launches the kernels: spread turns tiles into the network's input, gather turns its output into roads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycuda.driver as cuda

from dlink.runtime.spec import MOST_BANDS, RED_GREEN_BLUE, Spec

PTX = Path(__file__).with_name("kernels.ptx")  # built from kernels.cu by build.py
BANDS_TYPES = "PPiIii" + "f" * 2 * MOST_BANDS  # Numbers of kernels.cu are packed as so many floats
BLOCK = (32, 8, 1)  # threads: EDGE and ROWS of kernels.cu


class Kernels:
    """kernels.ptx, loaded for the types of the network's input (`reads`) and output (`gives`)."""

    def __init__(self, ptx: bytes, spec: Spec, reads: np.dtype[Any], gives: np.dtype[Any]) -> None:
        self.spec = spec
        self.module = cuda.module_from_buffer(ptx)
        self.planes = len(spec.bands)
        name, types = ("spread", "PPiIi" + "f" * 6) if self.planes == RED_GREEN_BLUE else ("spread_bands", BANDS_TYPES)
        self.spread_function = self.module.get_function(f"{name}_{reads.name}").prepare(types)
        self.gather_function = self.module.get_function(f"gather_{gives.name}").prepare("PPiIiifPPPP")

    def grid(self, tiles: int) -> tuple[int, int, int]:
        blocks = -(-self.spec.tile // BLOCK[0])
        return blocks, blocks, tiles

    def spread(self, stream: Any, tiles: int, source: int, batch: int, views: Sequence[int]) -> None:
        spec = self.spec
        numbers: tuple[float, ...] = (*spec.scale, *spec.shift)
        if self.planes != RED_GREEN_BLUE:
            numbers = (self.planes, *padded(spec.scale), *padded(spec.shift))
        sizes = (spec.tile, bits(views), spec.channels == "BGR")
        self.spread_function.prepared_async_call(self.grid(tiles), BLOCK, stream, source, batch, *sizes, *numbers)

    def gather(
        self, stream: Any, tiles: int, answers: int, total: int, views: Sequence[int], numbers: tuple[bool, int, float],
        outs: Sequence[int], faults: int = 0,
    ) -> None:  # fmt: skip
        sizes = (self.spec.tile, bits(views))
        self.gather_function.prepared_async_call(
            self.grid(tiles), BLOCK, stream, answers, total, *sizes, *numbers, *outs, faults
        )


def padded(numbers: Sequence[float]) -> tuple[float, ...]:
    """As many numbers as the kernel has places for."""
    return (*numbers, *[0.0] * (MOST_BANDS - len(numbers)))


def bits(views: Sequence[int]) -> int:
    """A set of views as a bit mask, for the kernels."""
    return sum(1 << view for view in views)
