"""Exports a checkpoint as a proven ONNX file."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlink.export.balance import balance
from dlink.export.onnx_file import write_onnx
from dlink.export.proof import Proof, prove
from dlink.nets.checkpoint import Checkpoint
from dlink.nets.folding import fold_norms
from dlink.nets.network import RoadNet
from dlink.runtime.errors import BadInput
from dlink.runtime.files import replacing
from dlink.runtime.spec import COLOURS, MOST_BANDS, Spec
from dlink.runtime.words import counted


def export(checkpoint: Checkpoint, path: Path, spec: Spec, tiles: Iterable[NDArray[np.uint8]]) -> Proof:
    """Write the checkpoint as `path`, in the spec's precision and for its tile. A file that fails its proof is removed.

    `tiles` are uint8 (S, S, C), RGB for most networks, best of the kind that the network was trained on.
    """
    check_bands(checkpoint.net, spec)
    multiple = checkpoint.net.multiple
    if spec.tile % multiple:
        raise BadInput(
            f"--tile {spec.tile}: {spec.arch} halves the tile down to 1/{multiple}; give a multiple of {multiple}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    tiles = list(tiles)
    folded = fold_norms(checkpoint.net)
    if spec.precision == "fp16":
        folded = balance(folded, (spec.prepare(tile[None]) for tile in tiles))
    with replacing(path) as part:
        write_onnx(folded, spec, part)
        return prove(part, checkpoint.net, folded, spec, tiles)


def check_bands(net: RoadNet, spec: Spec) -> None:
    """Raise BadInput unless the Spec names as many bands as the network's first layer takes channels."""
    if net.channels == len(spec.bands):
        return
    names = [*COLOURS, "nir", *(f"other{i + 1}" for i in range(MOST_BANDS))][: net.channels]
    example = ",".join(["grey"] if net.channels == 1 else names)
    raise BadInput(
        f"the network's first layer takes {counted(net.channels, 'channel')}, and the bands are "
        f"{', '.join(spec.bands)}: name what training gave it, such as dlink-export --bands {example}"
    )
