import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from dlink.export import proof
from dlink.export.export import export
from dlink.export.onnx_file import deepness
from dlink.nets.checkpoint import Checkpoint
from dlink.nets.folding import fold_norms
from dlink.nets.torch_backend import network
from dlink.nets.zoo import ARCHS, build, spec_of
from dlink.runtime import BadModel, CheckFailed, Spec, open_model
from dlink.scenes import with_roads

SIDE = 128
SEEDS = {"unet": 8}  # with 0 its one plane gives a single value almost everywhere


def trained(arch, width=0.125):
    """A network with norms that do something and a head that finds both road and none."""
    torch.manual_seed(SEEDS.get(arch, 0))
    net = build(arch, width)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    net.eval()
    spec = spec_of(arch, tile=SIDE)
    x = torch.from_numpy(spec.prepare(np.stack(tiles())))
    with torch.inference_mode():
        logits = net.logits(x)
        last = [m for m in net.modules() if isinstance(m, nn.Conv2d)][-1]
        last.weight *= 2 / logits.std()
        last.bias.zero_()
        last.bias += np.log(spec.threshold / (1 - spec.threshold)) - in_a_gap(net.logits(x).numpy())
        assert (np.abs(net(x).numpy() - spec.threshold) < 1e-3).mean() < 0.002, "rounding would decide the masks"
    return Checkpoint(net, arch, width, "0" * 64)


def in_a_gap(logits):
    """A value that some of the logits exceed, as far from any of them as there is among the middle 60 %."""
    middle = np.sort(logits, axis=None)[int(0.2 * logits.size) : int(0.8 * logits.size)]
    at = np.argmax(np.diff(middle))
    return float(middle[at] + middle[at + 1]) / 2


def tiles():
    return [made.image for made in with_roads(2, SIDE)]


@pytest.fixture(scope="module")
def checkpoint():
    return trained("dlinknet34")


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def exported(request, checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / f"{request.param}.onnx"
    spec = Spec(tile=SIDE, width=0.125, precision=request.param, threshold=0.4, checkpoint_sha256="0" * 64)
    return path, spec, export(checkpoint, path, spec, tiles())


def test_the_graph_is_what_the_format_says(exported):
    path, spec, _ = exported
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert {n.op_type for n in model.graph.node} <= {
        "Conv",
        "ConvTranspose",
        "Relu",
        "Add",
        "MaxPool",
        "Sigmoid",
        "Cast",
    }
    ends = [(v.name, v.type.tensor_type) for v in (*model.graph.input, *model.graph.output)]
    shapes = {name: [d.dim_param or d.dim_value for d in t.shape.dim] for name, t in ends}
    assert shapes == {"image": ["N", 3, SIDE, SIDE], "road": ["N", 1, SIDE, SIDE]}
    assert all(t.elem_type == onnx.TensorProto.FLOAT for _, t in ends)
    half = {"fp32": onnx.TensorProto.FLOAT, "fp16": onnx.TensorProto.FLOAT16}[spec.precision]
    assert {i.data_type for i in model.graph.initializer} == {half}


@pytest.mark.parametrize("exported", ["fp16"], indirect=True)
def test_fp16_is_between_the_casts_and_the_sigmoid_is_not(exported):
    path, _, _ = exported
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    float32 = [n.op_type for n in graph.node for out in n.output if types[out] == onnx.TensorProto.FLOAT]
    assert float32 == ["Cast", "Sigmoid"]


def test_the_spec_and_what_deepness_reads_are_in_the_metadata(exported):
    path, spec, _ = exported
    metadata = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert Spec.of_onnx(metadata, path) == spec
    values = {k: json.loads(v) for k, v in metadata.items() if not k.startswith("dlink.")}
    assert values["model_type"] == "Segmentor"
    assert values["class_names"] == {"0": "background", "1": "road"}
    assert json.loads(deepness(replace(spec, target="building"))["class_names"])["1"] == "building"
    assert (values["resolution"], values["tile_size"], values["seg_thresh"]) == (50.0, SIDE, 0.4)
    assert values["standardization_mean"] == [0.5, 0.5, 0.5]
    assert values["standardization_std"] == [0.3125, 0.3125, 0.3125]


def test_a_batch_gives_what_single_tiles_give(exported):
    path, spec, _ = exported
    run = onnxruntime.InferenceSession(path)
    x = spec.prepare(np.stack(tiles()))
    batch = run.run(None, {"image": x})[0]
    for i in range(2):
        np.testing.assert_allclose(batch[i], run.run(None, {"image": x[i : i + 1]})[0][0], atol=2e-3)


def test_fp16_halves_the_file(checkpoint, tmp_path):
    sizes = {}
    for precision in ("fp32", "fp16"):
        spec = Spec(tile=64, width=0.125, precision=precision)
        export(checkpoint, tmp_path / "x.onnx", spec, [t[:64, :64] for t in tiles()])
        sizes[precision] = (tmp_path / "x.onnx").stat().st_size
    assert sizes["fp16"] < 0.6 * sizes["fp32"]


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_network_is_proven_and_opens(arch, precision, tmp_path):
    path = tmp_path / "net.onnx"
    found = trained(arch)
    spec = spec_of(arch, width=0.125, tile=SIDE, precision=precision)
    seen = export(found, path, spec, tiles())
    assert seen.tiles == 2
    assert seen.difference <= (1e-4 if precision == "fp32" else 0.05)
    assert seen.agreement >= 0.995
    with open_model(path) as model:
        expected = network(found.net)(spec.prepare(tiles()[0][None]))[0]
        np.testing.assert_allclose(
            model.probabilities(tiles()[0], 1), expected, atol=1e-4 if precision == "fp32" else 0.1
        )


def test_folding_the_norms_changes_nothing(checkpoint):
    folded = fold_norms(checkpoint.net)
    x = torch.randn(1, 3, 64, 64)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), checkpoint.net(x), atol=1e-5, rtol=0)
    assert [m for m in checkpoint.net.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize(("precision", "layer"), [("fp32", "encoder2.1.conv2"), ("fp16", "finalconv2")])
def test_a_file_that_is_not_the_network_names_the_first_layer(checkpoint, tmp_path, monkeypatch, precision, layer):
    import dlink.export.export as module

    real = module.write_onnx

    def write(net, spec, path):  # as a faulty exporter would
        broken = fold_norms(checkpoint.net)
        with torch.no_grad():
            broken.get_submodule(layer).weight *= -1
        real(broken, spec, path)

    monkeypatch.setattr(module, "write_onnx", write)
    with pytest.raises(CheckFailed, match=rf"was not written: .* is needed; first at layer {layer}: off by"):
        export(checkpoint, tmp_path / "net.onnx", Spec(tile=SIDE, width=0.125, precision=precision), tiles())
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_finds_no_roads_is_held_by_its_probabilities(tmp_path):
    found = trained("dlinknet34")
    with torch.no_grad():
        found.net.finalconv3.bias -= 12
    seen = export(found, tmp_path / "net.onnx", Spec(tile=SIDE, width=0.125, precision="fp16"), tiles())
    assert (seen.road, seen.agreement) == (0, 1)
    assert "at most 0.02" in proof.broken(proof.Proof(difference=0.03), "fp16")


def test_the_limits_are_those_that_were_promised():
    assert (proof.MAX_DIFFERENCE, proof.MIN_AGREEMENT) == (1e-4, 0.995)


def test_an_export_of_weights_in_another_file_does_not_open(exported, tmp_path):
    path, _, _ = exported
    onnx.save(onnx.load(path), tmp_path / "x.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(BadModel, match="its weights are in another file"):
        open_model(tmp_path / "x.onnx")
