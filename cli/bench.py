"""`dlink-bench`: times a model on this machine."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlink.bench.rows import append_row
from dlink.cli import options
from dlink.cli.models import Wanted
from dlink.cli.options import IN_FILE, together
from dlink.cli.plans import OpenOptions, open_here
from dlink.cli.step import Step, progress
from dlink.runtime.errors import BadInput
from dlink.runtime.words import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlink.bench.latency import BenchOptions, Ratio
    from dlink.runtime import Segmenter


@dataclass(frozen=True, kw_only=True)
class Results:
    """How results are printed, and where they are appended."""

    as_json: bool = False
    append: Path | None = None  # a file of rows


@click.command(cls=Step, short_help="Time a model on this machine.")
@click.argument("model", type=IN_FILE, required=False)
@together(
    "wanted",
    "cli.models:Wanted",
    options.precision("fp32", "fp16", "int8", default="fp16", words="Precision of the file made from a checkpoint."),
    options.tile("Tile of that file, px."),
    options.pictures("Pictures to run on.  [default: generated scenes]"),
    options.reading(),
)
@together(
    "how",
    "bench.latency:BenchOptions",
    click.option(
        "--views", default="1,4,8", show_default=True, help="Numbers of views or adaptive, separated by commas."
    ),
    click.option("--seconds", default=10.0, show_default=True, help="Time for each number of views."),
    click.option("--rounds", default=3, show_default=True, help="Rounds of --baseline or --compare."),
)
@click.option("--baseline", type=click.Choice(["torch"]), help="Also time the authors' eight-view PyTorch code.")
@click.option("--compare", is_flag=True, help="Compare FP32, FP16 and INT8: speed, roads, size.")
@options.scouted
@together("results", "cli.bench:Results", options.as_json, options.append)
def bench(
    model: Path | None, wanted: Wanted, how: "BenchOptions", baseline: str | None, compare: bool, opening: OpenOptions,
    results: Results,
) -> None:  # fmt: skip
    """Time MODEL: an ONNX file of dlink, a plan or a checkpoint. Without MODEL, time the embedded network.

    The files that a checkpoint needs are made once and kept in a cache folder ($DLINK_CACHE). An INT8 file is
    calibrated on --tiles, or on generated scenes.
    """
    if compare:
        if opening.scout:
            raise BadInput("--compare makes its own files, and --scout is for one; leave one of them out")
        side_by_side(model, wanted, how.rounds, opening.threads, results)
        return
    from dlink.bench.latency import latency
    from dlink.bench.machine import machine, peak_bytes
    from dlink.cli.models import model_file, pictures
    from dlink.runtime.files import file_mark

    counts = how.counts
    path = model_file(model, wanted)
    show = progress("bench")
    with open_here(path, opening) as segmenter:
        spec, engine = segmenter.spec, segmenter.backend.engine
        images = pictures(wanted.tiles, spec, wanted.reading)
        rows = []
        for i, n in enumerate(counts):
            rows.append(latency(segmenter, images, n, how.seconds))
            show(i + 1, len(counts), counted(n, "view") if isinstance(n, int) else f"{n} views")
        peak = peak_bytes()  # before PyTorch is loaded
        skipped = getattr(segmenter.backend, "skipped", None)
        share = skipped / segmenter.backend.tiles if skipped is not None else None  # type: ignore[attr-defined]
        against = beside_torch(segmenter, model, images, how.rounds) if baseline else None
    result = {
        "when": time.strftime("%Y-%m-%d", time.gmtime()),
        "executed": segmenter.backend.executed,
        "file": asdict(file_mark(path)),
        "network": {
            "arch": spec.arch,
            "width": spec.width,
            "slim": spec.slim,
            "tile": spec.tile,
            "precision": spec.precision,
        },
        "engine": engine,
        "tiles": wanted.tiles.name if wanted.tiles else "generated",
        "latency": [row.to_json() for row in rows],
        "skipped": share,
        "peak_bytes": peak,
        "baseline": against.to_json() if against else None,
        "machine": machine(),
    }
    write_result(result, latency_table(result), results)


def write_result(result: Mapping[str, Any], text: str, results: Results) -> None:
    append_row(results.append, result)
    click.echo(json.dumps(result, indent=1) if results.as_json else text)


def side_by_side(model: Path | None, wanted: Wanted, rounds: int, threads: int | None, results: Results) -> None:
    """Compare the network in three precisions; files that the cache lacks are made."""
    from dlink.bench import compare as side
    from dlink.bench.machine import machine
    from dlink.cli.models import model_file, tiles_of

    if model is not None and model.suffix in (".onnx", ".plan"):
        raise BadInput(f"{model}: --compare makes its own files; give a checkpoint, or no model for the embedded one")
    files = {
        precision: model_file(model, replace(wanted, precision=precision)) for precision in ("fp32", "fp16", "int8")
    }
    chosen = tiles_of(wanted.tiles, wanted.tile, wanted.reading).holdout
    rows = side.compare(files, chosen, rounds, threads, progress("compare"))
    facts: Mapping[str, Any] = machine()
    labelled = sum(t.label is not None for t in chosen)
    source = wanted.tiles.name if wanted.tiles else "generated scenes"
    result = {
        "when": time.strftime("%Y-%m-%d", time.gmtime()),
        "compare": [row.to_json() for row in rows],
        "name": model.name if model else "embedded",
        "tile": wanted.tile,
        "tiles": f"{len(chosen)} of {source}, {labelled} with labels",
        "rounds": rounds,
        "machine": facts,
    }
    where = (
        f"{facts['cpu']}, {counted(facts['cores'], 'core')}; tile {wanted.tile}, "
        f"medians of {counted(rounds, 'round')}; roads on {result['tiles']}"
    )
    write_result(result, "\n".join([where, *side.comparison_table(rows), side.advice(rows)]), results)


def beside_torch(
    segmenter: "Segmenter", checkpoint: Path | None, images: "list[NDArray[np.uint8]]", rounds: int
) -> "Ratio":
    """Time the model beside the authors' procedure; an ONNX file or a plan is compared with fresh weights."""
    import torch

    from dlink.bench.authors import eight_view_sum
    from dlink.bench.latency import ratio
    from dlink.nets.checkpoint import read_checkpoint
    from dlink.nets.embedded import EMBEDDED
    from dlink.nets.zoo import ARCHS, build

    spec = segmenter.spec
    if checkpoint is not None and checkpoint.suffix in (".onnx", ".plan"):
        if spec.arch not in ARCHS:
            raise BadInput(f"--baseline torch: needs a network of dlink's list, and {checkpoint} is {spec.arch}")
        if spec.slim < 1:
            raise BadInput(f"--baseline torch: {checkpoint} is slim; give the checkpoint that it was exported from")
        net = build(spec.arch, spec.width).eval()
    else:
        net = read_checkpoint(checkpoint or EMBEDDED).net
    image = images[0]
    other = f"the authors' eight views in PyTorch {torch.__version__}, eager, {torch.get_num_threads()} threads"
    return ratio(lambda: segmenter.mask(image, 8), lambda: eight_view_sum(net, image), other, rounds)


def parts(r: Mapping[str, Any]) -> str:
    """The columns of where the time went; dashes for a plan, which does everything on the GPU."""
    if not r["network_ms"]:
        return f"{'-':>7} {'-':>8} {'-':>10} {'-':>7}"
    return f"{r['prepare_ms']:>7.1f} {r['network_ms']:>8.1f} {r['undo_ms']:>10.1f} {r['around_share']:>7.1%}"


def latency_table(result: Mapping[str, Any]) -> str:
    network, machine, file = result["network"], result["machine"], result["file"]
    slim = f", slim to {network['slim']:.1%}" if network["slim"] < 1 else ""
    lines = [
        f"{network['arch']} width {network['width']:g}{slim}, {network['precision']}, tile {network['tile']}, "
        f"{file['bytes'] / 1e6:.1f} MB; {result['engine']}",
        f"{machine['cpu']}, {counted(machine['cores'], 'core')}, {machine['system']}, Python {machine['python']}, "
        + ", ".join(f"{k} {v}" for k, v in machine["versions"].items()),
        "",
        "   views  p50 ms  p90 ms  p99 ms  max ms  tiles/s   Mpx/s | prepare  network  undo+mean  around",
    ]
    for r in result["latency"]:
        lines.append(
            f"{r['views']:>8} {r['p50_ms']:>7.1f} {r['p90_ms']:>7.1f} {r['p99_ms']:>7.1f} {r['max_ms']:>7.1f} "
            f"{r['tiles_per_s']:>8.2f} {r['mpx_per_s']:>7.2f} | {parts(r)}"
        )
    if result["peak_bytes"]:
        lines += ["", f"peak memory of the process {result['peak_bytes'] / 1e6:.0f} MB"]
    if result["skipped"] is not None:
        lines += ["", f"{result['skipped']:.1%} of the tiles were skipped, and the times depend on that"]
    if b := result["baseline"]:
        lines.append(
            f"{b['median']:.2f} times as fast as {b['other']} ({b['least']:.2f} to {b['most']:.2f} over "
            f"{counted(b['rounds'], 'round')} in turn; {b['ours_s']:.2f} s and {b['theirs_s']:.2f} s for eight views)"
        )
    return "\n".join(lines)
