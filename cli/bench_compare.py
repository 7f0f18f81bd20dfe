"""`dlink-bench --compare`: a network in three precisions."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlink.cli.bench_results import Results, write_result
from dlink.cli.models import Wanted
from dlink.cli.step import progress
from dlink.runtime.errors import BadInput
from dlink.runtime.words import counted


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
