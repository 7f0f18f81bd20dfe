"""Slim networks made: which channels go, what is left of the multiply-adds, and a training that can be stopped."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from dlink.cli.main import dlink
from dlink.imagery.images import TileFile, find_tiles, read_image, write_image
from dlink.imagery.labels import read_tile
from dlink.nets.channels import axes_of_arch, cut, shaped, sizes
from dlink.nets.checkpoint import read_checkpoint, write_checkpoint
from dlink.nets.embedded import EMBEDDED
from dlink.nets.keys import outline
from dlink.nets.multiply_adds import total
from dlink.nets.zoo import ARCHS, build, spec_of
from dlink.runtime import BadInput, BadModel
from dlink.training.crops import Crops
from dlink.training.importance import factored, importances
from dlink.training.loop import train
from dlink.training.pruning import Pruning, least_important, most_important
from dlink.training.recipe import Recipe, SlimOptions
from dlink.training.slim import slim
from dlink.training.validate import segmenter, validate
from dlink.training.variants import varied

SMALL = Recipe(crop=128, batch=2, epochs=3, rate=1e-4)


@pytest.fixture(scope="module")
def tiles(folder):
    return find_tiles(folder)


@pytest.fixture(scope="module")
def original():
    return read_checkpoint(EMBEDDED)


@pytest.fixture(scope="module")
def crops(tiles):
    """Eight prepared crops of the tiles."""
    taken = Crops([*tiles, *tiles], spec_of("dlinknet34", tile=128), 0)
    return torch.stack([taken[i][0] for i in range(len(taken))])


def pruning_of(net, arch, width):
    return Pruning(net, axes_of_arch(arch), outline(arch, width))


def pruned(net, pruning, importance, share):
    kept = most_important(importance, least_important(importance, pruning, share))
    state = cut(net.state_dict(), pruning.along, kept, pruning.size)
    slim_net = shaped(net, state)
    slim_net.load_state_dict(state)
    return slim_net.eval()


@pytest.mark.parametrize("arch", ARCHS)
def test_every_network_is_pruned_to_a_share_and_keeps_its_width(arch, tmp_path):
    torch.manual_seed(0)
    width = {"unet": 1.0, "dlinknet50": 0.125, "dlinknet101": 0.125}.get(arch, 0.25)
    net = build(arch, width)
    pruning = pruning_of(net, arch, width)
    importance = importances(net, pruning.along, pruning.size, [torch.randn(1, 3, 128, 128)], 0)
    small = pruned(net, pruning, importance, 0.5)
    write_checkpoint(small, tmp_path / "small.th")
    found = read_checkpoint(tmp_path / "small.th", arch)
    assert found.width == width
    assert 0.4 < found.slim <= 0.5
    after = pruning_of(found.net, arch, width)
    assert after.share == pytest.approx(total(small, 1024) / total(net, 1024))
    cut_groups = [group for group, n in after.size.items() if n < pruning.size[group]]
    assert cut_groups
    assert all(after.size[group] % 8 == 0 for group in cut_groups)


def test_the_importance_of_a_channel_is_the_curvature_by_its_factor(original, crops):
    """Held to the exact sum over pixels of p (1 - p) (d logit / d factor)^2, pixel by pixel, on a tiny picture."""
    net, size = original.net, sizes(axes_of_arch("dlinknet34"), original.net.state_dict(), "net")
    along, x = axes_of_arch("dlinknet34"), crops[:1, :, :32, :32]
    draws = [importances(net, along, size, [x], seed) for seed in range(80)]
    with factored(net, along, size) as factors:
        factors.renew(1, x.device)
        logits = net.logits(x).flatten()
        p = torch.sigmoid(logits).detach()
        group = "finalconv2"
        exact = sum(
            p[i] * (1 - p[i]) * torch.autograd.grad(logits[i], factors.of[group], retain_graph=True)[0].flatten() ** 2
            for i in range(len(logits))
        )
    mean = torch.stack([draw[group] for draw in draws]).mean(0)
    assert torch.corrcoef(torch.stack([mean, exact.double()]))[0, 1] > 0.97
    assert mean.sum().item() == pytest.approx(exact.sum().item(), rel=0.25)


def test_importance_leaves_the_network_as_it_was(original, crops):
    net = original.net
    along = axes_of_arch("dlinknet34")
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net.train()
    importances(net, along, sizes(along, before, "net"), [crops[:2]], 0)
    assert net.training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert not any(module._forward_pre_hooks for module in net.modules())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    net.eval()


def test_the_least_important_channels_draw_nearly_the_same_roads_and_random_ones_do_not(original, crops):
    net = original.net
    pruning = pruning_of(net, "dlinknet34", 0.25)
    importance = importances(net, pruning.along, pruning.size, crops.split(4), 0)
    generator = torch.Generator().manual_seed(0)
    chance = {group: torch.rand(n, generator=generator).double() for group, n in pruning.size.items()}
    with torch.no_grad():
        wanted = net(crops)
        error = [(pruned(net, pruning, by, 0.9)(crops) - wanted).abs().mean().item() for by in (importance, chance)]
    assert error[0] < 0.25 * error[1]


def test_a_channel_that_does_nothing_has_no_importance_and_goes_first():
    torch.manual_seed(0)
    net = build("dlinknet34", 0.5)
    with torch.no_grad():
        net.finalconv2.bias += 1  # so that no channel is 0 everywhere
        net.finalconv3.weight[:, 4:12] = 0
    along = axes_of_arch("dlinknet34")
    importance = importances(net, along, sizes(along, net.state_dict(), "net"), [torch.randn(2, 3, 64, 64)], 0)
    assert (importance["finalconv2"] > 0).tolist() == [True] * 4 + [False] * 8 + [True] * 4
    assert most_important(importance, {"finalconv2": 8})["finalconv2"].tolist() == [0, 1, 2, 3, 12, 13, 14, 15]


def test_layers_pay_by_importance_per_multiply_add(original):
    """Where all channels matter alike, they go where each costs most."""
    net = build("dlinknet34", 0.5)
    pruning = pruning_of(net, "dlinknet34", 0.5)
    alike = {group: torch.ones(n).double() for group, n in pruning.size.items()}
    size = least_important(alike, pruning, 0.97)
    dearest = max(
        (g for g in size if pruning.size[g] > 8),
        key=lambda g: pruning.of(pruning.size) - pruning.of({**pruning.size, g: pruning.size[g] - 8}),
    )
    assert size[dearest] < pruning.size[dearest]


def stopped(epoch):
    def stop(step):
        if step.epoch == epoch:
            raise KeyboardInterrupt

    return stop


def test_a_network_becomes_slim_and_is_measured(original, tiles, tmp_path):
    done = slim(original, tiles, tmp_path / "slim.th", SMALL, SlimOptions(flops=0.6, prunings=2), valid=tiles)
    found = read_checkpoint(tmp_path / "slim.th")
    assert found.slim == pytest.approx(done.share, abs=1e-4)
    assert 0.55 < done.share <= 0.6
    assert (found.arch, found.width) == ("dlinknet34", 0.25)
    assert done.before.total == total(original.net, 1024)
    assert done.after.total == total(found.net, 1024)
    assert all(0 < iou < 1 for iou in (*done.before.ious, *done.after.ious))
    assert len(done.course.losses) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["slim.csv", "slim.png", "slim.state", "slim.th"]
    assert not original.net.training


def test_training_brings_a_slim_network_back_towards_the_original(original, tiles, tmp_path):
    how = SlimOptions(flops=0.6, prunings=1, labels=0, views=tmp_path / "views")
    slim(original, tiles, tmp_path / "pruned.th", Recipe(crop=128, batch=2, epochs=1, rate=1e-12), how)
    slim(original, tiles, tmp_path / "trained.th", Recipe(crop=128, batch=2, epochs=12, rate=3e-4), how)
    images = [read_image(tile.image) for tile in tiles]
    pruned, trained, teacher = (
        segmenter(net, spec_of("dlinknet34", tile=128))
        for net in (*(read_checkpoint(tmp_path / f"{n}.th").net for n in ("pruned", "trained")), original.net)
    )
    wanted = [teacher.probabilities(image, 8) for image in images]
    gaps = [
        np.mean([abs(model.probabilities(image, 1) - prob).mean() for image, prob in zip(images, wanted, strict=True)])
        for model in (pruned, trained)
    ]
    assert gaps[1] < 0.8 * gaps[0]


IN_TWO = SlimOptions(flops=0.6, prunings=2)  # before the first and the second of four epochs
LONGER = replace(SMALL, epochs=4)


@pytest.fixture(scope="module")
def whole(original, tiles, tmp_path_factory):
    """A slimming that was never stopped: its losses, and its weights."""
    out = tmp_path_factory.mktemp("whole") / "whole.th"
    losses = slim(original, tiles, out, LONGER, IN_TWO).course.losses
    return losses, read_checkpoint(out).net.state_dict()


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_slimming_that_was_stopped_ends_as_one_that_never_was(original, tiles, whole, tmp_path, epoch):
    out = tmp_path / "parts.th"
    with pytest.raises(KeyboardInterrupt):
        slim(original, tiles, out, LONGER, IN_TWO, report=stopped(epoch))
    begun = epoch > 1  # nothing is kept of an epoch that did not end
    assert out.exists() == (epoch > 2)  # a network that is not as slim as asked is not written
    parts = slim(original, tiles, out, LONGER, IN_TWO, resume=begun)
    losses, weights = whole
    assert parts.course.losses == losses
    assert all(torch.equal(v, weights[k]) for k, v in read_checkpoint(out).net.state_dict().items())


def test_a_finished_slimming_is_measured_again_by_resume(original, tiles, tmp_path):
    how = SlimOptions(flops=0.6, prunings=1)
    recipe = Recipe(crop=128, batch=2, epochs=1)
    first = slim(original, tiles, tmp_path / "slim.th", recipe, how)
    again = slim(original, tiles, tmp_path / "slim.th", recipe, how, resume=True, valid=tiles)
    assert (again.share, again.course) == (first.share, first.course)
    assert again.after.ious


def test_what_was_drawn_is_not_drawn_again(original, tiles, tmp_path):
    how = SlimOptions(flops=0.6, prunings=1, views=tmp_path / "views")
    recipe = Recipe(crop=128, batch=2, epochs=1)
    slim(original, tiles, tmp_path / "one.th", recipe, how)
    drawn = {p: p.stat().st_mtime_ns for p in (tmp_path / "views").iterdir()}
    assert len(drawn) == len(tiles)
    slim(original, tiles, tmp_path / "two.th", recipe, how)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "views").iterdir()} == drawn
    other = read_checkpoint(tmp_path / "one.th")  # another teacher draws its own
    slim(other, tiles, tmp_path / "three.th", recipe, SlimOptions(flops=0.5, prunings=1, views=tmp_path / "views"))
    assert len(list((tmp_path / "views").iterdir())) == 2 * len(tiles)


def test_a_slim_network_is_made_slimmer_and_no_wider(original, tiles, tmp_path):
    recipe = Recipe(crop=128, batch=2, epochs=1)
    slim(original, tiles, tmp_path / "slim.th", recipe, SlimOptions(flops=0.6, prunings=1))
    half_way = read_checkpoint(tmp_path / "slim.th")
    slim(half_way, tiles, tmp_path / "slimmer.th", recipe, SlimOptions(flops=0.4, prunings=1))
    slimmer = read_checkpoint(tmp_path / "slimmer.th")
    assert (slimmer.width, slimmer.slim <= 0.4) == (0.25, True)
    with pytest.raises(BadInput, match=r"--flops 0.6: the network has \d\d.\d% of its multiply-adds already; ask for"):
        slim(half_way, tiles, tmp_path / "wider.th", recipe, SlimOptions(flops=0.6))


def test_training_goes_on_with_a_slim_network(original, tiles, tmp_path):
    recipe = Recipe(crop=128, batch=2, epochs=1)
    slim(original, tiles, tmp_path / "slim.th", recipe, SlimOptions(flops=0.6, prunings=1))
    small = read_checkpoint(tmp_path / "slim.th")
    longer = Recipe(width=0.25, crop=128, batch=2, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        train(tiles, tmp_path / "more.th", longer, init=tmp_path / "slim.th", report=stopped(2))
    train(tiles, tmp_path / "more.th", longer, resume=True)  # its channels are in the state
    assert read_checkpoint(tmp_path / "more.th").slim == small.slim
    train(
        tiles,
        tmp_path / "one.th",
        Recipe(width=0.25, crop=128, batch=2, epochs=1),
        init=tmp_path / "slim.th",
        distil=True,
    )
    assert read_checkpoint(tmp_path / "one.th").slim == small.slim


@pytest.mark.parametrize(
    ("how", "recipe", "message"),
    [
        ({"flops": 1.0}, {}, "--flops 1: must be between 0 and 1, such as 0.4 for 40 %"),
        ({"flops": 0.0}, {}, "--flops 0: must be between 0 and 1"),
        ({"flops": math.nan}, {}, "--flops nan: must be between 0 and 1"),
        ({"flops": 0.01}, {}, r"--flops 0.01: with 8 channels in every layer \d+.\d% are left; ask for more"),
        ({"prunings": 0}, {}, "--prunings must be at least 1, --labels from 0 to 1 and --variants at least 0, got 0"),
        ({"labels": 1.5}, {}, "got 8, 1.5 and 0"),
        ({"variants": -1}, {}, "got 8, 0.5 and -1"),
        ({}, {"crop": 65}, "--crop 65: dlinknet34 needs a multiple of 32"),
        ({}, {"crop": 256}, "_sat.jpg: smaller than the crop of 256 px; lower --crop"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_leaves_nothing(original, tiles, tmp_path, how, recipe, message):
    with pytest.raises(BadInput, match=message) as e:
        slim(original, tiles, tmp_path / "slim.th", Recipe(**{"crop": 128, **recipe}), SlimOptions(**how))
    assert "\n" not in str(e.value)
    assert not list(tmp_path.iterdir())


def test_too_few_tiles_are_refused(original, tiles, tmp_path):
    with pytest.raises(BadInput, match="tiles.*: 3 tiles; at least 4 tell what matters"):
        slim(original, tiles[:3], tmp_path / "slim.th", SMALL, SlimOptions())


def test_networks_of_other_bands_are_refused(tiles, tmp_path):
    write_checkpoint(build("dlinknet34", 0.25, 4), tmp_path / "four.th")
    with pytest.raises(
        BadInput, match="CHECKPOINT's network takes 4 channels; dlink trains networks of red, green, blue"
    ):
        slim(read_checkpoint(tmp_path / "four.th"), tiles, tmp_path / "slim.th", SMALL, SlimOptions())


@pytest.fixture(scope="module")
def begun(original, tiles, tmp_path_factory):
    """The state file of a slimming."""
    out = tmp_path_factory.mktemp("begun") / "slim.th"
    slim(original, tiles, out, Recipe(crop=128, batch=2, epochs=1), SlimOptions(flops=0.6, prunings=1))
    return out.with_suffix(".state")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("how"), "not the state of a slimming; --resume goes on from what dlink-slim wrote beside OUT"),
        (lambda s: s.update(course={}), "a damaged state of a slimming; begin anew; "),
        (lambda s: s["net"].pop("firstbn.bias"), "a damaged state of a slimming; begin anew"),
        (lambda s: s["net"].update({"firstbn.bias": torch.zeros(5)}), "its channels don't fit together: firstbn.bias"),
        (lambda s: s["optimiser"].update(param_groups=[]), "a damaged state of a slimming; begin anew; loaded state"),
        (lambda s: s["net"].update({"firstbn.bias": torch.zeros(5).to_sparse()}), "firstbn.bias is sparse"),
    ],
)
def test_a_state_that_no_slimming_wrote_is_refused(original, tiles, tmp_path, begun, edit, message):
    state = torch.load(begun, weights_only=True)
    edit(state)
    torch.save(state, tmp_path / "slim.state")
    how = SlimOptions(flops=0.6, prunings=1)
    with pytest.raises(BadModel, match=f"slim.state: .*{message}"):
        slim(original, tiles, tmp_path / "slim.th", Recipe(crop=128, batch=2, epochs=1), how, resume=True)


def test_a_slimming_is_resumed_only_as_it_was_begun(original, tiles, tmp_path, begun):
    with pytest.raises(BadInput, match="nothing to resume; leave --resume out"):
        slim(original, tiles, tmp_path / "slim.th", SMALL, SlimOptions(), resume=True)
    (tmp_path / "slim.state").write_bytes(begun.read_bytes())
    one = Recipe(crop=128, batch=2, epochs=1)
    with pytest.raises(BadInput, match="begun or finished; --resume goes on with it, or delete it"):
        slim(original, tiles, tmp_path / "slim.th", one, SlimOptions(flops=0.6, prunings=1))
    with pytest.raises(BadInput, match="was begun with {'flops': 0.6}; resume with the same, or begin anew"):
        slim(original, tiles, tmp_path / "slim.th", one, SlimOptions(flops=0.5, prunings=1), resume=True)
    write_checkpoint(build("dlinknet34", 0.25), tmp_path / "other.th")
    with pytest.raises(BadInput, match="was begun with {'sha256': .*}; resume with the same"):
        other = read_checkpoint(tmp_path / "other.th")
        slim(other, tiles, tmp_path / "slim.th", one, SlimOptions(flops=0.6, prunings=1), resume=True)


def test_labels_are_mixed_into_the_targets(tiles, tmp_path):
    levels = [tmp_path / f"{i}.png" for i in range(len(tiles))]
    for path in levels:
        write_image(path, np.full((128, 128), 100, np.uint8))
    crops = Crops(tiles, spec_of("dlinknet34", tile=128), 0, levels=levels, share=0.25)
    _, label = read_tile(tiles[0])
    found = crops[0][1].numpy()[0] * 255
    assert set(np.unique(found.round())) == {75, round(75 + 0.25 * 255)}
    assert (found > 100).mean() == pytest.approx(label.mean())


def test_variants_differ_from_their_tile_and_are_the_same_each_time(tiles, tmp_path):
    with varied(tiles[:1], 2, tmp_path / "more", seed=3) as made:
        assert made[0] is tiles[0]
        assert len({read_image(tile.image).tobytes() for tile in made}) == 3
        bytes_of = [tile.image.read_bytes() for tile in made]
        assert set(np.unique(read_image(made[1].label))) == {0, 255}
        assert (read_tile(made[1])[1] != read_tile(tiles[0])[1]).any()
    assert not (tmp_path / "more").exists()
    with varied(tiles[:1], 2, tmp_path / "more", seed=3) as again:
        assert [tile.image.read_bytes() for tile in again] == bytes_of
    with varied([TileFile("a", tiles[0].image, None)], 1, tmp_path / "more", 0) as bare:
        assert [tile.label for tile in bare] == [None, None]


def test_the_command(folder, tmp_path):
    out = tmp_path / "slim.th"
    words = ["slim", EMBEDDED, folder, "-o", out, "--flops", "0.5", "--prunings", "2", "--epochs", "2", "--crop", "128"]
    done = CliRunner().invoke(dlink, [str(w) for w in (*words, "--variants", "1", "--valid", folder, "--half")])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    share = read_checkpoint(out).slim
    assert lines[0] == f"{out}: dlinknet34 of width 0.25 with {share:.1%} of its multiply-adds"
    table = {line[:30].strip(): line.split()[-2:] for line in lines[1:]}
    before, after = map(float, table["all"])
    assert before == pytest.approx(total(build("dlinknet34", 0.25), 1024) / 1e9, abs=0.01)
    assert after / before == pytest.approx(share, abs=0.01)
    assert 0 < float(table["eight views"][1]) < 1
    assert "pruned to" in done.stderr
    again = CliRunner().invoke(dlink, [str(w) for w in words])
    assert (again.exit_code, again.stderr.count("\n")) == (1, 1)


def test_a_slim_network_is_exported_and_says_so(original, tiles, tmp_path):
    slim(original, tiles, tmp_path / "slim.th", Recipe(crop=128, batch=2, epochs=1), SlimOptions(flops=0.5, prunings=1))
    words = ["export", tmp_path / "slim.th", tmp_path / "slim.onnx", "--tile", "128", "--precision", "fp16"]
    done = CliRunner().invoke(dlink, [str(w) for w in words])
    assert done.exit_code == 0, done.output
    share = read_checkpoint(tmp_path / "slim.th").slim
    assert f"slim.onnx: dlinknet34 width 0.25, slim to {share:.1%}, fp16, tile 128" in done.stdout
    said = CliRunner().invoke(dlink, ["inspect", str(tmp_path / "slim.onnx"), "--json"])
    assert json.loads(said.stdout)["spec"]["slim"] == share
    bench = CliRunner().invoke(dlink, ["bench", str(tmp_path / "slim.onnx"), "--baseline", "torch", "--seconds", "0.1"])
    assert (bench.exit_code, "slim.onnx is slim; give the checkpoint that it was" in bench.stderr) == (1, True)


def test_pixels_are_prepared_as_the_user_says(original, tiles, tmp_path):
    recipe = Recipe(crop=128, batch=2, epochs=1, channels="RGB", mean=(0.4, 0.5, 0.6), std=(0.3, 0.3, 0.2))
    said = []
    how = SlimOptions(flops=0.5, prunings=1)
    made = slim(original, tiles, tmp_path / "slim.th", recipe, how, valid=tiles, say=said.append)
    own = {"channels": "RGB", "scale": [1 / (255 * s) for s in recipe.std], "shift": (-4 / 3, -5 / 3, -3)}
    spec = spec_of("dlinknet34", tile=128, **{k: tuple(v) if k != "channels" else v for k, v in own.items()})
    assert made.before.ious == validate(original.net, tiles, spec)
    assert made.before.ious != validate(original.net, tiles, spec_of("dlinknet34", tile=128))
    assert said[0].startswith("pixels prepared as RGB, mean 0.4,0.5,0.6 and std 0.3,0.3,0.2")
    with pytest.raises(BadInput, match="was begun with"):
        slim(original, tiles, tmp_path / "slim.th", replace(recipe, channels="BGR"), how, resume=True)


@pytest.mark.parametrize("command", ["train", "distil"])
def test_a_training_says_how_pixels_are_prepared_and_takes_another_way(command, folder, tmp_path):
    words = [command, folder, "-o", tmp_path / "x.th", "--epochs", "1", "--crop", "64", "--width", "0.25"]
    more = ["--init", EMBEDDED, "--mean", "0.4,0.5,0.6", "--std", "0.3,0.3,0.2", "--batch", "2"]
    done = CliRunner().invoke(dlink, [str(w) for w in (*words, *more)])
    assert done.exit_code == 0, done.output
    assert "pixels prepared as BGR, mean 0.4,0.5,0.6 and std 0.3,0.3,0.2" in done.stderr
