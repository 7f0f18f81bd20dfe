"""Adopts a network from elsewhere, an ONNX file or a torch.export archive: writes it as a proven file of ours.

The reference of the proof is the network as it came: the ONNX file in ONNX Runtime, the archive in PyTorch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from dlink.export.archive import onnx_of, read_archive, running
from dlink.export.onnx_file import deepness
from dlink.export.options import AdoptOptions, ExportOptions
from dlink.export.proof import Proof, broken, compared
from dlink.onnx_graph.foreign import Input, fixed, giving, input_of, read_foreign
from dlink.onnx_graph.halved import balanced, beyond, halved, peaks
from dlink.onnx_graph.model import OnnxModel
from dlink.onnx_graph.normalised import Body, body_of, normalised
from dlink.onnx_graph.road_output import RoadOutput, final_activation
from dlink.onnx_graph.session import session
from dlink.onnx_graph.stretches import HALF_MAX
from dlink.runtime.errors import BadInput, CheckFailed
from dlink.runtime.files import file_mark, file_sha256, replacing
from dlink.runtime.onnx_bytes import write_sealed
from dlink.runtime.spec import ADOPTED, LONGEST_NAME, ONNX_KEY, Spec

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Tiles = list[NDArray[np.uint8]]

IMAGENET = "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
BEYOND = 1e-6  # of 0 and 1: a larger value is no probability


@dataclass(frozen=True)
class Adopted:
    """A file that was written, and what was taken for granted."""

    spec: Spec
    proof: Proof
    output: str  # what the output was taken for, in words
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Origin:
    """A network as it came: its graph for one tile, and how it runs."""

    path: Path
    model: onnx.ModelProto
    taken: Input
    running: Callable[[str], Run]  # of an output's name: (1, C, S, S) -> the output

    @property
    def name(self) -> str:
        return str(self.path)


def adopt(path: Path, out: Path, how: ExportOptions, given: AdoptOptions, road: int | None, tiles: Tiles) -> Adopted:
    """Write the network of `path` as `out`. A file that fails its proof is removed.

    `road` is the class that is road. `tiles` are RGB (S, S, 3), best of the kind that the network was trained on.
    """
    if how.mean is None:
        raise BadInput(
            f"{path}: does not say how its images are prepared; give --mean and --std, such as ImageNet's {IMAGENET}, "
            "or --mean 0,0,0 --std 1,1,1 for pixels that are only divided by 255"
        )
    spec = how.on(replace(how.first, arch=arch_of(path), channels="RGB", checkpoint_sha256=file_sha256(path)))
    origin = origin_of(path, spec)
    body = body_of(origin.model, origin.name, origin.taken, given.output_name, len(spec.scale), spec.tile)
    run = origin.running(body.output)
    raw = [run(spec.prepare(tile[None])) for tile in tiles]
    output, notes = output_of(origin.name, body, given.activation, road, raw)
    model = normalised(body, output, origin.name, spec.tile)
    graph = OnnxModel(model, spec, file_mark(path))
    inputs = [spec.prepare(tile[None]) for tile in tiles]
    if spec.precision == "fp16":
        graph = in_half(graph, inputs)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as part:
        write(graph.model, spec, part)
        proof = proven(part, spec, inputs, [output.probability(r, spec.tile) for r in raw])
    return Adopted(spec, proof, in_words(body, output), tuple(n for n in (body.note, *notes) if n))


def arch_of(path: Path) -> str:
    """The name in the Spec: what the file is called, as a network that is none of dlink's list."""
    plain = "".join(c for c in path.stem if c.isprintable())[: LONGEST_NAME // 2]
    return f"{ADOPTED}-{plain}" if plain else ADOPTED


def origin_of(path: Path, spec: Spec) -> Origin:
    channels, tile = len(spec.scale), spec.tile
    if path.suffix != ".onnx":
        program = read_archive(path)
        model = onnx_of(path, program, tile, channels)
        return Origin(path, model, Input("image", last=False), lambda output: running(program, output))
    model = read_foreign(path)
    taken = input_of(model, str(path), tile, channels)
    return Origin(path, model, taken, lambda output: original(model, str(path), taken, output, tile))


def original(model: onnx.ModelProto, name: str, taken: Input, output: str, tile: int) -> Run:
    """An output of the file as it came, in ONNX Runtime, one image at a time."""
    whole = giving(model, name, output)
    channels = next(i for i in model.graph.input if i.name == taken.name).type.tensor_type.shape.dim
    if channels[0].dim_value > 1:
        fixed(whole, taken, taken.dims(1, channels[3 if taken.last else 1].dim_value, tile))
    opened = session(whole.SerializeToString())

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        image = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if taken.last else x
        try:
            found: NDArray[np.float32] = opened.run([output], {taken.name: image})[0]
        except Exception as e:  # ONNX Runtime's exceptions have no class of their own
            reason = " ".join(str(e).split())[-200:]
            raise BadInput(f"{name}: ONNX Runtime does not run it on a tile of {tile} px: {reason}") from e
        return found

    return run


def output_of(
    name: str, body: Body, asked: str | None, road: int | None, raw: list[NDArray[np.float32]]
) -> tuple[RoadOutput, list[str]]:
    """What the output is, by the user's word and by what it gave on the tiles; and what was taken for granted."""
    least, most = extremes(raw)
    if not np.isfinite([least, most]).all():
        raise CheckFailed(f"{name}: its output is not finite on the tiles; its weights or --mean and --std are wrong")
    ends, classes, notes = final_activation(body.model), body.maps.classes, []
    probable = least >= -BEYOND and most <= 1 + BEYOND
    span = f"{least:.3g} to {most:.3g} on the tiles"
    if asked is None and not ends:
        raise BadInput(
            f"{name}: --activation is missing: its output is {span}, and no sigmoid or softmax ends the graph; give "
            "sigmoid or softmax for logits, none for probabilities"
        )
    if ends and asked not in (None, "none"):
        raise BadInput(
            f"{name}: --activation {asked}: the graph ends in a {ends} already; give --activation none, or leave it out"
        )
    activation = asked or "none"
    if activation == "none" and not probable:
        mend = "sigmoid" if classes == 1 else "softmax or --activation sigmoid"
        raise BadInput(f"{name}: --activation none: its output is {span}, no probability; give --activation {mend}")
    if activation == "softmax" and classes == 1:
        raise BadInput(f"{name}: --activation softmax: its output has one class; give --activation sigmoid")
    if activation != "none" and probable:
        notes.append(f"the output is {span}: if these are probabilities already, give --activation none")
    if asked is None:
        notes.append(f"the graph ends in a {ends}, so its output is taken as probabilities (--activation none)")
    return RoadOutput(body.maps, class_of(name, classes, road, notes), activation), notes


def extremes(raw: list[NDArray[np.float32]]) -> tuple[float, float]:
    return min(float(r.min()) for r in raw), max(float(r.max()) for r in raw)


def class_of(name: str, classes: int, road: int | None, notes: list[str]) -> int:
    if road is None and classes > 2:
        raise BadInput(f"{name}: gives {classes} classes; --class says which is road, 0 to {classes - 1}")
    if road is None and classes == 2:
        notes.append("class 1 of 2 is taken as road; --class 0 takes the other")
    found = classes - 1 if road is None else road
    if not 0 <= found < classes:
        raise BadInput(f"{name}: --class {found}: its output has {classes} class{'es' * (classes > 1)}, from 0 on")
    return found


def in_half(graph: OnnxModel, inputs: list[NDArray[np.float32]]) -> OnnxModel:
    """The graph in float16 between float32 ends."""
    graph, found = balanced(graph, peaks(graph, inputs))
    if over := beyond(graph, found):
        node, value = over
        raise CheckFailed(
            f"{refused(graph.spec)}: first at node {node}: its values reach {value:.3g}, and float16 ends at "
            f"{HALF_MAX:g}; export fp32"
        )
    return replace(graph, model=halved(graph))


def write(model: onnx.ModelProto, spec: Spec, path: Path) -> None:
    """Write the graph with its metadata, sealed. Not atomic: see `replacing`."""
    model.producer_name = "dlink"
    onnx.helper.set_model_props(model, {ONNX_KEY: spec.to_json(), **deepness(spec)})
    write_sealed(model.SerializeToString(), path)


def proven(path: Path, spec: Spec, inputs: list[NDArray[np.float32]], theirs: list[NDArray[np.float32]]) -> Proof:
    """Compare the file with what the network itself gave. The tiles are one batch as well: N must be free."""
    run = session(path)
    ours = [run.run(None, {"image": x})[0][:, 0] for x in inputs]
    if not all(np.isfinite(x).all() for x in ours):
        raise CheckFailed(f"{refused(spec)}: it is not finite; export fp32")
    proof = compared(ours, theirs, spec)
    if wrong := broken(proof, spec.precision):
        raise CheckFailed(f"{refused(spec)}: {wrong} is needed")
    pair = [0, -1]
    try:
        both = run.run(None, {"image": np.concatenate([inputs[i] for i in pair])})[0][:, 0]
        off = float(np.abs(both - np.concatenate([ours[i] for i in pair])).max())
    except Exception as e:  # ONNX Runtime's exceptions have no class of their own
        raise CheckFailed(f"{refused(spec)}: it takes one image at a time only; export it with a free batch") from e
    if off > (1e-4 if spec.precision == "fp32" else 0.05):
        raise CheckFailed(f"{refused(spec)}: two images at once give other roads than one (by {off:.2g})")
    return proof


def refused(spec: Spec) -> str:
    return f"the {spec.precision} file of {spec.arch} is not the network it was made from, and was not written"


def in_words(body: Body, output: RoadOutput) -> str:
    """What the output was taken for."""
    maps = body.maps
    of = f"class {output.road} of {maps.classes}" if maps.classes > 1 else "one class"
    applied = "probabilities" if output.activation == "none" else f"logits, {output.activation} applied"
    size = (
        "" if maps.side == body.model.graph.input[0].type.tensor_type.shape.dim[2].dim_value else f" at {maps.side} px"
    )
    return f"{body.output}: {of}, {applied}{size}"
