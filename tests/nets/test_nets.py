import pytest
import torch
from torch import nn

from dlink.nets.zoo import ARCHS, build
from dlink.runtime.errors import BadInput

PARAMETERS = {  # of the published networks
    "dlinknet34": 31_096_129,
    "dlinknet50": 217_645_089,
    "dlinknet101": 236_637_217,
    "dlinknet34-dilate5": 33_455_937,  # one more 3x3 of 512 channels, and its bias
    "dlinknet34-less-pool": 11_245_633,
    "linknet34": 21_642_401,
    "unet": 39_500_929,
    "dunet": 19_201_025,
    **{f"pplinknet34-{name}": 22_443_841 for name in ("psp", "psp64", "psp128", "psp64-hdc")},
}
MEBIBYTES = {"dunet": 73, "dlinknet34": 119, "dlinknet50": 831, "dlinknet101": 904}  # the slides' "parameter number"
MULTIPLY_ADDS = {  # billions for one view of 1024 x 1024
    "linknet34": 92.7,
    "dlinknet34": 106.3,
    "dlinknet34-less-pool": 95.0,
    "dlinknet50": 347.7,
    "dlinknet101": 425.3,
    "unet": 23.7,
    "dunet": 820.6,
    "pplinknet34-psp64": 139.7,
}


@pytest.mark.parametrize("arch", ARCHS)
def test_parameters_are_those_of_the_published_network(arch):
    with torch.device("meta"):
        net = build(arch)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[arch]


@pytest.mark.parametrize(("arch", "mebibytes"), MEBIBYTES.items())
def test_files_are_as_large_as_the_slides_say(arch, mebibytes):
    assert PARAMETERS[arch] * 4 / 2**20 == pytest.approx(mebibytes, abs=1.4)


@pytest.mark.parametrize("arch", MULTIPLY_ADDS)
def test_work_is_that_of_the_published_network(arch):
    with torch.device("meta"):
        net = build(arch).eval()
    total = 0

    def count(module, inputs, output):
        nonlocal total
        at = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        total += module.weight.numel() * at.shape[2] * at.shape[3]

    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(count)
    net(torch.zeros(1, 3, 1024, 1024, device="meta"))
    assert total / 1e9 == pytest.approx(MULTIPLY_ADDS[arch], abs=0.06)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("sides", [(1, 1), (2, 3)])
def test_probabilities_have_the_images_size(arch, sides):
    torch.manual_seed(0)
    net = build(arch, 0.125).eval()
    size = tuple(net.multiple * n for n in sides)
    with torch.inference_mode():
        prob = net(torch.randn(2, 3, *size))
    assert prob.shape == (2, 1, *size)
    assert ((prob > 0) & (prob < 1)).all()  # fresh weights say the same everywhere; trained ones are tested elsewhere


def test_dlinknet34_has_314_tensors():
    with torch.device("meta"):
        keys = build("dlinknet34").state_dict()
    assert len(keys) == 314
    assert len([k for k in keys if "num_batches_tracked" not in k]) == 266


def test_keys_are_the_published_ones():
    with torch.device("meta"):
        keys = build("dlinknet34").state_dict()
    for key in (
        "firstconv.weight",
        "firstbn.running_mean",
        "encoder1.0.conv1.weight",
        "encoder2.0.downsample.0.weight",
        "encoder2.0.downsample.1.bias",
        "encoder3.5.bn2.weight",
        "dblock.dilate4.bias",
        "decoder4.deconv2.weight",
        "decoder1.norm3.running_var",
        "finaldeconv1.bias",
        "finalconv3.weight",
    ):
        assert key in keys


def test_the_dilated_centre_adds_its_input_and_every_step():
    centre = build("dlinknet34", 0.125).dblock
    for i, conv in enumerate(centre.children()):
        nn.init.zeros_(conv.weight)
        nn.init.constant_(conv.bias, 10.0**i)
    out = centre(torch.full((1, 64, 4, 4), 0.5))
    assert (out == 0.5 + 1 + 10 + 100 + 1000).all()


@pytest.mark.parametrize("width", [0.0, -1.0, 0.3, 0.01])
def test_a_width_that_breaks_channels_is_refused(width):
    with pytest.raises(BadInput, match=f"--width {width}: must be a multiple of 0.125"):
        build("dlinknet34", width)


def test_an_unknown_network_is_refused():
    with pytest.raises(BadInput, match="--arch unet9: not a network of dlink; there are dlinknet34"):
        build("unet9")
