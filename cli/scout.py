"""`dlink-scout`: finds when a large network may skip a tile, and writes a copy of the small one that says so."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli import options
from dlink.cli.options import FRACTION, IN_FILE, together
from dlink.cli.plans import OpenOptions, open_here
from dlink.cli.step import Step, progress
from dlink.cli.tune import check_out
from dlink.runtime.words import counted

if TYPE_CHECKING:
    from dlink.accuracy.scout import FoundLimit, Row, ScoutOptions

HEAD = f"{'level':>7} {'skipped':>8} {'missed':>8} {'at most':>8} {'of pixels':>10}"


@click.command(cls=Step, short_help="Let a small network look first.")
@options.model
@click.argument("scout", type=IN_FILE)
@options.tiles
@options.output("Write SCOUT with its limit here (.onnx).")
@together(
    "how",
    "accuracy.scout:ScoutOptions",
    click.option("--missed", type=FRACTION, help="Share of a tile's road that may be missed.  [default: 0.01]"),
    click.option("--confidence", type=FRACTION, help="That no more is missed.  [default: 0.95]"),
    options.views("Views of MODEL.  [default: the model's]"),
    options.limit,
    options.reading(options.road_value),
)
@options.opening
@options.as_json
def scout(
    model: Path, scout: Path, tiles: Path, out: Path | None, how: "ScoutOptions", opening: OpenOptions, as_json: bool
) -> None:
    """Find when MODEL may skip a tile, because SCOUT is sure that it has no road.

    SCOUT is a smaller network of the same tile, bands and resolution, as an ONNX file. TILES are tiles of the kind that
    both will see, with roads and without. Road is what MODEL draws, and what the label of a tile, if it has one,
    confirms of it. The mean share of a tile's road that is missed is bounded: with --missed 0.01 at least 299 tiles
    with road are needed to calibrate on, with 0.001 2,995. A quarter of the tiles is kept back, to verify the limit.

    `--scout` of dlink-segment, dlink-map, dlink-live, dlink-check and dlink-bench takes the copy that -o writes.
    """
    from dlink.accuracy.scout import find_limit
    from dlink.imagery.images import find_tiles, for_network
    from dlink.runtime.scout import check_alike

    if out:
        check_out(out, scout, "calibrate")
    chosen = find_tiles(tiles, how.reading)[: how.limit]
    with open_here(model, opening) as large, open_here(scout, OpenOptions(threads=opening.threads)) as small:
        spec = small.spec
        check_alike(spec, scout, large.spec, model)
        found = find_limit(small, large, for_network(chosen, large.spec), how, progress("scout"))
    if out:
        write(out, model, scout, found)
    if as_json:
        names = {"model": str(model), "scout": str(scout), "output": str(out) if out else None}
        click.echo(json.dumps({**names, **found.to_json()}, indent=2))
    else:
        click.echo(in_words(model, scout, out, found))


def write(out: Path, model: Path, scout: Path, found: "FoundLimit") -> None:
    """Write the scout with its limit."""
    from dlink.onnx_graph.retuned import write_with_spec
    from dlink.runtime.files import file_sha256
    from dlink.runtime.onnx_bytes import read_onnx
    from dlink.runtime.scout_limit import ScoutLimit

    limit = ScoutLimit(
        level=found.chosen.level,
        missed=found.asked,
        confidence=found.confidence,
        tiles=found.chosen.tiles,
        threshold=found.threshold,
        large_sha256=file_sha256(model),
        views=found.views,
        halo=found.halo,
    )
    write_with_spec(scout, out, replace(read_onnx(scout).spec, scout=limit))


def in_words(model: Path, scout: Path, out: Path | None, found: "FoundLimit") -> str:
    chosen, held = found.chosen, found.held
    lines = [
        f"{scout.name} before {model.name} with {counted(found.views, 'view')} and a halo of {found.halo} px, whose "
        f"road is above {found.threshold:g}; {counted(found.labelled, 'tile')} with a label that confirms it",
        HEAD,
        *[line_of(row) + (" <" if row.level == chosen.level else "") for row in found.rows],
        f"level {chosen.level}: {chosen.skipped:.1%} of {counted(chosen.windows, 'window')} are skipped; of the road "
        f"of {counted(chosen.tiles, 'tile')} {chosen.missed:.3%} is missed, at most {found.asked:.3%} with "
        f"confidence {found.confidence:g}",
        f"kept back: {held.skipped:.1%} of {counted(held.windows, 'window')} are skipped; of the road of "
        f"{counted(held.tiles, 'tile')} {held.missed:.3%} is missed",
    ]
    if out:
        lines.append(f"{out}: the same network with that limit, for {model.name} alone")
    else:
        lines.append("nothing is written without --output SCOUT.onnx")
    return "\n".join(lines)


def line_of(row: "Row") -> str:
    return f"{row.level:>7} {row.skipped:>8.1%} {row.missed:>8.3%} {row.bound:>8.3%} {row.pixels:>10.3%}"
