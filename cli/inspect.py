"""`dlink-inspect`: describes an ONNX file or a plan."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlink.cli import options
from dlink.cli.options import IN_FILE, OUT_PATH, together
from dlink.cli.step import Step
from dlink.runtime.errors import BadInput
from dlink.runtime.files import mark_of, refuse_checkpoint
from dlink.runtime.precision import shares_in_words
from dlink.runtime.words import counted

if TYPE_CHECKING:
    from dlink.engine.layers import Layer
    from dlink.onnx_graph.model import OnnxModel
    from dlink.runtime import Spec
    from dlink.runtime.onnx_bytes import OnnxFile
    from dlink.trt_runtime.manifest import Ends, Manifest

RUNS = 10  # in which layers are timed
COLUMNS = ("layer", "type", "precision", "time")


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What is shown of a file, besides its description."""

    explain: bool = False
    triton: Path | None = None  # the model repository to lay the file out in
    as_json: bool = False

    def __post_init__(self) -> None:
        if self.explain and self.as_json:
            raise BadInput("--explain and --json: give one of them; the first prints a table, the second JSON")


looks = together(
    "show",
    "cli.inspect:Looks",
    click.option("--explain", is_flag=True, help="List every layer and its precision; for a plan also its time."),
    click.option("--triton", type=OUT_PATH, metavar="DIR", help="Lay the model out for tritonserver in DIR/<name>."),
    options.as_json,
)


@click.command(cls=Step, short_help="Describe an ONNX file or a plan.")
@click.argument("file", type=IN_FILE)
@looks
@options.max_tiles
@options.views("Views of each tile at once.  [default: the file's]")
def inspect(file: Path, show: Looks, max_tiles: int, views: int | None) -> None:
    """Describe FILE: an ONNX file of dlink-export or dlink-calibrate, or a plan of dlink-build.

    --explain lists the precision that each convolution of an ONNX file asks for. For a plan it lists and times the
    engine's own layers, on a GPU that runs the plan.

    --max-tiles and --views are for --triton with an ONNX file: how much tritonserver may send at once. A plan has its
    own limit.
    """
    refuse_checkpoint(file)
    if file.suffix == ".plan":
        look_at_plan(file, show)
    elif file.suffix == ".onnx":
        look_at_onnx(file, show, max_tiles, views)
    else:
        raise BadInput(f"{file}: expected an ONNX file (.onnx), or a plan (.plan)")


def look_at_onnx(path: Path, show: Looks, max_tiles: int, views: int | None) -> None:
    from dlink.runtime.onnx_bytes import read_onnx

    file = read_onnx(path)
    facts = facts_of(file)
    if show.as_json:
        click.echo(json.dumps(facts, indent=1))
    elif not show.explain and not show.triton:
        click.echo(onnx_in_words(path, file.spec, facts))
    if show.explain:
        from dlink.onnx_graph.model import read_model

        click.echo("\n".join(asked_table(read_model(path))))
    if show.triton:
        lay_out(show.triton, path, file.spec, max_tiles * (views or views_of(file.spec)))


def facts_of(file: "OnnxFile") -> dict[str, Any]:
    """The description of an ONNX file as plain values."""
    from dlink.runtime.spec import INT8_KEY

    int8 = json.loads(file.metadata[INT8_KEY]) if INT8_KEY in file.metadata else None
    return {
        "file": asdict(mark_of(file.path.name, file.data)),
        "spec": asdict(file.spec),
        "int8": int8,
    }


def onnx_in_words(path: Path, spec: "Spec", facts: Mapping[str, Any]) -> str:
    """The description of an ONNX file in two or three lines."""
    from dlink.runtime.spec import ADOPTED

    lines = [
        f"{path}: {spec.network_in_words}, {spec.precision}, {facts['file']['bytes'] / 1e6:.1f} MB",
        f"tiles of {spec.tile} px, {input_of(spec)}, {spec.gsd_m:g} m a pixel; {spec.target} where the probability "
        f"exceeds {spec.threshold:g}, the mean of {counted(len(spec.views), 'view')}"
        + (f"; samples of other than 8 bits stretched by {spec.stretch}" if spec.stretch else ""),
    ]
    lines.append(f"prepared as {numbers_of(spec)}")
    if spec.checkpoint_sha256:
        source = "network from elsewhere" if spec.arch.startswith(ADOPTED) else "checkpoint"
        key = f"{spec.checkpoint_key} of " if spec.checkpoint_key else ""
        road = "" if spec.checkpoint_class is None else f", class {spec.checkpoint_class} is {spec.target}"
        lines.append(f"exported from {key}a {source} of SHA-256 {spec.checkpoint_sha256}{road}")
    if facts["int8"]:
        share = facts["int8"]["int8_share"]
        lines.append(f"{share:.1%} of the multiply-adds in int8, ranges by {spec.int8_method}; {spec.int8_verdict}")
    if spec.scout:
        lines.append(f"a scout: {spec.scout.words}")
    return "\n".join(lines)


def numbers_of(spec: "Spec") -> str:
    """The scale and the shift of the pixels, once where they are the same for all channels."""
    each = [
        f"pixel * {scale:.6g} {'-' if shift < 0 else '+'} {abs(shift):.6g}"
        for scale, shift in zip(spec.scale, spec.shift, strict=True)
    ]
    return each[0] if len(set(each)) == 1 else "; ".join(each)


def input_of(spec: "Spec") -> str:
    """The order of the channels, and the bands if they are not red, green and blue."""
    from dlink.runtime.spec import COLOURS

    return spec.channels if spec.bands == COLOURS else f"{spec.bands_in_words}, {spec.channels}"


def look_at_plan(plan: Path, show: Looks) -> None:
    """Describe a plan from its manifest, and its layers from the GPU."""
    from dlink.trt_runtime.plan import fit, read_plan

    data, manifest = read_plan(plan)
    gpu = fit(plan, manifest) if show.explain else None
    if show.as_json:
        click.echo(manifest.to_bytes().decode(), nl=False)
    elif not show.explain and not show.triton:
        click.echo(plan_in_words(plan, manifest))
        v = manifest.verdict
        checked = v and f"{v.words}, checked on {counted(v.tiles, 'tile')} against {v.reference.name}"
        click.echo(checked or "not checked yet")
    if gpu:
        from dlink.bench.network import fill
        from dlink.engine.layers import inspect
        from dlink.engine.versions import find_compiler
        from dlink.trt_runtime.tensorrt_backend import TensorRTBackend

        layers = inspect(find_compiler(manifest.built.target), data, gpu)
        backend = TensorRTBackend(plan, data, manifest, gpu)
        try:
            fill(backend)
            times = backend.layer_times(RUNS)
        finally:
            backend.close()
        click.echo("\n".join(layer_table(layers, times)))
    if show.triton:
        lay_out(show.triton, plan, manifest.spec, manifest.options.batch, manifest.ends)


def plan_in_words(plan: Path, manifest: "Manifest") -> str:
    """The description of a plan in two or three lines."""
    where = manifest.runs_on.words()
    how = "as its layers report" if manifest.precision.proven_by == "inspector" else "as its graph is typed"
    most = counted(manifest.options.batch, "view")
    sparse = "; may have kernels for 2:4 sparse weights" if manifest.options.sparse else ""
    draws = "" if manifest.spec.target == "road" else f"; draws {manifest.spec.target}s"
    return (
        f"{plan}: {manifest.title}, up to {most} of {manifest.spec.tile} px at once, {input_of(manifest.spec)}, "
        f"{manifest.plan.bytes / 1e6:.1f} MB, built in {manifest.built.seconds:.0f} s\n"
        f"computes in {shares_in_words(dict(manifest.precision.shares))}, {how}; runs on compute capability {where}; "
        f"reads {manifest.ends.reads} and gives {manifest.ends.gives}{sparse}{draws}"
    )


def lay_out(folder: Path, model: Path, spec: "Spec", batch: int, ends: "Ends | None" = None) -> None:
    from dlink.engine.triton import WIDE, write_repository

    config = write_repository(folder, model, spec, batch, ends or WIDE)
    click.echo(f"{config}: for tritonserver --model-repository={folder}")


def views_of(spec: "Spec") -> int:
    """The least of 1, 4 and 8 that holds a file's views."""
    return min(n for n in (1, 4, 8) if n >= len(spec.views))


def layer_table(layers: "Sequence[Layer]", times: Mapping[str, float]) -> list[str]:
    """A line for each layer of an engine, with its time if it has one."""
    rows = [COLUMNS] + [
        (x.name, x.kind, x.precision or "?", f"{times[x.name]:.3f} ms" if x.name in times else "") for x in layers
    ]
    return columns(rows)


def asked_table(graph: "OnnxModel") -> list[str]:
    """A line for each convolution of the file: the precision that it asks for, and whether its weights are sparse."""
    from dlink.onnx_graph.sparsity import in_words, sparse_convolutions

    found = sparse_convolutions(graph)
    sparse = {a.node for a in found}
    rows = [("node", "type", "share", "asked for", "weights" if found else "")]
    rows += [(a.node, a.op, f"{a.share:.2%}", a.precision, "2:4" if a.node in sparse else "") for a in graph.asked]
    return columns(rows) + ([in_words(sum(a.share for a in found))] if found else [])


def columns(rows: "Sequence[tuple[str, ...]]") -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
