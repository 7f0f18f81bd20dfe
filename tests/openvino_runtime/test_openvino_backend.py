import json

import numpy as np
import onnx
import pytest
from onnx import helper

from dlink.openvino_runtime.openvino_backend import compile, open, read
from dlink.openvino_runtime.quiet_openvino import core
from dlink.openvino_runtime.saturation import saturates
from dlink.runtime.backend import Opening
from dlink.runtime.errors import BadInput, BadModel
from dlink.runtime.spec import ONNX_KEY, Spec
from tests.support.models import save, write_model, write_pointwise


@pytest.fixture
def path(tmp_path):
    return write_pointwise(tmp_path / "red.onnx", Spec(tile=64))


def rewritten(path, spec_text):
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {ONNX_KEY: spec_text})
    save(model, path)
    return path


def test_the_spec_comes_with_the_file(path):
    assert read(path)[1] == Spec(tile=64)


def test_fp32_files_are_computed_in_fp32(path):
    backend = open(path)
    assert ", fp32, " in backend.engine
    assert backend.executed == {"fp32": 1.0}


def test_fp16_files_are_computed_in_the_cpus_reduced_precision(tmp_path):
    backend = open(write_pointwise(tmp_path / "half.onnx", Spec(tile=64, precision="fp16")))
    assert sum(backend.executed.values()) == pytest.approx(1)
    assert set(backend.executed) == ({reduced()} if reduced() else {"fp32"})


def test_int8_is_computed_right_or_not_at_all(tmp_path):
    """Products of the largest values, whose sums x86 without VNNI cuts off at 32,767."""
    path = write_int8(tmp_path / "int8.onnx", Spec(tile=64, precision="int8"))
    backend = open(path)
    assert ("int8" in backend.executed) != saturates()
    found = backend.probabilities(np.full((1, 64, 64, 3), 255, np.uint8), (0,))
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-1.6)), atol=2e-3)


def write_int8(path, spec):
    """The mean of 16 copies of the sum of the image's channels / 3, all in int8, and a sigmoid."""
    numbers = {
        "copies": np.full((16, 3, 1, 1), 1 / 3, np.float32),
        "x_step": np.float32(1.6 / 127),
        "zero": np.int8(0),
        "w": np.full((1, 16, 1, 1), 127, np.int8),
        "w_step": np.float32(1 / 16 / 127),
    }
    nodes = [
        helper.make_node("Conv", ["image", "copies"], ["c"], "copy"),
        helper.make_node("QuantizeLinear", ["c", "x_step", "zero"], ["cq"], "q"),
        helper.make_node("DequantizeLinear", ["cq", "x_step", "zero"], ["cd"], "dq"),
        helper.make_node("DequantizeLinear", ["w", "w_step", "zero"], ["wd"], "w_dq"),
        helper.make_node("Conv", ["cd", "wd"], ["y"], "conv"),
        helper.make_node("Sigmoid", ["y"], ["road"], "sigmoid"),
    ]
    return write_model(path, spec, nodes, numbers)


def reduced():
    """What this CPU has of bfloat16 and float16 that OpenVINO uses."""
    has = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if "BF16" in has else "fp16" if "FP16" in has else None


def test_the_number_of_threads_is_the_callers(path):
    assert open(path, Opening(threads=1)).engine.endswith("1 threads")
    with pytest.raises(BadInput, match="threads must be a whole number from 1 to 1024, got 0"):
        open(path, Opening(threads=0))


def test_threads_may_run_on_any_core(path):
    compiled = compile(*read(path), threads=1)
    assert compiled.get_property("ENABLE_CPU_PINNING") is False


def test_an_onnx_file_of_others_is_refused(path):
    model = onnx.load(path)
    del model.metadata_props[:]
    save(model, path)
    with pytest.raises(BadModel, match="red.onnx: says nothing of its preparation"):
        open(path)


def test_a_spec_of_another_format_is_refused(path):
    values = {**json.loads(Spec(tile=64).to_json()), "format": 9}
    with pytest.raises(BadModel, match="red.onnx: spec of format 9, this dlink reads 1"):
        open(rewritten(path, json.dumps(values)))


def test_a_graph_of_another_tile_than_its_spec_is_refused(path):
    with pytest.raises(BadModel, match=r"its inputs and outputs are .*64, 64.* its spec wants .*96, 96"):
        open(rewritten(path, Spec(tile=96).to_json()))


def test_weights_in_another_file_are_refused(path):
    model = onnx.load(path)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.zeros((1, 3, 63, 63), np.float32), "w"))
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(BadModel, match="red.onnx: its weights are in another file .w.; write one file"):
        open(path)


@pytest.mark.parametrize("content", [b"", b"junk" * 100, b"\x08\x08"])
def test_what_is_no_onnx_file_is_refused_in_one_line(path, content):
    path.write_bytes(content)
    with pytest.raises(BadModel, match=r"red.onnx: .*") as e:
        open(path)
    assert "\n" not in str(e.value)


def test_a_truncated_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadModel, match="red.onnx"):
        open(path)
