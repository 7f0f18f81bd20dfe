"""Networks from elsewhere: what is taken, that it draws what it drew, and every refusal in one line."""

import json
import re
import warnings
import zipfile
from contextlib import contextmanager
from io import BytesIO

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from dlink.cli.export import export
from dlink.export.adopt import adopt
from dlink.export.archive_safety import arithmetic
from dlink.export.options import AdoptOptions, ExportOptions
from dlink.runtime import BadInput, BadModel, CheckFailed, open_model
from dlink.runtime.onnx_bytes import OPERATORS, read_onnx
from dlink.scenes import with_roads
from tests.support.elsewhere import (
    MEAN,
    SIDE,
    STD,
    After,
    Attention,
    Fcn,
    Link,
    Mixed,
    Unet,
    to_archive,
    to_onnx,
    trained,
)

TILES = [made.image[:SIDE, :SIDE] for made in with_roads(3, 128)]


def how(**given):
    return ExportOptions(**{"tile": SIDE, "mean": MEAN, "std": STD, **given})


def taken(path, out, road=None, activation=None, output_name=None, **given):
    return adopt(path, out, how(**given), AdoptOptions(activation=activation, output_name=output_name), road, TILES)


def images(channels="RGB"):
    """The tiles as torchvision prepares them."""
    pixels = np.stack(TILES).astype(np.float32) / 255
    x = ((pixels - np.float32(MEAN)) / np.float32(STD)).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(x if channels == "RGB" else x[:, ::-1]))


def drawn(path):
    """The file's probabilities of the tiles, by OpenVINO, one view."""
    with open_model(path) as model:
        return np.stack([model.probabilities(tile, 1) for tile in TILES])


def wanted(net, activation, road=0, channels="RGB"):
    """PyTorch's own probabilities."""
    with torch.inference_mode():
        y = net(images(channels))
        y = y["out"] if isinstance(y, dict) else y
        if y.shape[-1] < SIDE:
            y = torch.nn.functional.interpolate(y, size=(SIDE, SIDE), mode="bilinear")
        y = {"sigmoid": torch.sigmoid, "softmax": lambda v: v.softmax(1), "none": lambda v: v}[activation](y)
    return y[:, road].numpy()


NETWORKS = {
    "a Unet": (lambda: trained(Unet()), "sigmoid", 0),
    "a Linknet": (lambda: trained(Link()), "sigmoid", 0),
    "a mixture": (lambda: trained(Mixed()), "sigmoid", 0),
    "attention": (lambda: trained(Attention()), "sigmoid", 0),
    "four classes, softmax": (lambda: trained(Fcn()), "softmax", 2),
    "four classes, sigmoid": (lambda: trained(Fcn()), "sigmoid", 3),
    "two classes at a quarter": (lambda: trained(Fcn(2, full=False)), "softmax", 1),
    "four classes at a quarter": (lambda: trained(Fcn(4, full=False)), "softmax", 1),
}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_a_network_draws_in_our_file_what_it_drew(kind, form, tmp_path):
    make, activation, road = NETWORKS[kind]
    net = make()
    source = (to_onnx if form == "onnx" else to_archive)(net, tmp_path / f"net.{form}")
    name = ("out" if form == "onnx" else None) if isinstance(net, Fcn) else None
    if form == "pt2" and isinstance(net, Fcn):
        name = str(torch.export.load(source).graph_signature.user_outputs[0])
    found = taken(source, tmp_path / "roads.onnx", road or None, activation, name)
    assert found.proof.tiles == 3
    assert found.proof.difference <= 1e-5
    np.testing.assert_allclose(drawn(tmp_path / "roads.onnx"), wanted(net, activation, road), atol=2e-5)


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 19, 21])
@pytest.mark.parametrize("kind", ["a Unet", "a Linknet", "four classes, softmax"])
def test_opsets_from_11_to_21_are_taken(opset, kind, tmp_path):
    make, activation, road = NETWORKS[kind]
    net = make()
    source = to_onnx(net, tmp_path / "net.onnx", opset)
    taken(source, tmp_path / "roads.onnx", road or None, activation, "out")
    np.testing.assert_allclose(drawn(tmp_path / "roads.onnx"), wanted(net, activation, road), atol=2e-5)


def test_a_softmax_of_opset_11_is_over_the_classes(tmp_path):
    net = trained(Unet(3))
    source = to_onnx(After(net, "softmax"), tmp_path / "net.onnx", 11)
    taken(source, tmp_path / "roads.onnx", 2)
    np.testing.assert_allclose(drawn(tmp_path / "roads.onnx"), wanted(net, "softmax", 2), atol=2e-5)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_padding_by_a_word_becomes_numbers(mode, tmp_path):
    """As TensorFlow's converter writes it."""
    rng = np.random.default_rng(0)
    shapes = {"a": (8, 3, 4, 4), "b": (8, 4, 3, 3), "c": (4, 1, 2, 2)}
    if mode == "VALID":
        shapes = {"a": (8, 3, 2, 2), "b": (8, 4, 2, 2), "c": (4, 1, 2, 2)}
    given = {"auto_pad": mode, "strides": [2, 2]}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["u"], "one", **given),
        helper.make_node("MaxPool", ["u"], ["v"], "pool", kernel_shape=[2, 2], **given),
        helper.make_node("ConvTranspose", ["v", "b"], ["w"], "two", **given),
        helper.make_node("ConvTranspose", ["w", "c"], ["out"], "three", **given),
    ]
    weights = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), name) for name, s in shapes.items()]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", c, "H", "W"]) for n, c in (("x", 3), ("out", 1))]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "net.onnx"
    )
    found = taken(tmp_path / "net.onnx", tmp_path / "roads.onnx", activation="sigmoid")
    assert found.proof.difference <= 1e-5
    made = onnx.load(tmp_path / "roads.onnx").graph.node
    assert not [a for n in made for a in n.attribute if a.name == "auto_pad"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_graph_is_in_the_form_of_our_files(precision, tmp_path):
    source = to_onnx(trained(Unet()), tmp_path / "net.onnx")
    found = taken(source, tmp_path / "roads.onnx", activation="sigmoid", precision=precision)
    model = onnx.load(tmp_path / "roads.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    operators = {n.op_type for n in model.graph.node}
    assert operators == {"Conv", "Relu", "Concat", "Resize", "Sigmoid"} | ({"Cast"} if precision == "fp16" else set())
    ends = [(v.name, v.type.tensor_type) for v in (*model.graph.input, *model.graph.output)]
    shapes = {name: [d.dim_param or d.dim_value for d in t.shape.dim] for name, t in ends}
    assert shapes == {"image": ["N", 3, SIDE, SIDE], "road": ["N", 1, SIDE, SIDE]}
    assert all(t.elem_type == TensorProto.FLOAT for _, t in ends)
    weights = {i.name: i.data_type for i in model.graph.initializer if i.name.endswith((".weight", ".bias"))}
    kind = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
    assert len(weights) == 12
    assert set(weights.values()) == {kind}
    names = [n.name for n in model.graph.node]
    assert len(set(names)) == len(names)
    spec = read_onnx(tmp_path / "roads.onnx").spec
    assert (spec, spec.arch, spec.channels, spec.precision) == (found.spec, "adopted-net", "RGB", precision)


def test_fp16_is_float16_between_the_image_and_the_end(tmp_path):
    source = to_onnx(trained(Fcn()), tmp_path / "net.onnx")
    taken(source, tmp_path / "roads.onnx", 1, "softmax", "out", precision="fp16")
    graph = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "roads.onnx"), strict_mode=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    wide = [n.op_type for n in graph.node for out in n.output if types[out] == TensorProto.FLOAT]
    assert wide == ["Cast", "Softmax", "Slice"]


def test_values_beyond_float16_are_scaled_down_where_they_can_be(tmp_path):
    net = trained(Link())
    with torch.no_grad():
        net.down2[1].weight *= 1e6
        net.down2[1].bias *= 1e6
        net.same[0].weight *= 1e-6
        net.up[1].running_var *= 1e12
    found = taken(to_onnx(net, tmp_path / "net.onnx"), tmp_path / "r.onnx", activation="sigmoid", precision="fp16")
    assert found.proof.agreement >= 0.995


def test_values_that_no_scale_brings_into_float16_are_named(tmp_path):
    source = to_onnx(trained(Unet(), loud=1e7), tmp_path / "net.onnx")
    with pytest.raises(CheckFailed, match=r"first at node /head/Conv: its values reach .* ends at 65504; export fp32"):
        taken(source, tmp_path / "roads.onnx", activation="sigmoid", precision="fp16")
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_the_order_of_the_channels_is_the_users(channels, tmp_path):
    net = trained(Unet())
    taken(to_onnx(net, tmp_path / "net.onnx"), tmp_path / "roads.onnx", activation="sigmoid", channels=channels)
    np.testing.assert_allclose(drawn(tmp_path / "roads.onnx"), wanted(net, "sigmoid", 0, channels), atol=2e-5)


@pytest.mark.parametrize("then", ["", "sigmoid", "softmax"])
def test_channels_may_be_the_last_dimension(then, tmp_path):
    net = trained(Unet(2 if then == "softmax" else 1))
    source = to_onnx(After(net, then, last=True), tmp_path / "net.onnx", last=True)
    found = taken(source, tmp_path / "roads.onnx", activation=None if then else "sigmoid")
    road = 1 if then == "softmax" else 0
    np.testing.assert_allclose(drawn(tmp_path / "roads.onnx"), wanted(net, then or "sigmoid", road), atol=2e-5)
    assert any("the graph ends in a" in note for note in found.notes) == bool(then)
    assert "Transpose" not in {n.op_type for n in onnx.load(tmp_path / "roads.onnx").graph.node}


@pytest.mark.parametrize("last", [False, True])
def test_a_file_of_one_size_is_taken_for_that_tile(last, tmp_path):
    net = trained(Unet())
    source = to_onnx(After(net, last=last), tmp_path / "net.onnx", free=False, last=last)
    taken(source, tmp_path / "roads.onnx", activation="sigmoid")
    np.testing.assert_allclose(drawn(tmp_path / "roads.onnx"), wanted(net, "sigmoid"), atol=2e-5)
    with pytest.raises(BadInput, match=rf"net.onnx: its input is {SIDE} px, and --tile is 128; give --tile {SIDE}"):
        taken(source, tmp_path / "roads.onnx", activation="sigmoid", tile=128)


def test_an_inner_tensor_is_taken_by_its_name(tmp_path):
    net = trained(Unet())
    source = to_onnx(After(net, "sigmoid"), tmp_path / "net.onnx")
    inner = next(n.input[0] for n in onnx.load(source).graph.node if n.op_type == "Sigmoid")
    found = taken(source, tmp_path / "roads.onnx", activation="sigmoid", output_name=inner)
    assert found.proof.difference <= 1e-5


def test_weights_in_a_file_beside_are_taken_in(tmp_path):
    source = to_onnx(trained(Unet()), tmp_path / "net.onnx")
    onnx.save(onnx.load(source), source, save_as_external_data=True, location="net.data", size_threshold=0)
    taken(source, tmp_path / "roads.onnx", activation="sigmoid")
    assert open_model(tmp_path / "roads.onnx").mask(TILES[0]).shape == (SIDE, SIDE)
    (tmp_path / "net.data").unlink()
    with pytest.raises(BadInput, match=r"net.onnx: its weights are in another file that can't be read: .*; put it"):
        taken(source, tmp_path / "roads.onnx", activation="sigmoid")


def unet_with(change, tmp_path, net=None, **given):
    source = to_onnx(net or trained(Unet()), tmp_path / "net.onnx", **given)
    model = onnx.load(source)
    change(model)
    onnx.save(model, source)
    return source


def strange(model):
    """A node whose operator is none of ours in front of the output."""
    head = model.graph.node[-1]
    head.output[0] = "before"
    grid = numpy_helper.from_array(np.zeros((1, SIDE, SIDE, 2), np.float32), "grid")
    model.graph.initializer.append(grid)
    model.graph.node.append(helper.make_node("GridSample", ["before", "grid"], ["out"], "/up/GridSample_3"))


def two_inputs(model):
    model.graph.input.append(helper.make_tensor_value_info("size", TensorProto.FLOAT, [1]))


def no_shape(model):
    model.graph.input[0].type.tensor_type.ClearField("shape")


def half_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def oblong(model):
    for dim, value in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 3, 64, 96), strict=True):
        dim.dim_value = value


def odd(model):
    for dim, value in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 3, 100, 100), strict=True):
        dim.dim_value = value


def four_channels(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4


def opset_9(model):
    model.opset_import[0].version = 9


def ours(model):
    model.metadata_props.add(key="dlink.spec", value="{}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (strange, "node /up/GridSample_3 is GridSample, which is not an operator that dlink takes; export the network"),
        (two_inputs, r"has 2 inputs \(x, size\); a network of one image has one"),
        (no_shape, "its input x has no shape; export it with N x 3 x H x W"),
        (half_input, "its input x is float16; export it as float32, and --precision fp16 makes FP16 of it"),
        (oblong, "its input is 96 x 64 px, and tiles are square"),
        (odd, "its input is 100 px; a tile is a multiple of 32 px up to 8192"),
        (four_channels, "its input x has 4 channels, and dlink's tiles have 3"),
        (opset_9, "opset 9; opsets 11 to 21 are taken, so export it again as 17"),
        (ours, "dlink wrote this file, so use it as it is; for another tile"),
    ],
)
def test_a_graph_that_cannot_be_taken_is_refused_by_name(change, message, tmp_path):
    source = unet_with(change, tmp_path)
    with pytest.raises(BadInput, match=message) as raised:
        taken(source, tmp_path / "roads.onnx", activation="sigmoid")
    assert "\n" not in str(raised.value)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    ("net", "given", "message"),
    [
        (Unet, {}, r"--activation is missing: its output is -\d.* on the tiles, and no sigmoid or softmax ends the"),
        (Unet, {"activation": "none"}, r"its output is -.* no probability; give --activation sigmoid"),
        (Unet, {"activation": "softmax"}, "its output has one class; give --activation sigmoid"),
        (Unet, {"activation": "sigmoid", "road": 1}, "--class 1: its output has 1 class, from 0 on"),
        (lambda: Unet(3), {"activation": "softmax"}, "gives 3 classes; --class says which is road, 0 to 2"),
        (lambda: Unet(3), {"activation": "softmax", "road": 3}, "--class 3: its output has 3 classes, from 0 on"),
        (lambda: Unet(3), {"activation": "none", "road": 1}, "give --activation softmax or --activation sigmoid"),
        (Fcn, {"activation": "softmax", "road": 1}, "has 2 outputs; --output-name says which is the roads: out, aux"),
        (Unet, {"activation": "sigmoid", "output_name": "no"}, "--output-name no: .* its outputs are out"),
        (
            Unet,
            {"activation": "sigmoid", "mean": None, "std": None},
            "give --mean and --std, such as ImageNet's --mean",
        ),
    ],
)
def test_what_the_user_must_say_is_asked_for(net, given, message, tmp_path):
    source = to_onnx(trained(net()), tmp_path / "net.onnx")
    with pytest.raises(BadInput, match=message) as raised:
        taken(source, tmp_path / "roads.onnx", **given)
    assert "\n" not in str(raised.value)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("asked", ["sigmoid", "softmax"])
@pytest.mark.parametrize("then", ["sigmoid", "softmax"])
def test_an_activation_on_top_of_another_is_refused(asked, then, tmp_path):
    source = to_onnx(After(trained(Unet(2)), then), tmp_path / "net.onnx")
    with pytest.raises(
        BadInput, match=f"--activation {asked}: the graph ends in a {then} already; give --activation none"
    ):
        taken(source, tmp_path / "roads.onnx", activation=asked)


def test_class_numbers_are_no_probabilities(tmp_path):
    source = to_onnx(After(trained(Unet(3)), "argmax"), tmp_path / "net.onnx")
    with pytest.raises(
        BadInput, match=r"ArgMax.* gives class numbers, not probabilities; --output-name takes the tensor"
    ):
        taken(source, tmp_path / "roads.onnx", activation="none")


def test_a_size_that_the_network_does_not_run_on_is_refused(tmp_path):
    class Deep(Unet):
        def forward(self, x):
            y = torch.nn.functional.max_pool2d(x, 64)
            return super().forward(x) + torch.nn.functional.interpolate(y, scale_factor=64.0)[:, :1]

    source = to_onnx(trained(Deep()), tmp_path / "net.onnx", side=128)
    with pytest.raises(BadInput, match=r"net.onnx: ONNX Runtime does not .* tile of 96 px: "):
        adopt(
            source, tmp_path / "r.onnx", how(tile=96), AdoptOptions(activation="sigmoid"), None,
            [np.zeros((96, 96, 3), np.uint8)],
        )  # fmt: skip


def test_weights_beyond_2_gb_are_refused_before_they_are_read(tmp_path):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[30000, 30000], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.bin")
    source = unet_with(lambda m: m.graph.initializer.append(tensor), tmp_path)
    with pytest.raises(BadInput, match=r"net.onnx: its weights take 3.6 GB, and an ONNX file ends at 2 GB"):
        taken(source, tmp_path / "roads.onnx", activation="sigmoid")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"\x00junk" * 9)
    (tmp_path / "net.pt2").write_bytes(b"junk")
    with pytest.raises(BadModel, match=r"net.onnx: not an ONNX model, or a damaged one"):
        taken(tmp_path / "net.onnx", tmp_path / "roads.onnx")
    with pytest.raises(BadModel, match=r"net.pt2: not an archive of torch.export, or a damaged one"):
        taken(tmp_path / "net.pt2", tmp_path / "roads.onnx")


class Touch:
    """A pickle that makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def pickled(path):
    data = BytesIO()
    torch.save(Touch(path), data)
    return data.getvalue()


def changed(data, change):
    program = json.loads(data)
    change(program)
    return json.dumps(program).encode()


def sized(text):
    """A program whose first node's first size is an expression."""

    def change(program):
        program["range_constraints"][text] = {"min_val": 1, "max_val": 2}

    return change


def called(text):
    def change(program):
        program["graph_module"]["graph"]["nodes"][0]["target"] = text

    return change


EVIL = {  # what is changed in an archive, and what is said of it
    "a pickled weight": (
        lambda name, data, path: (
            data.replace(b'"use_pickle": false', b'"use_pickle": true') if "config" in name else data
        ),
        "is pickled",
    ),
    "an opaque constant": (
        lambda name, data, path: data.replace(b'"weight_0"', b'"opaque_obj_0"') if "config" in name else data,
        "is pickled",
    ),
    "samples": (
        lambda name, data, path: pickled(path) if "sample_inputs" in name else data,
        "data/sample_inputs/model.pt is more than tensors",
    ),
    "an operator": (
        lambda name, data, path: changed(data, called("torch.hub.load")) if "models/" in name else data,
        "it calls torch.hub.load",
    ),
    "a file's operator": (
        lambda name, data, path: (
            changed(data, called("torch.ops.aten.from_file.default")) if "models/" in name else data
        ),
        "it calls torch.ops.aten.from_file.default",
    ),
    "an extension": (
        lambda name, data, path: changed(data, called("#ext:op")) if "models/" in name else data,
        "it calls #ext:op",
    ),
    "an expression": (
        lambda name, data, path: changed(data, sized("open('x', 'w')")) if "models/" in name else data,
        r"a size is open\('x', 'w'\)",
    ),
    "an attribute": (
        lambda name, data, path: changed(data, sized("Symbol.mro")) if "models/" in name else data,
        "a size is Symbol.mro",
    ),
}


@pytest.mark.parametrize("kind", EVIL)
def test_an_archive_that_would_run_code_is_refused(tmp_path, kind):
    change, words = EVIL[kind]
    made = tmp_path / "made"
    said = pytest.raises(BadModel, match=rf"evil.pt2: .*{words}.*, and reading it could run code")
    with rewritten(tmp_path, lambda name, data: change(name, data, made)) as evil, said:
        taken(evil, tmp_path / "roads.onnx")
    assert not made.exists()


def test_a_member_that_is_there_twice_is_refused(tmp_path):
    """Python reads the last copy, PyTorch the first."""
    source = to_archive(trained(Unet()), tmp_path / "net.pt2")
    made = tmp_path / "made"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / "evil.pt2", "w") as new, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, of the name
        for name in old.namelist():
            if "sample_inputs" in name:
                new.writestr(name, pickled(made))
            new.writestr(name, old.read(name))
    with pytest.raises(BadModel, match="evil.pt2: it has two members of one name, and reading it could run code"):
        taken(tmp_path / "evil.pt2", tmp_path / "roads.onnx")
    assert not made.exists()


@pytest.mark.parametrize(
    "member",
    ["models/weight_1", "data/aotinductor/model/x.so", "data/constants/custom_obj_0", "serialized_state_dict.pt"],
)
def test_an_archive_with_other_members_is_refused(tmp_path, member):
    with rewritten(tmp_path, lambda name, data: data) as evil:
        with zipfile.ZipFile(evil, "a") as archive:
            archive.writestr(f"{archive.namelist()[0].partition('/')[0]}/{member}", b"")
        with pytest.raises(BadModel, match=f"evil.pt2: it has the member {member}, and reading it could run code"):
            taken(evil, tmp_path / "roads.onnx")


@contextmanager
def rewritten(folder, change):
    """An archive whose members are changed."""
    source = to_archive(trained(Unet()), folder / "net.pt2")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(folder / "evil.pt2", "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    yield folder / "evil.pt2"


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("Mul(Integer(32), Symbol('s39', positive=True, integer=True))", True),
        ("32*s94", True),
        ("s0//2 + Max(1, u3)", True),
        ("FloorDiv(s77 - 1, 2)", True),
        ("L['x'].size()[0] <= 64", True),
        ("TruncToInt(Mul(Float('0.5', precision=53), Symbol('s1')))", True),
        ("max(1, 1 + L['x'].size()[3])", True),
        ("math.trunc(0.75*torch.sym_float(L['x'].size()[2])) == 48", True),
        ("2.0e-5*s0", True),
        ("torch.load('x')", False),
        ("math.__dict__", False),
        ("__import__('os')", False),
        ("Symbol.__class__", False),
        ("open('x')", False),
        ("(lambda: 0)()", False),
        ("s0; s1", False),
        ("exec", False),
    ],
)
def test_a_size_is_arithmetic_alone(text, fine):
    assert arithmetic(text) is fine


def test_a_file_that_is_not_the_network_is_not_written(tmp_path, monkeypatch):
    import dlink.export.adopt as module

    def broken(*given):
        model = real(*given)
        tensor = next(i for i in model.graph.initializer if i.name.endswith("head.weight"))
        tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
        return model

    real = module.normalised
    monkeypatch.setattr(module, "normalised", broken)
    source = to_onnx(trained(Unet()), tmp_path / "net.onnx")
    with pytest.raises(
        CheckFailed, match=r"not the network it was made from, and was not written: probabilities differ"
    ):
        taken(source, tmp_path / "roads.onnx", activation="sigmoid")
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


PREPARED = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--tile", str(SIDE)]


def test_the_command_says_what_it_took_for_granted(tmp_path):
    source = to_onnx(After(trained(Unet(2)), "softmax"), tmp_path / "net.onnx")
    result = CliRunner().invoke(export, [str(source), str(tmp_path / "roads.onnx"), *PREPARED])
    assert result.exit_code == 0, result.output
    assert "note: class 1 of 2 is taken as road; --class 0 takes the other" in result.stderr
    assert "note: the graph ends in a softmax, so its output is taken as probabilities" in result.stderr
    assert "adopted-net, fp32, tile 64" in result.stdout
    assert "output out: class 1 of 2, probabilities" in result.stdout
    assert re.search(r"prepared as RGB, mean 0.485,0.456,0.406 .* 0.5 m a pixel; --channels and --gsd", result.stdout)


def test_an_archive_is_known_by_what_is_in_it(tmp_path):
    source = to_archive(trained(Unet()), tmp_path / "net.pt2").rename(tmp_path / "net.pt")
    given = [str(source), "-o", str(tmp_path / "roads.onnx"), *PREPARED, "--activation", "sigmoid"]
    result = CliRunner().invoke(export, given)
    assert result.exit_code == 0, result.output
    assert {n.op_type for n in onnx.load(tmp_path / "roads.onnx").graph.node} <= OPERATORS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["{net}"], "net.onnx: the file to write is missing after it: dlink-export"),
        (["{net}", "{net}"], "net.onnx: is the network itself, and would be replaced"),
        (["{net}", "{net}", "r.onnx"], "net.onnx: only checkpoints become an ensemble"),
        (["{net}", "r.onnx", "--arch", "unet"], "--arch: is for checkpoints; leave it out for net.onnx"),
        (["{net}", "r.onnx", "--key", "ema"], "--key: is for checkpoints; leave it out for net.onnx"),
        (["{ckpt}", "r.onnx", "--activation", "none"], "--activation: is for a network from elsewhere (.onnx, .pt2)"),
        (["{ckpt}", "r.onnx", "--output-name", "y"], "--output-name: is for a network from elsewhere (.onnx, .pt2)"),
    ],
)
def test_options_of_the_other_kind_are_refused(given, message, tmp_path):
    from dlink.nets.embedded import EMBEDDED

    net = to_onnx(trained(Unet()), tmp_path / "net.onnx")
    result = CliRunner().invoke(export, [g.format(net=net, ckpt=EMBEDDED) for g in given])
    assert (result.exit_code, message in result.stderr) == (1, True), result.stderr
