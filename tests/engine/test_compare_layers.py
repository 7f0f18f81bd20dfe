"""Layer by layer: an engine beside ONNX Runtime."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dlink.engine import compare
from dlink.engine.compare import TOLERANCE, Difference, compare_layers, first_off, relative
from dlink.onnx_graph.model import read_model
from dlink.runtime.files import mark_of
from tests.support.calibrated import folder_of, quantise, scenes, small
from tests.support.command import call
from tests.support.models import save
from tests.support.plans import MANIFEST, write

IMAGE = scenes(1).tiles[0].image if scenes(1).tiles else scenes(2).tiles[0].image


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_openvino_computes_every_layer_as_onnx_runtime_does(precision, tmp_path):
    path = small("dlinknet34", tmp_path / "net.onnx", "fp32" if precision == "int8" else precision)
    if precision == "int8":
        save(quantise(path), path)
    found = compare_layers(read_model(path), IMAGE, None)
    assert len(found) > 100
    assert {"Conv", "ConvTranspose", "Add", "Relu", "MaxPool", "Sigmoid"} <= {d.op for d in found}
    assert not {"Cast", "QuantizeLinear", "DequantizeLinear"} & {d.op for d in found}
    assert found[-1].tensor == "road"
    assert first_off(found, TOLERANCE[precision]) is None


def test_the_first_layer_that_differs_is_named(tmp_path, monkeypatch):
    """An engine that has one weight wrong: that layer and nothing before it."""
    path = small("dlinknet34", tmp_path / "net.onnx")
    model = onnx.load(path)
    node = next(n for n in model.graph.node if n.name == "/encoder3/encoder3.2/conv1/Conv")
    weight = next(i for i in model.graph.initializer if i.name == node.input[1])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.5), weight.name))
    own = compare.in_openvino

    def wrong(graph, data):
        marked = onnx.load_from_string(data)
        del model.graph.output[:]
        model.graph.output.extend(marked.graph.output)
        return own(graph, model.SerializeToString())

    monkeypatch.setattr(compare, "in_openvino", wrong)
    first = first_off(compare_layers(read_model(path), IMAGE, None), TOLERANCE["fp32"])
    assert first.tensor == node.output[0]
    assert 0.1 < first.relative < 0.6  # half of its product, beside product and bias


def test_differences_are_shares_of_a_tensors_own_size():
    ones = np.ones((2, 2), np.float16)
    assert relative(ones, ones * 1.5) == pytest.approx(0.5)
    assert relative(ones, ones) == 0
    assert relative(0 * ones, 0 * ones) == 0
    assert relative(ones, ones * np.nan) == float("inf")
    rows = [Difference("a", "Conv", 0.01), Difference("b", "Conv", float("inf")), Difference("c", "Conv", 0.5)]
    assert first_off(rows, 0.1).tensor == "b"


def test_nothing_is_as_large_as_the_least_size_that_counts():
    """A ReLU's output may be zero throughout, and rounding lift some of it."""
    nothing = np.zeros((2, 2))
    assert relative(nothing, nothing + 1e-8) == pytest.approx(1e-5)
    assert relative(nothing, nothing + 1e-8) < TOLERANCE["fp32"] < relative(nothing, nothing + 1e-5)
    assert relative(nothing, nothing + 1) == pytest.approx(1000)


def test_dlink_layers_lists_layers_and_fails_with_the_first(tmp_path, monkeypatch):
    path = small("linknet34", tmp_path / "net.onnx")
    tiles = folder_of(tmp_path / "tiles", 1, 128)
    said = call("layers", path, tiles).stdout
    assert "no layer differs by more than 0.001" in said
    assert "/firstconv/Conv_output_0" in said
    values = json.loads(call("layers", path, tiles, "--json").stdout)
    assert values["layers"][0]["op"] == "Conv"
    monkeypatch.setitem(compare.TOLERANCE, "fp32", -1.0)
    assert "the first layer that differs" in call("layers", path, tiles, code=1).stderr


def test_a_plans_layers_need_its_own_onnx_file(tmp_path, monkeypatch):
    monkeypatch.setattr("dlink.trt_runtime.plan.fit", lambda path, manifest: None)
    onnx_file = small("linknet34", tmp_path / "roads.onnx")
    plan = write(tmp_path, onnx=mark_of("roads.onnx", b"another"))
    tiles = folder_of(tmp_path / "tiles", 1, 128)
    assert "put roads.onnx, from which it was built, beside it" in call("layers", plan, tiles, code=1).stderr
    asked = []
    monkeypatch.setattr(compare, "compare_layers", lambda *args: asked.append(args[2]) or [])
    write(tmp_path, onnx=mark_of("roads.onnx", onnx_file.read_bytes()))
    call("layers", plan, tiles)
    assert asked == [MANIFEST.built.target]
