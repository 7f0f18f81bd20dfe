"""Rewrites the last convolution exactly, so that it gives a block of pixels at once.

An engine computes 16 or more output channels together, and a network with one channel of roads uses one of them. A
convolution with stride 4 whose 16 channels are the pixels of a block of 4 x 4 gives the same numbers: each channel has
the same weights, moved by its pixel's place within a larger kernel. DepthToSpace lays the blocks out. It has up to four
times the operations, of which none is idle; DESIGN.md, "INT8", has what was measured.
"""

from dataclasses import replace

import numpy as np
import onnx
from onnx import helper

from dlink.calib.deconv import attributes
from dlink.calib.network import Network, Weights

BLOCK = 4  # pixels along each side of a block


def with_folded_end(graph: Network) -> Network:
    """The same network with its last convolutions folded that are foldable."""
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, Weights] = {}
    for node in graph.model.graph.node:
        if not foldable(graph, node):
            nodes.append(node)
            continue
        weights |= blocks(graph, node)
        nodes += in_blocks(node)
    model = graph.with_weights(weights).model
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return replace(graph, model=model)


def foldable(graph: Network, node: onnx.NodeProto) -> bool:
    """Whether a convolution ends the network with one channel of the input's size, in whole blocks."""
    if node.op_type != "Conv" or node.output[0] not in graph.last_convolutions:
        return False
    out, _, *kernel = graph.weights[node.input[1]].shape
    found = attributes(node)
    plain = set(found.get("strides", [1])) == {1} and set(found.get("dilations", [1])) == {1}
    padded = found.get("pads", [0] * 4) == [side // 2 for side in kernel] * 2 and all(side % 2 for side in kernel)
    grouped = any(a.name == "group" and a.i != 1 for a in node.attribute)
    whole = all(side % BLOCK == 0 for side in graph.shapes[node.output[0]][2:])
    alone = len(graph.read_by[node.input[1]]) == 1
    return out == 1 and plain and padded and not grouped and whole and alone and max(kernel) > 1


def blocks(graph: Network, node: onnx.NodeProto) -> dict[str, Weights]:
    """The weight, and the bias if there is one, of the convolution that gives blocks."""
    weight = graph.weights[node.input[1]]  # (1, C, k, l)
    _, channels, height, width = weight.shape
    out = np.zeros((BLOCK, BLOCK, channels, height + BLOCK - 1, width + BLOCK - 1), np.float32)
    for row, column in np.ndindex(BLOCK, BLOCK):
        out[row, column, :, row : row + height, column : column + width] = weight[0]
    made = {node.input[1]: out.reshape(-1, *out.shape[2:])}
    if len(node.input) > 2:
        made[node.input[2]] = np.tile(graph.weights[node.input[2]], BLOCK * BLOCK)
    return made


def in_blocks(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes that take the convolution's place; the first one has its name."""
    pads = attributes(node).get("pads", [0] * 4)
    spread = f"{node.output[0]}_blocks"
    return [
        helper.make_node("Conv", list(node.input), [spread], node.name, pads=pads, strides=[BLOCK, BLOCK]),
        helper.make_node("DepthToSpace", [spread], list(node.output), f"{node.name}_lay", blocksize=BLOCK),
    ]
