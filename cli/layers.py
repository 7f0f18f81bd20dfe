"""`dlink-check --layers`: which layer an engine computes differently."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.runtime.errors import BadInput, CheckFailed

if TYPE_CHECKING:
    from dlink.imagery.images import TileFile


def compare_layers(model: Path, tile: "TileFile", as_json: bool) -> None:
    """Every layer of MODEL's file in the engine that would run it, beside ONNX Runtime, on one tile."""
    from dlink.engine import compare
    from dlink.imagery.images import read_image
    from dlink.onnx_graph.model import read_model
    from dlink.runtime.files import file_sha256
    from dlink.runtime.windows import square
    from dlink.trt_runtime.plan import fit, read_plan

    source, target = model, None
    if model.suffix == ".plan":
        manifest = read_plan(model)[1]
        fit(model, manifest)
        source, target = model.parent / manifest.onnx.name, manifest.built.target
        if not source.exists() or file_sha256(source) != manifest.onnx.sha256:
            raise BadInput(f"{model}: its layers are compared in {source.name}, which it was built from; put it beside")
    graph = read_model(source)
    spec = graph.spec
    image = square(read_image(tile.image)[: spec.tile, : spec.tile], spec.tile)
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
