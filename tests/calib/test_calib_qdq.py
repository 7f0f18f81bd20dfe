import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dlink.calib.network import read_network
from dlink.calib.placement import place, share_of, skip_of
from dlink.calib.qdq import quantised, weight_scales
from dlink.nets.zoo import ARCHS
from dlink.runtime import BadInput, Spec
from tests.export.test_export import SIDE
from tests.support.calibrated import quantise, run, small
from tests.support.models import write_model


@pytest.fixture(scope="module")
def int8(fp32):
    return quantise(fp32)


def weights(model):
    return {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}


def nodes(model, op):
    return [n for n in model.graph.node if n.op_type == op]


def test_units_of_a_dlinknet34(fp32):
    units = {u.name: u for u in place(read_network(fp32), "int8")}
    assert (
        sum(u.op != "Add" for u in units.values()) == 55
    )  # 36 of the encoder, 4 dilated, 12 of decoders, 3 of the head
    assert sum(u.share for u in units.values()) == pytest.approx(1)
    assert units["finalconv3"].precision == "fp16"
    assert units["encoder2.1.Add"].precision == "int8"
    assert units["encoder1.1.Add"].why == "the residual stream at 1/4 of the tile"
    assert not [name for name in units if "dblock" in name and "Add" in name]


def test_the_first_convolution_is_spared_where_enough_stays_int8(fp32, monkeypatch):
    graph = read_network(fp32)  # an eighth of the width: its first convolution is 16 % of the operations
    assert {u.name: u for u in place(graph, "int8")}["firstconv"].precision == "int8"
    monkeypatch.setattr("dlink.calib.placement.ENOUGH", 0.5)
    assert {u.name: u for u in place(graph, "int8")}["firstconv"].why == "reads the image"


@pytest.mark.parametrize(("deconv", "precision"), [("int8", "int8"), ("fp16", "fp16"), ("conv", "fp16")])
def test_transposed_convolutions_are_as_asked_for(fp32, deconv, precision):
    units = [u for u in place(read_network(fp32), deconv) if u.op == "ConvTranspose"]
    assert {u.precision for u in units} == {precision}


def test_layers_that_are_to_be_kept_are(fp32):
    units = place(read_network(fp32), "int8", ["decoder1.*"])
    assert {u.why for u in units if u.name.startswith("decoder1.")} == {"asked for"}
    assert share_of(units) < share_of(place(read_network(fp32), "int8"))


def test_a_layer_that_is_not_there_cannot_be_kept(fp32):
    with pytest.raises(
        BadInput, match=r"--keep fp16:decoder9.\*: there is no such layer, only firstconv, encoder1.0.conv1"
    ):
        place(read_network(fp32), "int8", ["decoder9.*"])


def test_only_the_skip_branch_of_a_sum_is_quantised(fp32, int8):
    graph = read_network(fp32)
    skips = {n.name: skip_of(graph, n) for n in graph.model.graph.node if n.op_type == "Add"}
    seen = 0
    for add in nodes(int8, "Add"):
        back = [name for name in add.input if name.endswith("_back_half")]
        if back:
            assert back == [f"{skips[add.name]}_back_half"]
            seen += 1
    assert seen == 13 + 2  # of 16 residual sums those at 1/8 and smaller, and of three decoders' the same


def test_integers_are_symmetric_and_weights_have_a_scale_per_output_channel(int8):
    values = weights(int8)
    assert all(not values[n.input[2]].any() for n in (*nodes(int8, "QuantizeLinear"), *nodes(int8, "DequantizeLinear")))
    axes = {n.input[0]: n.attribute[0].i for n in nodes(int8, "DequantizeLinear") if n.attribute}
    assert len(axes) == 54
    for conv in (*nodes(int8, "Conv"), *nodes(int8, "ConvTranspose")):
        name = conv.input[1].removesuffix("_back_half") + "_int8"
        if name in values:
            assert axes[name] == (0 if conv.op_type == "Conv" else 1)
            assert np.abs(values[name]).max() == 127
            assert values[name].dtype == np.int8


def test_biases_stay_float_and_are_not_quantised(int8):
    values = weights(int8)
    for conv in (*nodes(int8, "Conv"), *nodes(int8, "ConvTranspose")):
        assert values[conv.input[2]].dtype == np.float16


def test_nothing_is_float32_but_the_ends_and_what_quantises(int8):
    onnx.checker.check_model(int8)
    values = weights(int8)
    wide = [name for name, v in values.items() if v.dtype == np.float32]
    assert all(name.endswith("_scale") for name in wide)
    assert int8.opset_import[0].version == 17


def test_an_fp32_base_has_no_float16(fp32):
    model = quantise(fp32, base="fp32")
    assert "Cast" not in {n.op_type for n in model.graph.node}
    assert TensorProto.FLOAT16 not in {i.data_type for i in model.graph.initializer}


@pytest.mark.parametrize("deconv", ["int8", "conv", "fp16"])
@pytest.mark.parametrize("base", ["fp16", "fp32"])
def test_the_quantised_network_gives_about_the_same(fp32, x, deconv, base):
    a, b = run(quantise(fp32, deconv, base), x), run(fp32, x)
    assert b.std() > 0.1
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("arch", ARCHS)
def test_every_network_can_be_quantised(arch, tmp_path, x):
    path = small(arch, tmp_path / "net.onnx")
    model = quantise(path)
    onnx.checker.check_model(model)
    assert np.corrcoef(run(model, x).ravel(), run(path, x).ravel())[0, 1] > 0.97
    assert share_of(place(read_network(path), "int8")) > 0.9


def test_weights_are_rounded_to_the_nearest_step_of_their_channel():
    weight = np.array([[[[1.27, -0.634]]], [[[12.7, 0.049]]]], np.float32)
    scales = weight_scales(weight, axis=0)
    np.testing.assert_allclose(scales, [0.01, 0.1], rtol=1e-6)
    assert quantised(weight, scales, axis=0).ravel().tolist() == [127, -63, 127, 0]


def test_a_channel_of_zeros_has_a_scale_that_compilers_take():
    weight = np.zeros((2, 1, 1, 1), np.float32)
    weight[1] = 1
    scales = weight_scales(weight, axis=0)
    assert scales[0] == pytest.approx(scales[1] / 2**16)
    assert (weight_scales(np.zeros_like(weight), axis=0) > 0).all()


def test_a_wrong_axis_of_a_transposed_convolution_would_show():
    rng = np.random.default_rng(0)
    weight = (rng.normal(size=(8, 8, 3, 3)) * np.geomspace(1, 1000, 8)[None, :, None, None]).astype(np.float32)
    errors = []
    for axis in (1, 0):
        scales = weight_scales(weight, axis)
        shape = [-1 if i == axis else 1 for i in range(4)]
        back = quantised(weight, scales, axis) * scales.reshape(shape)
        errors.append(np.abs(back - weight)[:, 0].max() / np.abs(weight[:, 0]).max())
    assert errors[0] < 0.005 < 0.5 < errors[1]


def test_rounding_of_weights_leaves_no_mean_error():
    """One convolution of a constant image: its output's mean is kept by the bias although the weights are rounded."""
    rng = np.random.default_rng(0)
    weight = rng.uniform(0, 1, (4, 3, 1, 1)).astype(np.float32)
    from dlink.calib.qdq import correction

    scales = np.full(4, 0.25, np.float32)  # coarse on purpose
    lost = weight - quantised(weight, scales, 0) * scales[:, None, None, None]
    mean = np.array([1.0, 2.0, 3.0])
    want = weight[:, :, 0, 0] @ mean
    got = (weight - lost)[:, :, 0, 0] @ mean + correction(lost.astype(np.float64), mean, "Conv", 1)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_graph_without_any_bias_can_be_quantised(tmp_path):
    rng = np.random.default_rng(0)
    names = ["a", "b", "c"]
    made = [
        helper.make_node("Conv", [source, f"net.{n}.weight"], [n], f"/{n}/Conv", pads=[1] * 4)
        for source, n in zip(["image", "a", "b"], names, strict=True)
    ]
    made.append(helper.make_node("Sigmoid", ["c"], ["road"], "/s"))
    shapes = {"a": (8, 3, 3, 3), "b": (8, 8, 3, 3), "c": (1, 8, 3, 3)}
    weights = {f"net.{n}.weight": rng.normal(size=s) for n, s in shapes.items()}
    onnx.checker.check_model(quantise(write_model(tmp_path / "net.onnx", Spec(tile=SIDE), made, weights)))
