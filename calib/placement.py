"""Decides which layers run in int8, and records why the others do not.

A unit is a convolution, or the skip branch of a sum. TensorRT fuses a convolution whose input, weights and output are
quantised with the sum and the ReLU after it, if the sum's skip branch is quantised and the convolution's own result is
not (NVIDIA, Developer Guide, "Explicit quantization", Q/DQ placement).

These stay FP16 from the start where roads come first, because it was measured or reported (DESIGN.md, "INT8"):
- the last convolution and what follows it: they draw the edge of the road;
- convolutions that read the image, as long as ENOUGH of the network stays in int8: they have few operations on three
  channels, which can't fill int8 units, and they made a seventh of the whole error;
- skips at a quarter of the tile's side and finer, where the residual stream is quantised again at every block and the
  error is largest;
These stay FP16 where speed comes first, too:
- skips that no convolution reads or makes (the sums of the dilated centre): small tensors that gain nothing;
- transposed convolutions with `deconv="fp16"`, or those that `deconv="conv"` can't rewrite.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import onnx

from dlink.calib.network import Network, layer_name
from dlink.onnx_graph.model import CONVOLUTIONS
from dlink.onnx_graph.scales import groups_of
from dlink.runtime.errors import BadInput

INT8, FP16 = "int8", "fp16"
SPEED, ROADS = "speed", "roads"  # what is preferred
ENOUGH = 0.95  # of the multiply-adds; in a narrow network the first convolution has more than 1 - ENOUGH
FINE = 4  # skips whose tensor is at most this many times smaller than the tile are not quantised


@dataclass(frozen=True)
class Unit:
    """A layer that may run in int8."""

    name: str  # in the network
    node: str  # in the graph
    op: str  # Conv, ConvTranspose or Add
    share: float  # of the network's multiply-adds
    precision: str  # int8, or fp16 for the base precision, which may be float32
    why: str  # why it is not int8; empty for int8

    def reverted(self, why: str) -> "Unit":
        return replace(self, precision=FP16, why=why)


def place(graph: Network, deconv: str, keep: Iterable[str] = (), prefer: str = ROADS) -> list[Unit]:
    """Every unit of a network with its precision. `keep` has patterns of names that stay FP16.

    Where speed is preferred, all is int8 that engines take; where roads are, what costs most of them stays FP16.
    """
    fast = prefer == SPEED
    total = sum(graph.macs(node) for node in graph.convolutions)
    shares = {node.name: graph.macs(node) / total for node in graph.convolutions}
    spared = sum(shares[n.name] for n in (*graph.read_by[graph.input], *last(graph)) if n.name in shares)
    units = []
    for node in graph.model.graph.node:
        if node.op_type in CONVOLUTIONS:
            share = shares[node.name]
            why = why_not(graph, node, deconv, fast)
            if not fast and not why and node.input[0] == graph.input and spared <= 1 - ENOUGH:
                why = "reads the image"
        elif node.op_type == "Add" and (skip := skip_of(graph, node)):
            fine = graph.stride(skip) <= FINE and not fast
            why = f"the residual stream at 1/{graph.stride(skip)} of the tile" if fine else ""
            share = 0.0
        else:
            continue
        units.append(Unit(layer_name(node), node.name, node.op_type, share, FP16 if why else INT8, why))
    return kept(units, list(keep))


def kept(units: list[Unit], keep: list[str]) -> list[Unit]:
    for pattern in keep:
        if not any(fnmatchcase(u.name, pattern) for u in units):
            raise BadInput(f"--keep fp16:{pattern}: there is no such layer, only {', '.join(u.name for u in units)}")
    return [u.reverted("asked for") if any(fnmatchcase(u.name, p) for p in keep) else u for u in units]


def why_not(graph: Network, node: onnx.NodeProto, deconv: str, fast: bool) -> str:
    """The reason why a convolution stays FP16; empty if it may be int8."""
    if not fast and node.name in {n.name for n in last(graph)}:
        return "the last convolution"
    if node.op_type == "ConvTranspose" and groups_of(node) > 1:
        return "transposed, in groups"  # their channels share scales, and engines are not known to run them in int8
    if node.op_type == "ConvTranspose" and deconv != "int8":
        return "transposed" if deconv == "fp16" else "transposed, and can't be rewritten"
    return ""


def last(graph: Network) -> list[onnx.NodeProto]:
    """The convolutions that end the network: one, or one for each member of an ensemble."""
    return [n for n in graph.convolutions if n.output[0] in graph.last_convolutions]


def skip_of(graph: Network, add: onnx.NodeProto) -> str | None:
    """The skip branch of a sum: the input that a convolution also reads, or a shortcut's own. None without one."""
    first, second = add.input
    if first in graph.weights or second in graph.weights:
        return None
    alone = [name for name in (first, second) if ends_a_branch(graph, name)]
    if len(alone) == 2:  # a shortcut with its own convolution is the second input
        return str(second)
    if len(alone) == 1:
        skip: str = second if alone[0] == first else first
        return skip if any(n.op_type in CONVOLUTIONS for n in graph.read_by[skip]) else None
    return None


def ends_a_branch(graph: Network, tensor: str) -> bool:
    """Whether a convolution, perhaps with a ReLU, gives a tensor that only the sum reads."""
    node = graph.made_by.get(tensor)
    if node is not None and node.op_type == "Relu":
        node = graph.made_by.get(node.input[0])
    return node is not None and node.op_type in CONVOLUTIONS and len(graph.read_by[tensor]) == 1


def share_of(units: Iterable[Unit]) -> float:
    """The share of the multiply-adds that run in int8."""
    return sum(u.share for u in units if u.precision == INT8)
