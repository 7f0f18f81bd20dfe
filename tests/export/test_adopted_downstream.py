"""What takes a file of ours takes one of a network from elsewhere: INT8, builds, checks, layers, masks, training."""

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from dlink.calib.deconv import without_transposed
from dlink.calib.network import layer_name, read_network
from dlink.calib.placement import place
from dlink.calib.qdq import write_qdq
from dlink.calib.ranges import gather
from dlink.calib.rescale import rescale
from dlink.calib.sample import Sample, Tile, digest
from dlink.export.adopt import adopt
from dlink.export.options import AdoptOptions, ExportOptions
from dlink.imagery.images import write_image
from dlink.runtime import BadInput, open_model
from dlink.runtime.onnx_bytes import OPERATORS, read_onnx
from dlink.scenes import with_roads
from tests.export.test_adopt import NETWORKS, TILES, how
from tests.support.calibrated import QUIET, folder_of, run
from tests.support.elsewhere import SIDE, After, Fcn, Link, Unet, to_onnx, trained
from tests.support.models import save

KINDS = {
    "a Unet": (lambda: trained(Unet()), "sigmoid"),
    "a Linknet": (lambda: trained(Link()), "sigmoid"),
    "groups, softmax": (lambda: trained(Fcn()), "softmax"),
    "attention": (NETWORKS["attention"][0], "sigmoid"),
    "a mixture": (NETWORKS["a mixture"][0], "sigmoid"),
    "a sigmoid at a quarter": (lambda: trained(Fcn(1, full=False)), "sigmoid"),
    "probabilities": (lambda: After(trained(Unet()), "sigmoid"), None),
}
SAMPLE = tuple(Tile(f"scene {i}", s.image[:SIDE, :SIDE], None) for i, s in enumerate(with_roads(3, 128, 4_000_000)))


@pytest.fixture(scope="module", params=KINDS)
def adopted(request, tmp_path_factory):
    """The network's file in FP32 and in FP16."""
    folder = tmp_path_factory.mktemp("adopted")
    make, activation = KINDS[request.param]
    net = make()
    source = to_onnx(net, folder / "net.onnx")
    road = 1 if activation == "softmax" else None
    given = AdoptOptions(activation=activation, output_name="out")
    for precision in ("fp32", "fp16"):
        adopt(source, folder / f"{precision}.onnx", how(precision=precision), given, road, TILES)
    return folder


def ranges_of(graph):
    return gather(graph, Sample(SAMPLE, SAMPLE[:1], (), digest(SAMPLE)), True, QUIET)


def quantised(path, base="fp16", deconv="int8"):
    """The INT8 model with every layer in int8 that may be, without judging it."""
    graph = read_network(path)
    ranges = ranges_of(graph)
    scaled = rescale(graph, ranges.factors(graph))
    if deconv == "conv":
        scaled = without_transposed(scaled)
    return write_qdq(scaled, place(scaled, deconv), ranges.limits("max"), ranges.means(graph), base)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_calibration_lifts_it_to_the_same_network(adopted, precision):
    x = read_onnx(adopted / "fp32.onnx").spec.prepare(np.stack(TILES))
    graph = read_network(adopted / f"{precision}.onnx")
    atol = 1e-6 if precision == "fp32" else 2e-2  # of weights that were rounded
    np.testing.assert_allclose(run(graph.model, x), run(adopted / "fp32.onnx", x), atol=atol)


def test_rescaling_its_channels_leaves_it_the_same_function(adopted):
    graph = read_network(adopted / "fp32.onnx")
    factor = ranges_of(graph).factors(graph)
    x = graph.spec.prepare(np.stack(TILES))
    np.testing.assert_allclose(run(rescale(graph, factor).model, x), run(graph.model, x), atol=2e-5)


@pytest.mark.parametrize("base", ["fp16", "fp32"])
def test_int8_is_a_whole_graph_and_near_the_float_one(adopted, base):
    model = quantised(adopted / "fp16.onnx", base, "conv")
    onnx.checker.check_model(model, full_check=True)
    assert {n.op_type for n in model.graph.node} <= OPERATORS
    assert "QuantizeLinear" in {n.op_type for n in model.graph.node}
    x = read_onnx(adopted / "fp32.onnx").spec.prepare(np.stack(TILES))
    off = np.abs(run(model, x) - run(adopted / "fp32.onnx", x))
    assert off.mean() < 0.03


def test_layers_have_names_of_their_own(adopted):
    names = [unit.name for unit in place(read_network(adopted / "fp32.onnx"), "int8")]
    assert len(set(names)) == len(names)
    assert any("head" in name for name in names)


def test_the_last_convolution_stays_float(adopted):
    graph = read_network(adopted / "fp32.onnx")
    why = {unit.name: unit.why for unit in place(graph, "int8")}
    heads = [layer_name(n) for n in graph.convolutions if n.output[0] in graph.last_convolutions]
    assert heads
    assert all(why[name] == "the last convolution" for name in heads)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_tensorrt_rtx_builds_it(adopted, precision, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx: pip install 'dlink[test]' on Linux x86-64")
    pytest.importorskip("polygraphy", reason="needs polygraphy: pip install 'dlink[test]'")
    from dlink.engine.build import build
    from dlink.onnx_graph.model import read_model
    from dlink.trt_runtime.manifest import Options

    path = tmp_path / "net.onnx"
    if precision == "int8":
        save(quantised(adopted / "fp16.onnx"), path)
    else:
        path.write_bytes((adopted / f"{precision}.onnx").read_bytes())
    made = build(read_model(path), tmp_path / "net.plan", Options(target="tensorrt-rtx"), None, QUIET)
    assert precision in made.manifest.precision.shares
    assert made.manifest.ends.gives == "float32"
    if precision == "fp16":
        assert made.manifest.ends.reads == "float16"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_its_layers_compare(adopted, precision):
    pytest.importorskip("polygraphy", reason="needs polygraphy: pip install 'dlink[test]'")
    from dlink.engine.compare import TOLERANCE, compare_layers, first_off
    from dlink.onnx_graph.model import read_model

    found = compare_layers(read_model(adopted / f"{precision}.onnx"), TILES[0], None)
    assert first_off(found, TOLERANCE[precision]) is None


def test_fine_tuning_runs_it_as_it_is(adopted):
    from dlink.training.quantised import Quantised

    graph = read_network(adopted / "fp32.onnx")
    x = graph.spec.prepare(np.stack(TILES))
    if "LayerNormalization" in {n.op_type for n in graph.model.graph.node}:  # attention is not fine-tuned
        with pytest.raises(BadInput, match="fine-tun"), torch.no_grad():
            Quantised(graph, [], {})(torch.from_numpy(x))
        return
    with torch.no_grad():
        ours = Quantised(graph, [], {})(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, run(graph.model, x), atol=1e-5)


@pytest.mark.parametrize(("net", "activation"), [(Unet, "sigmoid"), (lambda: Fcn(2), "softmax")], ids=["Unet", "FCN"])
def test_from_the_foreign_file_to_a_checked_int8_file(net, activation, tmp_path):
    from dlink.cli.bench import bench
    from dlink.cli.calibrate import calibrate
    from dlink.cli.check import check
    from dlink.cli.export import export
    from dlink.cli.inspect import inspect
    from dlink.cli.segment import segment
    from dlink.cli.tune import tune

    def does(command, *arguments):
        result = CliRunner().invoke(command, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
        return result.output

    source = to_onnx(trained(net()), tmp_path / "net.onnx")
    tiles = folder_of(tmp_path / "tiles", 8, 2 * SIDE)
    roads, int8 = tmp_path / "roads.onnx", tmp_path / "int8.onnx"
    prepared = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--tile", SIDE, "--tiles", tiles]
    which = ["--class", 1, "--output-name", "out"] if activation == "softmax" else []
    does(export, source, roads, *prepared, "--activation", activation, *which)
    limits = ["--min-agreement", "0.6", "--max-iou-drop", "0.3", "--samples", 6, "--held", 2]
    assert "of the multiply-adds in int8" in does(calibrate, roads, tiles, "-o", int8, *limits)
    does(check, int8, tiles, "--against", roads, "--min-agreement", "0.6", "--max-iou-drop", "0.3")
    assert "adopted-net" in does(inspect, int8)
    write_image(tmp_path / "picture.png", with_roads(1, 128, 7)[0].image)
    does(segment, int8, tmp_path / "picture.png", "-o", tmp_path / "mask.png")
    assert (tmp_path / "mask.png").exists()
    does(bench, roads, "--seconds", 0.1, "--views", 1)
    does(tune, roads, tiles)
    with open_model(int8) as model:
        assert model.spec.precision == "int8"


def test_an_original_in_the_place_of_a_model_is_told_what_to_do(tmp_path):
    from dlink.cli.check import check

    source = to_onnx(trained(Unet()), tmp_path / "net.onnx")
    tiles = folder_of(tmp_path / "tiles", 1, 2 * SIDE)
    adopt(source, tmp_path / "r.onnx", ExportOptions(tile=SIDE, mean=(0, 0, 0), std=(1, 1, 1)), AdoptOptions(
        activation="sigmoid"), None, TILES)  # fmt: skip
    given = [str(tmp_path / "r.onnx"), str(tiles), "--against"]
    result = CliRunner().invoke(check, [*given, str(source)])
    assert result.exit_code == 1
    assert "net.onnx: says nothing of its preparation (no dlink.spec); write it with dlink-export" in result.stderr
    (tmp_path / "net.pt2").write_bytes(b"any")
    result = CliRunner().invoke(check, [*given, str(tmp_path / "net.pt2")])
    assert "is of a network from elsewhere, which only its ONNX file runs; give the FP32 file" in result.stderr
