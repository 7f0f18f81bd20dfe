"""Writes a copy of an ONNX file with another Spec, such as another threshold. Needs ONNX."""

import json
from dataclasses import replace
from pathlib import Path

import onnx

from dlink.runtime.files import replacing
from dlink.runtime.onnx_bytes import read_onnx, write_sealed
from dlink.runtime.spec import ONNX_KEY, Spec

DEEPNESS = "seg_thresh"  # where the QGIS plugin Deepness reads the threshold, see export/onnx_file.py


def write_retuned(model: Path, out: Path, spec: Spec, threshold: float) -> None:
    """Copy an ONNX file of dlink with another threshold: in its Spec, and where Deepness reads it.

    The graph and its weights stay as they are. The copy is written whole or not at all.
    """
    write_with_spec(model, out, replace(spec, threshold=threshold))


def write_with_spec(model: Path, out: Path, spec: Spec) -> None:
    """As write_retuned, with a whole Spec for the same graph."""
    loaded = onnx.load_from_string(read_onnx(model).data)
    for entry in loaded.metadata_props:
        if entry.key == ONNX_KEY:
            entry.value = spec.to_json()
        elif entry.key == DEEPNESS:
            entry.value = json.dumps(spec.threshold)
    with replacing(out) as part:
        write_sealed(loaded.SerializeToString(), part)
