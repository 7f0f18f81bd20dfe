import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dlink.calib.deconv import phases, rewritable, without_transposed
from dlink.calib.network import layer_name, read_network
from dlink.calib.observe import runner
from dlink.calib.rescale import factors, rescale
from dlink.nets.zoo import ARCHS
from dlink.onnx_graph.stretches import COMFORT
from dlink.runtime import BadInput, BadModel, Spec
from tests.support.calibrated import quantise, ranges_of, run, small
from tests.support.models import save, write_model, write_pointwise

TRANSPOSED = [(3, 1, 1), (4, 1, 0), (2, 0, 0), (5, 2, 1), (6, 2, 0)]  # kernel, padding, output padding; stride 2


def test_an_fp16_file_is_lifted_to_its_own_numbers(tmp_path, fp32, x):
    graph = read_network(small("dlinknet34", tmp_path / "fp16.onnx", "fp16"))
    assert {i.data_type for i in graph.model.graph.initializer} == {TensorProto.FLOAT}
    assert "Cast" not in {n.op_type for n in graph.model.graph.node}
    other = read_network(fp32)
    for name, values in graph.weights.items():
        np.testing.assert_array_equal(values, other.weights[name].astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(run(graph.model, x), run(tmp_path / "fp16.onnx", x), atol=0.02)


def test_multiply_adds_of_a_known_convolution(tmp_path):
    graph = two_convolutions(tmp_path)
    first, second = graph.convolutions
    assert graph.macs(first) == 8 * 3 * 9 * 64 * 64
    assert graph.macs(second) == 8 * 1 * 4 * 32 * 32  # a transposed one works on its input's pixels


def two_convolutions(tmp_path, op="ConvTranspose"):
    """3 -> 8 channels by 3 x 3 with stride 1, max pool, 8 -> 1 by 2 x 2 transposed with stride 2."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["image", "net.a.weight"], ["a"], "/a/Conv", pads=[1] * 4),
        helper.make_node("MaxPool", ["a"], ["p"], "/pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node(op, ["p", "net.b.weight"], ["b"], "/b", strides=[2, 2]),
        helper.make_node("Sigmoid", ["b"], ["road"], "/sigmoid"),
    ]
    weights = {"net.a.weight": rng.normal(size=(8, 3, 3, 3)), "net.b.weight": rng.normal(size=(8, 1, 2, 2))}
    return read_network(write_model(tmp_path / "two.onnx", Spec(tile=64), nodes, weights))


def test_layers_have_the_names_that_the_network_gives_them(fp32):
    names = [layer_name(n) for n in read_network(fp32).convolutions]
    assert names[:2] == ["firstconv", "encoder1.0.conv1"]
    assert names[-1] == "finalconv3"


def damaged(tmp_path):
    path = tmp_path / "damaged.onnx"
    path.write_bytes(b"\xff" * 100)
    return path


def foreign(tmp_path):
    path = write_pointwise(tmp_path / "foreign.onnx", Spec(tile=64))
    model = onnx.load(path)
    del model.metadata_props[:]
    save(model, path)
    return path


def already_int8(tmp_path):
    model = quantise(small("linknet34", tmp_path / "fp32.onnx"))
    save(model, tmp_path / "int8.onnx")
    return tmp_path / "int8.onnx"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (damaged, BadModel, "damaged.onnx: not an ONNX model, or a damaged one"),
        (foreign, BadModel, "says nothing of its preparation"),
        (already_int8, BadInput, "already quantised .*calibrate the file from which it was made"),
        (lambda p: write_pointwise(p / "one.onnx", Spec(tile=64)), BadInput, "1 convolutions; there is nothing"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(tmp_path, make, error, message):
    with pytest.raises(error, match=message):
        read_network(make(tmp_path))


@pytest.mark.parametrize(("kernel", "pad", "more"), TRANSPOSED)
def test_a_transposed_convolution_is_a_convolution_and_depth_to_space(kernel, pad, more, tmp_path):
    rng = np.random.default_rng(0)
    node = helper.make_node(
        "ConvTranspose", ["image", "net.w.weight", "net.w.bias"], ["y"], "/w/ConvTranspose",
        strides=[2, 2], pads=[pad] * 4, output_padding=[more] * 2, kernel_shape=[kernel] * 2,
    )  # fmt: skip
    pooled = helper.make_node("MaxPool", ["y"], ["s"], "/pool", kernel_shape=[2, 2], strides=[2, 2])
    last = helper.make_node("Conv", ["s", "net.l.weight"], ["road"], "/l/Conv")
    weights = {
        "net.w.weight": rng.normal(size=(3, 5, kernel, kernel)),
        "net.w.bias": rng.normal(size=5),
        "net.l.weight": rng.normal(size=(1, 5, 1, 1)),
    }
    graph = read_network(write_model(tmp_path / "t.onnx", Spec(tile=32), [node, pooled, last], weights))
    assert rewritable(graph, graph.convolutions[0])
    made = without_transposed(graph)
    assert [n.op_type for n in made.model.graph.node] == ["Conv", "DepthToSpace", "MaxPool", "Conv"]
    onnx.checker.check_model(made.model)
    x = rng.normal(size=(2, 3, 32, 32)).astype(np.float32)
    np.testing.assert_allclose(run(made.model, x), run(graph.model, x), atol=1e-5)


def test_phases_of_the_decoders_are_those_worked_out_by_hand():
    table, before, after = phases(3, stride=2, pad=1)  # 3 x 3 s2 p1: Conv 2 x 2, padded right and bottom by 1
    assert (table.tolist(), before, after) == ([[1, -1], [2, 0]], 0, 1)
    table, before, after = phases(4, stride=2, pad=1)  # 4 x 4 s2 p1: Conv 3 x 3, padded by 1
    assert (table.tolist(), before, after) == ([[3, 1, -1], [-1, 2, 0]], 1, 1)


def test_linknets_last_transposed_convolution_is_left_since_its_output_is_odd(tmp_path):
    graph = read_network(small("linknet34", tmp_path / "net.onnx"))
    left = [layer_name(n) for n in without_transposed(graph).convolutions if n.op_type == "ConvTranspose"]
    assert left == ["finaldeconv1"]


@pytest.mark.parametrize("arch", ARCHS)
def test_rescaling_leaves_the_network_the_same_function(arch, tmp_path, x):
    graph = read_network(small(arch, tmp_path / "net.onnx"))
    factor = ranges_of(graph).factors(graph)
    assert any((f != 1).any() for f in factor.values())
    np.testing.assert_allclose(run(rescale(graph, factor).model, x), run(graph.model, x), atol=2e-5)


def test_rescaling_evens_out_channels_and_keeps_them_within_float16(fp32, x):
    graph = read_network(fp32)
    loud = graph.with_weights({"net.encoder1.0.conv1.weight": graph.weights["net.encoder1.0.conv1.weight"] * 1e5})
    ranges = ranges_of(loud)
    rescaled = rescale(loud, ranges.factors(loud))
    tensor = next(n.output[0] for n in loud.model.graph.node if n.op_type == "Relu" and "encoder1.0" in n.name)
    before, after = (np.abs(runner(g, [tensor])(x)[0]).max(axis=(1, 2)) for g in (loud, rescaled))
    assert before.max() > COMFORT > after.max()
    alive = before > before.max() / 50
    assert spread(after[alive]) < 0.8 * spread(before[alive])


def spread(values):
    return np.log(values).std()


def test_a_stretch_with_the_image_or_the_sigmoid_keeps_its_scale(fp32):
    graph = read_network(fp32)
    factor = factors(graph, {name: np.array(t.peak) for name, t in ranges_of(graph).tensors.items()})
    assert graph.input not in factor
    assert graph.convolutions[-1].output[0] not in factor
    assert graph.convolutions[0].output[0] in factor
