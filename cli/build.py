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
from dlink.runtime.files import refuse_checkpoint

if TYPE_CHECKING:
    from dlink.engine.build import BuildResult
    from dlink.trt_runtime.manifest import Options


class Capabilities(click.ParamType):  # type: ignore[type-arg]
    """Compute capabilities separated by commas, or `current` alone."""

    name = "capabilities"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        return value if isinstance(value, tuple) else tuple(part.strip() for part in value.split(","))


def only_looks(values: Mapping[str, Any]) -> bool:
    """Whether nothing is to be built: the file is only described, explained or laid out for Triton."""
    looked_at = Path(values["source"]).suffix == ".plan" or values["explain"] or values["triton"]
    return bool(looked_at and not values["out"] and not values["rebuild"])


def default_target() -> str:
    """The installed target; TensorRT if both are installed."""
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
@options.views("Views of each tile at once.  [default: the file's]")
@together(
    "how",
    "trt_runtime.manifest:Options",
    options.target(default_target),
    options.max_tiles,
    click.option(
        "--workspace", type=AT_LEAST_1, metavar="MIB", help="GPU memory for TensorRT's own use.  [default: all]"
    ),
    click.option(
        "--optimization-level", type=click.IntRange(0, 5), help="0 builds fastest, 5 searches longest.  [default: 3]"
    ),
    click.option(
        "--compute-capability",
        type=Capabilities(),
        metavar="8.6,8.9",
        help="GPUs to build for (tensorrt-rtx), or current for the one here.  [default: Ampere and newer]",
    ),
    click.option(
        "--unlisted-gpu", is_flag=True, help="Also build for GPUs that tensorrt-rtx does not list, if it accepts them."
    ),
    click.option("--version-compatible", is_flag=True, help="Also build for newer TensorRT of this major version."),
    click.option("--hardware-compatible", is_flag=True, help="Also build for other GPUs, Ampere and newer (tensorrt)."),
    click.option("--strip-weights", is_flag=True, help="Leave the weights in the ONNX file; keep it beside the plan."),
    click.option("--refit", is_flag=True, help="Allow new weights later."),
    click.option("--sparse", is_flag=True, help="Allow kernels for 2:4 sparse weights; Ampere and newer (tensorrt)."),
)
@click.option("--timing-cache", type=OUT_PATH, help="Reuse TensorRT's measurements in this file, and add new ones.")
@click.option("--rebuild", is_flag=True, help="Build the plan SOURCE again here, as its manifest says.")
@looks
def build(
    source: Path, out: Path | None, how: "Options", views: int | None, timing_cache: Path | None, rebuild: bool,
    show: Looks,
) -> None:  # fmt: skip
    """Build SOURCE, an ONNX file of dlink-export or dlink-calibrate, into a TensorRT plan.

    The plan runs only on the GPU and the TensorRT that it is built with. Its manifest records both, and opening it
    checks them. With --target tensorrt-rtx it is built on any machine, for GeForce RTX GPUs. If a GPU is here, the
    engine's own report must show the precision that the file asks for.

    --explain, --triton and --json give at once what dlink-inspect gives later. With --rebuild, SOURCE is a plan.
    """
    refuse(source, out, rebuild)
    check_capabilities(how.compute_capability)
    from dlink.engine import build as builder
    from dlink.onnx_graph.model import read_model

    if out is None:
        show_result(builder.rebuild(source, progress("build")), source, show)
        return
    graph = read_model(source)
    how = replace(how, views=views or views_of(graph.spec))
    show_result(builder.build(graph, out, how, timing_cache, progress("build")), out, show)


def refuse(source: Path, out: Path | None, rebuild: bool) -> None:
    """Raise BadInput for arguments that do not go together."""
    refuse_checkpoint(source)
    if source.suffix not in (".onnx", ".plan"):
        raise BadInput(f"{source}: expected an ONNX file (.onnx), or a plan (.plan) with --rebuild")
    if out and out.suffix != ".plan":
        raise BadInput(f"{out}: the name must end in .plan")
    if source.suffix == ".plan" and out:
        raise BadInput(f"{source}: is a plan already; give the ONNX file, or --rebuild without -o")
    if rebuild and source.suffix != ".plan":
        raise BadInput(f"{source}: --rebuild is for a plan; give -o to build one")
    if not (out or rebuild):
        raise BadInput(f"-o PLAN is missing: name the plan to write; dlink-inspect {source} describes the file")
    if out and not out.parent.is_dir():
        raise BadInput(f"{out}: there is no folder {out.parent}; make it first")


def check_capabilities(names: Sequence[str]) -> None:
    from dlink.trt_runtime.manifest import capability_of

    try:
        for name in names:
            if tuple(names) != ("current",):
                capability_of(name)
    except ValueError as e:
        raise BadInput(f"--compute-capability {','.join(names)}: {e}") from e


def notes(result: "BuildResult") -> list[str]:
    """What a user should know of a plan besides its description."""
    from dlink.engine.sparse import unused

    manifest, found = result.manifest, []
    if result.layers is None:
        found += ["no GPU here runs this plan, so the engine's report could not be read"]
    if manifest.options.sparse:
        said = result.sparsity or ["nothing; --explain shows the engine's layers"]
        found += [f"of sparse kernels {manifest.title} says: {line}" for line in said]
    elif words := unused(result.graph, manifest.options, manifest.built.capability):
        found += [words]
    return found


def show_result(result: "BuildResult", plan: Path, show: Looks) -> None:
    """Print what was built, and write a Triton repository if it is asked for."""
    manifest = result.manifest
    if show.as_json:
        click.echo(manifest.to_bytes().decode(), nl=False)
    else:
        click.echo(plan_in_words(plan, manifest))
        for words in notes(result):
            click.echo(f"note: {words}", err=True)
        if show.explain and result.layers is None:
            click.echo("\n".join(asked_table(result.graph)))
        elif show.explain:
            look_at_plan(plan, Looks(explain=True))
        click.echo(f"next: dlink-check {plan} TILES --against CHECKPOINT", err=True)
    if show.triton:
        lay_out(show.triton, plan, manifest.spec, manifest.options.batch, manifest.ends)
