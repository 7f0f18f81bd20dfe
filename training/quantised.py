"""Quantisation-aware fine-tuning, for networks whose INT8 file misses its limits after calibration alone.

The float graph of `calib/` runs in PyTorch with fake quantisation exactly where the file will have Q/DQ pairs, with the
same ranges. In each step weights are rounded as in the file. The target is the float network's own probability, so
tiles need no labels. The trained weights go back into the same Q/DQ graph.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from dlink.calib.calibrate import CalibrationOptions, CalibrationResult, Work, stamp
from dlink.calib.evaluator import Evaluator, Score
from dlink.calib.folded import with_folded_end
from dlink.calib.limits import STEPS
from dlink.calib.network import Network, read_network
from dlink.calib.placement import INT8, ROADS, Unit, skip_of
from dlink.calib.qdq import weight_scales, write_qdq
from dlink.calib.ranges import Ranges
from dlink.calib.sample import Sample
from dlink.onnx_graph.model import CONVOLUTIONS
from dlink.onnx_graph.sparsity import sparse_convolutions
from dlink.runtime.errors import BadInput, CheckFailed
from dlink.runtime.files import replacing
from dlink.runtime.onnx_bytes import write_sealed
from dlink.runtime.progress import Tick
from dlink.runtime.two_of_four import ENOUGH
from dlink.runtime.views import ALL, apply_view
from dlink.training.loop import poly, set_rate
from dlink.training.sparse import zeros_held

GRADIENT = 1.0  # the largest norm of a step's gradient


@dataclass(frozen=True, kw_only=True)
class FineTuneOptions:
    """What is asked of a fine-tuning."""

    everything: bool = False  # all layers in int8, also those that calibration leaves FP16
    method: str = "mse"  # by which the ranges are cut
    stretch: float = 1.0  # times the ranges, for an artificially hard setting
    epochs: int = 8
    batch: int = 4
    rate: float = 5e-5
    seed: int = 0


@dataclass(frozen=True)
class FineTuned:
    """The result of fine-tuning, and the scores before it."""

    result: CalibrationResult
    before: tuple[Score, ...]
    losses: tuple[float, ...]


class Quantised(nn.Module):
    """The graph of an ONNX file in PyTorch: x (N, 3, S, S) -> probability (N, 1, S, S), int8 where its units say."""

    def __init__(self, graph: Network, units: Sequence[Unit], limits: dict[str, float]) -> None:
        super().__init__()
        self.graph, self.limits = graph, limits
        self.int8 = {unit.node for unit in units if unit.precision == INT8}
        self.learnt = {name: at for at, name in enumerate(n for c in graph.convolutions for n in c.input[1:])}
        self.weights = nn.ParameterList(torch.from_numpy(graph.weights[name].copy()) for name in self.learnt)
        for name, values in graph.weights.items():
            if name not in self.learnt:
                self.register_buffer(key_of(name), torch.from_numpy(values.copy()))

    def forward(self, x: Tensor) -> Tensor:
        values = {self.graph.input: x}
        rounded: dict[str, Tensor] = {}
        for node in self.graph.model.graph.node:
            inputs: list[Any] = [
                values[name] if name in values else self.weight(name) if name else None for name in node.input
            ]
            if node.name in self.int8:
                where = 0 if node.op_type in CONVOLUTIONS else list(node.input).index(str(skip_of(self.graph, node)))
                name = node.input[where]
                if name not in rounded:
                    rounded[name] = self.as_int8(name, inputs[where])
                inputs[where] = rounded[name]
                if node.op_type in CONVOLUTIONS:
                    inputs[1] = weight_as_int8(inputs[1], 0 if node.op_type == "Conv" else 1)
            values[node.output[0]] = run(node, inputs)
        road: Tensor = values[self.graph.output]
        return road

    def weight(self, name: str) -> Tensor:
        if name in self.learnt:
            weight: Tensor = self.weights[self.learnt[name]]
            return weight
        return self.get_buffer(key_of(name))

    def as_int8(self, name: str, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, self.limits[name] / STEPS, 0, -STEPS - 1, STEPS)

    def sparse_weights(self) -> list[Tensor]:
        """The weights with 2:4 zeros, if the network is sparse (training/sparse.py)."""
        found = sparse_convolutions(self.graph)
        if sum(asked.share for asked in found) < ENOUGH:
            return []
        names = {node.name: node.input[1] for node in self.graph.convolutions}
        return [self.weight(names[asked.node]) for asked in found]

    def network(self) -> Network:
        """The graph with the trained weights."""
        weights = {name: self.weights[at].detach().numpy().copy() for name, at in self.learnt.items()}
        return self.graph.with_weights(weights)


def key_of(name: str) -> str:
    """The name of a buffer, which must not contain dots."""
    return "constant " + name.replace(".", "/")


def weight_as_int8(weight: Tensor, axis: int) -> Tensor:
    """Weights rounded to 127 steps of each output channel's largest value."""
    scales = torch.from_numpy(weight_scales(weight.detach().numpy(), axis))
    zeros = torch.zeros(len(scales), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, axis, -STEPS, STEPS)


def run(node: onnx.NodeProto, x: Sequence[Any]) -> Tensor:
    """Run one node on its inputs, None where one is left out."""
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    op = node.op_type
    if op in ("Conv", "ConvTranspose", "MaxPool", "AveragePool"):
        pads, half = given.get("pads", [0, 0, 0, 0]), len(given.get("pads", [0, 0, 0, 0])) // 2
        ahead, behind = list(pads[:half]), list(pads[half:])
        stride, dilation = given.get("strides", [1, 1]), given.get("dilations", [1, 1])
        bias, groups = x[2] if len(x) > 2 else None, given.get("group", 1)
        if op == "ConvTranspose":
            more = given.get("output_padding", [0, 0])
            return functional.conv_transpose2d(
                x[0], x[1], bias, stride=stride, padding=ahead, output_padding=more, groups=groups, dilation=dilation
            )
        if op == "AveragePool":
            ceil, edges = bool(given.get("ceil_mode")), bool(given.get("count_include_pad"))
            return functional.avg_pool2d(x[0], given["kernel_shape"], stride, ahead, ceil, edges)
        if op == "MaxPool":
            return functional.max_pool2d(
                x[0], given["kernel_shape"], stride, ahead, dilation, bool(given.get("ceil_mode"))
            )
        if ahead == behind:
            return functional.conv2d(x[0], x[1], bias, stride=stride, padding=ahead, dilation=dilation, groups=groups)
        wide = functional.pad(x[0], (ahead[1], behind[1], ahead[0], behind[0]))
        return functional.conv2d(wide, x[1], bias, stride=stride, dilation=dilation, groups=groups)
    plain: dict[str, Callable[..., Tensor]] = {
        "Relu": torch.relu,
        "Add": torch.add,
        "Mul": torch.mul,
        "MatMul": torch.matmul,
        "Sigmoid": torch.sigmoid,
        "Identity": lambda value: value,
        "Sub": torch.sub,
        "Div": torch.div,
        "Softmax": lambda value: torch.softmax(value, int(given.get("axis", -1))),
        "Transpose": lambda value: value.permute(given["perm"]),
        "GlobalAveragePool": lambda value: value.mean((2, 3), keepdim=True),
        "LeakyRelu": lambda value: functional.leaky_relu(value, given.get("alpha", 0.01)),
        "PRelu": lambda value, slope: torch.where(value > 0, value, value * slope),
        "Clip": lambda value, *ends: torch.clip(value, *ends),
        "Slice": lambda value, *where: sliced(value, *where),
        "Resize": lambda value, *factors: enlarged(value, factors[-1], given),
        "Concat": lambda *values: torch.cat(values, int(given["axis"])),
    }
    if op not in plain:
        raise BadInput(f"{node.name}: {op} is not an operator that can be fine-tuned; dlink-calibrate alone takes it")
    return plain[op](*x)


def sliced(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor, steps: Tensor | None = None) -> Tensor:
    for i, axis in enumerate(axes.tolist()):
        where = slice(int(starts[i]), int(ends[i]), int(steps[i]) if steps is not None else 1)
        x = x[(slice(None),) * (axis % x.ndim) + (where,)]
    return x


def enlarged(x: Tensor, factors: Tensor, given: Mapping[str, Any]) -> Tensor:
    """Resize by factors: copies of pixels, or bilinear with pixels' centres at one half or at the corners."""
    size = [int(side * factor) for side, factor in zip(x.shape[2:], factors[2:].tolist(), strict=True)]
    at = given.get("coordinate_transformation_mode", b"half_pixel")
    if given.get("mode", b"nearest") == b"nearest" and at == b"asymmetric":
        return functional.interpolate(x, size=size, mode="nearest")
    if given.get("mode") == b"linear" and at in (b"half_pixel", b"pytorch_half_pixel", b"align_corners"):
        return functional.interpolate(x, size=size, mode="bilinear", align_corners=at == b"align_corners")
    raise BadInput(f"a Resize of {at.decode()} pixels can't be fine-tuned; dlink-calibrate alone takes it")


def finetune(
    source: Path,
    ranges: Path,
    out: Path,
    sample: Sample,
    how: FineTuneOptions,
    progress: Callable[[str], Tick],
) -> FineTuned:
    """Fine-tune the float ONNX file `source` on a sample's tiles, evaluate on its holdout, and write the INT8 `out`.

    Raises CheckFailed and writes nothing if the result is no closer to the float network than calibration alone.
    """
    graph = read_network(source)
    found = Ranges.read(ranges, graph)
    limits = {name: limit * how.stretch for name, limit in found.limits(how.method).items()}
    with TemporaryDirectory() as folder:
        work = Work(graph, found, CalibrationOptions(method=how.method, prefer=ROADS, fold=False), Path(folder))
        units = [replace(u, precision=INT8, why="") if how.everything else u for u in work.units]
        evaluator = Evaluator(work.write_float(), sample.holdout, progress("judge"))
        before = evaluator.score(work.save(write_qdq(work.graph, units, limits, work.means, work.how.base)))
        net = Quantised(work.graph, units, limits)
        teacher = Quantised(work.graph, [], {})
        losses = list(learn(net, teacher, sample, how, progress("fine-tune")))
        model = write_qdq(with_folded_end(net.network()), units, limits, {}, work.how.base)
        scores = evaluator.score(work.save(model))
    if not scores[0].agreement > before[0].agreement:
        raise CheckFailed(
            f"{source}: fine-tuning came no nearer to the float network: masks agree {scores[0].agreement:.4f}, after "
            f"calibration alone {before[0].agreement:.4f}; it may be as near as it gets, or want more tiles"
        )
    result = CalibrationResult(
        f"{how.method}, fine-tuned", tuple(units), tuple(scores), len(sample.holdout), evaluator.labelled, found
    )
    stamp(model, graph, result)
    with replacing(out) as part:
        write_sealed(model.SerializeToString(), part)
    return FineTuned(result, tuple(before), tuple(losses))


def learn(net: Quantised, teacher: Quantised, sample: Sample, how: FineTuneOptions, tick: Tick) -> Iterator[float]:
    """Train by Adam at a low rate with the poly schedule, each tile in a random view. Yields each step's loss."""
    rng = np.random.default_rng(how.seed)
    optimiser = torch.optim.Adam(net.parameters(), how.rate)
    images, spec = [tile.image for tile in sample.tiles], net.graph.spec
    batch = min(how.batch, len(images))
    steps = how.epochs * (len(images) // batch)
    order = [i for _ in range(how.epochs) for i in rng.permutation(len(images))[: len(images) // batch * batch]]
    with zeros_held(net.sparse_weights(), optimiser):
        for done in range(steps):
            set_rate(optimiser, how.rate * poly(done / steps))
            chosen = order[done * batch : (done + 1) * batch]
            views = [apply_view(spec.prepare(images[i][None])[0], int(rng.choice(ALL))) for i in chosen]
            x = torch.from_numpy(np.stack(views))
            with torch.no_grad():
                target = teacher(x)
            loss = functional.binary_cross_entropy(net(x), target) - entropy(target)
            if not torch.isfinite(loss):
                raise CheckFailed(f"the loss is {loss.item()} at step {done + 1}: lower --rate")
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), GRADIENT)
            optimiser.step()
            tick(done + 1, steps, f"loss {loss.item():.5f}")
            yield loss.item()


def entropy(p: Tensor) -> Tensor:
    """The target's entropy. Cross-entropy minus this is the Kullback-Leibler divergence, whose minimum is 0."""
    return functional.binary_cross_entropy(p, p)
