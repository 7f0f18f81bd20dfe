"""What compilers say of our files: TensorRT-RTX builds on a machine without a GPU, strongly typed."""

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from dlink.export.onnx_file import fold_norms, write_onnx
from dlink.nets.zoo import ARCHS
from dlink.trt_runtime import Spec
from tests.calibrated import quantise, scenes, small
from tests.test_export import SIDE, trained

trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx (dlink[test] on Linux x86-64)")


class Log(trt.ILogger):
    def __init__(self):
        super().__init__()
        self.errors = []

    def log(self, severity, message):
        if severity <= trt.ILogger.ERROR:
            self.errors.append(message)


def compile(data, batches):
    """The plan's bytes for least, usual and most views at once, or what TensorRT refuses."""
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(data):
        return None, parser.get_error(0).desc()
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    least, usual, most = ((n, 3, SIDE, SIDE) for n in batches)
    profile.set_shape("image", least, usual, most)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    return (None, log.errors[-1]) if plan is None else (bytes(plan), "")


def bytes_of(arch, precision, folder, deconv="int8"):
    source = small(arch, folder / "net.onnx", "fp32" if precision == "int8" else precision)
    return quantise(source, deconv).SerializeToString() if precision == "int8" else source.read_bytes()


@pytest.mark.parametrize("batches", [(1, 1, 1), (1, 8, 16)], ids=["static", "dynamic"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("arch", ARCHS)
def test_tensorrt_takes_every_network(arch, precision, batches, tmp_path):
    plan, refused = compile(bytes_of(arch, precision, tmp_path), batches)
    assert plan, refused


def test_tensorrt_takes_rewritten_transposed_convolutions(tmp_path):
    plan, refused = compile(bytes_of("dlinknet34", "int8", tmp_path, deconv="conv"), (1, 1, 1))
    assert plan, refused


@pytest.mark.parametrize(("precision", "bytes_each"), [("fp32", 4), ("fp16", 2), ("int8", 1)])
def test_plans_hold_weights_in_the_precision_of_the_file(precision, bytes_each, tmp_path):
    """A plan is code and weights, and the code of two widths is about as long."""
    plans, counts = zip(*(plan_of_width(width, precision, tmp_path) for width in (0.25, 0.5)), strict=True)
    assert (plans[1] - plans[0]) / (counts[1] - counts[0]) == pytest.approx(bytes_each, rel=0.15)


def plan_of_width(width, precision, folder):
    """Bytes of the plan, and how many weights the network has."""
    net = trained("dlinknet34", width).net
    spec = Spec(width=width, tile=SIDE, precision="fp16" if precision == "fp16" else "fp32")
    write_onnx(fold_norms(net), spec, folder / "net.onnx")
    source = folder / "net.onnx"
    data = quantise(source).SerializeToString() if precision == "int8" else source.read_bytes()
    return len(compile(data, (1, 1, 1))[0]), sum(p.numel() for p in net.parameters())


def test_onnx_runtimes_own_quantisation_is_refused(tmp_path):
    """Its biases are int32 behind a DequantizeLinear: TensorRT has no such thing, and this test would see it."""

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = [{"image": Spec(tile=SIDE).prepare(t.image[None])} for t in scenes(2).tiles]

        def get_next(self):
            return self.left.pop() if self.left else None

    source = small("linknet34", tmp_path / "net.onnx")
    quantize_static(source, tmp_path / "ort.onnx", Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
    assert np.dtype("int32") in {
        onnx.numpy_helper.to_array(i).dtype for i in onnx.load(tmp_path / "ort.onnx").graph.initializer
    }
    plan, refused = compile((tmp_path / "ort.onnx").read_bytes(), (1, 1, 1))
    assert plan is None
    assert refused
