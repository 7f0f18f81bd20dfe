"""`dlink-export`: checkpoint -> ONNX."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from dlink.cli.step import IN_FOLDER, OUT_PATH, Step
from dlink.runtime.errors import BadInput


@click.command(cls=Step)
@click.argument("files", type=OUT_PATH, nargs=-1, required=True, metavar="CHECKPOINT... [ONNX]")
@click.option("-o", "--output", "out", type=OUT_PATH, help="The file to write, where it is not the last argument.")
@click.option("--weights", metavar="0.5,0.5", help="Of several checkpoints' probabilities.  [default: equal]")
@click.option("--arch", help="The network.  [default: read from the checkpoint's keys]")
@click.option("--tile", default=1024, show_default=True, help="Side of the input, px: a multiple of 32.")
@click.option("--precision", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True)
@click.option("--threshold", type=float, help="Road above this probability.  [default: 0.5; PP-LinkNet 0.25]")
@click.option("--channels", type=click.Choice(["BGR", "RGB"]), help="The order it was trained on.  [default: BGR]")
@click.option("--gsd", "gsd_m", default=0.5, show_default=True, help="Metres a pixel of its training tiles.")
@click.option("--tiles", type=IN_FOLDER, help="Pictures to prove the file on.  [default: generated scenes]")
def export(
    files: tuple[Path, ...],
    out: Path | None,
    weights: str | None,
    arch: str | None,
    tile: int,
    precision: str,
    threshold: float | None,
    channels: str | None,
    gsd_m: float,
    tiles: Path | None,
) -> None:
    """Write CHECKPOINT as the file ONNX, after proving that it draws PyTorch's roads.

    Several checkpoints become one file, an ensemble: the weighted mean of their probabilities.
    """
    from dlink.cli.models import pictures
    from dlink.runtime.spec import Spec

    *checkpoints, onnx = (*files, out) if out else files
    if onnx.suffix != ".onnx":
        raise BadInput(f"{onnx}: the name must end in .onnx")
    if not checkpoints:
        raise BadInput(f"{onnx}: a checkpoint is missing in front of it")
    if missing := [path for path in checkpoints if not path.is_file()]:
        raise BadInput(f"{missing[0]}: there is no such checkpoint")
    if arch and len(checkpoints) > 1:
        raise BadInput("--arch: each checkpoint of an ensemble says itself what it is")
    parts = numbers(weights) if weights else [1 / len(checkpoints)] * len(checkpoints)
    given: dict[str, Any] = {k: v for k, v in {"threshold": threshold, "channels": channels}.items() if v is not None}
    Spec(tile=tile, gsd_m=gsd_m, **given)  # bad options before minutes of work
    from dlink.export.export import export
    from dlink.export.proof import FEW
    from dlink.nets.checkpoint import read_checkpoint
    from dlink.nets.ensemble import ensemble
    from dlink.nets.zoo import spec_of

    members = [read_checkpoint(path, arch) for path in checkpoints]
    read = ensemble(members, parts) if len(members) > 1 or weights else members[0]
    spec = replace(
        spec_of(members[0].arch),
        arch=read.arch,
        width=read.width,
        tile=tile,
        gsd_m=gsd_m,
        precision=precision,
        checkpoint_sha256=read.sha256,
        **given,
    )
    if arch is None and (alike := alike_of(read.arch)):
        click.echo(f"note: taken for {read.arch}; {', '.join(alike)} have the same keys: --arch names one", err=True)
    proof = export(read, onnx, spec, pictures(tiles, tile))
    click.echo(
        f"{onnx}: {read.arch} width {read.width:g}, {precision}, tile {tile}, {onnx.stat().st_size / 1e6:.1f} MB"
    )
    click.echo(
        f"on {proof.tiles} tiles, {proof.road:.1%} road, probabilities differ from PyTorch's by at most "
        f"{proof.difference:.2g}, masks agree at IoU {proof.agreement:.4f}"
    )
    if proof.near.words:
        click.echo(f"note: {proof.near.words}", err=True)
    if proof.road < FEW:
        click.echo("note: next to no road was found on these tiles; --tiles with roads prove more", err=True)


def numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as e:
        raise BadInput(f"--weights {text}: expected numbers by commas, such as 0.5,0.5") from e


def alike_of(arch: str) -> list[str]:
    """Other networks whose checkpoints have the same keys and shapes."""
    from dlink.nets.checkpoint import keys_of
    from dlink.nets.zoo import ARCHS

    return [name for name in ARCHS if arch in ARCHS and name != arch and keys_of(name) == keys_of(arch)]
