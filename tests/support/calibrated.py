"""Networks and tiles that the tests of calibration share."""

from pathlib import Path

import numpy as np

from dlink.calib.network import Network, read_network
from dlink.calib.placement import place
from dlink.calib.qdq import write_qdq
from dlink.calib.ranges import Ranges, gather
from dlink.calib.rescale import rescale
from dlink.calib.sample import Sample, Tile, digest
from dlink.export.onnx_file import write_onnx
from dlink.imagery.images import write_image
from dlink.nets.folding import fold_norms
from dlink.nets.zoo import spec_of
from dlink.scenes import with_roads
from dlink.training.sparse import layers, set_zeros
from tests.export.test_export import SIDE, trained

QUIET = lambda done, total, words: None  # noqa: E731


def small(arch: str, path: Path, precision: str = "fp32", sparse: bool = False) -> Path:
    """An eighth-width network with made-up weights, 2:4 sparse or not, as an ONNX file."""
    found = trained(arch)
    if sparse:
        make_sparse(found.net)
    write_onnx(fold_norms(found.net), spec_of(arch, width=0.125, tile=SIDE, precision=precision), path)
    return path


def make_sparse(net):
    """Give a network 2:4 zeros, by magnitude."""
    set_zeros(net, {name: conv.weight.detach().abs() for name, conv in layers(net).items()})


def scenes(count: int, side: int = SIDE) -> Sample:
    """Generated tiles, the last of them held back."""
    tiles = tuple(Tile(f"scene {i}", s.image, s.mask > 0) for i, s in enumerate(with_roads(count, side, 4_000_000)))
    return Sample(tiles[:-1], tiles[-1:], (), digest(tiles[:-1]))


def folder_of(path: Path, count: int, side: int) -> Path:
    """A DeepGlobe folder of generated tiles."""
    path.mkdir()
    for i, made in enumerate(with_roads(count, side, 5_000_000)):
        write_image(path / f"{i}_sat.png", made.image)
        write_image(path / f"{i}_mask.png", made.mask)
    return path


def ranges_of(graph: Network, count: int = 3) -> Ranges:
    return gather(graph, scenes(count), True, QUIET)


def quantise(path: Path, deconv: str = "int8", base: str = "fp16", method: str = "max"):
    """The INT8 model of an ONNX file, without judging it."""
    from dlink.calib.deconv import without_transposed

    graph = read_network(path)
    ranges = ranges_of(graph)
    scaled = rescale(graph, ranges.factors(graph))
    if deconv == "conv":
        scaled = without_transposed(scaled)
    return write_qdq(scaled, place(scaled, deconv), ranges.limits(method), ranges.means(graph), base)


def run(model, x: np.ndarray) -> np.ndarray:
    """By ONNX Runtime; a model, its bytes or a path."""
    from dlink.onnx_graph.session import session

    source = model if isinstance(model, (bytes, Path)) else model.SerializeToString()
    return session(source).run(None, {"image": x})[0]
