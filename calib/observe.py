"""Observes the values of a network's tensors on tiles, one tile at a time, in ONNX Runtime.

Memory does not grow with the number of tiles: each tile's tensors are dropped after use.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dlink.calib.network import Network, layer_name
from dlink.calib.sample import Sample
from dlink.onnx_graph.model import CONVOLUTIONS
from dlink.onnx_graph.session import session
from dlink.runtime.errors import BadInput
from dlink.runtime.progress import Tick
from dlink.runtime.spec import Spec
from dlink.runtime.views import ALL, apply_view

BINS = 2048  # of a histogram of |value| from 0 to the tensor's peak; as many as in TensorRT's own calibration
MAP = 4  # dimensions of (N, C, H, W); other tensors, of attention, are not quantised
COUNTED = 1 << 19  # pixels of a tensor that are counted for each tile; the peak is that of all pixels

Channels = NDArray[np.float64]  # (C,)
Tensor = NDArray[np.float32]  # (C, H, W)


class Inputs:
    """A sample's tiles as network input: each tile's name and x (1, 3, S, S), prepared during iteration.

    With `views` the tiles take the eight views in turn.
    """

    def __init__(self, spec: Spec, sample: Sample, views: bool) -> None:
        self.spec, self.sample, self.views = spec, sample, views

    def __len__(self) -> int:
        return len(self.sample.tiles)

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        for i, tile in enumerate(self.sample.tiles):
            x = self.spec.prepare(tile.image[None])
            yield tile.id, np.ascontiguousarray(apply_view(x, i % len(ALL))) if self.views else x


@dataclass
class Seen:
    """The peaks and means of one tensor's channels over the tiles so far."""

    peak: Channels  # of |value|
    total: Channels  # of the tiles' means

    def add(self, values: Tensor) -> None:
        np.maximum(self.peak, np.maximum(values.max(axis=(1, 2)), -values.min(axis=(1, 2))), out=self.peak)
        self.total += values.mean(axis=(1, 2), dtype=np.float64)


@dataclass
class Counts:
    """A histogram of one tensor's |value| times its channels' factors."""

    peak: float  # where the last bin ends
    factor: NDArray[np.float32]  # (C, 1, 1)
    bins: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    @classmethod
    def of(cls, peak: Channels, factor: Channels) -> "Counts":
        """An empty histogram for a tensor whose channels have these peaks before the factors."""
        return cls(float((peak * factor).max()), factor.astype(np.float32)[:, None, None])

    def add(self, values: Tensor, tile: int) -> None:
        step = int(np.ceil(np.sqrt(max(1.0, values.size / COUNTED))))
        row, column = divmod(tile * 5 % step**2, step)  # different pixels in each tile
        scaled = np.abs(values[:, row::step, column::step] * (self.factor * np.float32(BINS / self.peak)))
        self.bins += np.bincount(np.minimum(scaled.ravel().astype(np.int32), BINS - 1), minlength=BINS)


def observed(graph: Network) -> list[str]:
    """The tensors that may be quantised or must fit float16: inputs of convolutions and sums, outputs of sums."""
    names = [n.input[0] for n in graph.convolutions]
    for node in graph.model.graph.node:
        if node.op_type == "Add":
            names += [*node.input, *node.output]
    return [n for n in dict.fromkeys(names) if n not in graph.weights and len(graph.shapes[n]) == MAP]


def see(graph: Network, inputs: Inputs, tick: Tick) -> dict[str, Seen]:
    """Peaks and means of the observed tensors, by channel."""
    names = observed(graph)
    run = runner(graph, names)
    seen: dict[str, Seen] = {}
    for done, (where, x) in enumerate(inputs, 1):
        for name, values in zip(names, run(x), strict=True):
            if not np.isfinite(values).all():
                raise BadInput(f"{where}: not finite at {whose(graph, name)}; export the checkpoint again, as fp32")
            if name not in seen:
                seen[name] = Seen(*np.zeros((2, len(values))))
            seen[name].add(values)
        tick(done, len(inputs), "values seen")
    return seen


def count(graph: Network, inputs: Inputs, counts: dict[str, Counts], tick: Tick) -> None:
    """Fill these tensors' histograms."""
    run = runner(graph, list(counts))
    for tile, (_, x) in enumerate(inputs):
        for values, histogram in zip(run(x), counts.values(), strict=True):
            if histogram.peak > 0:
                histogram.add(values, tile)
        tick(tile + 1, len(inputs), "values counted")


def runner(graph: Network, names: Iterable[str]) -> Callable[[NDArray[np.float32]], list[Tensor]]:
    """A function from an input to some tensors of the network, (C, H, W) each; the input itself may be one."""
    names = list(names)
    inner = [name for name in names if name != graph.input]
    # An arena would keep the memory of all steps' peaks at once.
    opened = session(graph.giving(inner).SerializeToString(), arena=False)

    def run(x: NDArray[np.float32]) -> list[Tensor]:
        found = dict(zip(inner, opened.run(inner, {graph.input: x}), strict=True))
        return [found.get(name, x)[0] for name in names]

    return run


def whose(graph: Network, tensor: str) -> str:
    """The last convolution before a tensor."""
    node = graph.made_by.get(tensor)
    while node is not None and node.op_type not in CONVOLUTIONS:
        node = graph.made_by.get(node.input[0])
    return f"layer {layer_name(node)}" if node is not None else "the image"
