"""Compare plans on a GPU: build each ONNX file, time its network as trtexec does, and check its roads.

    python -m dlink.cli.gpu roads.fp32.onnx roads.fp16.onnx roads.int8.onnx --against roads.th --tiles tiles/

Network time is the time of a full batch between two CUDA events, without copies. Every file gives a row. If a file
cannot be built, fails or draws other roads, its row says so, the other files still run, and the exit status is 1. If
TensorRT's Python has no PyTorch, --against takes the checkpoint's roads that `dlink.bench.recorded` stored.
"""

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dlink.bench.rows import append_row
from dlink.cli import options
from dlink.cli.build import build
from dlink.cli.options import IN_FILE, IN_PATH, OUT_PATH, together
from dlink.cli.step import Step, one_line, progress
from dlink.runtime.errors import NoEngine
from dlink.trt_runtime.manifest import Manifest
from dlink.trt_runtime.plan import look_here


@dataclass(frozen=True, kw_only=True)
class BuiltWith:
    """How each file is built."""

    target: str | None = None  # None: the installed one
    views: int = 8  # of one tile at once
    build_with: str = ""  # more options for dlink-build

    def words(self, installed: str) -> list[str]:
        return ["--target", self.target or installed, "--views", str(self.views), *shlex.split(self.build_with)]


@click.command(cls=Step)
@click.argument("files", type=IN_FILE, nargs=-1, required=True)
@together(
    "built",
    "cli.gpu:BuiltWith",
    options.target(),
    options.views("Views of one tile at once.", "8"),
    click.option("--build-with", default="", metavar="OPTIONS", help="More options for dlink-build, in one string."),
)
@click.option("--against", type=IN_PATH, help="A checkpoint, or its recorded roads.")
@options.pictures("Pictures on which --against compares roads.")
@click.option("--plans", type=OUT_PATH, default=Path("build/plans"), show_default=True, help="Folder of the plans.")
@click.option("--runs", default=50, show_default=True, help="Runs to time.")
@options.append
def main(
    files: tuple[Path, ...], built: BuiltWith, against: Path | None, tiles: Path | None, plans: Path, runs: int,
    append: Path | None,
) -> None:  # fmt: skip
    """Build, time and check FILES on the GPU at hand."""
    here = look_here()
    if not here.gpus.found:
        raise NoEngine(f"this needs an NVIDIA GPU, and there is none here: {here.gpus.fault}")
    if not here.versions:
        raise NoEngine("this needs TensorRT or TensorRT-RTX; dlink-doctor says how to get it")
    words = built.words(next(iter(here.versions)))
    plans.mkdir(parents=True, exist_ok=True)
    failed = 0
    for file in files:
        try:
            row = measured(file, plans / f"{file.stem}.plan", words, against, tiles, runs)
            failed += not row.get("roads", {}).get("same", True)
        except click.Abort:  # ctrl-C while dlink-build ran
            raise
        except Exception as e:  # pycuda's and NVIDIA's errors have no common base
            row = {"file": {"name": file.name}, "target": words[1], "error": error_in_words(e)}
            failed += 1
        row = {"when": time.strftime("%Y-%m-%d", time.gmtime()), "gpu": str(here.gpus.found[0]), **row}
        row["driver"] = here.gpus.driver
        append_row(append, row)
        click.echo(line(row))
    if failed:
        raise click.ClickException(f"{failed} of {len(files)} files failed; their rows are above")


def error_in_words(e: Exception) -> str:
    """The error in one line; with its type if a library raised it."""
    if isinstance(e, click.ClickException):
        return e.format_message()
    return f"{type(e).__name__}: {one_line(e)}"


def measured(
    file: Path, plan: Path, words: list[str], against: Path | None, tiles: Path | None, runs: int
) -> dict[str, Any]:
    """One file's row."""
    from dlink.trt_runtime.plan import read_plan

    build.main([str(file), "-o", str(plan), *words], prog_name="dlink-build", standalone_mode=False)
    _, manifest = read_plan(plan)
    row: dict[str, Any] = {
        "engine": manifest.title,
        "file": {"name": file.name, "sha256": manifest.onnx.sha256, "bytes": manifest.onnx.bytes},
        "plan_bytes": manifest.plan.bytes,
        "build_s": manifest.built.seconds,
        "precision": dict(manifest.precision.shares),
        "proven_by": manifest.precision.proven_by,
        "batch": manifest.options.batch,
        "tile": manifest.spec.tile,
        "network_ms": network_ms(plan, manifest, runs),
    }
    if against and tiles:
        row["roads"] = roads(plan, manifest, against, tiles)
    return row


def network_ms(plan: Path, manifest: Manifest, runs: int) -> dict[str, float]:
    """Time of a full batch on the GPU: median, least and most over the runs."""
    from dlink.bench import network
    from dlink.trt_runtime.plan import fit, read_plan
    from dlink.trt_runtime.tensorrt_backend import TensorRTBackend

    backend = TensorRTBackend(plan, read_plan(plan)[0], manifest, fit(plan, manifest))
    try:
        return network.network_ms(backend, manifest.options.batch, runs)
    finally:
        backend.close()


def roads(plan: Path, manifest: Manifest, against: Path, tiles: Path) -> dict[str, Any]:
    """The roads compared as by dlink-check; the manifest gets the verdict if `against` is the checkpoint itself."""
    from contextlib import nullcontext

    from dlink.accuracy.agreement import BOTH, compare
    from dlink.accuracy.gates import GateLimits, Verdict
    from dlink.bench.recorded import Recorded
    from dlink.cli.check import open_against, verdict_in_words
    from dlink.cli.plans import record
    from dlink.imagery.images import find_tiles
    from dlink.runtime import open_model

    with open_model(plan) as candidate:
        other = (
            nullcontext(Recorded(against)) if against.is_dir() else open_against(against, plan, candidate.spec, None)
        )
        with other as reference:
            found = compare(candidate, reference, find_tiles(tiles), BOTH, progress("check"))
    verdict = Verdict(found, GateLimits.of(manifest.spec.precision))
    if against.is_file():
        record(verdict, verdict_in_words(verdict).splitlines()[-1], plan, manifest, against)
    kept = ("views", "agreement", "candidate", "reference", "max_difference")
    settings = [{name: s[name] for name in kept} for s in found.to_json()["settings"]]
    return {"same": not verdict.why, "why": verdict.why, "tiles": found.tiles, "settings": settings}


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    if "error" in row:
        return f"{row['file']['name']}: FAILED: {row['error']}"
    ms = row["network_ms"]
    same = {True: ", same roads", False: ", NOT the same roads", None: ""}[row.get("roads", {}).get("same")]
    shares = ", ".join(f"{name} {share:.1%}" for name, share in row["precision"].items())
    return (
        f"{row['file']['name']}: {ms['p50']:.2f} ms for {row['batch']} views ({ms['least']:.2f} to {ms['most']:.2f}), "
        f"{shares} by {row['proven_by']}, built in {row['build_s']:.0f} s by {row['engine']}{same}"
    )


if __name__ == "__main__":
    main()
