"""`dlink-score`: scores masks or graphs against their truths."""

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli import options
from dlink.cli.options import FRACTION, IN_PATH, OUT_PATH, POSITIVE, together
from dlink.cli.step import Step, progress
from dlink.runtime.errors import CheckFailed
from dlink.runtime.words import counted

if TYPE_CHECKING:
    from dlink.accuracy.score import ScoreOptions, Scores


@dataclass(frozen=True, kw_only=True)
class Results:
    """How figures are printed and written."""

    table: Path | None = None
    as_json: bool = False


@click.command(cls=Step, short_help="Score masks or road graphs against their truths.")
@click.argument("masks", type=IN_PATH)
@click.argument("truth", type=IN_PATH)
@together(
    "how",
    "accuracy.score:ScoreOptions",
    options.gsd("Metres a pixel, or a unit of a graph.  [default: the file's, or 0.5]"),
    click.option(
        "--buffer", "buffer_m", type=POSITIVE, default=3.0, show_default=True, help="For relaxed figures, metres."
    ),
    click.option(
        "--bridge",
        "gap_m",
        type=click.FloatRange(0),
        default=0.0,
        help="Join a graph's gaps up to this length, metres.",
    ),
    click.option("--threshold", type=FRACTION, default=0.5, show_default=True, help="For probabilities."),
    together("reading", "imagery.reading:Reading", options.road_value),
    click.option(
        "--target",
        type=click.Choice(["road", "building"]),
        default="road",
        show_default=True,
        help="Road graphs, or the footprints of buildings.",
    ),
)
@click.option("--min", "least", metavar="LIMITS", help="Such as iou=0.6,apls=0.5; exit with 1 below a limit.")
@click.option("--common", is_flag=True, help="Score only the ids that both folders have.")
@options.workers("Processes.  [default: one a core]")
@together(
    "results",
    "cli.score:Results",
    click.option("--csv", "table", type=OUT_PATH, help="Write a row of counts for each tile to this file."),
    options.as_json,
)
def score(
    masks: Path, truth: Path, how: "ScoreOptions", least: str | None, common: bool, workers: int | None,
    results: Results,
) -> None:  # fmt: skip
    """Score MASKS against TRUTH: pixels, boundaries, links and paths.

    Both are folders (<id>_mask.png, .tif or .geojson, paired by id) or two files. A mask has two values, of which 0
    is no road; 16-bit and float32 pictures are probabilities. Graphs are lines of GeoJSON, GeoPackage, FlatGeobuf or
    Shapefile, in the system that the file declares, or in a plane if --gsd gives the length of a unit. Buildings
    (--target building) are the connected parts of masks, or polygons.
    """
    from dlink.accuracy.score import Scores, csv_lines, least_of, score_pairs
    from dlink.accuracy.truth import find_pairs
    from dlink.runtime.files import replacing

    limits = least_of(least) if least else {}
    pairs = find_pairs(masks, truth, common)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rows = score_pairs(pairs, how, workers or cores, progress("score"))
    found = Scores.of(rows, pairs[0].graphs, how.target)
    if results.table:
        with replacing(results.table) as part, part.open("w", newline="") as file:
            csv.writer(file).writerows(csv_lines(rows))
    click.echo(json.dumps(found.to_json(), indent=1) if results.as_json else figures_in_words(found, how))
    if why := found.below(limits):
        raise CheckFailed(f"{masks}: {'; '.join(why)}")


def figures_in_words(found: "Scores", how: "ScoreOptions") -> str:
    rows = found.rows
    lines = [f"{counted(len(rows), 'tile')}, {truth_in_words(found, how.target)}"]
    lines.append(f"{'':<18} {'all':>8}  95 % interval over tiles")
    for name, e in found.figures.items():
        value = "-" if e.value is None else f"{e.value:.4f}"
        interval = "-" if e.low is None or e.high is None else f"{e.low:.4f} to {e.high:.4f}"
        lines.append(f"{name:<18} {value:>8}  {interval}")
    if any(row.components or row.truth_components for row in rows):
        own, true = (sum(getattr(row, n) for row in rows) for n in ("components", "truth_components"))
        pruned, gaps = (sum(getattr(row, n) for row in rows) for n in ("pruned", "gaps"))
        lines.append(
            f"relaxed by {how.buffer_m:g} m; roads in {counted(own, 'piece')}, the truth's in {true}; in the traced "
            f"graphs {counted(pruned, 'spur or loop was', 'spurs and loops were')} dropped, "
            f"{counted(gaps, 'gap')} bridged"
        )
    return "\n".join(lines)


def truth_in_words(found: "Scores", target: str) -> str:
    """How much there is to be found."""
    if target == "road":
        return f"{sum(row.truth_km for row in found.rows):.2f} km of road in the truth"
    own, true, hits = (sum(getattr(row, n) for row in found.rows) for n in ("footprints", "truth_footprints", "hits"))
    return f"{counted(true, 'building')} in the truth, {hits} of them among the {counted(own, 'footprint')} found"
