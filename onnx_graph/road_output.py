"""What the output of a network from elsewhere is, and how it becomes the probability of road.

It may be logits or probabilities, of one class or of many, with the classes in the second dimension or in the last, and
smaller than the tile. The same steps are here twice: in NumPy on what the network gave, which is the reference of the
proof, and as nodes of the file's graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from dlink.runtime.errors import BadInput

REDUCED = (1, 2, 4, 8)  # how many times smaller than the tile an output may be
FINAL = {"Sigmoid": "sigmoid", "HardSigmoid": "sigmoid", "Softmax": "softmax"}
# Operators that move values, or interpolate between them: after a sigmoid the result is still a probability.
MOVES = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Gather", "Resize", "Identity"}
ROAD = "road"

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Maps:
    """The output's layout: for one image, where the classes are and how large the maps are."""

    shape: tuple[int, ...]
    last: bool  # whether the classes are the last dimension
    classes: int
    side: int

    @classmethod
    def of(cls, shape: Sequence[int], name: str, tile: int) -> "Maps":
        """The layout of a static shape. Raise BadInput for one that is no map of the tile."""
        sides = [tile // r for r in REDUCED if tile % r == 0]
        planes = (1, *shape[1:]) if len(shape) == 3 else tuple(shape[1:])
        for last in (False, True):
            height, width, classes = planes if last else (*planes[1:], planes[0]) if len(planes) == 3 else (0, 0, 0)
            if height == width and height in sides and shape[0] == 1:
                return cls(tuple(shape), last, classes, height)
        text = " x ".join(map(str, shape)) or "a single number"
        raise BadInput(
            f"{name}: its output is {text} for a tile of {tile} px; N x classes x H x W is needed, with H and W 1/1, "
            "1/2, 1/4 or 1/8 of the tile"
        )


@dataclass(frozen=True)
class RoadOutput:
    """How an output becomes the probability of road: `activation` is what must still be applied to it."""

    maps: Maps
    road: int  # the class
    activation: str

    def probability(self, raw: Values, tile: int) -> Values:
        """The probability (N, S, S) in NumPy, of what the network gave for N images."""
        maps = raw.astype(np.float64).reshape(len(raw), *self.maps.shape[1:])
        maps = maps[:, None] if maps.ndim == 3 else np.moveaxis(maps, -1, 1) if self.maps.last else maps
        if self.activation != "softmax":
            maps = maps[:, self.road : self.road + 1]
        if self.maps.side < tile:
            along = bilinear(tile, self.maps.side)
            maps = along @ maps @ along.T
        return activated(maps, self.road, self.activation).astype(np.float32)


def bilinear(side: int, given: int) -> NDArray[np.float64]:
    """(side, given): resizes one axis, with pixels' centres at one half and no values beyond the edges."""
    at = ((np.arange(side) + 0.5) * given / side - 0.5).clip(0, given - 1)
    matrix: NDArray[np.float64] = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(given)))
    return matrix


def activated(maps: NDArray[np.float64], road: int, activation: str) -> NDArray[np.float64]:
    """(N, classes, S, S) -> (N, S, S). After none or sigmoid there is one class left."""
    found: NDArray[np.float64] = maps[:, 0]
    if activation == "sigmoid":
        found = 1 / (1 + np.exp(-found.clip(-700, 700)))
    elif activation == "softmax":
        powers = np.exp(maps - maps.max(axis=1, keepdims=True))
        found = powers[:, road] / powers.sum(axis=1)
    return found


def final_activation(model: onnx.ModelProto) -> str:
    """What the graph applies last: sigmoid, softmax, or empty. Operators that only move values are passed."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    node = made_by.get(model.graph.output[0].name)
    while node is not None and node.op_type in MOVES:
        node = made_by.get(node.input[0])
    return FINAL.get(node.op_type, "") if node is not None else ""


class Tail:
    """Adds nodes to the end of a graph of opset 17."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph, self.tensor = model.graph, str(model.graph.output[0].name)

    def add(
        self, op: str, *constants: tuple[str, NDArray[np.generic]], inputs: Sequence[str] = (), **given: Any
    ) -> str:
        """A node that reads the last tensor and constants. Its result is the last tensor from then on."""
        output = f"{ROAD}/{op}_{len(self.graph.node)}"
        names = [self.constant(f"{output}_{name}", values) if name else "" for name, values in constants]
        node = helper.make_node(op, [self.tensor, *inputs, *names], [output], output, **given)
        self.graph.node.append(node)
        self.tensor = output
        return output

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def one_class(self, road: int) -> str:
        bounds = {"starts": road, "ends": road + 1, "axes": 1}
        return self.add("Slice", *((name, np.array([value], np.int64)) for name, value in bounds.items()))


def add_road(model: onnx.ModelProto, how: RoadOutput, tile: int) -> None:
    """Continue the graph to the probability (1, 1, S, S), named `road`."""
    tail, maps = Tail(model), how.maps
    if len(maps.shape) == 3:
        tail.add("Reshape", ("shape", np.array([0, 1, maps.side, maps.side], np.int64)))
    elif maps.last:
        tail.add("Transpose", perm=[0, 3, 1, 2])
    pair = how.activation == "softmax" and maps.classes == 2
    if maps.classes > 1 and (pair or how.activation != "softmax") and not narrowed(model, tail.tensor, how.road, pair):
        select(tail, how.road, pair)
    if maps.side < tile:
        scales = np.array([1, 1, tile / maps.side, tile / maps.side], np.float32)
        tail.add("Resize", ("", scales), ("scales", scales), mode="linear", coordinate_transformation_mode="half_pixel")
    if how.activation == "sigmoid" or pair:
        tail.add("Sigmoid")
    elif how.activation == "softmax":
        tail.add("Softmax", axis=1)
        tail.one_class(how.road)
    model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name=tail.tensor))


def select(tail: Tail, road: int, pair: bool) -> None:
    """The road's map; of a pair its difference from the other, of which the sigmoid is the softmax."""
    both = tail.tensor
    ours = tail.one_class(road)
    if pair:
        tail.tensor = both
        other = tail.one_class(1 - road)
        tail.tensor = ours
        tail.add("Sub", inputs=[other])


def narrowed(model: onnx.ModelProto, tensor: str, road: int, pair: bool) -> bool:
    """Leave one class of the last convolution, if that gives the maps: exact, and it saves the other classes' work."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    weights = {i.name: i for i in model.graph.initializer}
    readers = [name for node in model.graph.node for name in node.input]
    node = made_by.get(tensor)
    while node is not None and node.op_type == "Resize" and readers.count(node.input[0]) == 1:
        node = made_by.get(node.input[0])
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute} if node is not None else {}
    if node is None or node.op_type != "Conv" or given.get("group", 1) != 1 or not set(node.input[1:]) <= set(weights):
        return False
    for name in node.input[1:]:
        if readers.count(name) > 1:
            return False
    for name in node.input[1:]:
        weights[name].CopyFrom(numpy_helper.from_array(row_of(numpy_helper.to_array(weights[name]), road, pair), name))
    del model.graph.value_info[:]
    return True


def row_of(values: NDArray[np.float32], road: int, pair: bool) -> NDArray[np.float32]:
    kept: NDArray[np.float32] = (
        values[road : road + 1] - values[1 - road : 2 - road] if pair else values[road : road + 1]
    )
    return np.ascontiguousarray(kept)
