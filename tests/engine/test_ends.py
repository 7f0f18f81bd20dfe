"""Plans that read float16: the first cast of a file is the reader's to make, and changes no bit."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dlink.engine.ends import ends_of, first_casts, with_half_input
from dlink.export.onnx_file import write_onnx
from dlink.nets.ensemble import ensemble
from dlink.nets.folding import fold_norms
from dlink.nets.zoo import spec_of
from dlink.onnx_graph.model import read_model
from dlink.onnx_graph.session import session
from dlink.runtime import Spec, open_model
from dlink.runtime.backend import HostBackend
from dlink.runtime.onnx_bytes import write_sealed
from dlink.trt_runtime.manifest import Ends
from tests.export.test_export import SIDE, trained
from tests.nets.test_ensemble import SLIDES
from tests.support import fake_pycuda
from tests.support.calibrated import quantise, scenes, small
from tests.support.fake_machine import ONE, SPEC, tiles
from tests.support.fake_tensorrt import answer, plan_of
from tests.support.models import save, write_conv
from tests.support.plans import write

HALF = Ends(reads="float16", gives="float32")


def same_bits(path, spec):
    """Whether the graph without its first cast gives what the file gives of an image that the cast does not change.

    Of others ONNX Runtime on a CPU would not tell: it computes float16 convolutions in float32, and drops the cast.
    """
    cut = with_half_input(read_model(path))
    onnx.checker.check_model(cut.model, full_check=True)
    half = spec.prepare(scenes(2).tiles[0].image[None]).astype(np.float16)
    [whole] = session(path).run(None, {"image": half.astype(np.float32)})
    return np.array_equal(session(cut.model.SerializeToString()).run(None, {"image": half})[0], whole)


def test_a_cast_rounds_as_numpy_does_and_so_as_the_kernel_does():
    """test_kernels.py holds the kernel to NumPy."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N"])
    half = helper.make_tensor_value_info("half", TensorProto.FLOAT16, ["N"])
    graph = helper.make_graph(
        [helper.make_node("Cast", ["image"], ["half"], to=TensorProto.FLOAT16)], "g", [image], [half]
    )
    cast = session(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    every = np.arange(1 << 15, dtype=np.uint16).view(np.float16)
    every = np.sort(every[np.isfinite(every)].astype(np.float32))
    between = (every[1:] + every[:-1]) / 2  # ties
    pixels = Spec().prepare(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)).ravel()
    for x in (every, between, np.nextafter(between, np.float32(0)), np.nextafter(between, np.float32(1e9)), pixels):
        for signed in (x, -x):
            found = cast.run(None, {"image": signed})[0]
            np.testing.assert_array_equal(found.view(np.uint16), signed.astype(np.float16).view(np.uint16))


@pytest.mark.parametrize("arch", ["dlinknet34", "unet", "pplinknet34-psp64"])
def test_every_fp16_file_reads_half_and_gives_the_same_bits(arch, tmp_path):
    path = small(arch, tmp_path / "net.onnx", "fp16")
    graph = read_model(path)
    cut = with_half_input(graph)
    assert (ends_of(graph), ends_of(cut)) == (Ends(), HALF)
    assert len(cut.model.graph.node) == len(graph.model.graph.node) - 1
    assert cut.asked == graph.asked
    assert same_bits(path, spec_of(arch, tile=SIDE))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("name", ["mixed"])
def test_ensembles_read_half_where_every_member_does(name, precision, tmp_path):
    """A member of another preparation scales the image: in float16 in an FP16 file, else in float32."""
    archs, weights = SLIDES[name]
    spec = Spec(arch="+".join(archs), width=0.125, tile=SIDE, precision="fp16" if precision == "fp16" else "fp32")
    path = tmp_path / "net.onnx"
    write_onnx(fold_norms(ensemble([trained(arch) for arch in archs], weights).net), spec, path)
    if precision == "int8":
        save(quantise(path), path)
        assert with_half_input(graph := read_model(path)) is graph
        return
    assert ends_of(with_half_input(read_model(path))) == HALF
    assert same_bits(path, spec)


def test_int8_files_read_half_where_their_first_convolution_is_fp16(tmp_path):
    """That of full networks is; a narrow network's is too large a share to be left out."""
    found = {}
    for arch in ("dunet", "linknet34"):
        path = small(arch, tmp_path / "net.onnx")
        save(quantise(path), path)
        graph = read_model(path)
        found[arch] = ends_of(with_half_input(graph)).reads, graph.asked[0].precision
        assert ends_of(with_half_input(graph)).reads == "float32" or same_bits(path, spec_of(arch, tile=SIDE))
    assert found == {"dunet": ("float16", "fp16"), "linknet34": ("float32", "int8")}


def write_half(path, spec):
    """write_conv's network as an FP16 file: cast, convolution in float16, cast, sigmoid in float32."""
    write_conv(path, spec, np.full((3, 3), 2.0 / 9))
    model = onnx.load(path)
    [weight] = model.graph.initializer
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    conv, sigmoid = model.graph.node
    conv.input[0], sigmoid.input[0] = "half", "wide"
    casts = [
        helper.make_node("Cast", ["image"], ["half"], "in", to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["y"], ["wide"], "out", to=TensorProto.FLOAT),
    ]
    nodes = [casts[0], conv, casts[1], sigmoid]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    write_sealed(model.SerializeToString(), path)
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda g: g.node[0].attribute[0].CopyFrom(helper.make_attribute("to", TensorProto.BFLOAT16)),
        lambda g: g.node.append(helper.make_node("Relu", ["image"], ["more"], "more")),
        lambda g: g.output.append(helper.make_tensor_value_info("half", TensorProto.FLOAT16, None)),
        lambda g: g.output.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, None)),
        lambda g: setattr(g.input[0].type.tensor_type, "elem_type", TensorProto.FLOAT16),
    ],
)
def test_a_graph_that_does_more_with_its_image_is_left_as_it_is(change, tmp_path):
    graph = read_model(write_half(tmp_path / "net.onnx", SPEC))
    assert len(first_casts(graph.model)) == 1
    change(graph.model.graph)
    assert with_half_input(graph) is graph


def test_casts_of_several_readers_all_go(tmp_path):
    graph = read_model(write_half(tmp_path / "net.onnx", SPEC))
    nodes = graph.model.graph.node
    nodes.insert(1, helper.make_node("Cast", ["image"], ["half2"], "in2", to=TensorProto.FLOAT16))
    nodes.append(helper.make_node("Relu", ["half2"], ["more"], "more"))
    cut = with_half_input(graph).model.graph
    assert [(n.op_type, n.input[0]) for n in cut.node if n.op_type in ("Conv", "Relu")] == [
        ("Conv", "image"),
        ("Relu", "image"),
    ]


def test_a_plan_that_reads_half_takes_half_the_memory_and_gives_what_its_file_gives(machine):
    there = machine(network=write_half)
    with open_model(there.plan) as model:
        whole = model.backend.memory.batch
    cut = with_half_input(read_model(there.onnx)).model
    data = plan_of("10.3.0", cut.SerializeToString(), True, ONE.batch)
    path = write(there.plan.parent, data, **there.manifest, ends=HALF)
    host = HostBackend(lambda x: answer(cut, x)[:, 0], SPEC)  # rounded by NumPy
    with open_model(path) as model:
        assert model.backend.memory.batch == whole // 2
        for seed in range(3):
            found = model.backend.probabilities(tiles(seed=seed))
            np.testing.assert_allclose(found, host.probabilities(tiles(seed=seed)), atol=1e-6)
    assert fake_pycuda.nothing_is_held()


def test_tensorrts_own_parser_takes_the_input_for_half(tmp_path):
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx: pip install 'dlink[test]' on Linux x86-64")
    cut = with_half_input(read_model(small("linknet34", tmp_path / "net.onnx", "fp16")))
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, logger).parse(cut.model.SerializeToString())
    assert (network.get_input(0).dtype, network.get_output(0).dtype) == (trt.float16, trt.float32)


def test_spec_and_file_mark_stay_those_of_the_file(tmp_path):
    graph = read_model(write_half(tmp_path / "net.onnx", replace(SPEC, threshold=0.4)))
    assert with_half_input(graph).spec == graph.spec
    assert with_half_input(graph).mark == graph.mark
