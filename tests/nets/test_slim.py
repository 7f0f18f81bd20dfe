"""Slim networks: read by their shapes alone, refused where these do not fit together."""

import pytest
import torch
from safetensors.torch import save_file

from dlink.nets.channels import axes_of_arch, cut, shaped, sizes
from dlink.nets.checkpoint import read_checkpoint, write_checkpoint
from dlink.nets.keys import outline
from dlink.nets.multiply_adds import by_stage, multiply_adds, total
from dlink.nets.zoo import ARCHS, build
from dlink.runtime import BadModel

WIDTH = 0.25


def lively(arch, width=WIDTH):
    """A network in evaluation mode whose norms do something."""
    torch.manual_seed(0)
    net = build(arch, width).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for value in (module.weight.data, module.running_var):
                value.uniform_(0.5, 2)
            for value in (module.bias.data, module.running_mean):
                value.uniform_(-0.5, 0.5)
    return net


def slimmed(net, arch, least=2, left_whole=()):
    """The network without some channels of each group, and which are kept."""
    along = axes_of_arch(arch)
    size = sizes(along, net.state_dict(), arch)
    generator = torch.Generator().manual_seed(1)
    kept = {
        group: torch.randperm(n, generator=generator)[: max(least, n - 1 - i % 3)].sort().values
        for i, (group, n) in enumerate(size.items())
        if group not in left_whole and n > least
    }
    state = cut(net.state_dict(), along, kept, size)
    slim = shaped(net, state)
    slim.load_state_dict(state)
    return slim, kept


def emptied(net, arch, kept):
    """The network as wide as before, in which the other channels are zero wherever they begin."""
    along = axes_of_arch(arch)
    state = net.state_dict()
    for key, axes in along.items():
        for axis, groups in axes.items():
            begins = axis == (1 if key.endswith("weight") and state[key].ndim > 1 and is_transposed(net, key) else 0)
            if begins and len(groups) == 1 and groups[0] in kept and not key.endswith("running_var"):
                gone = torch.ones(state[key].shape[axis], dtype=torch.bool)
                gone[kept[groups[0]]] = False
                state[key].index_fill_(axis, gone.nonzero().flatten(), 0.0)
    return net


def is_transposed(net, key):
    return isinstance(net.get_submodule(key.rpartition(".")[0]), torch.nn.ConvTranspose2d)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_slim_network_is_read_by_its_shapes_and_draws_what_the_rest_of_the_channels_drew(arch, tmp_path):
    net = lively(arch)
    first = next(iter(axes_of_arch(arch)))
    slim, kept = slimmed(net, arch, left_whole=(first.rpartition(".")[0],))
    write_checkpoint(slim, tmp_path / "slim.th")
    found = read_checkpoint(tmp_path / "slim.th", arch)
    assert (found.arch, found.width) == (arch, WIDTH)
    assert found.slim == round(total(slim, 1024) / total(outline(arch, WIDTH), 1024), 4) < 1
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(found.net.logits(x), emptied(net, arch, kept).logits(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("write", [save_file, torch.save])
def test_a_slim_network_is_told_from_the_whole_one_in_every_format(write, tmp_path):
    slim, _ = slimmed(build("dlinknet34", WIDTH), "dlinknet34", left_whole=("firstconv",))
    path = tmp_path / ("slim.safetensors" if write is save_file else "slim.pth")
    write(slim.state_dict(), path)
    found = read_checkpoint(path)
    assert (found.arch, found.width, found.net.channels) == ("dlinknet34", WIDTH, 3)
    assert found.facts["slim"] == found.slim < 1
    for key, value in found.net.state_dict().items():
        assert torch.equal(value, slim.state_dict()[key])


def test_a_whole_network_has_all_of_its_multiply_adds(tmp_path):
    write_checkpoint(build("dlinknet34", WIDTH), tmp_path / "net.th")
    assert read_checkpoint(tmp_path / "net.th").slim == 1


def test_the_share_of_multiply_adds_is_that_by_hand(tmp_path):
    """A layer of 16 channels that loses 8 has half of its own multiply-adds and of the next convolution's."""
    net = build("dlinknet34", WIDTH)
    along = axes_of_arch("dlinknet34")
    size = sizes(along, net.state_dict(), "net")
    state = cut(net.state_dict(), along, {"encoder1.0.conv1": torch.arange(8)}, size)
    torch.save(state, tmp_path / "slim.th")
    each = 16 * 16 * 9 * 256**2
    assert read_checkpoint(tmp_path / "slim.th").slim == round(1 - each / total(net, 1024), 4)


# The published networks' multiply-adds in billions, one view of 1024 px: counted with other programs.
@pytest.mark.parametrize(
    ("arch", "billions"),
    [
        ("linknet34", 92.7),
        ("dlinknet34", 106.3),
        ("dlinknet34-less-pool", 95.0),
        ("dlinknet50", 347.7),
        ("dlinknet101", 425.3),
        ("dunet", 820.6),
        ("unet", 23.7),
        ("pplinknet34-psp64", 139.7),
    ],
)
def test_the_multiply_adds_of_the_published_networks(arch, billions):
    counted = multiply_adds(outline(arch, 1.0), 1024)
    assert round(sum(counted.values()) / 1e9, 1) == billions
    assert sum(by_stage(counted).values()) == sum(counted.values())


def test_the_multiply_adds_of_layers_by_hand():
    counted = multiply_adds(outline("dlinknet34", 1.0), 64)
    assert counted["firstconv"] == 3 * 64 * 49 * 32 * 32
    assert counted["decoder4.deconv2"] == 128 * 128 * 9 * 2 * 2  # the kernel is laid on each pixel of its input
    assert counted["finalconv3"] == 32 * 9 * 64 * 64
    assert by_stage(counted)["dblock"] == 4 * 512 * 512 * 9 * 2 * 2


def shorten(state, key, axis=0):
    state[key] = state[key].narrow(axis, 0, state[key].shape[axis] - 1).clone()


@pytest.mark.parametrize(
    ("arch", "edit", "message"),
    [
        (
            "dlinknet34",
            lambda s: shorten(s, "encoder2.1.bn1.weight"),
            "encoder2.1.bn1.weight has 31 and encoder2.1.conv1.weight 32, where both have the same; take the file that",
        ),
        (
            "dlinknet34",
            lambda s: [shorten(s, f"decoder3.{k}") for k in ("conv3.weight", "conv3.bias")],
            "decoder3.conv3.weight has 31 and encoder2.0.downsample.0.weight 32, where",
        ),
        (
            "dlinknet34",
            lambda s: shorten(s, "dblock.dilate2.weight", 1),
            "dblock.dilate2.weight has 127 and encoder4.0.downsample.0.weight 128",
        ),
        (
            "unet",
            lambda s: shorten(s, "up7.0.weight", 1),
            r"up7.0.weight takes 255, and trans7.0 \+ down7.2 give 256; take the file that training or pruning wrote",
        ),
        (
            "pplinknet34-psp64",
            lambda s: shorten(s, "dblock.stages.1.1.weight"),
            r"dblock.bottleneck.weight takes 256, and dblock.stages.0.1 \+ .* \+ encoder4.0.\w+.\w give 255; take",
        ),
    ],
)
def test_channels_that_do_not_fit_together_are_named(arch, edit, message, tmp_path):
    state = dict(build(arch, WIDTH).state_dict())
    edit(state)
    torch.save(state, tmp_path / "net.th")
    with pytest.raises(BadModel, match=rf"net.th: as {arch}: its channels don't fit together: {message}") as e:
        read_checkpoint(tmp_path / "net.th")
    assert "\n" not in str(e.value)


def test_a_layer_without_channels_is_refused(tmp_path):
    state = dict(build("dlinknet34", WIDTH).state_dict())
    for key in ("conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"):
        state[f"encoder1.0.{key}"] = state[f"encoder1.0.{key}"][:0]
    state["encoder1.0.conv2.weight"] = state["encoder1.0.conv2.weight"][:, :0]
    torch.save(state, tmp_path / "net.th")
    with pytest.raises(BadModel, match=r"as dlinknet34 of width 0.25: 6 misshapen: encoder1.0.conv1.weight \(0, 16, 3"):
        read_checkpoint(tmp_path / "net.th")


def test_a_slim_network_of_two_classes_is_read(tmp_path):
    slim, _ = slimmed(lively("dlinknet34"), "dlinknet34", left_whole=("firstconv",))
    state = slim.state_dict()
    logit = {k: state[f"finalconv3.{k}"] for k in ("weight", "bias")}
    torch.save({**state, **{f"finalconv3.{k}": torch.cat([v * 0, v]) for k, v in logit.items()}}, tmp_path / "two.th")
    found = read_checkpoint(tmp_path / "two.th")
    assert (found.width, found.road) == (WIDTH, 1)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(found.net.logits(x), slim.logits(x))


def test_slim_weights_that_are_no_numbers_are_refused(tmp_path):
    slim, _ = slimmed(build("dlinknet34", WIDTH), "dlinknet34", left_whole=("firstconv",))
    state = dict(slim.state_dict())
    torch.save({**state, "firstconv.weight": state["firstconv.weight"].to(torch.int8)}, tmp_path / "int8.th")
    with pytest.raises(BadModel, match="int8 in firstconv.weight; weights are float32"):
        read_checkpoint(tmp_path / "int8.th")
    torch.save({**state, "firstbn.bias": state["firstbn.bias"] * torch.nan}, tmp_path / "nan.th")
    with pytest.raises(BadModel, match="not finite: firstbn.bias; the training"):
        read_checkpoint(tmp_path / "nan.th")


def test_a_slim_network_wider_than_any_is_refused(tmp_path):
    state = dict(build("unet", 0.125).state_dict())
    for key in ("down1.0.weight", "down1.0.bias"):
        state[key] = torch.zeros(129, *state[key].shape[1:])
    state["down1.2.weight"] = torch.zeros(1, 129, 3, 3)
    torch.save(state, tmp_path / "net.th")
    with pytest.raises(BadModel, match=r"net.th: as unet of width 16.125: must be at most 16, its memory"):
        read_checkpoint(tmp_path / "net.th")
