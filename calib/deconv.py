"""Rewrites a transposed convolution exactly, as a convolution and DepthToSpace.

With stride s, output pixel s q + r (of phase r) is the sum over d of x[q - d] w[s d + r + p]: each phase is an ordinary
convolution of the input. All phases together are one convolution with s * s times the channels and some taps that are
zero. DepthToSpace interleaves the phases. INT8 transposed convolutions are reported broken or slow in TensorRT
(NVIDIA/TensorRT#1293, #4366); convolutions are not.
"""

from dataclasses import replace
from itertools import product

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from dlink.calib.network import Network, Weights


def phases(kernel: int, stride: int, pad: int) -> tuple[NDArray[np.int64], int, int]:
    """For one axis: the kernel tap that each phase reads, (s, K) with -1 for none; padding before and after."""
    taps = {(r, d): stride * d + r + pad for r in range(stride) for d in range(-kernel, kernel + 1)}
    used = {at: tap for at, tap in taps.items() if 0 <= tap < kernel}
    most, least = max(d for _, d in used), min(d for _, d in used)
    table = np.full((stride, most - least + 1), -1)
    for (r, d), tap in used.items():
        table[r, most - d] = tap
    return table, most, -least


def attributes(node: onnx.NodeProto) -> dict[str, list[int]]:
    return {a.name: list(a.ints) for a in node.attribute}


def rewritable(graph: Network, node: onnx.NodeProto) -> bool:
    """Whether every phase has as many pixels as the input: the output is s times as large."""
    if node.op_type != "ConvTranspose" or any(a.name == "group" and a.i != 1 for a in node.attribute):
        return False
    found = attributes(node)
    sides, strides = graph.shapes[node.input[0]][2:], found.get("strides", [1, 1])
    plain = set(found.get("dilations", [1])) == {1} and len(set(found.get("pads", [0]))) == 1
    larger = graph.shapes[node.output[0]][2:] == tuple(s * side for s, side in zip(strides, sides, strict=True))
    return plain and larger and len(set(strides)) == 1 and strides[0] > 1


def as_convolution(graph: Network, node: onnx.NodeProto) -> tuple[list[onnx.NodeProto], Weights, Weights | None]:
    """The nodes that replace a transposed convolution, with the weights and bias of the first node."""
    found = attributes(node)
    stride, pad = found["strides"][0], found.get("pads", [0])[0]
    weight = graph.weights[node.input[1]]  # (C, D, k, k)
    table, before, after = phases(weight.shape[-1], stride, pad)
    out = np.zeros((stride, stride, weight.shape[1], weight.shape[0], table.shape[1], table.shape[1]), np.float32)
    for (r, c), i, j in product(np.ndindex(stride, stride), range(table.shape[1]), range(table.shape[1])):
        if (u := table[r, i]) >= 0 and (v := table[c, j]) >= 0:
            out[r, c, :, :, i, j] = weight[:, :, u, v].T
    spread = f"{node.output[0]}_phases"
    nodes = [
        helper.make_node(
            "Conv",
            [node.input[0], *node.input[1:]],
            [spread],
            node.name,
            pads=[before, before, after, after],
            kernel_shape=[table.shape[1]] * 2,
        ),
        helper.make_node("DepthToSpace", [spread], list(node.output), f"{node.name}_interleave", blocksize=stride),
    ]
    bias = np.tile(graph.weights[node.input[2]], stride * stride) if len(node.input) > 2 else None
    return nodes, out.reshape(-1, *out.shape[3:]), bias


def without_transposed(graph: Network) -> Network:
    """The same network with all transposed convolutions rewritten that are rewritable."""
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, Weights] = {}
    for node in graph.model.graph.node:
        if not rewritable(graph, node):
            nodes.append(node)
            continue
        made, weight, bias = as_convolution(graph, node)
        nodes += made
        weights[node.input[1]] = weight
        if bias is not None:
            weights[node.input[2]] = bias
    model = graph.with_weights(weights).model
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return replace(graph, model=model)
