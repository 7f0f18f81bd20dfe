"""Records a checkpoint's roads on tiles in files, for a Python that has an engine and no PyTorch.

    python -m dlink.bench.recorded roads.th tiles/ OUT --like roads.onnx

PyTorch runs on the CPU in float32, with the preparation of the ONNX file. OUT gets `recorded.json` and an array
for each picture and number of views, named by the hash of the pixels. OUT is written whole or not at all.
"""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import click
import numpy as np

from dlink.runtime.backend import Probs
from dlink.runtime.errors import BadInput
from dlink.runtime.segmenter import Image, Views

RECORD = "recorded.json"
IN_PATH = click.Path(exists=True, path_type=Path)


class Recorded:
    """Gives the recorded roads of a picture, and refuses other pictures."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / RECORD).exists():
            raise BadInput(f"{folder}: has no {RECORD}; python -m dlink.bench.recorded makes such a folder")
        self.threshold = float(json.loads((folder / RECORD).read_text())["threshold"])

    def probabilities(self, image: Image, views: Views = None) -> Probs:
        path = self.folder / name_of(image, views)
        if not path.exists():
            raise BadInput(f"{self.folder}: holds other pictures, or other views than {views}; record it again")
        found: Probs = np.load(path)
        return found

    def __enter__(self) -> "Recorded":
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        pass


def name_of(image: Image, views: Views) -> str:
    return f"{hashlib.sha256(image.tobytes()).hexdigest()[:16]}.{views}.npy"


@click.command()
@click.argument("checkpoint", type=IN_PATH)
@click.argument("tiles", type=IN_PATH)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--like", type=IN_PATH, required=True, help="An ONNX file of the checkpoint.")
def main(checkpoint: Path, tiles: Path, out: Path, like: Path) -> None:
    """Record CHECKPOINT's roads on TILES in the folder OUT."""
    from dlink.accuracy.agreement import BOTH
    from dlink.imagery.images import find_tiles, read_image
    from dlink.nets import torch_backend
    from dlink.runtime import Segmenter, Spec
    from dlink.runtime.onnx_bytes import read_onnx

    spec = Spec.of_onnx(read_onnx(like).metadata, like)
    new = out.with_name(f"{out.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    with Segmenter(torch_backend.open(checkpoint, replace(spec, precision="fp32"))) as model:
        for tile in find_tiles(tiles):
            image = read_image(tile.image)
            for views in BOTH:
                np.save(new / name_of(image, views), model.probabilities(image, views))
            click.echo(tile.id)
        (new / RECORD).write_text(json.dumps({"checkpoint": spec.checkpoint_sha256, "threshold": model.threshold}))
    shutil.rmtree(out, ignore_errors=True)
    new.rename(out)


if __name__ == "__main__":
    main()
