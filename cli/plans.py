"""Opens models for the commands: rebuilds a plan if it is asked for, and records what a check found."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlink.cli.step import progress
from dlink.runtime.errors import BadInput, BadPlan, Mismatch

if TYPE_CHECKING:
    from dlink.accuracy.gates import Verdict
    from dlink.runtime import Segmenter
    from dlink.trt_runtime.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class OpenOptions:
    """How a model is opened, and what a plan must have for it."""

    threads: int | None = None
    threshold: float | None = None
    halo: int | None = None  # px
    keys: tuple[Path, ...] = ()  # one of them must have signed a plan
    rebuild: bool = False  # build a plan again if it does not fit this machine
    require_verdict: bool = False
    scout: Path | None = None  # a small network that looks first


def open_here(model: Path, how: OpenOptions = OpenOptions(), slots: int | None = None) -> "Segmenter":
    """Call open_model; with `rebuild`, build a plan again that does not fit this machine."""
    from dlink.runtime import open_model

    if how.rebuild and model.suffix != ".plan":
        raise BadInput(f"{model}: --rebuild is for plans")
    if how.rebuild and how.keys:
        raise BadInput("--rebuild makes a plan that nobody has signed: leave out --key, or sign it with dlink-sign")
    given: dict[str, Any] = {
        "threads": how.threads,
        "threshold": how.threshold,
        "halo": how.halo,
        "require_verdict": how.require_verdict,
        "slots": slots,
        "scout": how.scout,
    }
    try:
        return open_model(model, keys=how.keys, **given)
    except (BadPlan, Mismatch) as e:
        if not how.rebuild:
            raise
        click.echo(f"{e}\nBuilding it again.", err=True)
    from dlink.engine.build import rebuild as build_again

    build_again(model, progress("build"))
    return open_model(model, **given)


def manifest_of(model: "Segmenter") -> "Manifest | None":
    """The manifest of an open plan; None for other models."""
    return getattr(model.backend, "manifest", None)


def record(verdict: "Verdict", words: str, plan: Path, manifest: "Manifest", against: Path) -> None:
    """Write what a check found into the plan's manifest, bound to the plan that was open."""
    from dataclasses import replace

    from dlink.runtime.files import file_mark
    from dlink.trt_runtime.manifest import Checked, signature_of
    from dlink.trt_runtime.nvidia_driver import look_for_gpus

    checked = Checked(
        plan_sha256=manifest.plan.sha256,
        same_roads=not verdict.why,
        words=words,
        reference=file_mark(against),
        tiles=verdict.found.tiles,
        gpu=next((gpu.name for gpu in look_for_gpus().found), ""),
    )
    signed = signature_of(plan).exists()
    replace(manifest, verdict=checked).write(plan)
    click.echo(f"{plan}: its manifest has the verdict" + ("; sign it again" if signed else ""), err=True)
