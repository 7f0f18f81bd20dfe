"""ONNX files at the door: damage, weights elsewhere, and graphs that are none of ours, the same for every reader."""

import random
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from dlink.calib.network import read_network
from dlink.onnx_graph.model import read_model
from dlink.onnx_graph.retuned import write_retuned
from dlink.runtime import BadModel, Spec, open_model
from dlink.runtime.onnx_bytes import DIGEST_KEY, FOREIGN, OPERATORS, Damaged, chunk, contents_of, read_onnx, sealed
from dlink.runtime.spec import ONNX_KEY
from tests.support.calibrated import quantise, small
from tests.support.models import save, write_pointwise

SPEC = Spec(tile=32)
READERS = {
    "open_model": open_model,
    "calibration": read_network,
    "build": read_model,
    "tune": lambda path: write_retuned(path, path.with_name("tuned.onnx"), SPEC, 0.4),
}


@pytest.fixture
def path(tmp_path):
    return write_pointwise(tmp_path / "red.onnx", SPEC)


def changed(path, change):
    """A file of ours whose model was changed by someone who knows how to seal it."""
    model = onnx.load(path)
    change(model)
    save(model, path)
    return path


def test_what_is_written_is_read(path):
    file = read_onnx(path)
    assert (file.data, file.spec) == (path.read_bytes(), SPEC)
    assert sealed(file.data) == file.data


def test_every_flipped_bit_is_seen(path):
    data = bytearray(path.read_bytes())
    rng = random.Random(0)
    for at in range(len(data)):
        bit = 1 << rng.randrange(8)
        data[at] ^= bit
        path.write_bytes(data)
        with pytest.raises(BadModel, match="red.onnx: "):
            read_onnx(path)
        data[at] ^= bit


@pytest.mark.parametrize("reader", READERS)
def test_a_bit_flipped_in_a_weight_is_damage_to_every_reader(tmp_path, reader):
    path = small("linknet34", tmp_path / "net.onnx")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 64
    path.write_bytes(data)
    with pytest.raises(BadModel, match=r"net.onnx: damaged, or changed since dlink wrote it; copy it again"):
        READERS[reader](path)


def test_a_truncated_file_is_refused_wherever_it_ends(path):
    data = path.read_bytes()
    for end in range(len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(BadModel, match="red.onnx: "):
            read_onnx(path)


def test_a_file_without_a_digest_is_refused(path):
    model = onnx.load(path)
    helper.set_model_props(model, {ONNX_KEY: SPEC.to_json()})
    onnx.save_model(model, path)
    with pytest.raises(BadModel, match="red.onnx: has no dlink.digest, so damage would not show; export it again"):
        open_model(path)


def test_metadata_of_others_may_be_added_and_changed(path):
    model = onnx.load(path)
    model.metadata_props.add(key="owner", value="me")
    onnx.save_model(model, path)
    assert read_onnx(path).metadata["owner"] == "me"


def test_metadata_of_ours_may_not(path):
    model = onnx.load(path)
    entry = next(e for e in model.metadata_props if e.key == ONNX_KEY)
    entry.value = replace(SPEC, threshold=0.4).to_json()
    onnx.save_model(model, path)
    with pytest.raises(BadModel, match="damaged, or changed"):
        open_model(path)


def elsewhere(name="w"):
    """A tensor whose data is in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def within(attribute):
    return helper.make_node("Relu", ["y"], ["z"], **attribute)


def graph_with_it():
    return helper.make_graph([], "inner", [], [], [elsewhere()])


EXTERNAL = {
    "initializer": lambda m: m.graph.initializer.append(elsewhere()),
    "location alone": lambda m: m.graph.initializer.append(
        TensorProto(name="w", data_type=1, data_location=TensorProto.EXTERNAL)
    ),
    "constant": lambda m: m.graph.node.append(helper.make_node("Constant", [], ["c"], value=elsewhere())),
    "list of tensors": lambda m: m.graph.node.append(within({"values": [elsewhere()]})),
    "subgraph": lambda m: m.graph.node.append(within({"body": graph_with_it()})),
    "list of subgraphs": lambda m: m.graph.node.append(within({"bodies": [graph_with_it()]})),
    "sparse initializer": lambda m: m.graph.sparse_initializer.add().values.CopyFrom(elsewhere()),
    "sparse indices": lambda m: m.graph.sparse_initializer.add().indices.CopyFrom(elsewhere()),
    "sparse constant": lambda m: m.graph.node.append(
        within({"sparse_value": onnx.SparseTensorProto(values=elsewhere())})
    ),
    "function": lambda m: m.functions.add(name="f").node.append(
        helper.make_node("Constant", [], ["c"], value=elsewhere())
    ),
    "function's attribute": lambda m: m.functions.add(name="f").attribute_proto.append(
        helper.make_attribute("a", elsewhere())
    ),
    "training": lambda m: m.training_info.add().algorithm.CopyFrom(graph_with_it()),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("where", EXTERNAL)
def test_data_in_another_file_is_refused_by_every_reader_wherever_it_is_named(path, where, reader):
    with pytest.raises(BadModel, match=r"red.onnx: its weights are in another file \(w\); write one file"):
        READERS[reader](changed(path, EXTERNAL[where]))
    assert [p.name for p in path.parent.iterdir()] == ["red.onnx"]


def endless(model):
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", "always"], ["z"], body=body))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (endless, "has operators that no network of dlink has: Loop; export it with dlink-export"),
        (lambda m: m.graph.node.append(within({"domain": "com.microsoft"})), "com.microsoft.Relu"),
        (lambda m: m.functions.add(name="f"), "a function"),
        (lambda m: m.graph.sparse_initializer.add(), "a sparse"),
        (
            lambda m: m.graph.output.append(m.graph.output[0]),
            "its inputs and outputs are .* and .* and .*, its spec wants float32",
        ),
        (
            lambda m: m.graph.input.append(m.graph.input[0]),
            "its inputs and outputs are .* and .* and .*, its spec wants float32",
        ),
        (lambda m: m.graph.ClearField("output"), "its inputs and outputs are "),
        (
            lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 2),
            r"float32 \[2, 3, 32, 32\]",
        ),
        (
            lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 10),
            r"its inputs and outputs are type 10 \[\?, 3, 32, 32\]",
        ),
        (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 64), r"\[\?, 3, 64, 32\]"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[3], "dim_value", 1 << 40), "1099511627776"),
    ],
)
@pytest.mark.parametrize("reader", READERS)
def test_a_graph_that_is_none_of_ours_is_refused_by_every_reader(path, change, words, reader):
    with pytest.raises(BadModel, match=words) as e:
        READERS[reader](changed(path, change))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: setattr(m.graph.node[0], "op_type", "MatMul"), "OpenVINO does not read it"),
        (lambda m: setattr(m.graph.initializer[0], "raw_data", b"1"), "OpenVINO does not read it"),
        (lambda m: m.graph.node[0].input.__setitem__(1, "missing"), "OpenVINO does not read it"),
    ],
)
def test_what_openvino_does_not_take_is_refused_in_one_line(path, change, words):
    with pytest.raises(BadModel, match=f"red.onnx: {words}: ") as e:
        open_model(changed(path, change))
    assert "\n" not in str(e.value)


def test_metadata_that_is_no_text_is_refused(path):
    data = path.read_bytes()
    path.write_bytes(sealed(data + b"\x72\x06\x0a\x01\x6b\x12\x01\xff"))  # field 14: {"k": byte 255}
    with pytest.raises(BadModel, match="red.onnx: damaged: its metadata is not text"):
        open_model(path)


def test_a_key_of_ours_that_stands_twice_is_refused(path):
    data = path.read_bytes()
    twice = onnx.ModelProto()
    twice.metadata_props.add(key=ONNX_KEY, value=replace(SPEC, threshold=0.1).to_json())
    path.write_bytes(sealed(data + twice.SerializeToString()))
    with pytest.raises(BadModel, match="it has dlink.spec twice"):
        open_model(path)


@pytest.mark.parametrize("kind", [2, 7, 10])  # uint8, int64, float16
def test_an_end_that_is_described_twice_is_refused(path, kind):
    """Protobuf merges the two, and the later type holds."""
    model = onnx.load(path)
    end = chunk(11, model.graph.input[0].SerializeToString() + chunk(2, chunk(1, bytes([8, kind]))))
    del model.graph.input[:]
    graph = chunk(7, model.graph.SerializeToString() + end)
    model.ClearField("graph")
    path.write_bytes(sealed(model.SerializeToString() + graph))
    with pytest.raises(BadModel, match="a field twice that can only be there once"):
        open_model(path)


def test_graphs_within_graphs_have_an_end(path):
    graph = b""
    for _ in range(1000):
        graph = chunk(1, chunk(5, chunk(6, graph)))  # a node's attribute's graph
    path.write_bytes(sealed(path.read_bytes() + chunk(7, graph)))
    with pytest.raises(BadModel, match="messages within messages without end"):
        open_model(path)


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_contents_or_damaged(data):
    try:
        contents_of(data)
    except Damaged as e:
        assert "\n" not in str(e)


def test_the_operators_are_those_of_our_networks(tmp_path):
    found = set()
    for arch, precision in (("dlinknet34", "fp16"), ("unet", "fp32"), ("pplinknet34-psp64", "fp16")):
        path = small(arch, tmp_path / "net.onnx", precision)
        for model in (onnx.load(path), quantise(path, deconv="conv")):
            found |= {node.op_type for node in model.graph.node}
    assert found == OPERATORS - FOREIGN - {"Identity", "Mul"}  # of weights that are equal, and of ensembles


def test_the_digest_does_not_depend_on_where_the_file_lies_or_when(path, tmp_path):
    other = write_pointwise(tmp_path / "other.onnx", SPEC)
    digests = {read_onnx(p).metadata[DIGEST_KEY] for p in (path, other)}
    assert len(digests) == 1
    third = changed(
        other,
        lambda m: m.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "w")),
    )
    assert read_onnx(third).metadata[DIGEST_KEY] not in digests
