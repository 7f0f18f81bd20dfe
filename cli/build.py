"""`dlink-build`: ONNX -> TensorRT plan and manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlink.cli import options
from dlink.cli.inspect import Looks, asked_table, lay_out, look_at_plan, looks, plan_in_words, views_of
from dlink.cli.options import AT_LEAST_1, IN_FILE, OUT_PATH, together
from dlink.cli.step import Moved, Step, progress
from dlink.runtime.errors import BadInput

if TYPE_CHECKING:
    from dlink.engine.build import BuildResult
    from dlink.trt_runtime.manifest import Options


class Capabilities(click.ParamType):  # type: ignore[type-arg]
    """Compute capabilities by commas, or current alone."""

    name = "capabilities"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        return value if isinstance(value, tuple) else tuple(part.strip() for part in value.split(","))


def only_looks(given: Mapping[str, Any]) -> bool:
    """Nothing is to be built: a plan was described, an ONNX file explained or laid out."""
    looked_at = Path(given["source"]).suffix == ".plan" or given["explain"] or given["triton"]
    return bool(looked_at and not given["out"] and not given["rebuild"])


def default_target() -> str:
    """What is installed, TensorRT first."""
    from dlink.trt_runtime.manifest import TARGETS
    from dlink.trt_runtime.plan import installed_tensorrt

    return next((target for target in TARGETS if installed_tensorrt(target)), "tensorrt")


@click.command(
    cls=Step,
    short_help="Build an ONNX file into a TensorRT plan.",
    moved=[Moved(to="inspect", when=only_looks, words="without -o")],
)
@click.argument("source", type=IN_FILE)
@options.output("The plan to write (.plan); its manifest goes beside it.")
@options.views("Of each tile at once.  [default: the file's]")
@together(
    "how",
    "trt_runtime.manifest:Options",
    options.target(default_target),
    options.max_tiles,
    click.option(
        "--workspace", type=AT_LEAST_1, metavar="MIB", help="GPU memory for TensorRT's own use.  [default: all]"
    ),
    click.option(
        "--optimization-level", type=click.IntRange(0, 5), help="0 builds fast, 5 looks longest.  [default: 3]"
    ),
    click.option(
        "--compute-capability",
        type=Capabilities(),
        metavar="8.6,8.9",
        help="GPUs to build for (tensorrt-rtx), or current: the one here.  [default: Ampere on]",
    ),
    click.option(
        "--unlisted-gpu", is_flag=True, help="Also for GPUs that tensorrt-rtx does not list, where it takes them."
    ),
    click.option("--version-compatible", is_flag=True, help="Also for newer TensorRT of this major version."),
    click.option("--hardware-compatible", is_flag=True, help="Also for other GPUs, Ampere and newer (tensorrt)."),
    click.option("--strip-weights", is_flag=True, help="Leave the weights in the ONNX file, which must stay beside."),
    click.option("--refit", is_flag=True, help="Allow new weights later."),
)
@click.option("--timing-cache", type=OUT_PATH, help="TensorRT's measurements: reuse this file, and add what is new.")
@click.option("--rebuild", is_flag=True, help="Build the plan SOURCE again here, as its manifest says.")
@looks
def build(
    source: Path, out: Path | None, how: "Options", views: int | None, timing_cache: Path | None, rebuild: bool,
    show: Looks,
) -> None:  # fmt: skip
    """Build SOURCE, an ONNX file of dlink-export or dlink-calibrate, into a TensorRT plan.

    The plan holds for the GPU it is built on and for this TensorRT alone; its manifest says so, and whatever loads it
    checks. With --target tensorrt-rtx it is built on any machine, for GeForce RTX GPUs. The engine's own report must
    show the precision that the file asks for, where a GPU is here to ask.

    --explain, --triton and --json say at once what dlink-inspect says of the plan later. With --rebuild SOURCE is a
    plan.
    """
    refuse(source, out, rebuild)
    check_capabilities(how.compute_capability)
    from dlink.engine import build as builder
    from dlink.onnx_graph.model import read_model

    if out is None:
        tell(builder.rebuild(source, progress("build")), source, show)
        return
    graph = read_model(source)
    how = replace(how, views=views or views_of(graph.spec))
    tell(builder.build(graph, out, how, timing_cache, progress("build")), out, show)


def refuse(source: Path, out: Path | None, rebuild: bool) -> None:
    """BadInput for what does not go together."""
    if source.suffix not in (".onnx", ".plan"):
        raise BadInput(f"{source}: expected an ONNX file (.onnx), or a plan (.plan) with --rebuild")
    if out and out.suffix != ".plan":
        raise BadInput(f"{out}: the name must end in .plan")
    if source.suffix == ".plan" and out:
        raise BadInput(f"{source}: is a plan already; give the ONNX file, or --rebuild without -o")
    if rebuild and source.suffix != ".plan":
        raise BadInput(f"{source}: --rebuild is for a plan; give -o to build one")
    if not (out or rebuild):
        raise BadInput(f"-o PLAN is missing: name the plan to write; dlink-inspect {source} says what the file is")
    if out and not out.parent.is_dir():
        raise BadInput(f"{out}: there is no folder {out.parent}; make it first")


def check_capabilities(given: Sequence[str]) -> None:
    from dlink.trt_runtime.manifest import capability_of

    try:
        for part in given:
            if tuple(given) != ("current",):
                capability_of(part)
    except ValueError as e:
        raise BadInput(f"--compute-capability {','.join(given)}: {e}") from e


def tell(result: "BuildResult", plan: Path, show: Looks) -> None:
    """Say what was built, and lay it out where that is asked for."""
    manifest = result.manifest
    if show.as_json:
        click.echo(manifest.to_bytes().decode(), nl=False)
    else:
        click.echo(plan_in_words(plan, manifest))
        if result.layers is None:
            click.echo("note: no GPU here takes this plan, so its own report could not be read", err=True)
        if show.explain and result.layers is None:
            click.echo("\n".join(asked_table(result.graph)))
        elif show.explain:
            look_at_plan(plan, Looks(explain=True))
        click.echo(f"next: dlink-check {plan} TILES --against CHECKPOINT", err=True)
    if show.triton:
        lay_out(show.triton, plan, manifest.spec.tile, manifest.options.batch, manifest.ends)
