"""Writes a network as the ONNX file that all later steps read.

Opset 17, the newest that TensorRT 8.5 parses. Input `image` float32 (N, C, S, S), output `road` float32 (N, 1, S, S) in
[0, 1], N free, S fixed. Batch norms are folded into their convolutions. In an FP16 file every tensor between the first
and the last cast is float16. The sigmoid follows the last cast and stays float32, because float16 is too coarse near 0
and 1. All weights are inside the file. Metadata: `dlink.spec`, and the keys that the QGIS plugin Deepness reads.
"""

import copy
import json
import warnings
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from dlink.nets.network import RoadNet
from dlink.nets.pyramid import enlarged
from dlink.runtime.onnx_bytes import write_sealed
from dlink.runtime.spec import ONNX_KEY, Spec

OPSET = 17
TRACED = 64  # side of the tile that the exporter runs, px; small, because PyTorch is slow in float16


class Deployed(nn.Module):
    """The graph of the file: the network's logits in the file's precision between float32 ends, then the sigmoid."""

    def __init__(self, net: RoadNet, dtype: torch.dtype) -> None:
        super().__init__()
        self.net = net.to(dtype)
        self.dtype = dtype

    def forward(self, image: Tensor) -> Tensor:
        return self.net.road(image.to(self.dtype))


def write_onnx(folded: RoadNet, spec: Spec, path: Path) -> None:
    """Write a network with folded norms, in the spec's precision, to `path`. Not atomic: see `replacing`."""
    half = spec.precision == "fp16"
    deployed = Deployed(copy.deepcopy(folded) if half else folded, torch.float16 if half else torch.float32).eval()
    free = {0: "N"}
    traced = max(TRACED, folded.multiple)
    data = BytesIO()
    with warnings.catch_warnings(), enlarged(Fraction(spec.tile, traced)):
        # The TorchScript exporter writes opset 17 directly; torch.export's would be converted down from 18.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.onnx.export(
            deployed,
            (torch.zeros(1, len(spec.bands), traced, traced),),
            data,  # type: ignore[arg-type]  # a file object works too
            opset_version=OPSET,
            input_names=["image"],
            output_names=["road"],
            dynamic_axes={"image": free, "road": free},
            dynamo=False,
        )
    del deployed
    model = onnx.load_from_string(data.getvalue())
    del data
    for end in (model.graph.input[0], model.graph.output[0]):
        for dim in end.type.tensor_type.shape.dim[2:]:
            dim.dim_value = spec.tile
    del model.graph.value_info[:]
    hoist_constants(model.graph)
    model.producer_name = "dlink"
    onnx.helper.set_model_props(model, {ONNX_KEY: spec.to_json(), **deepness(spec)})
    write_sealed(model.SerializeToString(), path)


def hoist_constants(graph: onnx.GraphProto) -> None:
    """Turn Constant nodes into initializers, where calibration and builds look for weights."""
    for node in [n for n in graph.node if n.op_type == "Constant"]:
        value = next(a.t for a in node.attribute if a.name == "value")
        value.name = node.output[0]
        graph.initializer.append(value)
        graph.node.remove(node)


def deepness(spec: Spec) -> dict[str, str]:
    """The metadata that Deepness reads: JSON values; resolution in cm a pixel; x = (pixel / 255 - mean) / std.

    The key names are from its documentation ("Add metadata to ONNX model") and its model_base.py.
    """
    std = [1 / (255 * scale) for scale in spec.scale]
    mean = [-shift * s for shift, s in zip(spec.shift, std, strict=True)]
    values = {
        "model_type": "Segmentor",
        "class_names": {0: "background", 1: spec.target},
        "resolution": round(spec.gsd_m * 100, 6),
        "tile_size": spec.tile,
        "tiles_size": spec.tile,
        "tiles_overlap": 10,  # per cent
        "seg_thresh": spec.threshold,
        "standardization_mean": [round(v, 6) for v in mean],
        "standardization_std": [round(v, 6) for v in std],
    }
    return {key: json.dumps(value) for key, value in values.items()}
