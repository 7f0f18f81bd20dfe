"""Proves that an ONNX file is its network: runs it beside PyTorch on tiles, before the file gets its name.

ONNX Runtime runs the file, because it computes what the file says on any CPU, also for FP16 graphs. OpenVINO may take
bfloat16. ONNX Runtime keeps float16 tensors in float32 between some layers, so overflow is looked for in PyTorch's
activations.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from dlink.export.balance import overflow
from dlink.nets.network import RoadNet
from dlink.nets.torch_backend import network
from dlink.onnx_graph.model import read_model
from dlink.onnx_graph.session import session
from dlink.onnx_graph.stretches import HALF_MAX
from dlink.runtime.backend import Probs
from dlink.runtime.errors import CheckFailed
from dlink.runtime.rounding import SMALL, Near, settle
from dlink.runtime.spec import Spec

MAX_DIFFERENCE = 1e-4  # of any FP32 probability
MIN_AGREEMENT = 0.995  # IoU between FP16's mask and PyTorch's
FEW = 0.001  # with a lower share of road, probabilities are compared instead of masks
FEW_DIFFERENCE = 0.02  # of these probabilities
LAYER_TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}  # of a layer's largest value, to name the first that differs


@dataclass
class Proof:
    """The result of a comparison: the largest difference of a probability, and the IoU between the masks."""

    tiles: int = 0
    difference: float = 0.0
    agreement: float = 1.0
    road: float = 0.0  # share of the pixels that are road for PyTorch
    near: Near = field(default_factory=Near)  # pixels that rounding could decide


def prove(path: Path, net: RoadNet, folded: RoadNet, spec: Spec, tiles: Iterable[NDArray[np.uint8]]) -> Proof:
    """Compare the file with the network on tiles (S, S, C). CheckFailed names the first bad layer."""
    run = session(path)
    ours: list[Probs] = []
    theirs: list[Probs] = []
    reference = network(net)
    half = spec.precision == "fp16"
    for tile in tiles:
        x = spec.prepare(tile[None])
        theirs.append(reference(x).copy())
        ours.append(run.run(None, {"image": x})[0][:, 0])
        if half and (over := overflow(folded, x)):
            layer, value = over
            found = f"its values reach {value:.3g}, and float16 ends at {HALF_MAX:g}"
            raise CheckFailed(f"{what(spec)}: first at layer {layer}: {found}; export fp32")
        if not np.isfinite(ours[-1]).all():
            raise CheckFailed(f"{what(spec)}: not finite; {blame(path, folded, spec, x)}")
    proof = compared(ours, theirs, spec)
    if wrong := broken(proof, spec.precision):
        raise CheckFailed(f"{what(spec)}: {wrong} is needed; {blame(path, folded, spec, x)}")
    return proof


def compared(ours: list[Probs], theirs: list[Probs], spec: Spec) -> Proof:
    """The differences between a file's probabilities and the network's own, (1, S, S) for each tile."""
    a, b = np.concatenate(ours), np.concatenate(theirs)
    mine, other, near = settle([(a, spec.threshold), (b, spec.threshold)])
    return Proof(
        tiles=len(ours),
        difference=float(np.abs(a - b).max()),
        agreement=iou(mine, other),
        road=float(other.mean()),
        near=near,
    )


def broken(proof: Proof, precision: str) -> str:
    """The limit that is not met, in words; empty if all are met."""
    most = MAX_DIFFERENCE if precision == "fp32" else FEW_DIFFERENCE
    if precision != "fp32" and proof.road >= FEW:
        held, found = proof.agreement >= MIN_AGREEMENT, f"masks agree at IoU {proof.agreement:.4f}"
        return "" if held else f"{found}, at least {MIN_AGREEMENT}"
    return "" if proof.difference <= most else f"probabilities differ by {proof.difference:.2g}, at most {most}"


def what(spec: Spec) -> str:
    return f"the {spec.precision} file of {spec.arch} is not its checkpoint, and was not written"


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    either = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / either if either else 1.0


def layers(net: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)}


def outputs(net: RoadNet, x: NDArray[np.float32]) -> list[tuple[str, Tensor]]:
    """The output of every convolution, in the order in which they run."""
    seen: list[tuple[str, Tensor]] = []
    hooks = [
        m.register_forward_hook(lambda _m, _x, y, name=name: seen.append((name, y))) for name, m in layers(net).items()
    ]
    try:
        network(net)(x)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def blame(path: Path, folded: RoadNet, spec: Spec, x: NDArray[np.float32]) -> str:
    """Words that name the first layer at which the file differs from the network."""
    graph = read_model(path)
    convs = [n.output[0] for n in graph.convolutions]
    got = session(graph.giving(convs).SerializeToString()).run(convs, {graph.input: x})
    for (name, y), mine in zip(outputs(folded, x), got, strict=True):
        theirs = y.numpy()
        off = float(np.abs(mine.astype(np.float32) - theirs).max()) / max(float(np.abs(theirs).max()), SMALL)
        if not off <= LAYER_TOLERANCE[spec.precision]:
            return f"first at layer {name}: off by {off:.2g} of its largest value"
    return "no single layer is far off: small differences add up"
