import numpy as np
import pytest
import torch
from torch import fx, nn

from dlink.export.balance import balance, overflow, peaks
from dlink.export.export import export
from dlink.nets.folding import fold_norms
from dlink.nets.zoo import ARCHS
from dlink.onnx_graph.session import session
from dlink.onnx_graph.stretches import COMFORT, HALF_MAX
from dlink.runtime import CheckFailed, Spec
from tests.export.test_export import SIDE, tiles, trained

SPEC = Spec(tile=SIDE, width=0.125, precision="fp16")


def loud(arch="dlinknet34"):
    """A network whose centre reaches values far beyond float16, as trained ones do."""
    found = trained(arch)
    if arch in ("unet", "dunet"):
        return loud_unet(found)
    encoder = f"encoder{found.net.stages}"
    with torch.no_grad():
        last = found.net.get_submodule(f"{encoder}.{len(found.net.get_submodule(encoder)) - 1}")
        norm = getattr(last, "bn3", last.bn2)
        norm.weight *= 1e6
        norm.bias *= 1e6
        found.net.get_submodule(f"decoder{found.net.stages}.norm1").running_var *= 1e12
    return found


def loud_unet(found):
    """The same of a network without norms: what is loud before the centre is quiet behind it."""
    net = found.net
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        for conv in (convs[2], convs[-1]):
            conv.weight *= 1e6 if conv is convs[2] else 1e-6
            if conv is convs[2]:
                conv.bias *= 1e6
    return found


@pytest.fixture
def x():
    return SPEC.prepare(tiles()[0][None])


@pytest.mark.parametrize("arch", ARCHS)
def test_values_come_into_range_and_not_a_digit_changes(arch, x):
    folded = fold_norms(loud(arch).net)
    assert overflow(folded, x)
    balanced = balance(folded, [x])
    assert overflow(balanced, x) is None
    assert max(peaks(fx.symbolic_trace(balanced), [x]).values()) <= COMFORT
    with torch.inference_mode():
        assert torch.equal(balanced(torch.from_numpy(x)), folded(torch.from_numpy(x)))


def test_a_network_in_range_is_left_alone(x):
    folded = fold_norms(trained("dlinknet34").net)
    assert balance(folded, [x]) is folded


def test_the_overflow_is_named(x):
    layer, value = overflow(fold_norms(loud().net), x)
    assert layer == "encoder4.2.conv2"
    assert value > HALF_MAX


def test_the_fp16_file_of_a_loud_network_is_finite_in_float16(tmp_path, x):
    export(loud(), tmp_path / "net.onnx", SPEC, tiles())
    import onnx

    model = onnx.load(tmp_path / "net.onnx")
    inside = [n.output[0] for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose", "Add")]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inside)
    values = session(model.SerializeToString()).run(inside, {"image": x})
    assert {v.dtype for v in values} == {np.dtype(np.float16)}
    assert all(np.isfinite(v).all() for v in values)


def test_an_end_that_overflows_cannot_be_helped_and_says_so(tmp_path):
    found = trained("dlinknet34")
    with torch.no_grad():
        found.net.finalconv3.weight *= 1e7
    with pytest.raises(CheckFailed, match=r"finalconv3: its values reach .*, and float16 ends at 65504; export fp32"):
        export(found, tmp_path / "net.onnx", SPEC, tiles())
    assert list(tmp_path.iterdir()) == []
