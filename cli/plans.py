"""What commands do with plans: open one, built again first where that is asked for, and keep what a check found."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dlink.cli.step import IN_FILE, progress
from dlink.runtime.errors import BadInput, BadPlan, Mismatch

if TYPE_CHECKING:
    from dlink.accuracy.gates import Verdict
    from dlink.runtime import Segmenter
    from dlink.trt_runtime.manifest import Manifest

F = TypeVar("F", bound=Callable[..., Any])


def plan_options(command: F) -> F:
    """--key and --rebuild, the same for every command that opens models."""
    key = click.option("--key", "keys", type=IN_FILE, multiple=True, help="Take only a plan that this key has signed.")
    rebuild = click.option("--rebuild", is_flag=True, help="Build a plan again that does not fit this machine.")
    return key(rebuild(command))


def open_here(model: Path, keys: tuple[Path, ...] = (), rebuild: bool = False, **how: Any) -> "Segmenter":
    """open_model, after building a plan again where it does not fit this machine and `rebuild` says so."""
    from dlink.runtime import open_model

    if rebuild and model.suffix != ".plan":
        raise BadInput(f"{model}: --rebuild is for plans")
    if rebuild and keys:
        raise BadInput("--rebuild makes a plan that nobody has signed: leave out --key, or sign it with dlink-sign")
    try:
        return open_model(model, keys=keys, **how)
    except (BadPlan, Mismatch) as e:
        if not rebuild:
            raise
        click.echo(f"{e}\nBuilding it again.", err=True)
    from dlink.engine.build import rebuild as build_again

    build_again(model, progress("build"))
    return open_model(model, **how)


def manifest_of(model: "Segmenter") -> "Manifest | None":
    """Of an open plan; None for other models."""
    return getattr(model.backend, "manifest", None)


def record(verdict: "Verdict", words: str, plan: Path, manifest: "Manifest", against: Path) -> None:
    """Write what a check found into the plan's manifest, bound to the plan that was open."""
    from dataclasses import replace

    from dlink.runtime.files import FileMark, file_sha256
    from dlink.trt_runtime.manifest import Checked, signature_of
    from dlink.trt_runtime.nvidia_driver import look_for_gpus

    checked = Checked(
        plan_sha256=manifest.plan.sha256,
        same_roads=not verdict.why,
        words=words,
        reference=FileMark(name=against.name, sha256=file_sha256(against), bytes=against.stat().st_size),
        tiles=verdict.found.tiles,
        gpu=next((gpu.name for gpu in look_for_gpus().found), ""),
    )
    signed = signature_of(plan).exists()
    replace(manifest, verdict=checked).write(plan)
    click.echo(f"{plan}: its manifest has the verdict" + ("; sign it again" if signed else ""), err=True)
