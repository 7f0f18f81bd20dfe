"""Training beyond the first recipe: encoders, validation, history, distillation, several processes, bad numbers."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from dlink.cli.main import dlink
from dlink.imagery.images import find_tiles, read_image
from dlink.nets.checkpoint import read_checkpoint, write_checkpoint
from dlink.nets.embedded import EMBEDDED
from dlink.nets.options import NetworkOptions
from dlink.nets.zoo import ARCHS, build
from dlink.runtime import BadInput, BadModel, CheckFailed, Spec, views
from dlink.training.augment import COLOURS, augment
from dlink.training.crops import Crops
from dlink.training.distil import taught
from dlink.training.encoder import fill_encoder
from dlink.training.history import curves
from dlink.training.loop import begin, train
from dlink.training.recipe import Course, Recipe
from dlink.training.validate import segmenter, validate
from dlink.training.world import World

SMALL = {"width": 0.125, "crop": 64, "batch": 2, "rate": 1e-3}


@pytest.fixture(scope="module")
def tiles(folder):
    return find_tiles(folder)


@pytest.mark.parametrize("arch", ARCHS)
def test_every_network_trains(arch, tiles, tmp_path):
    course = train(tiles, tmp_path / "net.th", Recipe(arch=arch, width=0.125, crop=128, batch=2, epochs=1))
    assert np.isfinite(course.losses).all()
    found = read_checkpoint(tmp_path / "net.th", arch)
    assert found.arch == arch


@pytest.mark.parametrize("loss", ["focal", "focal+dice"])
def test_every_loss_trains(loss, tiles, tmp_path):
    course = train(tiles, tmp_path / "net.th", Recipe(**SMALL, epochs=6, loss=loss))
    assert course.losses[-1] < course.losses[0]


def classifier(net):
    """The state_dict of a ResNet with torchvision's names, from a network's own encoder."""
    names = {"firstconv": "conv1", "firstbn": "bn1", **{f"encoder{i}": f"layer{i}" for i in range(1, 5)}}
    state = {}
    for key, value in net.state_dict().items():
        first, _, rest = key.partition(".")
        if first in names:
            state[f"{names[first]}.{rest}"] = value
    return {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


@pytest.mark.parametrize("arch", ["dlinknet34", "dlinknet50", "linknet34", "pplinknet34-psp64"])
def test_a_resnets_weights_fill_the_encoder_and_nothing_else(arch, tmp_path):
    torch.manual_seed(1)
    source = build(arch, 0.125)
    torch.save(classifier(source), tmp_path / "resnet.pth")
    net = build(arch, 0.125)
    head = net.finalconv3.weight.clone()
    said = str(fill_encoder(net, tmp_path / "resnet.pth"))
    assert torch.equal(net.encoder3[0].conv1.weight, source.encoder3[0].conv1.weight)
    assert torch.equal(net.firstbn.running_var, source.firstbn.running_var)
    assert torch.equal(net.finalconv3.weight, head)
    assert said.endswith("tensors of the encoder filled; not used: fc.weight, fc.bias")
    counts = [int(word) for word in said.split() if word.isdigit()]
    assert counts[0] == counts[1] > 100


def test_resnet34_has_as_many_tensors_as_torchvisions():
    with torch.device("meta"):
        state = classifier(build("dlinknet34"))
    assert (
        len([k for k in state if "num_batches_tracked" not in k]) == 182
    )  # of 36 convolutions, 36 norms, the classifier


def test_a_vggs_weights_fill_d_unets_convolutions(tmp_path):
    source, net = build("dunet", 0.125), build("dunet", 0.125)
    at = {1: 0, 2: 2, 3: 5, 4: 7, 5: 10, 6: 12}
    state = {f"features.{at[i]}.{n}": getattr(getattr(source, f"conv{i}"), n) for i in at for n in ("weight", "bias")}
    torch.save(
        {**state, "features.15.weight": torch.zeros(3), "classifier.0.bias": torch.zeros(3)}, tmp_path / "vgg.pth"
    )
    said = str(fill_encoder(net, tmp_path / "vgg.pth"))
    assert said == "12 of 12 tensors of the encoder filled; not used: features.15.weight, classifier.0.bias"
    assert torch.equal(net.conv6.weight, source.conv6.weight)


def test_what_does_not_fill_the_encoder_is_refused(tmp_path):
    net = build("dlinknet34", 0.125)
    torch.save(classifier(build("dlinknet34", 0.25)), tmp_path / "wide.pth")
    with pytest.raises(BadInput, match=r"conv1.weight is \(16, 3, 7, 7\), firstconv.weight wants \(8, 3, 7, 7\); such"):
        fill_encoder(net, tmp_path / "wide.pth")
    torch.save(classifier(build("dlinknet50", 0.125)), tmp_path / "fifty.pth")
    with pytest.raises(BadInput, match=r"misshapen|is \(|fills"):
        fill_encoder(net, tmp_path / "fifty.pth")
    state = classifier(net)
    del state["layer4.2.bn2.weight"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(BadInput, match=r"missing: encoder4.2.bn2.weight; is it of another ResNet"):
        fill_encoder(net, tmp_path / "short.pth")
    with pytest.raises(BadInput, match=r"UNet has no encoder"):
        fill_encoder(build("unet", 0.125), tmp_path / "short.pth")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda w: w.to(torch.complex64), "complex64 in conv1.weight; weights are float32"),
        (lambda w: w.to(torch.bool), "bool in conv1.weight"),
        (lambda w: w.to_sparse(), r"conv1.weight is sparse \(sparse_coo\)"),
        (lambda w: w * torch.nan, "not finite: conv1.weight"),
    ],
)
def test_an_encoder_of_other_kinds_is_refused_by_name(tmp_path, make, message):
    net = build("dlinknet34", 0.125)
    state = classifier(net)
    torch.save({**state, "conv1.weight": make(state["conv1.weight"])}, tmp_path / "resnet.pth")
    with pytest.raises(BadModel, match="resnet.pth: " + message):
        fill_encoder(net, tmp_path / "resnet.pth")


def test_training_begins_from_the_encoder_that_is_given(tiles, tmp_path):
    torch.save(classifier(build("dlinknet34", 0.125)), tmp_path / "resnet.pth")
    said = []
    train(tiles, tmp_path / "net.th", Recipe(**SMALL, epochs=1), encoder=tmp_path / "resnet.pth", say=said.append)
    assert "tensors of the encoder filled; not used: fc.weight" in said[0]
    with pytest.raises(BadInput, match=r"--encoder and --init: begin from one of them"):
        options = {"encoder": tmp_path / "resnet.pth", "init": tmp_path / "net.th"}
        train(tiles, tmp_path / "two.th", Recipe(**SMALL, epochs=1), **options)


def test_validation_is_the_pooled_iou_of_one_view_and_of_eight(tiles):
    class Red(torch.nn.Module):
        """Road where the upper left of a tile is, whatever is there: one view and eight differ."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            y = torch.zeros_like(x[:, :1])
            y[..., : x.shape[-2] // 2, : x.shape[-1] // 2] = 1
            return y

    from dlink.imagery.labels import read_tile

    labels = [read_tile(t)[1] for t in tiles]
    corner = np.zeros((128, 128), bool)
    corner[:64, :64] = True
    both = sum((corner & label).sum() for label in labels)
    either = sum((corner | label).sum() for label in labels)
    net = Red()
    one, eight = validate(net, tiles, Spec(tile=128))
    assert one == pytest.approx(both / either)
    assert eight == 0  # a quarter of the views say road anywhere, which is not more than half
    assert net.training


def test_history_has_a_row_for_each_epoch_and_a_picture(tiles, tmp_path):
    course = train(tiles, tmp_path / "net.th", Recipe(**SMALL, epochs=3, schedule="poly"), valid=tiles)
    rows = list(csv.DictReader((tmp_path / "net.csv").read_text().splitlines()))
    assert [r["epoch"] for r in rows] == ["1", "2", "3"]
    assert [float(r["loss"]) for r in rows] == pytest.approx(course.losses, abs=1e-6)
    assert [float(r["iou_8_views"]) for r in rows] == pytest.approx([b for _, b in course.ious], abs=1e-6)
    assert cv2.imread(str(tmp_path / "net.png")).shape == (480, 800, 3)


def test_curves_are_drawn_where_the_numbers_say():
    course = Course(1e-3, losses=[1.0, 0.5], rates=[1e-3, 1e-3], ious=[(0.0, 0.1), (1.0, 0.9)])
    picture = curves(course)
    blue, red = (np.argwhere((picture == colour).all(-1)) for colour in ((40, 90, 200), (200, 60, 40)))
    lowest_left = blue[blue[:, 1] < 70][:, 0].max()
    highest_right = blue[blue[:, 1] > 730][:, 0].min()
    assert lowest_left > 400
    assert highest_right < 80
    assert red[red[:, 1] > 730][:, 0].min() == pytest.approx(250, abs=12)
    assert curves(Course(1.0)).shape == curves(Course(1.0, losses=[0.0], rates=[1.0])).shape == (480, 800, 3)


def test_the_epoch_with_the_best_iou_is_kept_and_patience_ends(tiles, tmp_path, monkeypatch):
    found = iter([(0.2, 0.3), (0.5, 0.5), (0.4, 0.6), (0.3, 0.3), (0.9, 0.9)])
    monkeypatch.setattr("dlink.training.loop.validate", lambda net, tiles, spec: next(found))
    weights = []
    monkeypatch.setattr("dlink.training.loop.run_epoch", lambda run: weights.append(nudged(run.net)) or 1.0)
    course = train(tiles, tmp_path / "net.th", Recipe(**SMALL, schedule="poly", patience=2), valid=tiles)
    assert [one for one, _ in course.ious] == [0.2, 0.5, 0.4, 0.3]
    assert read_checkpoint(tmp_path / "net.th").net.firstbn.bias[0].item() == weights[1]
    with pytest.raises(BadInput, match=r"--patience: looks at the validation IoU; give --valid"):
        train(tiles, tmp_path / "other.th", Recipe(**SMALL, patience=2))


def nudged(net):
    with torch.no_grad():
        net.firstbn.bias += 1
    return net.firstbn.bias[0].item()


def test_a_loss_that_is_no_number_stops_at_its_tile_and_keeps_the_last_epoch(tiles, tmp_path, monkeypatch):
    first = train(tiles, tmp_path / "net.th", Recipe(**SMALL, epochs=1))
    assert first.done == 1
    kept = (tmp_path / "net.th").read_bytes()
    own = Spec.prepare

    def broken(self, image):
        x = own(self, image)
        calls.append(1)
        if len(calls) == 3:
            x[:] = np.nan
        return x

    calls = []
    monkeypatch.setattr(Spec, "prepare", broken)
    (tmp_path / "net.state").unlink()
    with pytest.raises(CheckFailed, match=r"the loss is nan in epoch 1, first at tile \d+: lower --rate, or look at"):
        train(tiles, tmp_path / "net.th", Recipe(**SMALL, epochs=1))
    assert (tmp_path / "net.th").read_bytes() == kept
    assert not (tmp_path / "net.state").exists()


def test_both_amounts_of_colour_are_used():
    image = np.full((16, 16, 3), 120, np.uint8)
    label = np.zeros((16, 16), np.uint8)
    spread = {
        name: np.ptp([augment(image, label, np.random.default_rng(s), name)[0].mean() for s in range(80)])
        for name in COLOURS
    }
    assert spread["slides"] > spread["released"]


@pytest.fixture
def bare(tiles, tmp_path):
    """The tiles without their labels."""
    for tile in tiles:
        (tmp_path / "bare" / tile.image.name).parent.mkdir(exist_ok=True)
        (tmp_path / "bare" / tile.image.name).write_bytes(tile.image.read_bytes())
    return find_tiles(tmp_path / "bare")


def test_what_is_taught_is_the_mean_of_eight_views_turned_with_its_picture(bare, tmp_path):
    net = read_checkpoint(EMBEDDED).net
    spec = Spec(tile=96)
    crops = Crops(bare, spec, seed=0)
    levels = [segmenter(net, spec).levels(read_image(tile.image), 8) for tile in bare]
    turns = set()
    with taught(crops, net, tmp_path / "views", World()):
        for crops.epoch in range(8):
            x, target, index = crops[crops.epoch % len(bare)]
            seen, found = x.numpy(), np.rint(target[0].numpy() * 255)
            image = spec.prepare(read_image(bare[index].image)[None])[0]
            places = [
                (y, x, view)
                for y in range(33)
                for x in range(33)
                for view in views.ALL
                if np.array_equal(views.apply_view(image[:, y : y + 96, x : x + 96], view), seen)
            ]
            assert len(places) == 1
            y, x, view = places[0]
            np.testing.assert_array_equal(views.apply_view(levels[index][y : y + 96, x : x + 96], view), found)
            turns.add(view)
    assert len(turns) > 2
    assert not (tmp_path / "views").exists()


def test_distillation_brings_one_view_nearer_to_eight_without_labels(bare, tmp_path):
    """A few steps from bare pictures bring the copy nearer to what its teacher's eight views give."""
    recipe = Recipe(width=0.25, crop=128, batch=2, epochs=20, rate=3e-5, schedule="poly")
    train(bare, tmp_path / "two.th", recipe, init=EMBEDDED, distil=True)
    before, after = (segmenter(read_checkpoint(path).net, Spec(tile=128)) for path in (EMBEDDED, tmp_path / "two.th"))
    assert gap(after, before, bare) < 0.98 * gap(before, before, bare)


def gap(student, teacher, tiles):
    """Mean difference of a network's one view from another's eight."""
    images = [read_image(tile.image) for tile in tiles]
    return np.mean([abs(student.probabilities(i, 1) - teacher.probabilities(i, 8)).mean() for i in images])


def test_a_resumed_distillation_ends_as_one_that_never_stopped(bare, tmp_path):
    recipe = Recipe(width=0.25, crop=64, batch=2, epochs=3, rate=1e-4, amp=True)
    whole = train(bare, tmp_path / "whole.th", recipe, init=EMBEDDED, distil=True)

    def stop(step):
        if step.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(bare, tmp_path / "parts.th", recipe, init=EMBEDDED, distil=True, report=stop)
    parts = train(bare, tmp_path / "parts.th", recipe, init=EMBEDDED, distil=True, resume=True)
    assert parts.losses == whole.losses
    assert not list(tmp_path.glob("*.views"))


def test_distillation_without_a_teacher_or_of_tiles_below_the_crop_leaves_nothing(bare, tmp_path):
    with pytest.raises(BadInput, match=r"--init is missing: name the trained network to teach"):
        train(bare, tmp_path / "net.th", Recipe(**SMALL), distil=True)
    recipe = Recipe(width=0.25, crop=256, batch=2)
    with pytest.raises(BadInput, match=r"0_sat.jpg: smaller than the crop of 256 px; lower --crop"):
        train(bare, tmp_path / "net.th", recipe, init=EMBEDDED, distil=True)
    assert [p.name for p in tmp_path.iterdir()] == ["bare"]


def torchrun(step, count, folder, out, *more):
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}", "--standalone"]
    train_it = ["-m", f"dlink.cli.{step}", folder, "-o", out, "--width", "0.125", "--crop", "64", "--batch", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *train_it, *more], capture_output=True, text=True, env=env, cwd=Path.cwd(), timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_several_processes_train_one_network(folder, tmp_path):
    done = torchrun("train", 2, folder, tmp_path / "net.th", "--epochs", "2", "--valid", folder)
    assert read_checkpoint(tmp_path / "net.th").width == 0.125
    rows = list(csv.DictReader((tmp_path / "net.csv").read_text().splitlines()))
    assert len(rows) == 2
    assert rows[0]["iou_1_view"]
    assert done.stdout.count("2 epochs") == 1  # the first process speaks


def test_several_processes_draw_what_they_are_taught_together(folder, tmp_path):
    write_checkpoint(build("dlinknet34", 0.125), tmp_path / "init.th")
    more = ["--epochs", "1", "--init", tmp_path / "init.th"]
    torchrun("distil", 2, folder, tmp_path / "net.th", *more)
    assert read_checkpoint(tmp_path / "net.th").width == 0.125
    assert not (tmp_path / "net.views").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--crop", "96", "--arch", "unet"], "--crop 96: unet needs a multiple of 128"),
        (["--arch", "resnet"], "--arch resnet: not a network of dlink"),
        (["--encoder", "net.th"], "fills 0 of"),
    ],
)
def test_dlink_train_refuses_in_one_line(options, message, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(build("unet", 0.125), tmp_path / "net.th")
    args = ["train", str(folder), "-o", "out.th", "--width", "0.125", *options]
    result = CliRunner().invoke(dlink, args)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert json.dumps(sorted(p.name for p in tmp_path.iterdir())) == '["net.th"]'


def test_training_begins_from_the_network_of_the_checkpoint_that_is_asked_for(tmp_path):
    torch.manual_seed(0)
    nets = {name: build("dlinknet34", 0.125) for name in ("model", "ema")}
    torch.save({name: net.state_dict() for name, net in nets.items()}, tmp_path / "two.pth")
    for name, net in nets.items():
        begun, _ = begin(Recipe(width=0.125), tmp_path / "two.pth", None, NetworkOptions(key=name))
        assert torch.equal(begun.firstconv.weight, net.firstconv.weight)
    result = CliRunner().invoke(dlink, ["train", str(tmp_path), "-o", str(tmp_path / "a.th"), "--key", "ema"])
    assert "Error: --key and --class choose in the checkpoint of --init, which is missing" in result.stderr
