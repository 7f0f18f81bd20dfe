"""`dlink-layers`: finds the layer that an engine computes differently."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli import options
from dlink.cli.step import Step
from dlink.runtime.errors import BadInput, CheckFailed

if TYPE_CHECKING:
    from dlink.imagery.reading import Reading


@click.command(cls=Step, short_help="Compare a model layer by layer with ONNX Runtime.")
@options.model
@options.tiles
@options.reading()
@options.as_json
def layers(model: Path, tiles: Path, reading: "Reading", as_json: bool) -> None:
    """Compare MODEL layer by layer with ONNX Runtime, on the first of TILES.

    MODEL is an ONNX file, which OpenVINO runs, or a plan beside the ONNX file that it was built from, whose layers run
    in TensorRT. Each line has a tensor and its difference, as a share of the tensor's own size. If a difference is more
    than rounding explains, the first such layer is named and the exit status is 1.
    """
    from dlink.engine import compare
    from dlink.imagery.images import find_tiles, read_image
    from dlink.onnx_graph.model import read_model
    from dlink.runtime.windows import square

    tile = find_tiles(tiles)[0]
    source, target = source_of(model)
    graph = read_model(source)
    spec = graph.spec
    image = square(read_image(tile.image, reading.of_network(spec))[: spec.tile, : spec.tile], spec.tile)
    found = compare.compare_layers(graph, image, target)
    tolerance = compare.TOLERANCE[spec.precision]
    first = compare.first_off(found, tolerance)
    if as_json:
        click.echo(json.dumps({"model": str(model), "tolerance": tolerance, "layers": [asdict(d) for d in found]}))
    else:
        click.echo("\n".join(f"{d.relative:>9.2g}  {d.op:<13}  {d.tensor}" for d in found))
    if first:
        raise CheckFailed(
            f"{model}: the first layer that differs by more than {tolerance:g} of its values is {first.tensor} "
            f"({first.op}): {first.relative:.2g}"
        )
    if not as_json:
        click.echo(f"no layer differs by more than {tolerance:g} of its values")


def source_of(model: Path) -> tuple[Path, str | None]:
    """The ONNX file whose layers are compared, and the TensorRT that runs them; None for OpenVINO."""
    if model.suffix != ".plan":
        return model, None
    from dlink.runtime.files import file_sha256
    from dlink.trt_runtime.plan import fit, read_plan

    manifest = read_plan(model)[1]
    fit(model, manifest)
    source = model.parent / manifest.onnx.name
    if not source.exists() or file_sha256(source) != manifest.onnx.sha256:
        raise BadInput(f"{model}: to compare its layers, put {source.name}, from which it was built, beside it")
    return source, manifest.built.target
