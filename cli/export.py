"""`dlink-export`: checkpoint -> ONNX."""

from pathlib import Path

import click

from dlink.cli.step import IN_FILE, IN_FOLDER, OUT_PATH, Step


@click.command(cls=Step)
@click.argument("checkpoint", type=IN_FILE)
@click.argument("onnx", type=OUT_PATH)
@click.option("--arch", help="The network.  [default: read from the checkpoint's keys]")
@click.option("--tile", default=1024, show_default=True, help="Side of the input, px: a multiple of 32.")
@click.option("--precision", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True)
@click.option("--threshold", type=float, help="Road above this probability.  [default: 0.5; PP-LinkNet 0.25]")
@click.option("--channels", type=click.Choice(["BGR", "RGB"]), help="The order it was trained on.  [default: BGR]")
@click.option("--gsd", "gsd_m", default=0.5, show_default=True, help="Metres a pixel of its training tiles.")
@click.option("--tiles", type=IN_FOLDER, help="Pictures to prove the file on.  [default: generated scenes]")
def export(
    checkpoint: Path,
    onnx: Path,
    arch: str | None,
    tile: int,
    precision: str,
    threshold: float | None,
    channels: str | None,
    gsd_m: float,
    tiles: Path | None,
) -> None:
    """Write CHECKPOINT as the file ONNX, after proving that it draws PyTorch's roads."""
    from dlink.cli.models import pictures
    from dlink.trt_runtime.errors import BadInput
    from dlink.trt_runtime.spec import Spec

    if onnx.suffix != ".onnx":
        raise BadInput(f"{onnx}: the name must end in .onnx")
    given = {k: v for k, v in {"threshold": threshold, "channels": channels}.items() if v is not None}
    Spec(tile=tile, gsd_m=gsd_m, **given)  # type: ignore[arg-type]  # bad options before minutes of work
    from dlink.export.export import export
    from dlink.export.proof import FEW
    from dlink.nets.checkpoint import read_checkpoint
    from dlink.nets.zoo import spec_of

    read = read_checkpoint(checkpoint, arch)
    spec = spec_of(
        read.arch,
        width=read.width,
        tile=tile,
        gsd_m=gsd_m,
        precision=precision,
        checkpoint_sha256=read.sha256,
        **given,
    )
    proof = export(read, onnx, spec, pictures(tiles, tile))
    click.echo(
        f"{onnx}: {read.arch} width {read.width:g}, {precision}, tile {tile}, {onnx.stat().st_size / 1e6:.1f} MB"
    )
    click.echo(
        f"on {proof.tiles} tiles, {proof.road:.1%} road, probabilities differ from PyTorch's by at most "
        f"{proof.difference:.2g}, masks agree at IoU {proof.agreement:.4f}"
    )
    if proof.road < FEW:
        click.echo("note: next to no road was found on these tiles; --tiles with roads prove more", err=True)
