"""`dlink-export`: checkpoint, or a network from elsewhere -> ONNX."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile, is_zipfile

import click

from dlink.cli import options
from dlink.cli.options import OUT_PATH, Numbers, together
from dlink.cli.step import Step
from dlink.runtime.errors import BadInput
from dlink.runtime.words import counted

if TYPE_CHECKING:
    from dlink.export.options import AdoptOptions, ExportOptions, ReadOptions
    from dlink.export.proof import Proof

PROGRAM = "models/model.json"  # of an archive of torch.export


@click.command(cls=Step, short_help="Write a network as an ONNX file, and prove it.")
@click.argument("files", type=OUT_PATH, nargs=-1, required=True, metavar="CHECKPOINT... [ONNX]")
@options.output("The file to write, if it is not the last argument.")
@click.option("--weights", metavar="0.5,0.5", help="Weights of several checkpoints.  [default: equal]")
@together(
    "reading",
    "export.options:ReadOptions",
    click.option("--arch", help="The network.  [default: read from the checkpoint's keys]"),
    click.option(
        "--key",
        metavar="NAME",
        help="Key or prefix of the network in the checkpoint, such as ema.  [default: the first network of "
        "state_dict, model_state_dict, model, net, network and others]",
    ),
    click.option(
        "--class",
        "road",
        type=int,
        metavar="K",
        help="The class that is road, of a network that ends in a softmax over two, or of any from elsewhere.  "
        "[default: 1 of two]",
    ),
)
@together(
    "foreign",
    "export.options:AdoptOptions",
    click.option(
        "--activation",
        type=click.Choice(["none", "sigmoid", "softmax"]),
        help="What makes probabilities of the output of a network from elsewhere.  [default: none, if its graph ends "
        "in a sigmoid or softmax]",
    ),
    click.option("--output-name", metavar="NAME", help="Its output, or an inner tensor, that has the roads."),
)
@together(
    "how",
    "export.options:ExportOptions",
    options.tile("Side of the input, px: a multiple of 32."),
    options.precision("fp32", "fp16", default="fp32", words="Precision of the file's tensors."),
    options.threshold("Road above this probability.  [default: 0.5; PP-LinkNet 0.25]"),
    click.option(
        "--channels",
        type=click.Choice(["BGR", "RGB"]),
        help="Channel order in training.  [default: BGR; RGB from elsewhere]",
    ),
    options.gsd("Metres a pixel of the training tiles.", 0.5),
    click.option(
        "--mean",
        type=Numbers(),
        metavar="R,G,B",
        help="Mean that training subtracted, of pixels in 0..1: red, green, blue, whatever --channels is.  "
        "[default: the network's own preparation]",
    ),
    click.option(
        "--std",
        type=Numbers(),
        metavar="R,G,B",
        help="Deviation that training divided by, of pixels in 0..1: red, green, blue, whatever --channels is.",
    ),
)
@options.pictures("Pictures to prove the file on.  [default: generated scenes]")
def export(
    files: tuple[Path, ...], out: Path | None, weights: str | None, reading: "ReadOptions", foreign: "AdoptOptions",
    how: "ExportOptions", tiles: Path | None,
) -> None:  # fmt: skip
    """Write CHECKPOINT as the file ONNX, after proving that it draws PyTorch's roads.

    Several checkpoints become one file, an ensemble: the weighted mean of their probabilities.

    CHECKPOINT may also be a network from elsewhere: an ONNX file of any segmentation network (.onnx), or an archive of
    torch.export (.pt2). It becomes a file like the others, proven beside itself. --mean and --std are needed then, and
    --activation unless the graph ends in a sigmoid or softmax.
    """
    from dlink.cli.models import pictures

    checkpoints, onnx = sorted_out(files, out)
    if any(map(is_foreign, checkpoints)):
        adopt_one(checkpoints, onnx, [reading.arch, reading.key, weights], foreign, how, reading.road, tiles)
        return
    if given := [f"--{k.replace('_', '-')}" for k, v in vars(foreign).items() if v is not None]:
        raise BadInput(f"{given[0]}: is for a network from elsewhere (.onnx, .pt2); leave it out for a checkpoint")
    if reading.arch and len(checkpoints) > 1:
        raise BadInput("--arch: is for one checkpoint; the keys of each checkpoint of an ensemble name its network")
    parts = weights_of(weights) if weights else [1 / len(checkpoints)] * len(checkpoints)
    from dlink.export.export import export
    from dlink.export.options import preparation
    from dlink.nets.checkpoint import read_checkpoint
    from dlink.nets.ensemble import ensemble
    from dlink.nets.zoo import spec_of

    members = [read_checkpoint(path, reading.arch, key=reading.key, road=reading.road) for path in checkpoints]
    for note in [note for member in members for note in member.notes]:
        click.echo(f"note: {note}", err=True)
    if how.mean and len({(spec_of(m.arch).scale, spec_of(m.arch).shift) for m in members}) > 1:
        raise BadInput("--mean: these networks have different preparations of their own; export each by itself")
    read = ensemble(members, parts) if len(members) > 1 or weights else members[0]
    spec = how.on(replace(spec_of(members[0].arch), arch=read.arch, width=read.width, checkpoint_sha256=read.sha256))
    if reading.arch is None and (alike := alike_of(read.arch)):
        click.echo(f"note: read as {read.arch}; {', '.join(alike)} have the same keys: --arch selects one", err=True)
    proof = export(read, onnx, spec, pictures(tiles, how.tile))
    click.echo(f"{onnx}: {read.arch} width {read.width:g}, {how.precision}, tile {how.tile}, {size_of(onnx)}")
    click.echo(
        f"prepared as {preparation(spec)}, {spec.gsd_m:g} m a pixel; --channels, --mean, --std and --gsd give another "
        "preparation"
    )
    report(proof, "PyTorch's")


def adopt_one(
    networks: list[Path], onnx: Path, unfit: list[str | None], foreign: "AdoptOptions", how: "ExportOptions",
    road: int | None, tiles: Path | None,
) -> None:  # fmt: skip
    """Write a network from elsewhere. `unfit` has the values of --arch, --key and --weights, which are not for it."""
    path = networks[0]
    if len(networks) > 1:
        raise BadInput(f"{path}: only checkpoints become an ensemble; export one network from elsewhere at a time")
    if wrong := [name for name, value in zip(("arch", "key", "weights"), unfit, strict=True) if value is not None]:
        raise BadInput(f"--{wrong[0]}: is for checkpoints; leave it out for {path.name}")
    if onnx.resolve() == path.resolve():
        raise BadInput(f"{onnx}: is the network itself, and would be replaced; choose another output")
    from dlink.cli.models import pictures
    from dlink.export.adopt import adopt
    from dlink.export.options import preparation

    made = adopt(path, onnx, how, foreign, road, pictures(tiles, how.tile))
    for note in made.notes:
        click.echo(f"note: {note}", err=True)
    spec = made.spec
    click.echo(f"{onnx}: {spec.arch}, {how.precision}, tile {how.tile}, {size_of(onnx)}")
    click.echo(f"output {made.output}")
    click.echo(f"prepared as {preparation(spec)}, {spec.gsd_m:g} m a pixel; --channels and --gsd say otherwise")
    report(made.proof, f"those of {path.name}")


def is_foreign(path: Path) -> bool:
    """Whether a file is no checkpoint but a whole network: by its name, or by what is in it."""
    if path.suffix in (".onnx", ".pt2"):
        return True
    with ZipFile(path) if is_zipfile(path) else nullcontext() as archive:
        return archive is not None and any(name.endswith(f"/{PROGRAM}") for name in archive.namelist())


def size_of(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


def report(proof: "Proof", whose: str) -> None:
    """Print what the proof showed."""
    from dlink.export.proof import FEW

    click.echo(
        f"on {counted(proof.tiles, 'tile')}, {proof.road:.1%} road, probabilities differ from {whose} by at most "
        f"{proof.difference:.2g}, masks agree at IoU {proof.agreement:.4f}"
    )
    if proof.near.words:
        click.echo(f"note: {proof.near.words}", err=True)
    if proof.road < FEW:
        click.echo("note: almost no road was found on these tiles; --tiles with roads prove more", err=True)


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
    if not checkpoints and onnx.is_file():
        raise BadInput(f"{onnx}: the file to write is missing after it: dlink-export {onnx} roads.onnx")
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
