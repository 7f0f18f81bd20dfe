import cv2
import numpy as np
import pytest
import torch

from dlink.imagery.images import TileFile, find_tiles, write_image
from dlink.nets.checkpoint import read_checkpoint
from dlink.runtime import BadInput, BadModel, Spec
from dlink.training import loop
from dlink.training.augment import augment
from dlink.training.crops import Crops
from dlink.training.loop import train
from dlink.training.losses import bce_dice
from dlink.training.recipe import Recipe

SMALL = {"width": 0.125, "crop": 64, "batch": 2, "rate": 1e-3}


@pytest.fixture(scope="module")
def tiles(folder):
    return find_tiles(folder)


def test_the_loss_is_cross_entropy_plus_dice_over_the_batch():
    p = torch.tensor([0.9, 0.2, 0.6, 0.5]).reshape(2, 1, 2, 1)
    g = torch.tensor([1.0, 0.0, 1.0, 0.0]).reshape(2, 1, 2, 1)
    entropy = -(g * p.log() + (1 - g) * (1 - p).log()).mean()
    dice = 2 * (0.9 + 0.6) / (0.9 + 0.2 + 0.6 + 0.5 + 2)
    assert bce_dice(torch.logit(p), g).item() == pytest.approx(entropy.item() + 1 - dice, abs=1e-5)


def test_the_loss_of_extreme_logits_is_finite():
    logits = torch.tensor([1e4, -1e4], requires_grad=True)
    loss = bce_dice(logits, torch.tensor([0.0, 1.0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(bce_dice(torch.full((1, 1, 2, 2), -1e4), torch.zeros(1, 1, 2, 2)))


def test_augmentation_moves_image_and_label_together():
    label = np.zeros((64, 64), np.uint8)
    cv2.line(label, (5, 10), (50, 60), 255, 7)
    image = np.repeat(label[..., None], 3, axis=2)
    for seed in range(40):
        seen, moved = augment(image, label, np.random.default_rng(seed))
        assert seen.shape == (64, 64, 3)
        assert set(np.unique(moved)) <= {0, 255}
        assert ((seen.mean(axis=2) > 127) == (moved > 0)).mean() > 0.99


def test_augmentation_has_every_step():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    label = np.zeros((32, 32), np.uint8)
    seen = {augment(image, label, np.random.default_rng(seed))[0].tobytes() for seed in range(60)}
    flips = [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]
    plain = {np.ascontiguousarray(np.rot90(f, k)).tobytes() for f in flips for k in (0, 1)}
    assert plain & seen
    assert len(seen) > 30


def test_crops_are_the_same_for_seed_and_epoch(tiles):
    a, b, later = (Crops(tiles, Spec(tile=64), 5, epoch=e)[1] for e in (3, 3, 4))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert not torch.equal(a[0], later[0])
    assert (a[0].shape, a[1].shape) == ((3, 64, 64), (1, 64, 64))
    assert set(a[1].unique().tolist()) <= {0.0, 1.0}


def test_training_learns_and_leaves_a_checkpoint_in_the_authors_format(tiles, tmp_path):
    course = train(tiles, tmp_path / "net.th", Recipe(**SMALL, epochs=8))
    assert course.losses[-1] < course.losses[0]
    assert all(k.startswith("module.") for k in torch.load(tmp_path / "net.th", weights_only=True))
    assert read_checkpoint(tmp_path / "net.th").width == 0.125


@pytest.mark.parametrize("schedule", ["plateau", "poly"])
def test_a_resumed_training_ends_as_one_that_never_stopped(tiles, tmp_path, schedule):
    recipe = Recipe(**SMALL, epochs=4, schedule=schedule)
    whole = train(tiles, tmp_path / "whole.th", recipe)

    class Stop(Exception):
        pass

    def stop(step):
        if (step.epoch, step.step) == (3, 1):
            raise Stop

    with pytest.raises(Stop):
        train(tiles, tmp_path / "parts.th", recipe, report=stop)
    parts = train(tiles, tmp_path / "parts.th", recipe, resume=True)
    assert parts.losses == whole.losses
    a, b = (torch.load(tmp_path / f"{name}.th", weights_only=True) for name in ("whole", "parts"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_plateau_schedule_is_the_authors(tiles, tmp_path, monkeypatch):
    losses = iter([1.0, 0.5] + [0.6] * 20)
    rates = []

    def epoch(run):
        rates.append(run.course.rate)
        with torch.no_grad():
            run.net.firstbn.bias += 1
        return next(losses)

    monkeypatch.setattr(loop, "run_epoch", epoch)
    course = train(tiles, tmp_path / "net.th", Recipe(width=0.125, crop=64, rate=2e-4))
    # Best at the second epoch; after 4 without better the rate falls, and again at each further; the 7th is the last.
    assert rates == pytest.approx([2e-4] * 6 + [2e-4 / 5, 2e-4 / 25, 2e-4 / 125])
    assert course.done == 9
    kept = read_checkpoint(tmp_path / "net.th").net
    assert kept.firstbn.bias.detach().eq(2).all()


def test_what_cannot_be_trained_on_is_refused(tiles, tmp_path):
    with pytest.raises(BadInput, match="smaller than the crop of 256 px; lower --crop"):
        train(tiles, tmp_path / "a.th", Recipe(width=0.125, crop=256))
    write_image(tmp_path / "x.png", np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(BadInput, match="no labels; training needs <id>_mask.png"):
        train(find_tiles(tmp_path), tmp_path / "b.th", Recipe(width=0.125, crop=64))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_one_line_whoever_loads_it(tiles, tmp_path, workers):
    path = tmp_path / "a_sat.jpg"
    path.write_bytes(tiles[0].image.read_bytes()[:-99])
    bad = [TileFile("a", path, tiles[0].label), *tiles[1:]]
    with pytest.raises(
        BadInput, match=r"a_sat.jpg: a JPEG that is cut short or damaged, its end is missing; copy it again$"
    ) as e:
        train(bad, tmp_path / "net.th", Recipe(**SMALL, epochs=1), workers=workers)
    assert "\n" not in str(e.value)


def test_a_begun_training_is_not_overwritten_and_resumed_only_as_it_was(tiles, tmp_path):
    with pytest.raises(BadInput, match="nothing to resume; leave --resume out"):
        train(tiles, tmp_path / "net.th", Recipe(**SMALL, epochs=1), resume=True)
    train(tiles, tmp_path / "net.th", Recipe(**SMALL, epochs=1))
    with pytest.raises(
        BadInput, match="a training of this name was begun or finished; --resume goes on with it, or delete it"
    ):
        train(tiles, tmp_path / "net.th", Recipe(**SMALL, epochs=1))
    with pytest.raises(BadInput, match="was begun with .*'seed': 0.*; resume with the same"):
        train(tiles, tmp_path / "net.th", Recipe(**SMALL, epochs=1, seed=1), resume=True)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("course"), "not the state of a training; --resume goes on from what dlink-train wrote"),
        (lambda s: s.update(net=7), "not the state of a training"),
        (lambda s: s.update(course={}), "a damaged state of a training; begin anew; 'ious'"),
        (
            lambda s: s["optimiser"].update(param_groups=[]),
            "a damaged state of a training; begin anew; loaded state dict",
        ),
        (lambda s: s["net"].pop("firstbn.bias"), "1 missing: firstbn.bias; is it another network"),
        (lambda s: change(s, lambda w: w.to(torch.complex64)), "complex64 in firstconv.weight; weights are float32"),
        (lambda s: change(s, lambda w: w.to_sparse()), r"firstconv.weight is sparse \(sparse_coo\)"),
        (
            lambda s: change(s, lambda w: torch.zeros(1).expand(10**6, 10**6)),
            "its tensors claim 4.* bytes of a file of",
        ),
    ],
)
def test_a_state_that_no_training_wrote_is_refused(tiles, tmp_path, begun, edit, message):
    state = torch.load(begun, weights_only=True)
    edit(state)
    torch.save(state, tmp_path / "net.state")
    with pytest.raises(BadModel, match="net.state: .*" + message):
        train(tiles, tmp_path / "net.th", Recipe(**SMALL, epochs=1), resume=True)


def change(state, make):
    state["best"]["firstconv.weight"] = make(state["best"]["firstconv.weight"])


@pytest.fixture(scope="module")
def begun(tiles, tmp_path_factory):
    """The state file of a training."""
    out = tmp_path_factory.mktemp("begun") / "net.th"
    train(tiles, out, Recipe(**SMALL, epochs=1))
    return out.with_suffix(".state")


def test_a_state_that_is_no_checkpoint_is_one_line(tiles, tmp_path):
    (tmp_path / "net.state").write_bytes(b"hello")
    with pytest.raises(BadModel, match="net.state: a text file, not a checkpoint"):
        train(tiles, tmp_path / "net.th", Recipe(**SMALL, epochs=1), resume=True)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"schedule": "cosine"}, "--schedule cosine: must be one of plateau, poly"),
        ({"loss": "iou"}, "--loss iou: must be one of bce.dice, focal, focal.dice"),
        ({"colours": "loud"}, "--colours loud: must be one of released, slides"),
        ({"batch": 0}, "must be positive"),
        ({"rate": 0.0}, "must"),
    ],
)
def test_a_bad_recipe_is_refused(bad, message):
    with pytest.raises(BadInput, match=message):
        Recipe(**bad)


def test_bfloat16_trains_too(tiles, tmp_path):
    course = train(tiles, tmp_path / "net.th", Recipe(**SMALL, epochs=2, amp=True))
    assert np.isfinite(course.losses).all()


def test_a_second_stage_begins_from_the_first(tiles, tmp_path):
    first = train(tiles, tmp_path / "one.th", Recipe(**SMALL, epochs=6))
    second = train(tiles, tmp_path / "two.th", Recipe(**SMALL, epochs=1), init=tmp_path / "one.th")
    assert second.losses[0] < first.losses[0]
    with pytest.raises(BadInput, match="one.th: dlinknet34 of width 0.125, expected dlinknet34 of width 0.25; give"):
        train(tiles, tmp_path / "three.th", Recipe(width=0.25, crop=64), init=tmp_path / "one.th")
