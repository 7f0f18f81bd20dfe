"""`dlink-export`: checkpoint, or a network from elsewhere -> ONNX."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile, is_zipfile

import click

from dlink.cli import options
from dlink.cli.options import OUT_PATH, Names, together
from dlink.cli.step import Step
from dlink.runtime.errors import BadInput
from dlink.runtime.files import CHECKPOINTS
from dlink.runtime.words import counted

if TYPE_CHECKING:
    from dlink.export.options import AdoptOptions, ExportOptions
    from dlink.export.proof import Proof
    from dlink.nets.options import NetworkOptions

PROGRAM = "models/model.json"  # of an archive of torch.export


@click.command(cls=Step, short_help="Write a network as an ONNX file, and prove it.")
@click.argument("files", type=OUT_PATH, nargs=-1, required=True, metavar="CHECKPOINT... [ONNX]")
@options.output("The file to write, if it is not the last argument.")
@click.option("--weights", metavar="0.5,0.5", help="Weights of several checkpoints.  [default: equal]")
@options.network("", click.option("--arch", help="The network.  [default: read from the checkpoint's keys]"))
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
        "--bands",
        type=Names(),
        metavar="NAME,NAME,...",
        help="What an image's planes are, in their order, such as red,green,blue,nir; a network of other than three "
        "channels needs it.  [default: red,green,blue]",
    ),
    options.stretch_of("How training made 8 bits of other samples; kept in the file, for every reader."),
    options.gsd("Metres a pixel of the training tiles.", 0.5),
    click.option(
        "--target", metavar="WORD", default="road", show_default=True, help="What the masks show, such as building."
    ),
    *options.preparation,
)
@options.pictures("Pictures to prove the file on.  [default: generated scenes]")
def export(
    files: tuple[Path, ...], out: Path | None, weights: str | None, network: "NetworkOptions",
    foreign: "AdoptOptions", how: "ExportOptions", tiles: Path | None,
) -> None:  # fmt: skip
    """Write CHECKPOINT as the file ONNX, after proving that it draws PyTorch's roads.

    Several checkpoints become one file, an ensemble: the weighted mean of their probabilities.

    CHECKPOINT may also be a network from elsewhere: an ONNX file of any segmentation network (.onnx), or an archive of
    torch.export (.pt2). It becomes a file like the others, proven beside itself. --mean and --std are needed then, and
    --activation unless the graph ends in a sigmoid or softmax.
    """
    from dlink.cli.models import made_up, pictures

    checkpoints, onnx = sorted_out(files, out)
    if any(map(is_foreign, checkpoints)):
        adopt_one(checkpoints, onnx, [network.arch, network.key, weights], foreign, how, network.road, tiles)
        return
    if given := [f"--{k.replace('_', '-')}" for k, v in vars(foreign).items() if v is not None]:
        raise BadInput(f"{given[0]}: is for a network from elsewhere (.onnx, .pt2); leave it out for a checkpoint")
    if network.arch and len(checkpoints) > 1:
        raise BadInput("--arch: is for one checkpoint; the keys of each checkpoint of an ensemble name its network")
    parts = weights_of(weights) if weights else [1 / len(checkpoints)] * len(checkpoints)
    from dlink.export.export import check_bands, export
    from dlink.nets.checkpoint import read_checkpoint
    from dlink.nets.ensemble import ensemble
    from dlink.nets.preparation import in_words as preparation_in_words
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
    click.echo(f"{onnx}: {spec.network_in_words}, {how.precision}, tile {how.tile}, {size_of(onnx)}")
    click.echo(
        f"prepared as {preparation_in_words(spec)}, {spec.gsd_m:g} m a pixel; --channels, --mean, --std and --gsd give "
        "another preparation"
    )
    if tiles is None and (others := made_up(spec)):
        click.echo(f"note: proven on generated scenes, where {others} copied from green: --tiles prove more", err=True)
    report(proof, "PyTorch's", how.target)
    say_sparse(onnx)


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
    from dlink.nets.preparation import in_words as preparation_in_words

    made = adopt(path, onnx, how, foreign, road, pictures(tiles, how.on(how.first)))
    for note in made.notes:
        click.echo(f"note: {note}", err=True)
    spec = made.spec
    click.echo(f"{onnx}: {spec.arch}, {how.precision}, tile {how.tile}, {size_of(onnx)}")
    click.echo(f"output {made.output}")
    click.echo(
        f"prepared as {preparation_in_words(spec)}, {spec.gsd_m:g} m a pixel; --channels and --gsd say otherwise"
    )
    report(made.proof, f"those of {path.name}", spec.target)
    say_sparse(onnx)


def is_foreign(path: Path) -> bool:
    """Whether a file is no checkpoint but a whole network: by its name, or by what is in it."""
    if path.suffix in (".onnx", ".pt2"):
        return True
    with ZipFile(path) if is_zipfile(path) else nullcontext() as archive:
        return archive is not None and any(name.endswith(f"/{PROGRAM}") for name in archive.namelist())


def size_of(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


def report(proof: "Proof", whose: str, target: str) -> None:
    """Print what the proof showed."""
    from dlink.export.proof import FEW

    click.echo(
        f"on {counted(proof.tiles, 'tile')}, {proof.road:.1%} {target}, probabilities differ from {whose} by at most "
        f"{proof.difference:.2g}, masks agree at IoU {proof.agreement:.4f}"
    )
    if proof.near.words:
        click.echo(f"note: {proof.near.words}", err=True)
    if proof.road < FEW:
        click.echo(
            f"note: almost no {target} was found on these tiles; --tiles with {target}s prove more, if they have some: "
            f"was it trained with another preparation (--channels, --mean, --std)?",
            err=True,
        )


def say_sparse(onnx: Path) -> None:
    """Print how much of a file has 2:4 sparse weights, if any of it has."""
    from dlink.onnx_graph.model import read_model
    from dlink.onnx_graph.sparsity import NOTABLE, in_words, sparse_share

    if (share := sparse_share(read_model(onnx))) >= NOTABLE:
        click.echo(in_words(share))


def sorted_out(files: tuple[Path, ...], out: Path | None) -> tuple[list[Path], Path]:
    """The checkpoints, and the file to write."""
    *checkpoints, onnx = (*files, out) if out else files
    if not out and onnx.suffix != ".onnx" and onnx.is_file():
        names = " ".join(map(str, files))
        raise BadInput(
            f"{onnx}: the file to write is missing after it: dlink-export {names} {onnx.with_suffix('.onnx').name}"
        )
    if not checkpoints and onnx.suffix in CHECKPOINTS:
        raise BadInput(f"{onnx}: there is no such checkpoint")
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
