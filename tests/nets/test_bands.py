"""Networks of other input channels than three, and those whose keys differ from the authors' by a layer."""

import numpy as np
import pytest
import torch

from dlink.nets.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from dlink.nets.ensemble import ensemble
from dlink.nets.torch_backend import open as open_checkpoint
from dlink.nets.torch_backend import open_reference
from dlink.nets.zoo import ARCHS, build, spec_of
from dlink.runtime import BadInput, BadModel, Spec

BANDS = ("red", "green", "blue", "nir", "b5", "b6", "b7", "b8")


@pytest.mark.parametrize("arch", ["dlinknet34", "dlinknet50", "unet", "dunet", "linknet34", "pplinknet34-psp64"])
@pytest.mark.parametrize("channels", [1, 2, 4, 8])
def test_the_channels_are_read_from_the_first_layer(tmp_path, arch, channels):
    net = build(arch, 0.125, channels).eval()
    write_checkpoint(net, tmp_path / "net.th")
    read = read_checkpoint(tmp_path / "net.th").net
    x = torch.randn(1, channels, net.multiple, net.multiple)
    assert read.channels == channels
    with torch.inference_mode():
        assert torch.equal(read(x), net(x))


@pytest.mark.parametrize("channels", [0, 9, 1000])
def test_more_channels_than_eight_are_refused(tmp_path, channels):
    state = dict(build("dlinknet34", 0.125).state_dict())
    torch.save(state | {"firstconv.weight": torch.zeros(8, channels, 7, 7)}, tmp_path / "net.th")
    with pytest.raises(BadModel, match=f"firstconv.weight takes {channels} channels; dlink runs networks of 1 to 8"):
        read_checkpoint(tmp_path / "net.th")


@pytest.mark.parametrize("arch", ARCHS)
def test_bands_that_nobody_published_for_get_the_authors_preparation(arch):
    four = spec_of(arch, bands=BANDS[:4])
    assert (four.scale, four.shift) == (Spec.scale[:1] * 4, Spec.shift[:1] * 4)
    assert (four.channels, four.threshold) == ("BGR", spec_of(arch).threshold)
    assert spec_of(arch, bands=("nir", "red", "green")).channels == "RGB"


def test_an_ensemble_takes_one_image():
    found = [Checkpoint(build("linknet34", 0.125, n).eval(), "linknet34", 0.125, "0" * 64) for n in (3, 4)]
    with pytest.raises(BadInput, match="these take 3 and 4 channels; export each by itself"):
        ensemble(found, [0.5, 0.5])
    both = ensemble(found[1:] * 2, [0.5, 0.5])
    assert both.net.channels == 4
    with torch.inference_mode():
        x = torch.randn(1, 4, 32, 32)
        torch.testing.assert_close(both.net(x), found[1].net(x))


def test_a_reference_of_other_bands_than_the_model_is_refused(tmp_path):
    write_checkpoint(build("dlinknet34", 0.125, 4), tmp_path / "net.th")
    with pytest.raises(
        BadInput, match=r"net.th: its network takes 4 channels, and the model 3 bands \(red, green, blue"
    ):
        open_checkpoint(tmp_path / "net.th", Spec(tile=32))


def test_a_reference_takes_an_image_of_its_bands(tmp_path):
    write_checkpoint(build("dlinknet34", 0.125, 4).eval(), tmp_path / "net.th")
    with open_reference(tmp_path / "net.th", spec_of("dlinknet34", tile=32, bands=BANDS[:4])) as model:
        assert model.mask(np.zeros((40, 50, 4), np.uint8)).shape == (40, 50)
        with pytest.raises(BadInput, match=r"this model takes 4 bands \(red, green, blue, nir\), got an image of 3"):
            model.mask(np.zeros((40, 50, 3), np.uint8))


def test_a_34_with_a_fifth_dilation_is_told_from_the_authors(tmp_path):
    torch.manual_seed(0)
    net = build("dlinknet34-dilate5", 0.125).eval()
    assert set(net.state_dict()) - set(build("dlinknet34", 0.125).state_dict()) == {
        "dblock.dilate5.weight",
        "dblock.dilate5.bias",
    }
    assert net.dblock.dilate5.dilation == (16, 16)
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "net.th")
    read = read_checkpoint(tmp_path / "net.th")
    x = torch.randn(1, 3, 64, 64)
    assert (read.arch, read.width) == ("dlinknet34-dilate5", 0.125)
    with torch.inference_mode():
        assert torch.equal(read.net(x), net(x))


def test_renamed_keys_are_refused_with_the_nearest_network_and_what_it_has(tmp_path):
    state = {k.replace("encoder", "layer"): v for k, v in build("dlinknet34", 0.125).state_dict().items()}
    torch.save(state, tmp_path / "net.th")
    with pytest.raises(
        BadModel, match=r"the nearest, dlinknet34, also has encoder1.0.bn1.bias, .* and \d+ more; --arch"
    ):
        read_checkpoint(tmp_path / "net.th")
