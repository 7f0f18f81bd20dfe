"""Small ONNX networks whose roads are known without running them, and where the shared data is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dlink.runtime.files import file_sha256
from dlink.runtime.onnx_bytes import read_onnx, write_sealed
from dlink.runtime.scout_limit import ScoutLimit
from dlink.runtime.spec import ONNX_KEY, Spec

SHARED = Path(__file__).parents[3] / "shared"  # real tiles and a trained checkpoint, where they have been put


def shared(name: str) -> Path:
    """A path beside the checkout that holds data we may not ship; skips the test where it is missing."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs ../shared: {name}, which is not ours to ship")
    return path


def red(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What `write_pointwise` gives for an image (..., 3)."""
    x = image[..., 0] / 255 * 3.2 - 1.6
    return 1 / (1 + np.exp(-2 * x))


def write_pointwise(path: Path, spec: Spec) -> Path:
    """A network whose road probability is sigmoid(2 x) of the third channel (red in BGR)."""
    return write_conv(path, spec, np.full((1, 1), 2.0))


def write_blur(path: Path, spec: Spec, radius: int) -> Path:
    """The same of the channel's mean over a square of side 2 radius + 1, zero outside the tile."""
    side = 2 * radius + 1
    return write_conv(path, spec, np.full((side, side), 2.0 / side**2))


def write_conv(path: Path, spec: Spec, kernel: NDArray[np.float64]) -> Path:
    """One convolution of the third channel (of the last, if there are fewer) and a sigmoid, as an ONNX file of ours."""
    count = len(spec.bands)
    weight = np.zeros((1, count, *kernel.shape), np.float32)
    weight[0, min(2, count - 1)] = kernel
    pad = kernel.shape[0] // 2
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["y"], "conv", pads=[pad] * 4),
        helper.make_node("Sigmoid", ["y"], ["road"], "sigmoid"),
    ]
    return write_model(path, spec, nodes, {"w": weight})


def write_model(path: Path, spec: Spec, nodes: list[onnx.NodeProto], weights: dict[str, NDArray[np.generic]]) -> Path:
    """Nodes from `image` to `road`, as an ONNX file of ours. Weights of float64 become float32."""
    image, road = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", channels, spec.tile, spec.tile])
        for name, channels in (("image", len(spec.bands)), ("road", 1))
    )
    values = {name: w.astype(np.float32) if w.dtype == np.float64 else w for name, w in weights.items()}
    tensors = [numpy_helper.from_array(w, name) for name, w in values.items()]
    graph = helper.make_graph(nodes, "road", [image], [road], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {ONNX_KEY: spec.to_json()})
    save(model, path)
    return path


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model that a test has changed, with the digest of a file of ours."""
    write_sealed(model.SerializeToString(), path)


def write_scout(path, model, level=100, sha256=None):
    """A scout for an ONNX file: a blur of the first channel, which is no network that was calibrated."""
    spec = read_onnx(model).spec
    limit = ScoutLimit(
        level=level,
        missed=0.01,
        confidence=0.95,
        tiles=300,
        threshold=spec.threshold,
        large_sha256=sha256 or file_sha256(model),
        views=8,
        halo=0,
    )
    return write_conv(path, replace(spec, scout=limit, width=0.5), np.full((15, 15), 2.0 / 15**2))
