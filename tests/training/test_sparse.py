"""2:4 sparse weights made: which weights become zeros, that they stay so, and a training that can be stopped."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from dlink.cli.main import dlink
from dlink.imagery.images import find_tiles, read_image
from dlink.nets.checkpoint import read_checkpoint, write_checkpoint
from dlink.nets.embedded import EMBEDDED
from dlink.nets.multiply_adds import multiply_adds
from dlink.nets.network import RoadNet
from dlink.nets.zoo import spec_of
from dlink.runtime import BadInput
from dlink.training.loop import train
from dlink.training.recipe import Recipe, SlimOptions
from dlink.training.slim import slim
from dlink.training.sparse import curvatures, estimate_norms, layers, sparse_share, sparse_weights, zeros_held
from dlink.training.validate import segmenter
from tests.support.calibrated import make_sparse

SPARSE = SlimOptions(sparse=True)
ONE = Recipe(crop=128, batch=2, epochs=1)
THREE = replace(ONE, epochs=3)


@pytest.fixture(scope="module")
def tiles(folder):
    return find_tiles(folder)


@pytest.fixture(scope="module")
def original():
    return read_checkpoint(EMBEDDED)


def sparse_copy(original):
    """The network with the zeros, before any training."""
    net = copy.deepcopy(original.net)
    make_sparse(net)
    return net


def most_in_fours(weight):
    """The most weights other than zero among four successive input channels, by NVIDIA's definition in loops."""
    weight = weight.detach().numpy()
    return max(
        np.count_nonzero(weight[k, c : c + 4, r, s])
        for k in range(weight.shape[0])
        for c in range(0, weight.shape[1], 4)
        for r in range(weight.shape[2])
        for s in range(weight.shape[3])
    )


def test_of_four_successive_input_channels_the_two_weights_that_matter_most_stay():
    conv = nn.Conv2d(8, 1, (1, 2), bias=False)
    values = torch.tensor([[1.0, -4, 2, 3, 5, 6, -7, 0], [9, 8, 7, 6, 1, 2, 4, 3]])  # at either position of the kernel
    wanted = torch.tensor([[0.0, -4, 0, 3, 0, 6, -7, 0], [9, 8, 0, 0, 0, 0, 4, 3]])
    with torch.no_grad():
        conv.weight.copy_(values.T.reshape(1, 8, 1, 2))
    make_sparse(nn.Sequential(conv))
    assert torch.equal(conv.weight.detach().reshape(8, 2).T, wanted)


class Pixel(RoadNet):
    """A convolution of 3 x 3, which sees only its centre in a picture of one pixel, and a norm."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 1, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(1)

    def logits(self, x):
        return self.norm(self.conv(x))


def test_the_curvature_of_a_weight_is_that_of_the_loss():
    """Held to p (1 - p) (d logit / d weight)^2, which for one pixel needs no mean over random signs."""
    torch.manual_seed(0)
    net = Pixel().eval()
    crops = torch.randn(2, 1, 8, 1, 1)
    p = [net(x).item() for x in crops]
    wanted = sum(q * (1 - q) * x[0] ** 2 for q, x in zip(p, crops, strict=True)) / 9 / (1 + net.norm.eps)
    found = curvatures(net, [crops.flatten(0, 1)], 0)["conv"]
    torch.testing.assert_close(found.flatten(), wanted.flatten())
    assert all(q.requires_grad and q.grad is None for q in net.parameters())


def test_norms_are_estimated_on_all_batches_alike_and_nothing_else_changes():
    torch.manual_seed(0)
    net = Pixel().eval()
    others = {k: v.clone() for k, v in net.state_dict().items() if "running" not in k and "num" not in k}
    batches = [torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4) + 1]
    estimate_norms(net, batches)
    made = [net.conv(x).detach() for x in batches]
    assert net.norm.running_mean.item() == pytest.approx(np.mean([y.mean().item() for y in made]))
    assert net.norm.running_var.item() == pytest.approx(np.mean([y.var().item() for y in made]))
    assert (net.training, net.norm.training, net.norm.momentum) == (False, False, 0.1)
    assert all(torch.equal(net.state_dict()[k], v) for k, v in others.items())
    net.norm.running_var.fill_(float("inf"))  # as in a network whose centre does nothing: it is not brought to life
    before = copy.deepcopy(net.state_dict())
    estimate_norms(net, batches)
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())


def test_the_images_and_transposed_and_grouped_convolutions_stay_as_they_are():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 8, 3), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 4, 1)
    )
    before = [part.weight.detach().clone() for part in net]
    make_sparse(net)
    assert [torch.equal(part.weight, was) for part, was in zip(net, before, strict=True)] == [True, True, True, False]
    assert list(layers(net)) == ["3"]


def test_zeros_stay_zeros_whatever_their_gradients_and_only_within_the_block():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1))
    make_sparse(net)
    optimiser = torch.optim.Adam(net.parameters(), 0.1)
    zeros = net[0].weight == 0

    def step():
        optimiser.zero_grad()
        net(torch.randn(1, 8, 4, 4)).square().sum().backward()
        assert (net[0].weight.grad[zeros] != 0).all()
        optimiser.step()

    with zeros_held(sparse_weights(net), optimiser):
        for _ in range(3):
            before = net[0].weight.detach().clone()
            step()
            assert torch.equal(net[0].weight == 0, zeros)
            assert (net[0].weight != before)[~zeros].all()
    step()
    assert (net[0].weight[zeros] != 0).all()


def test_a_layer_that_has_the_pattern_by_chance_may_lose_it():
    net = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 9, 1))
    nn.init.zeros_(net[0].weight)  # a beginning that some networks have
    assert sparse_weights(net) == []
    make_sparse(net)
    assert [weight is part.weight for weight, part in zip(sparse_weights(net), net, strict=True)] == [True, True]


@pytest.fixture(scope="module")
def whole(original, tiles, tmp_path_factory):
    """A training that was never stopped, what it wrote, and what it said."""
    out, said = tmp_path_factory.mktemp("whole") / "sparse.th", []
    return slim(original, tiles, out, THREE, SPARSE, valid=tiles, say=said.append), read_checkpoint(out), said


def test_a_network_keeps_its_channels_and_its_trained_weights_have_the_pattern(original, whole):
    done, found, said = whole
    assert said[1:] == [f"2:4 sparse weights in {done.sparse:.1%} of the multiply-adds"]  # once, and no pruning
    assert (found.width, found.slim, done.share) == (0.25, 1.0, 1.0)
    assert done.before.total == done.after.total
    assert all(0 < iou < 1 for iou in (*done.before.ious, *done.after.ious))
    sparse = layers(found.net)
    assert all(most_in_fours(conv.weight) == 2 for conv in sparse.values())
    dense = set(multiply_adds(found.net, 64)) - sparse.keys()
    assert dense == {"firstconv", "finaldeconv1"} | {f"decoder{i}.deconv2" for i in (1, 2, 3, 4)}
    work = multiply_adds(original.net, 1024)
    assert done.sparse == pytest.approx(sum(work[name] for name in sparse) / sum(work.values()))
    assert sparse_share(original.net) == 0
    assert not torch.equal(found.net.firstbn.running_mean, original.net.firstbn.running_mean)
    trained = [key for key, v in found.net.state_dict().items() if not torch.equal(v, original.net.state_dict()[key])]
    assert "finaldeconv1.weight" in trained


def test_a_training_that_was_stopped_ends_as_one_that_never_was(original, tiles, whole, tmp_path):
    def stop(step):
        if step.epoch == 2:
            raise KeyboardInterrupt

    out = tmp_path / "parts.th"
    with pytest.raises(KeyboardInterrupt):
        slim(original, tiles, out, THREE, SPARSE, report=stop)
    assert out.exists()
    parts = slim(original, tiles, out, THREE, SPARSE, resume=True)
    assert parts.course.losses == whole[0].course.losses
    weights = whole[1].net.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in read_checkpoint(out).net.state_dict().items())


def test_training_brings_a_sparse_network_back_towards_the_original(original, tiles, tmp_path):
    how = replace(SPARSE, labels=0)
    slim(original, tiles, tmp_path / "trained.th", replace(ONE, epochs=6, rate=3e-4), how)
    images = [read_image(tile.image) for tile in tiles]
    nets = (sparse_copy(original), read_checkpoint(tmp_path / "trained.th").net, original.net)
    made, trained, teacher = (segmenter(net, spec_of("dlinknet34", tile=128)) for net in nets)
    wanted = [teacher.probabilities(image, 8) for image in images]
    gaps = [
        np.mean([abs(model.probabilities(image, 1) - prob).mean() for image, prob in zip(images, wanted, strict=True)])
        for model in (made, trained)
    ]
    assert gaps[1] < 0.8 * gaps[0]


def test_a_slim_network_is_made_sparse_too(original, tiles, tmp_path):
    slim(original, tiles, tmp_path / "slim.th", ONE, SlimOptions(flops=0.6, prunings=1))
    small = read_checkpoint(tmp_path / "slim.th")
    done = slim(small, tiles, tmp_path / "both.th", ONE, SPARSE)
    both = read_checkpoint(tmp_path / "both.th")
    assert both.slim == small.slim
    assert done.sparse == pytest.approx(sparse_share(both.net))
    assert done.sparse > 0.6  # the image's convolution is a larger part of it


def test_training_and_distilling_on_keep_the_zeros(original, tiles, tmp_path):
    net = sparse_copy(original)
    write_checkpoint(net, tmp_path / "sparse.th")
    share = sparse_share(net)
    for distil in (False, True):
        train(tiles, tmp_path / f"{distil}.th", replace(ONE, width=0.25), init=tmp_path / "sparse.th", distil=distil)
        found = read_checkpoint(tmp_path / f"{distil}.th").net
        assert sparse_share(found) == share
        assert not torch.equal(found.finalconv2.weight, net.finalconv2.weight)


def test_sparse_and_flops_exclude_each_other():
    with pytest.raises(
        BadInput, match="^--sparse and --flops: give one of them; to have both, make what --flops wrote"
    ):
        SlimOptions(flops=0.4, sparse=True)


def test_a_pruning_is_not_resumed_as_sparse(original, tiles, tmp_path):
    slim(original, tiles, tmp_path / "slim.th", ONE, SPARSE)
    with pytest.raises(BadInput, match="was begun with {'flops': 1.0, 'sparse': True, 'prunings': 8}; resume"):
        slim(original, tiles, tmp_path / "slim.th", ONE, SlimOptions(prunings=1), resume=True)


def test_the_command(folder, tmp_path):
    out = tmp_path / "sparse.th"
    words = ["slim", EMBEDDED, folder, "-o", out, "--sparse", "--epochs", "1", "--crop", "128", "--half"]
    done = CliRunner().invoke(dlink, [str(w) for w in words])
    assert done.exit_code == 0, done.output
    net = read_checkpoint(out).net
    share = sparse_share(net)
    assert done.stdout.splitlines()[:2] == [
        f"{out}: dlinknet34 of width 0.25 with 100.0% of its multiply-adds",
        f"2:4 sparse weights in {share:.1%} of them",
    ]
    assert share > 0.8
    both = CliRunner().invoke(dlink, [str(w) for w in (*words, "--flops", "0.5")])
    assert (both.exit_code, both.stderr.startswith("Error: --sparse and --flops: give one of them")) == (1, True)
