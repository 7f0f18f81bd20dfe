"""`dlink-build`: ONNX -> TensorRT plan and manifest, or what a plan is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli.step import IN_FILE, OUT_PATH, Step, progress
from dlink.runtime.errors import BadInput
from dlink.runtime.precision import shares_in_words

if TYPE_CHECKING:
    from dlink.engine.build import BuildResult
    from dlink.engine.layers import Layer
    from dlink.onnx_graph.model import OnnxModel
    from dlink.trt_runtime.manifest import Ends, Manifest

AT_LEAST_1 = click.IntRange(1)
RUNS = 10  # that layers are timed in
COLUMNS = ("layer", "type", "precision", "time")


@click.command(cls=Step)
@click.argument("source", type=IN_FILE)
@click.option("-o", "--output", "out", type=OUT_PATH, help="The plan to write (.plan); its manifest goes beside it.")
@click.option(
    "--target",
    type=click.Choice(["tensorrt", "tensorrt-rtx"]),
    help="[default: tensorrt where it is installed, else tensorrt-rtx]",
)
@click.option("--max-tiles", type=AT_LEAST_1, default=1, show_default=True, help="The most tiles at once.")
@click.option("--views", type=click.Choice(["8", "4", "1"]), help="Of each at once.  [default: the file's]")
@click.option("--workspace", type=AT_LEAST_1, metavar="MIB", help="GPU memory for TensorRT's own use.  [default: all]")
@click.option("--optimization-level", type=click.IntRange(0, 5), help="0 builds fast, 5 looks longest.  [default: 3]")
@click.option("--timing-cache", type=OUT_PATH, help="TensorRT's measurements: reuse this file, and add what is new.")
@click.option(
    "--compute-capability",
    metavar="8.6,8.9",
    help="GPUs to build for (tensorrt-rtx), or current: the one here.  [default: Ampere on]",
)
@click.option(
    "--unlisted-gpu", is_flag=True, help="Also for GPUs that tensorrt-rtx does not list, where it takes them."
)
@click.option("--version-compatible", is_flag=True, help="Also for newer TensorRT of this major version.")
@click.option("--hardware-compatible", is_flag=True, help="Also for other GPUs, Ampere and newer (tensorrt).")
@click.option("--strip-weights", is_flag=True, help="Leave the weights in the ONNX file, which must stay beside.")
@click.option("--refit", is_flag=True, help="Allow new weights later.")
@click.option("--rebuild", is_flag=True, help="Build the plan SOURCE again here, as its manifest says.")
@click.option("--explain", is_flag=True, help="Print every layer of the engine, its precision and its time.")
@click.option("--triton", type=OUT_PATH, metavar="DIR", help="Lay the model out for tritonserver in DIR/<name>.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest.")
def build(
    source: Path, out: Path | None, target: str | None, max_tiles: int, views: str | None, workspace: int | None,
    optimization_level: int | None, timing_cache: Path | None, compute_capability: str | None,
    unlisted_gpu: bool, version_compatible: bool, hardware_compatible: bool, strip_weights: bool, refit: bool,
    rebuild: bool, explain: bool, triton: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Build SOURCE, an ONNX file of dlink-export or dlink-calibrate, into a TensorRT plan.

    The plan holds for the GPU it is built on and for this TensorRT alone; its manifest says so, and whatever loads it
    checks. With --target tensorrt-rtx it is built on any machine, for GeForce RTX GPUs. The engine's own report must
    show the precision that the file asks for, where a GPU is here to ask.

    SOURCE may be a plan, which is then described, or explained, laid out or rebuilt.
    """
    from dlink.trt_runtime.manifest import Options

    is_plan = source.suffix == ".plan"
    refuse(source, out, is_plan, rebuild, explain or triton is not None)
    if is_plan and not rebuild:
        look_at(source, explain, triton, as_json)
        return
    from dlink.engine import build as builder
    from dlink.onnx_graph.model import read_model

    if rebuild:
        result = builder.rebuild(source, progress("build"))
        finish(result, source, explain, triton, as_json)
        return
    graph = read_model(source)
    batch_views = int(views or views_of(graph))
    if not out:
        if explain:
            click.echo("\n".join(asked_table(graph)))
        if triton:
            lay_out(triton, source, graph.spec.tile, max_tiles * batch_views)
        return
    options = Options(
        target=target or default_target(),
        max_tiles=max_tiles,
        views=batch_views,
        workspace=workspace,
        optimization_level=optimization_level,
        compute_capability=tuple(capabilities(compute_capability)),
        unlisted_gpu=unlisted_gpu,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        strip_weights=strip_weights,
        refit=refit,
    )
    result = builder.build(graph, out, options, timing_cache, progress("build"))
    finish(result, out, explain, triton, as_json)


def finish(result: "BuildResult", out: Path, explain: bool, triton: Path | None, as_json: bool) -> None:
    """Say what was built, and lay it out where that is asked for."""
    tell(result, out, explain, as_json)
    if triton:
        lay_out(triton, out, result.manifest.spec.tile, result.manifest.options.batch, result.manifest.ends)


def refuse(source: Path, out: Path | None, is_plan: bool, rebuild: bool, looks: bool) -> None:
    """BadInput for what does not go together."""
    if source.suffix not in (".onnx", ".plan"):
        raise BadInput(f"{source}: expected an ONNX file (.onnx), or a plan (.plan)")
    if out and out.suffix != ".plan":
        raise BadInput(f"{out}: the name must end in .plan")
    if is_plan and out:
        raise BadInput(f"{source}: is a plan already; give the ONNX file, or --rebuild without -o")
    if rebuild and not is_plan:
        raise BadInput(f"{source}: --rebuild is for a plan; give -o to build one")
    if not (out or is_plan or looks):
        raise BadInput(f"{source}: what is to be done with it? -o PLAN builds it; or --explain, --triton")
    if out and not out.parent.is_dir():
        raise BadInput(f"{out}: there is no folder {out.parent}; make it first")


def default_target() -> str:
    """What is installed, TensorRT first."""
    from dlink.trt_runtime.manifest import TARGETS
    from dlink.trt_runtime.plan import installed_tensorrt

    return next((target for target in TARGETS if installed_tensorrt(target)), "tensorrt")


def views_of(graph: "OnnxModel") -> int:
    """The least of 1, 4 and 8 that holds the views of the file."""
    return min(n for n in (1, 4, 8) if n >= len(graph.spec.views))


def capabilities(text: str | None) -> list[str]:
    from dlink.trt_runtime.manifest import capability_of

    found = [part.strip() for part in text.split(",")] if text else []
    if found == ["current"]:
        return found
    try:
        for part in found:
            capability_of(part)
    except ValueError as e:
        raise BadInput(f"--compute-capability {text}: {e}") from e
    return found


def tell(result: "BuildResult", out: Path, explain: bool, as_json: bool) -> None:
    if as_json:
        click.echo(result.manifest.to_bytes().decode(), nl=False)
        return
    click.echo(describe(out, result.manifest))
    if result.layers is None:
        click.echo("note: no GPU here takes this plan, so its own report could not be read", err=True)
    if explain and result.layers is None:
        click.echo("\n".join(asked_table(result.graph)))
    elif explain:
        look_at(out, True, None, False)
    click.echo(f"next: dlink-check {out} TILES --against CHECKPOINT", err=True)


def describe(plan: Path, manifest: "Manifest") -> str:
    """What a plan is, in two or three lines."""

    where = manifest.runs_on.words()
    how = "as its layers report" if manifest.precision.proven_by == "inspector" else "as its graph is typed"
    return (
        f"{plan}: {manifest.title}, up to {manifest.options.batch} views of {manifest.spec.tile} px at once, "
        f"{manifest.plan.bytes / 1e6:.1f} MB, built in {manifest.built.seconds:.0f} s\n"
        f"computes in {shares_in_words(dict(manifest.precision.shares))}, {how}; runs on compute capability {where}; "
        f"reads {manifest.ends.reads} and gives {manifest.ends.gives}"
    )


def look_at(plan: Path, explain: bool, triton: Path | None, as_json: bool) -> None:
    """What a plan is, from its manifest and the GPU."""
    from dlink.trt_runtime.plan import fit, read_plan

    data, manifest = read_plan(plan)
    gpu = fit(plan, manifest) if explain else None
    if as_json:
        click.echo(manifest.to_bytes().decode(), nl=False)
    elif not explain and not triton:
        click.echo(describe(plan, manifest))
        v = manifest.verdict
        click.echo(f"{v.words}, checked on {v.tiles} tiles against {v.reference.name}" if v else "not checked yet")
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
        click.echo("\n".join(table(layers, times)))
    if triton:
        lay_out(triton, plan, manifest.spec.tile, manifest.options.batch, manifest.ends)


def lay_out(folder: Path, model: Path, side: int, batch: int, ends: "Ends | None" = None) -> None:
    from dlink.engine.triton import WIDE, write_repository

    config = write_repository(folder, model, side, batch, ends or WIDE)
    click.echo(f"{config}: for tritonserver --model-repository={folder}")


def table(layers: "Sequence[Layer]", times: "Mapping[str, float]") -> list[str]:
    """A line for each layer of an engine, with its time where there is one."""
    rows = [COLUMNS] + [
        (x.name, x.kind, x.precision or "?", f"{times[x.name]:.3f} ms" if x.name in times else "") for x in layers
    ]
    return columns(rows)


def asked_table(graph: "OnnxModel") -> list[str]:
    """A line for each convolution of the file, and what it asks for."""
    rows = [("node", "type", "share", "asked for")]
    rows += [(a.node, a.op, f"{a.share:.2%}", a.precision) for a in graph.asked]
    return columns(rows)


def columns(rows: "Sequence[tuple[str, ...]]") -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
