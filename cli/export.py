"""`dlink-export`: checkpoint -> ONNX."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli import options
from dlink.cli.options import OUT_PATH, Names, Numbers, together
from dlink.cli.step import Step
from dlink.runtime.errors import BadInput
from dlink.runtime.words import counted

if TYPE_CHECKING:
    from dlink.export.options import ExportOptions
    from dlink.nets.options import NetworkOptions


@click.command(cls=Step, short_help="Write a checkpoint as an ONNX file, and prove it.")
@click.argument("files", type=OUT_PATH, nargs=-1, required=True, metavar="CHECKPOINT... [ONNX]")
@options.output("The file to write, if it is not the last argument.")
@click.option("--weights", metavar="0.5,0.5", help="Weights of several checkpoints.  [default: equal]")
@options.network("", click.option("--arch", help="The network.  [default: read from the checkpoint's keys]"))
@together(
    "how",
    "export.options:ExportOptions",
    options.tile("Side of the input, px: a multiple of 32."),
    options.precision("fp32", "fp16", default="fp32", words="Precision of the file's tensors."),
    options.threshold("Road above this probability.  [default: 0.5; PP-LinkNet 0.25]"),
    click.option(
        "--bands",
        type=Names(),
        metavar="NAME,NAME,...",
        help="What an image's planes are, in their order, such as red,green,blue,nir; a network of other than three "
        "channels needs it.  [default: red,green,blue]",
    ),
    options.stretch_of("How training made 8 bits of other samples; kept in the file, for every reader."),
    click.option("--channels", type=click.Choice(["BGR", "RGB"]), help="Channel order in training.  [default: BGR]"),
    options.gsd("Metres a pixel of the training tiles.", 0.5),
    click.option(
        "--target", metavar="WORD", default="road", show_default=True, help="What the masks show, such as building."
    ),
    click.option(
        "--mean",
        type=Numbers(),
        metavar="R,G,B",
        help="Mean that training subtracted, of pixels in 0..1, for each band, whatever --channels is.  "
        "[default: the network's own preparation]",
    ),
    click.option(
        "--std",
        type=Numbers(),
        metavar="R,G,B",
        help="Deviation that training divided by, of pixels in 0..1, for each band, whatever --channels is.",
    ),
)
@options.pictures("Pictures to prove the file on.  [default: generated scenes]")
def export(
    files: tuple[Path, ...], out: Path | None, weights: str | None, network: "NetworkOptions", how: "ExportOptions",
    tiles: Path | None,
) -> None:  # fmt: skip
    """Write CHECKPOINT as the file ONNX, after proving that it draws PyTorch's roads.

    Several checkpoints become one file, an ensemble: the weighted mean of their probabilities.
    """
    from dlink.cli.models import made_up, pictures

    checkpoints, onnx = sorted_out(files, out)
    if network.arch and len(checkpoints) > 1:
        raise BadInput("--arch: is for one checkpoint; the keys of each checkpoint of an ensemble name its network")
    parts = weights_of(weights) if weights else [1 / len(checkpoints)] * len(checkpoints)
    from dlink.export.export import check_bands, export
    from dlink.export.options import preparation
    from dlink.export.proof import FEW
    from dlink.nets.checkpoint import read_checkpoint
    from dlink.nets.ensemble import ensemble
    from dlink.nets.zoo import spec_of
    from dlink.runtime.spec import COLOURS

    members = [read_checkpoint(path, network.arch, key=network.key, road=network.road) for path in checkpoints]
    for note in [note for member in members for note in member.notes]:
        click.echo(f"note: {note}", err=True)
    if how.mean and len({(spec_of(m.arch).scale, spec_of(m.arch).shift) for m in members}) > 1:
        raise BadInput("--mean: these networks have different preparations of their own; export each by itself")
    read = ensemble(members, parts) if len(members) > 1 or weights else members[0]
    spec = how.on(replace(spec_of(members[0].arch, bands=how.bands or COLOURS), **read.facts))
    check_bands(read.net, spec)
    if network.arch is None and (alike := alike_of(read.arch)):
        click.echo(f"note: read as {read.arch}; {', '.join(alike)} have the same keys: --arch selects one", err=True)
    proof = export(read, onnx, spec, pictures(tiles, spec))
    size = f"{onnx.stat().st_size / 1e6:.1f} MB"
    click.echo(f"{onnx}: {read.arch} width {read.width:g}, {how.precision}, tile {how.tile}, {size}")
    click.echo(f"prepared as {preparation(spec)}; --channels, --mean and --std give another preparation")
    if tiles is None and (others := made_up(spec)):
        click.echo(f"note: proven on generated scenes, where {others} copied from green: --tiles prove more", err=True)
    click.echo(
        f"on {counted(proof.tiles, 'tile')}, {proof.road:.1%} {how.target}, probabilities differ from PyTorch's by at "
        f"most {proof.difference:.2g}, masks agree at IoU {proof.agreement:.4f}"
    )
    if proof.near.words:
        click.echo(f"note: {proof.near.words}", err=True)
    if proof.road < FEW:
        what = how.target
        click.echo(f"note: almost no {what} was found on these tiles; --tiles with {what}s prove more", err=True)


def sorted_out(files: tuple[Path, ...], out: Path | None) -> tuple[list[Path], Path]:
    """The checkpoints, and the file to write."""
    *checkpoints, onnx = (*files, out) if out else files
    if not out and onnx.suffix != ".onnx" and onnx.is_file():
        names = " ".join(map(str, files))
        raise BadInput(
            f"{onnx}: the file to write is missing after it: dlink-export {names} {onnx.with_suffix('.onnx').name}"
        )
    if onnx.suffix != ".onnx":
        raise BadInput(f"{onnx}: the name must end in .onnx")
    if not checkpoints:
        raise BadInput(f"{onnx}: a checkpoint is missing in front of it")
    if missing := [path for path in checkpoints if not path.is_file()]:
        raise BadInput(f"{missing[0]}: there is no such checkpoint")
    return checkpoints, onnx


def weights_of(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as e:
        raise BadInput(f"--weights {text}: expected numbers separated by commas, such as 0.5,0.5") from e


def alike_of(arch: str) -> list[str]:
    """Other networks whose checkpoints have the same keys and shapes."""
    from dlink.nets.keys import keys_of
    from dlink.nets.zoo import ARCHS

    return [name for name in ARCHS if arch in ARCHS and name != arch and keys_of(name) == keys_of(arch)]
