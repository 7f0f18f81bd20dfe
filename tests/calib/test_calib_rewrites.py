"""Rewrites that save time and change no number: the last convolution in blocks, and pooling in int8."""

import numpy as np
import pytest
from onnx import helper

from dlink.calib.folded import BLOCK, foldable, with_folded_end
from dlink.calib.network import read_network
from dlink.calib.placement import INT8, ROADS, SPEED, place
from dlink.calib.qdq import is_quantised, write_qdq
from dlink.nets.zoo import ARCHS
from dlink.runtime import Spec
from tests.support.calibrated import ranges_of, run, small
from tests.support.models import write_model

SPEC = Spec(tile=32)


def ended_by(tmp_path, kernel=3, out=1, **attributes):
    """A network of two convolutions, whose last one has these attributes."""
    rng = np.random.default_rng(0)
    weights = {
        "net.a.weight": rng.normal(size=(8, 3, 1, 1)).astype(np.float32),
        "net.b.weight": rng.normal(size=(out, 8, kernel, kernel)).astype(np.float32),
        "net.b.bias": rng.normal(size=out).astype(np.float32),
    }
    pads = {"pads": [kernel // 2] * 4} | attributes
    nodes = [
        helper.make_node("Conv", ["image", "net.a.weight"], ["a"], "a"),
        helper.make_node("Relu", ["a"], ["r"], "r"),
        helper.make_node("Conv", ["r", "net.b.weight", "net.b.bias"], ["b"], "b", **pads),
        helper.make_node("Sigmoid", ["b"], ["road"], "s"),
    ]
    return read_network(write_model(tmp_path / "net.onnx", SPEC, nodes, weights))


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_folded_end_gives_the_same_numbers(tmp_path, kernel):
    graph = ended_by(tmp_path, kernel)
    folded = with_folded_end(graph)
    x = np.random.default_rng(1).normal(size=(1, 3, 32, 32)).astype(np.float32)
    np.testing.assert_allclose(run(folded.model, x), run(graph.model, x), atol=1e-6)
    shapes = {n.name: folded.weights[n.input[1]].shape for n in folded.convolutions}
    assert shapes["b"] == (BLOCK**2, 8, kernel + BLOCK - 1, kernel + BLOCK - 1)


@pytest.mark.parametrize("last", [{"kernel": 1}, {"dilations": [2, 2], "pads": [2] * 4}])
def test_another_end_is_left_as_it_is(tmp_path, last):
    graph = ended_by(tmp_path, **last)
    assert with_folded_end(graph).model == graph.model


def test_a_convolution_within_the_network_is_left_as_it_is(tmp_path):
    graph = ended_by(tmp_path)
    assert [foldable(graph, node) for node in graph.convolutions] == [False, True]


@pytest.mark.parametrize("arch", [arch for arch in ARCHS if arch.startswith(("dlinknet34", "linknet"))][:2])
def test_the_networks_of_the_papers_end_in_a_convolution_that_can_be_folded(arch, tmp_path):
    graph = read_network(small(arch, tmp_path / "net.onnx"))
    assert [foldable(graph, node) for node in graph.convolutions].count(True) == 1


def test_pooling_in_int8_gives_the_same_roads(fp32, x, monkeypatch):
    graph = read_network(fp32)
    ranges = ranges_of(graph)
    units = place(graph, "int8", (), SPEED)

    def made():
        return write_qdq(graph, units, ranges.limits("max"), ranges.means(graph), "fp32")

    inside = made()
    monkeypatch.setattr("dlink.calib.qdq.is_quantised", lambda *_: False)
    outside = made()
    assert [n.input for n in inside.graph.node if n.op_type == "MaxPool"] != [
        n.input for n in outside.graph.node if n.op_type == "MaxPool"
    ]
    np.testing.assert_array_equal(run(inside, x), run(outside, x))


def test_pooling_whose_result_is_read_in_float_stays_in_float(fp32):
    graph = read_network(fp32)
    (pool,) = [node for node in graph.model.graph.node if node.op_type == "MaxPool"]
    for prefer, wanted in ((SPEED, True), (ROADS, False)):  # there the first block's skip is float
        units = {unit.node: unit for unit in place(graph, "int8", (), prefer)}
        assert is_quantised(graph, pool, units) == wanted
    units = {u.node: u.reverted("") if u.name == "encoder1.0.conv1" else u for u in place(graph, "int8", (), SPEED)}
    assert INT8 in {u.precision for u in units.values()} and not is_quantised(graph, pool, units)
