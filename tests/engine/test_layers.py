"""What an engine says of its layers, and what is held against it."""

import json

import onnx
import pytest

from dlink.engine.layers import UNSEEN, Layer, precision_in, prove, read_report
from dlink.onnx_graph.model import Asked, OnnxModel, read_model
from dlink.runtime import BadModel, CheckFailed, Spec
from tests.support.calibrated import quantise, small
from tests.support.models import save, write_pointwise

# The form in which TensorRT 8.6 and 10 report, as quoted in NVIDIA/TensorRT#4020 and #3737; names are ours.
REPORT = json.dumps(
    {
        "Layers": [
            {
                "Name": "Reformatting CopyNode for Input Tensor 0 to /a/Conv + /Relu",
                "LayerType": "Reformat",
                "Inputs": [{"Name": "image", "Format/Datatype": "Row major linear FP32"}],
                "Outputs": [{"Name": "x", "Format/Datatype": "Row major Int8 format"}],
            },
            {
                "Name": "/a/Conv + /Relu",
                "LayerType": "CaskConvolution",
                "Inputs": [{"Name": "x", "Format/Datatype": "Four wide channel vectorized row major Int8 format"}],
                "Outputs": [{"Name": "y", "Format/Datatype": "Thirty-two wide channel vectorized Int8 format"}],
                "Weights": {"Type": "Int8", "Count": 9408},
                "Metadata": "[ONNX Layer: /a/Conv]\x1e[ONNX Layer: /Relu]",
            },
            {
                "Name": "sm80_xmma_fprop",
                "LayerType": "CaskConvolution",
                "Inputs": [{"Name": "y", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}],
                "Metadata": "[ONNX Layer: /b/Conv]",
            },
            {"Name": "/c/Conv", "LayerType": "CaskConvolution", "Inputs": [{"Name": "z", "Datatype": "Float"}]},
            {"Name": "{ForeignNode[/d/Conv.../e/Conv]}", "LayerType": "Myelin", "Inputs": []},
        ]
    }
)
NODES = ("/a/Conv", "/b/Conv", "/c/Conv", "/d/Conv")


def graph_of(*precisions, shares=(0.4, 0.3, 0.2, 0.1)):
    asked = tuple(Asked(n, "Conv", p, s) for n, p, s in zip(NODES, precisions, shares, strict=True))
    graph = OnnxModel(onnx.ModelProto(), Spec(), MARK)
    vars(graph)["asked"] = asked
    return graph


@pytest.fixture(scope="module", autouse=True)
def mark(tmp_path_factory):
    global MARK
    MARK = read_model(write_pointwise(tmp_path_factory.mktemp("m") / "net.onnx", Spec(tile=32))).mark


def test_a_fused_layers_precision_is_found_for_each_of_its_nodes():
    layers = read_report(REPORT)
    assert [precision_in(layers, n) for n in NODES] == ["int8", "fp16", "fp32", UNSEEN]
    assert [x.kind for x in layers][:2] == ["Reformat", "CaskConvolution"]


def test_names_alone_prove_nothing():
    layers = read_report(json.dumps({"Layers": ["/a/Conv + /Relu", "/b/Conv"]}))
    assert [precision_in(layers, n) for n in NODES] == [UNSEEN] * 4
    assert prove(graph_of("int8", "fp16", "fp32", "fp16"), layers).proven_by == "graph"


def test_shares_are_those_that_the_engine_reports():
    found = prove(graph_of("int8", "fp16", "fp32", "fp16"), read_report(REPORT))
    assert found.shares == pytest.approx({"int8": 0.4, "fp16": 0.3, "fp32": 0.2, UNSEEN: 0.1})
    assert (list(found.shares), found.proven_by) == (["int8", "fp16", "fp32", UNSEEN], "inspector")


def test_a_silent_downgrade_is_named_layer_by_layer():
    with pytest.raises(CheckFailed, match=r"TensorRT built 20.0% of the multiply-adds in FP32 \(/c/Conv\)"):
        prove(graph_of("int8", "fp16", "fp16", "fp16"), read_report(REPORT))


def test_int8_that_became_fp16_is_no_int8():
    layers = [Layer(n, "conv", "fp16", frozenset([n]), weights=True) for n in NODES]
    with pytest.raises(CheckFailed, match=r"asks for int8 in 100% of the multiply-adds, and TensorRT built 0%"):
        prove(graph_of("int8", "int8", "int8", "int8"), layers)
    layers[0] = Layer(NODES[0], "conv", "int8", frozenset([NODES[0]]), weights=True)
    assert prove(graph_of("int8", "int8", "int8", "int8", shares=(0.6, 0.2, 0.1, 0.1)), layers).shares["int8"] == 0.6


def test_without_a_gpu_the_graphs_own_types_are_given():
    found = prove(graph_of("int8", "fp16", "fp32", "fp16"), None)
    assert (found.shares, found.proven_by) == (pytest.approx({"int8": 0.4, "fp16": 0.4, "fp32": 0.2}), "graph")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_what_a_file_asks_for_is_what_was_written(precision, tmp_path):
    path = small("dlinknet34", tmp_path / "net.onnx", "fp32" if precision == "int8" else precision)
    if precision == "int8":
        model = quantise(path)
        int8 = sum(u.share for u in placed(path) if u.precision == "int8")
        save(model, path)
        assert read_model(path).shares()["int8"] == pytest.approx(int8)
    else:
        assert read_model(path).shares() == pytest.approx({precision: 1.0})


def placed(path):
    from dlink.calib.network import read_network
    from dlink.calib.placement import place

    return place(read_network(path), "int8")


def test_other_files_are_refused(tmp_path):
    path = write_pointwise(tmp_path / "net.onnx", Spec(tile=32))
    model = onnx.load(path)
    model.graph.output.append(model.graph.output[0])
    save(model, tmp_path / "two.onnx")
    with pytest.raises(
        BadModel, match=r"two.onnx: its inputs and outputs are .* and .* and .*, its spec wants float32"
    ):
        read_model(tmp_path / "two.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(BadModel, match=r"text.onnx: not an ONNX model, or a damaged one"):
        read_model(tmp_path / "text.onnx")
    del model.metadata_props[:]
    save(model, tmp_path / "foreign.onnx")
    with pytest.raises(BadModel, match=r"foreign.onnx: says nothing of its preparation"):
        read_model(tmp_path / "foreign.onnx")
