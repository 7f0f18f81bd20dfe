"""Writes a model repository for NVIDIA's Triton Inference Server: a folder with a configuration and one version."""

import shutil
from pathlib import Path

from dlink.runtime.errors import BadInput
from dlink.runtime.files import replacing
from dlink.runtime.spec import Spec
from dlink.trt_runtime.manifest import Ends

INPUT, OUTPUT = "image", "road"
WIDE = Ends()  # float32, as an ONNX file has
TRITON_TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16"}
KINDS = {".plan": ("tensorrt", "model.plan"), ".onnx": ("onnxruntime", "model.onnx")}

# Names and fields of model_config.proto (triton-inference-server/common); tests/engine/test_triton.py parses it by that
# definition. The client prepares the tiles and makes the views and their mean: Triton gets the network's input.
CONFIG = """\
name: "{name}"
backend: "{backend}"
max_batch_size: {batch}
input [ {{ name: "{input}", data_type: {reads}, dims: [ {planes}, {side}, {side} ] }} ]
output [ {{ name: "{output}", data_type: {gives}, dims: [ 1, {side}, {side} ] }} ]
dynamic_batching {{ }}
"""


def write_repository(folder: Path, model: Path, spec: Spec, batch: int, ends: Ends = WIDE) -> Path:
    """Copy a plan or an ONNX file into `folder`/<its name>/1, write its configuration, and return that file's path."""
    backend, file = KINDS[model.suffix]
    home = folder / model.stem
    if (strange := home / "1" / next(f for b, f in KINDS.values() if b != backend)).exists():
        raise BadInput(f"{strange}: is already there and of another kind; choose another folder or remove it")
    (home / "1").mkdir(parents=True, exist_ok=True)
    with replacing(home / "1" / file) as part:
        shutil.copyfile(model, part)
    config = home / "config.pbtxt"
    words = {"name": model.stem, "backend": backend, "batch": batch, "input": INPUT, "output": OUTPUT}
    with replacing(config) as part:
        types = {"reads": TRITON_TYPES[ends.reads], "gives": TRITON_TYPES[ends.gives]}
        part.write_text(CONFIG.format(**words, **types, side=spec.tile, planes=len(spec.bands)))
    return config
