"""What a real compiler makes of our files: TensorRT-RTX builds on a machine without a GPU, strongly typed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from dlink.engine import versions
from dlink.engine.build import build, polygraphy_errors, rebuild
from dlink.engine.layers import inspect
from dlink.export.onnx_file import write_onnx
from dlink.nets.folding import fold_norms
from dlink.nets.zoo import ARCHS
from dlink.onnx_graph.model import read_model
from dlink.onnx_graph.sparsity import sparse_convolutions
from dlink.runtime import BadInput, BadPlan, NoEngine, Spec
from dlink.trt_runtime.manifest import Options, RunsOn, manifest_of
from dlink.trt_runtime.nvidia_driver import Gpu, Gpus
from dlink.trt_runtime.plan import look_here, made_by, read_plan
from dlink.trt_runtime.tensorrt_engine import validity
from tests.export.test_export import SIDE, trained
from tests.support.calibrated import QUIET, quantise, scenes, small
from tests.support.models import save, shared, write_model, write_pointwise

pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx: pip install 'dlink[test]' on Linux x86-64")
pytest.importorskip("polygraphy", reason="needs polygraphy: pip install 'dlink[test]'")

RTX = Options(target="tensorrt-rtx")


def file_of(arch, precision, folder, deconv="int8"):
    path = small(arch, folder / "net.onnx", "fp32" if precision == "int8" else precision)
    if precision == "int8":
        save(quantise(path, deconv), path)
    return path


def compile(path, **options):
    return build(read_model(path), path.with_suffix(".plan"), Options(target="tensorrt-rtx", **options), None, QUIET)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("arch", ARCHS)
def test_every_network_is_built_in_every_precision_in_seconds(arch, precision, tmp_path):
    path = file_of(arch, precision, tmp_path)
    begun = time.process_time()  # of all threads: other work of the machine does not count
    made = compile(path)
    assert time.process_time() - begun < 20
    plan, manifest = read_plan(tmp_path / "net.plan")
    assert made_by(plan) == ("tensorrt-rtx", manifest.built.version)
    assert manifest == made.manifest
    assert next(iter(manifest.precision.shares)) == precision
    assert manifest.precision.proven_by == "graph"  # no GPU here


@pytest.mark.parametrize("options", [{"views": 1}, {"max_tiles": 2}, {"compute_capability": ("8.6", "12.0")}], ids=str)
def test_batches_and_gpus_are_the_callers(options, tmp_path):
    manifest = compile(file_of("dlinknet34", "int8", tmp_path), **options).manifest
    assert manifest.options.batch == {"views": 1, "max_tiles": 16}.get(next(iter(options)), 8)
    if capabilities := options.get("compute_capability"):
        assert (manifest.runs_on.capabilities, manifest.runs_on.newer_gpus) == (capabilities, False)
    else:
        assert manifest.runs_on.capabilities[0] == "8.0"
        assert manifest.runs_on.newer_gpus


H200 = Gpus("13.0", (Gpu("NVIDIA H200", "9.0", 141 << 30),))
NO_GPU = pytest.mark.skipif(bool(look_here().gpus.found), reason="needs a machine without a GPU")


def test_unlisted_gpus_are_the_callers_to_allow(tmp_path):
    path = file_of("linknet34", "fp16", tmp_path)
    listed, allowed = (compile(path, unlisted_gpu=unlisted).manifest for unlisted in (False, True))
    assert (listed.runs_on.unlisted_gpus, allowed.runs_on.unlisted_gpus) == (False, True)
    assert allowed.runs_on.words() == (
        "8.0, 8.6, 8.9, 12.0, 12.1 and newer, and those between where TensorRT-RTX takes it"
    )
    assert listed.plan.bytes == pytest.approx(allowed.plan.bytes, rel=1e-3)  # the same plan, with another promise
    assert "--unlisted-gpu" in allowed.command(path.with_suffix(".plan"))
    assert rebuild(path.with_suffix(".plan"), QUIET).manifest.runs_on == allowed.runs_on


def test_the_gpu_at_hand_is_compiled_for_by_that_name(monkeypatch):
    compiler = versions.find_compiler("tensorrt-rtx")
    current = replace(RTX, compute_capability=("current",))
    for gpus, options, found in (
        (Gpus(fault="no driver"), current, "needs a GPU, and there is none here: no driver"),
        (H200, current, r"does not list NVIDIA H200, compute capability 9.0, .*; --unlisted-gpu tries it"),
        (H200, replace(current, unlisted_gpu=True), RunsOn(capabilities=("9.0",))),
        (Gpus("13.0", (Gpu("RTX 4090", "8.9", 24 << 30),)), current, RunsOn(capabilities=("8.9",))),
    ):
        monkeypatch.setattr(versions, "look_for_gpus", lambda gpus=gpus: gpus)
        if isinstance(found, RunsOn):
            assert versions.runs_on(compiler, options) == found
            continue
        with pytest.raises(BadInput, match=found):
            versions.runs_on(compiler, options)


@pytest.mark.parametrize("asked", [(), ("8.6", "12.0"), ("current",)], ids=str)
def test_what_is_compiled_for_is_what_the_configuration_holds_at_the_end(asked, tmp_path):
    from polygraphy.backend.trt import CreateConfig, NetworkFromOnnxBytes, PostprocessConfig

    graph = read_model(write_pointwise(tmp_path / "net.onnx", Spec(tile=SIDE)))
    compiler = versions.find_compiler("tensorrt-rtx")
    options = replace(RTX, compute_capability=asked)
    with polygraphy_errors():
        builder, network, _ = NetworkFromOnnxBytes(versions.graph_for(compiler, graph), strongly_typed=True)()
        how = versions.config_for(compiler, options, graph, None, None)
        config = PostprocessConfig(how, versions.finish(compiler, options))(builder, network)
        names = [config.get_compute_capability(i).name for i in range(config.num_compute_capabilities)]
        assert config.get_flag(compiler.trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
        assert names == {(): [], ("8.6", "12.0"): ["SM86", "SM120"], ("current",): ["CURRENT"]}[asked]
        if asked:
            with pytest.raises(NoEngine, match=f"does not take --compute-capability {','.join(asked)}"):
                PostprocessConfig(CreateConfig(), versions.finish(compiler, options))(builder, network)


@NO_GPU
def test_without_a_gpu_the_library_itself_says_that_no_plan_runs_here(tmp_path):
    trt = versions.find_compiler("tensorrt-rtx").trt
    compile(write_pointwise(tmp_path / "net.onnx", Spec(tile=SIDE)))
    runtime = trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR))
    assert validity(trt, runtime, (tmp_path / "net.plan").read_bytes())[0] == "INVALID"
    assert validity(trt, runtime, b"no plan" * 100) == ("INVALID", "MALFORMED_ENGINE")
    with pytest.raises(NoEngine, match=r"that it has just built does not run on NVIDIA H200, .*: it gives no reason"):
        inspect(versions.find_compiler("tensorrt-rtx"), (tmp_path / "net.plan").read_bytes(), H200.found[0])


def test_tensorrt_rtx_makes_nothing_of_sparse_weights(tmp_path):
    """Why --sparse is refused for it: it takes the flag, and the plan of one wide convolution is the same.

    Plans of whole networks differ from build to build, so their bytes tell nothing.
    """
    weight = np.random.default_rng(0).normal(size=(256, 256, 3, 3)).astype(np.float16)
    weight[:, 2::4] = weight[:, 3::4] = 0
    path = write_wide(tmp_path / "net.onnx", weight)
    graph = read_model(path)
    assert [a.node for a in sparse_convolutions(graph)] == ["wide"]
    compiler = versions.find_compiler("tensorrt-rtx")
    from polygraphy.backend.trt import EngineBytesFromNetwork, NetworkFromOnnxBytes, PostprocessConfig

    def plan(sparse):
        def check(builder, network, config):
            assert config.get_flag(compiler.trt.BuilderFlag.SPARSE_WEIGHTS) == sparse

        with polygraphy_errors():
            source = NetworkFromOnnxBytes(versions.graph_for(compiler, graph), strongly_typed=True)()
            how = versions.config_for(compiler, replace(RTX, sparse=sparse), graph, None, None)
            return bytes(EngineBytesFromNetwork(source, PostprocessConfig(how, check))())

    assert plan(True) == plan(False)
    with pytest.raises(BadInput, match="^--sparse: is for --target tensorrt; TensorRT-RTX 1.7 makes nothing of it"):
        compile(path, sparse=True)


def write_wide(path, weight):
    """The image, a convolution to 256 channels, one among 256 channels with this weight, one to the roads; in FP16."""
    nodes = [
        onnx.helper.make_node("Cast", ["image"], ["x"], to=onnx.TensorProto.FLOAT16),
        onnx.helper.make_node("Conv", ["x", "w1"], ["a"], "first"),
        onnx.helper.make_node("Conv", ["a", "w2"], ["b"], "wide", pads=[1] * 4),
        onnx.helper.make_node("Conv", ["b", "w3"], ["c"], "last"),
        onnx.helper.make_node("Cast", ["c"], ["logit"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Sigmoid", ["logit"], ["road"], "sigmoid"),
    ]
    ends = {"w1": np.ones((256, 3, 1, 1), np.float16), "w3": np.ones((1, 256, 1, 1), np.float16)}
    return write_model(path, Spec(tile=SIDE, precision="fp16"), nodes, {**ends, "w2": weight})


def test_rewritten_transposed_convolutions_are_built(tmp_path):
    assert compile(file_of("dlinknet34", "int8", tmp_path, deconv="conv")).manifest.plan.bytes > 0


@pytest.mark.parametrize(("precision", "bytes_each"), [("fp32", 4), ("fp16", 2), ("int8", 1)])
def test_plans_hold_weights_in_the_precision_of_the_file(precision, bytes_each, tmp_path):
    """A plan is code and weights, and the code of two widths is about as long."""
    plans, counts = zip(*(plan_of_width(width, precision, tmp_path) for width in (0.25, 0.5)), strict=True)
    assert (plans[1] - plans[0]) / (counts[1] - counts[0]) == pytest.approx(bytes_each, rel=0.15)


def plan_of_width(width, precision, folder):
    """Bytes of the plan, and how many weights the network has."""
    net = trained("dlinknet34", width).net
    spec = Spec(width=width, tile=SIDE, precision="fp16" if precision == "fp16" else "fp32")
    path = folder / "net.onnx"
    write_onnx(fold_norms(net), spec, path)
    if precision == "int8":
        save(quantise(path), path)
    return compile(path).manifest.plan.bytes, sum(p.numel() for p in net.parameters())


def test_a_full_size_network_is_built_in_seconds(tmp_path):
    from dlink.nets.checkpoint import read_checkpoint

    found = read_checkpoint(shared("checkpoints/dinknet34.th"))
    write_onnx(fold_norms(found.net), Spec(precision="fp16"), tmp_path / "net.onnx")
    begun = time.monotonic()
    compile(tmp_path / "net.onnx")
    assert time.monotonic() - begun < 10


def test_onnx_runtimes_own_quantisation_is_refused_in_one_line_and_leaves_nothing(tmp_path):
    """Its biases are int32 behind a DequantizeLinear: TensorRT has no such thing."""

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = [{"image": Spec(tile=SIDE).prepare(t.image[None])} for t in scenes(2).tiles]

        def get_next(self):
            return self.left.pop() if self.left else None

    source = small("linknet34", tmp_path / "net.onnx")
    quantize_static(source, tmp_path / "ort.onnx", Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
    model = onnx.load(tmp_path / "ort.onnx")
    save(model, tmp_path / "ort.onnx")
    assert np.dtype("int32") in {onnx.numpy_helper.to_array(i).dtype for i in model.graph.initializer}
    before = set(tmp_path.iterdir())
    with pytest.raises(NoEngine, match=r"^ort.onnx: TensorRT-RTX [\d.]+ does not build it: .*") as e:
        compile(tmp_path / "ort.onnx")
    assert "\n" not in str(e.value)
    assert set(tmp_path.iterdir()) == before


def test_a_plan_is_built_again_as_it_was_and_only_from_its_own_file(tmp_path):
    path = file_of("linknet34", "fp16", tmp_path)
    first = compile(path, max_tiles=2, compute_capability=("8.9",)).manifest
    plan = path.with_suffix(".plan")
    plan.write_bytes(b"damaged")
    assert rebuild(plan, QUIET).manifest.options == first.options
    assert read_plan(plan)[1].plan.bytes > 1000
    small("unet" if "unet" in ARCHS else "dlinknet34", path)
    with pytest.raises(BadPlan, match=r"was built from another net.onnx than the one beside it"):
        rebuild(plan, QUIET)
    path.unlink()
    with pytest.raises(BadPlan, match=r"was built from net.onnx, which is not beside it"):
        rebuild(plan, QUIET)


def test_building_over_a_plan_drops_its_signature(tmp_path):
    path = file_of("linknet34", "fp16", tmp_path)
    compile(path)
    signature = tmp_path / "net.plan.json.sig"
    signature.write_text("{}")
    compile(path)
    assert not signature.exists()


def test_what_a_timing_cache_needs_is_one_file(tmp_path):
    path = file_of("linknet34", "fp16", tmp_path)
    for _ in range(2):
        build(read_model(path), tmp_path / "net.plan", RTX, tmp_path / "timing", QUIET)
    assert {p.name for p in tmp_path.iterdir()} == {"net.onnx", "net.plan", "net.plan.json", "timing"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"compute_capability": ("9.0",)},
            "--compute-capability 9.0: TensorRT-RTX .* builds for 7.5, 8.0.* --unlisted",
        ),
        ({"compute_capability": ("8.6", "current")}, "--compute-capability current: TensorRT-RTX .* builds for 7.5"),
        ({"compute_capability": ("8.6",), "unlisted_gpu": True}, "--compute-capability 8.6: names GPUs that .* lists"),
        ({"hardware_compatible": True}, "--hardware-compatible: name GPUs with --compute-capability"),
        ({"strip_weights": True}, "--refit and --strip-weights: TensorRT-RTX needs a GPU and exactly one"),
    ],
)
def test_options_that_mean_nothing_here_are_refused(options, message, tmp_path):
    path = write_pointwise(tmp_path / "net.onnx", Spec(tile=SIDE))
    with pytest.raises(BadInput, match=message):
        compile(path, **options)
    assert not manifest_of(path.with_suffix(".plan")).exists()


def test_a_fixed_batch_is_not_stretched(tmp_path):
    path = write_pointwise(tmp_path / "net.onnx", Spec(tile=SIDE))
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    save(model, path)
    with pytest.raises(BadInput, match=r"takes exactly 1 views at once, not 8"):
        compile(path)
    assert compile(path, views=1).manifest.options.batch == 1


STOPPED = """
import os, signal, sys
from pathlib import Path
from dlink.engine.build import build
from dlink.onnx_graph.model import read_model
from dlink.onnx_graph.sparsity import sparse_convolutions
from dlink.trt_runtime.manifest import Options

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins deaf to it

def tick(done, total, words):
    os.kill(os.getpid(), signal.SIGINT)

try:
    path = Path(sys.argv[1])
    build(read_model(path), path.with_suffix(".plan"), Options(target="tensorrt-rtx"), None, tick)
except KeyboardInterrupt:
    print("stopped")
"""


def test_ctrl_c_stops_a_build_and_leaves_nothing(tmp_path):
    net = trained("dlinknet34", 0.5).net
    write_onnx(fold_norms(net), Spec(width=0.5, tile=256), tmp_path / "net.onnx")
    env = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-c", STOPPED, tmp_path / "net.onnx"]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.stdout == "stopped\n", done.stderr
    assert done.returncode in (0, -signal.SIGINT)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_the_manifest_is_plain_json(tmp_path):
    compile(file_of("linknet34", "fp16", tmp_path))
    values = json.loads((tmp_path / "net.plan.json").read_text())
    assert values["spec"]["tile"] == SIDE
    assert values["verdict"] is None
    assert str(tmp_path) not in (tmp_path / "net.plan.json").read_text()
