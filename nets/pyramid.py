"""PP-LinkNet's centre, a pyramid of average pools, and the export of its pools and resizes.

An adaptive average pool to 3 or 6 bins of a map of 32 or 64 has windows of different sizes and distances. ONNX's
AveragePool cannot express that. For a map of known size the pool is a product with a matrix along each axis, and so is
the bilinear resize back. Both are exact, and every engine supports them. The exporter writes the products; PyTorch runs
its own pools.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn import functional

BINS = (1, 2, 3, 6)

# How many times larger the file's maps are than those that the exporter traces.
ENLARGED: ContextVar[Fraction] = ContextVar("ENLARGED", default=Fraction(1))


@contextmanager
def enlarged(times: Fraction) -> Iterator[None]:
    """Within the block, matrices are written for maps so many times as large as the traced ones."""
    token = ENLARGED.set(times)
    try:
        yield
    finally:
        ENLARGED.reset(token)


def pool_matrix(side: int, bins: int) -> NDArray[np.float32]:
    """(bins, side): the mean over [floor(i side / bins), ceil((i + 1) side / bins)), as PyTorch bins a map."""
    matrix = np.zeros((bins, side), np.float32)
    for i in range(bins):
        lo, hi = i * side // bins, ceil((i + 1) * side / bins)
        matrix[i, lo:hi] = 1 / (hi - lo)
    return matrix


def resize_matrix(side: int, bins: int) -> NDArray[np.float32]:
    """(side, bins): bilinear with pixels' centres at one half (align_corners=False), clamped at the edges."""
    at = ((np.arange(side) + 0.5) * bins / side - 0.5).clip(0, bins - 1)
    lo = np.floor(at).astype(int)
    hi = np.minimum(lo + 1, bins - 1)
    matrix = np.zeros((side, bins), np.float64)
    rows = np.arange(side)
    np.add.at(matrix, (rows, lo), 1 - (at - lo))
    np.add.at(matrix, (rows, hi), at - lo)
    return matrix.astype(np.float32)


def product(g: Any, x: Any, matrix: NDArray[np.float32]) -> Any:
    """ONNX: matrix @ x @ matrix.T over the last two axes, in x's own type."""
    kind = x.type().scalarType()
    left, right = (
        g.op("Constant", value_t=torch.from_numpy(np.ascontiguousarray(m)).to(torch.half if kind == "Half" else None))
        for m in (matrix, matrix.T)
    )
    return g.op("MatMul", g.op("MatMul", left, x), right)


class Pool(torch.autograd.Function):
    """Adaptive average pool of a square map to bins x bins."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bins: int) -> Tensor:
        return functional.adaptive_avg_pool2d(x, bins)

    @staticmethod
    def symbolic(g: Any, x: Any, bins: int) -> Any:
        side = int(x.type().varyingSizes()[-1] * ENLARGED.get())
        y = product(g, x, pool_matrix(side, bins))
        y.setType(x.type().with_sizes([*x.type().varyingSizes()[:2], bins, bins]))
        return y


class Resize(torch.autograd.Function):
    """Bilinear resize of a square map to the size of another."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, like: Tensor) -> Tensor:
        return functional.interpolate(x, like.shape[-2:], mode="bilinear")

    @staticmethod
    def symbolic(g: Any, x: Any, like: Any) -> Any:
        side = like.type().varyingSizes()[-1]
        y = product(g, x, resize_matrix(int(side * ENLARGED.get()), x.type().varyingSizes()[-1]))
        y.setType(x.type().with_sizes([*x.type().varyingSizes()[:2], side, side]))
        return y


@fx.wrap
def pooled(x: Tensor, bins: int) -> Tensor:
    """Average over a grid of bins x bins."""
    if torch.onnx.is_in_onnx_export():
        y: Tensor = Pool.apply(x, bins)  # type: ignore[no-untyped-call]
        return y
    return functional.adaptive_avg_pool2d(x, bins)


@fx.wrap
def resized(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, to the height and width of another map."""
    if torch.onnx.is_in_onnx_export():
        y: Tensor = Resize.apply(x, like)  # type: ignore[no-untyped-call]
        return y
    return functional.interpolate(x, like.shape[-2:], mode="bilinear")


class Bins(nn.Module):
    """The pool of one branch. It has no weights, but takes index 0 of its stage as in the published checkpoints."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        return pooled(x, self.bins)


class PyramidPool(nn.Module):
    """`dblock` of PP-LinkNet: means over 1, 4, 9 and 36 bins, each with a 1x1, resized and concatenated; 1x1, ReLU.

    (N, C, H, W) -> (N, C, H, W). Maps must be square for the export.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        branch = channels // len(BINS)
        self.stages = nn.ModuleList(
            nn.Sequential(Bins(bins), nn.Conv2d(channels, branch, 1, bias=False)) for bins in BINS
        )
        self.bottleneck = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        branches = [resized(stage(x), x) for stage in self.stages]
        return torch.relu(self.bottleneck(torch.cat([*branches, x], 1)))
