"""2:4 sparse weights in ONNX files: what has the pattern, and that every step on the way keeps it."""

import copy

import numpy as np
import onnx
import pytest

from dlink.calib.network import read_network
from dlink.calib.placement import place
from dlink.cli.inspect import asked_table
from dlink.nets.checkpoint import read_checkpoint, write_checkpoint
from dlink.nets.embedded import EMBEDDED
from dlink.onnx_graph.model import read_model
from dlink.onnx_graph.sparsity import has_pattern, sparse_convolutions, sparse_share
from dlink.runtime import Spec
from dlink.training.quantised import FineTuneOptions, Quantised, learn
from dlink.training.sparse import sparse_share as share_of_net
from tests.export.test_export import SIDE, trained
from tests.support.calibrated import QUIET, folder_of, make_sparse, quantise, ranges_of, scenes, small
from tests.support.command import call
from tests.support.models import save, write_model


def four(*values):
    return np.array(values, np.float32).reshape(1, -1, 1, 1)


@pytest.mark.parametrize(
    ("weight", "found"),
    [
        (four(1, 0, 0, -1), True),
        (four(1, 0, 0, 1, 0, 0, 0, 2), True),
        (four(0, 0, 1, 1, 1, 0, 0, 0), True),
        (four(0, 0, 0, 1, 1, 1, 0, 1), False),
        (four(1, 0), False),
        (four(0, 0, 0), False),
        (np.concatenate([four(1, 0, 1, 0), four(1, 1, 1, 0)]), False),  # each output channel
        (np.concatenate([four(1, 1, 0, 0), four(0, 0, 1, 1)], axis=3), True),  # each position of the kernel
        (np.concatenate([four(1, 1, 0, 0), four(0, 1, 1, 1)], axis=2), False),
    ],
)
def test_of_four_successive_input_channels_two_are_zero(weight, found):
    assert has_pattern(weight) == found


def test_the_share_is_that_of_the_network(tmp_path):
    net = trained("dlinknet34").net
    make_sparse(net)
    graph = read_model(small("dlinknet34", tmp_path / "net.onnx", sparse=True))
    found = sparse_convolutions(graph)
    assert sparse_share(graph) == pytest.approx(share_of_net(net))
    assert {a.op for a in found} == {"Conv"}
    odd = {n.name for n in graph.convolutions if n.op_type == "Conv" and graph.weights[n.input[1]].shape[1] % 4}
    assert {a.node for a in graph.asked if a.op == "Conv"} - {a.node for a in found} == odd
    assert "/firstconv/Conv" in odd
    assert sparse_convolutions(read_model(small("dlinknet34", tmp_path / "dense.onnx"))) == []


@pytest.mark.parametrize("deconv", ["int8", "conv"])
@pytest.mark.parametrize("base", ["fp16", "fp32"])
def test_int8_keeps_the_pattern(base, deconv, tmp_path):
    source = small("dlinknet34", tmp_path / "net.onnx", sparse=True)
    names = {a.node for a in sparse_convolutions(read_model(source))}
    save(quantise(source, deconv, base), tmp_path / "int8.onnx")
    graph = read_model(tmp_path / "int8.onnx")
    found = sparse_convolutions(graph)
    assert {a.node for a in found} == names
    assert {a.precision for a in found} >= {"int8"}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, ["first"]),
        ({"zero": 5}, []),  # a zero point: the zeros are others
        ({"group": 2}, []),
        ({"op": "ConvTranspose"}, []),
    ],
)
def test_weights_are_seen_behind_pairs_and_casts(given, found, tmp_path):
    spec = Spec(tile=SIDE, bands=tuple("abcdefgh"), channels="RGB", scale=(1.0,) * 8, shift=(0.0,) * 8)
    op, zero, attributes = (
        given.get("op", "Conv"),
        given.get("zero", 0),
        {k: v for k, v in given.items() if k == "group"},
    )
    weight = np.zeros((8, 8 // given.get("group", 1), 1, 1), np.int8)
    weight[1::4, 1::4] = weight[2::4, 2::4] = 5
    nodes = [
        onnx.helper.make_node("DequantizeLinear", ["w_q", "s", "z"], ["w_h"], axis=0),
        onnx.helper.make_node("Cast", ["w_h"], ["w"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node(op, ["image", "w"], ["y"], "first", **attributes),
        onnx.helper.make_node("Conv", ["y", "last"], ["logit"], "last"),
        onnx.helper.make_node("Sigmoid", ["logit"], ["road"], "sigmoid"),
    ]
    values = {"w_q": weight, "s": np.full(8, 0.1, np.float32), "z": np.full(8, zero, np.int8)}
    path = write_model(tmp_path / "net.onnx", spec, nodes, {**values, "last": np.ones((1, 8, 1, 1), np.float32)})
    assert [a.node for a in sparse_convolutions(read_model(path))] == found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A sparse checkpoint of the embedded network, and what dlink-export and dlink-calibrate say of it."""
    folder = tmp_path_factory.mktemp("made")
    net = copy.deepcopy(read_checkpoint(EMBEDDED).net)
    make_sparse(net)
    write_checkpoint(net, folder / "sparse.th")
    exported = call("export", folder / "sparse.th", folder / "net.onnx", "--tile", 128, "--precision", "fp16")
    tiles = folder_of(folder / "tiles", 4, 128)
    words = ["calibrate", folder / "net.onnx", tiles, "-o", folder / "int8.onnx", "--method", "max", "--held", 1]
    calibrated = call(*words, "--max-iou-drop", 1, "--min-agreement", 0)
    return folder, net, exported.stdout, calibrated.stdout


def test_export_and_calibration_say_how_sparse_their_file_is(made):
    """Norms are folded, channels are balanced for FP16 and evened out for INT8, and zeros stay zeros."""
    folder, net, exported, calibrated = made
    assert f"\n2:4 sparse: {share_of_net(net):.1%} of the multiply-adds\n" in exported
    assert "\n2:4 sparse: " in calibrated
    names = {a.node for a in sparse_convolutions(read_model(folder / "net.onnx"))}
    assert names == {a.node for a in sparse_convolutions(read_model(folder / "int8.onnx"))}
    dense = call("export", EMBEDDED, folder / "dense.onnx", "--tile", 128)
    assert "sparse" not in dense.stdout


def test_inspect_names_the_layers(made):
    folder, net, _, _ = made
    lines = call("inspect", folder / "net.onnx", "--explain").stdout.splitlines()
    assert lines[0].split() == ["node", "type", "share", "asked", "for", "weights"]
    assert lines[-1] == f"2:4 sparse: {share_of_net(net):.1%} of the multiply-adds"
    assert next(line for line in lines if line.startswith("/finalconv2/Conv ")).endswith("2:4")
    assert not next(line for line in lines if line.startswith("/firstconv/Conv ")).endswith("2:4")
    call("export", EMBEDDED, folder / "dense.onnx", "--tile", 128)
    assert asked_table(read_model(folder / "dense.onnx"))[0].endswith("asked for")


def test_fine_tuning_keeps_the_pattern(tmp_path):
    graph = read_network(small("dlinknet34", tmp_path / "net.onnx", sparse=True))
    net = Quantised(graph, place(graph, "int8"), ranges_of(graph).limits("max"))
    steps = learn(net, Quantised(graph, [], {}), scenes(3), FineTuneOptions(epochs=1, batch=1, rate=1e-3), QUIET)
    assert len(list(steps)) == 2
    tuned = net.network()
    assert [a.node for a in sparse_convolutions(tuned)] == [a.node for a in sparse_convolutions(graph)]
    name = "net.encoder2.1.conv2.weight"
    assert (tuned.weights[name] != graph.weights[name]).any()


def test_fine_tuning_holds_the_zeros_of_a_sparse_file_alone(tmp_path):
    def held(sparse):
        graph = read_network(small("dlinknet34", tmp_path / "net.onnx", sparse=sparse))
        return graph, Quantised(graph, [], {}).sparse_weights()

    graph, weights = held(True)
    every = [graph.weights[n.input[1]] for n in graph.convolutions if n.op_type == "Conv"]
    wanted = [weight for weight in every if weight.shape[1] % 4 == 0]
    assert len(wanted) > 40
    assert len(weights) == len(wanted)
    assert all((w.detach().numpy() == v).all() for w, v in zip(weights, wanted, strict=True))
    assert held(False)[1] == []
