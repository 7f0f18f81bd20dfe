"""Makes a network slim: channels are taken away step by step, and what is left is trained towards the original's roads.

The targets are the means of the original's eight views (distil.py), with a share of the labels where there are labels.
The first half of the epochs begins with prunings at even distances, each of the same share of the multiply-adds
that are left. The rate falls over all epochs (poly). Norms keep their statistics, as in every distillation here.

Beside the checkpoint lie the history, `<name>.csv` and `<name>.png`, and `<name>.state`, from which `resume` goes on as
if nothing had happened.

Or all channels stay, and the weights become 2:4 sparse before the first epoch (sparse.py), which estimates norms again.
"""

import copy
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlink.imagery.images import TileFile
from dlink.nets.channels import axes_of_arch, cut, shaped, sizes
from dlink.nets.checkpoint import Checkpoint, plain_tensors, write_checkpoint
from dlink.nets.content import first_line, load
from dlink.nets.keys import outline
from dlink.nets.multiply_adds import by_stage, multiply_adds
from dlink.nets.network import RoadNet
from dlink.runtime.errors import BadInput, BadModel
from dlink.runtime.files import replacing
from dlink.runtime.progress import Count
from dlink.runtime.spec import RED_GREEN_BLUE, Spec
from dlink.runtime.words import counted
from dlink.training.crops import labelled
from dlink.training.distil import taught
from dlink.training.history import write_history
from dlink.training.importance import importances
from dlink.training.loop import Logits, TrainingRun, new_run, run_epoch, say_preparation
from dlink.training.pruning import Pruning, least_important, most_important
from dlink.training.recipe import Course, Recipe, SlimOptions, TrainingStep
from dlink.training.sparse import make_sparse, sparse_share
from dlink.training.validate import validate
from dlink.training.variants import varied
from dlink.training.world import joined

log = logging.getLogger(__name__)

STATE = {"recipe", "how", "original", "course", "net", "optimiser", "scaler"}  # keys of a state file
FEWEST = 4  # tiles: fewer do not tell which channels matter
SAMPLE = 64  # crops that tell it
MOMENTS = ("exp_avg", "exp_avg_sq")  # Adam's means, which have the shape of their weights


@dataclass(frozen=True)
class Measured:
    """A network's multiply-adds for one view of a tile of 1024 px, by layer, and its pooled IoU if it was measured."""

    multiply_adds: dict[str, int]
    ious: tuple[float, float] | None  # one view, eight views

    @property
    def by_stage(self) -> dict[str, int]:
        return by_stage(self.multiply_adds)

    @property
    def total(self) -> int:
        return sum(self.multiply_adds.values())


@dataclass(frozen=True)
class Slimmed:
    """What a slimming gave."""

    before: Measured
    after: Measured
    share: float  # of the multiply-adds of the whole network, whose width the original has
    sparse: float  # share of the multiply-adds that are left, in convolutions of 2:4 sparse weights
    course: Course


@dataclass
class SlimRun:
    """A slimming under way."""

    run: TrainingRun
    original: Checkpoint
    how: SlimOptions

    @property
    def pruning(self) -> Pruning:
        """What can be taken away of the network as it is."""
        return pruning_of(self.original, self.run.net)

    def targets(self) -> list[float]:
        """The shares of the whole network's multiply-adds after each pruning that stands before the next epoch."""
        if self.how.sparse:
            return []
        epochs, count = self.run.recipe.epochs, self.how.prunings
        first = self.original.slim
        return [
            first * (self.how.share / first) ** ((i + 1) / count)
            for i in range(count)
            if i * epochs // (2 * count) == self.run.course.done
        ]


def slim(
    original: Checkpoint,
    tiles: list[TileFile],
    out: Path,
    recipe: Recipe,
    how: SlimOptions,
    *,
    workers: int = 0,
    resume: bool = False,
    valid: list[TileFile] | None = None,
    report: Callable[[TrainingStep], None] = lambda step: None,
    drawing: Count = lambda done, total: None,
    say: Callable[[str], None] = lambda words: None,
) -> Slimmed:
    """Write a slim or sparse copy of a checkpoint's network to `out`, and measure both.

    tiles: pictures of the kind that the network will see, best with labels. valid: labelled tiles for the IoU.
    drawing: called with (tiles whose eight views are drawn, all).
    """
    checked = labelled(valid) if valid else []
    check(original, tiles, recipe, how)
    state_path = out.with_suffix(".state")
    if not resume and state_path.exists():
        raise BadInput(
            f"{state_path}: a training of this name was begun or finished; --resume goes on with it, or delete it"
        )
    recipe = replace(recipe, arch=original.arch, width=original.width, schedule="poly")
    more, views = out.with_suffix(".variants"), how.views or out.with_suffix(".views")
    with joined() as world, varied(tiles, how.variants, more, recipe.seed) as all_tiles:
        if world.size > 1:
            raise BadInput("dlink-slim runs in one process, without torchrun; --workers load tiles beside it")
        torch.manual_seed(recipe.seed)
        teacher = original.net.to(world.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        run = new_run(copy.deepcopy(teacher), recipe, all_tiles, world, workers, report)
        run.crops.share = how.labels
        say_preparation(run, say)
        slimming = SlimRun(run, original, how)
        if resume:
            restore(state_path, slimming)
        half_views = run.half if recipe.amp else None
        with taught(run.crops, teacher, views, world, half_views, drawing, keep=how.views is not None):
            while run.course.done < recipe.epochs:
                if how.sparse and not run.course.done:
                    make_sparse(run.net, partial(sample, run), recipe.seed)
                    say(f"2:4 sparse weights in {sparse_share(run.net):.1%} of the multiply-adds")
                for target in slimming.targets():
                    prune(slimming, target)
                    say(f"pruned to {slimming.pruning.share:.1%} of the multiply-adds")
                epoch(slimming, out, state_path)
        before, after = (measured(net, checked, run.crops.spec) for net in (teacher, run.net))
        return Slimmed(before, after, slimming.pruning.share, sparse_share(run.net), run.course)


def measured(net: RoadNet, valid: list[TileFile], spec: Spec) -> Measured:
    return Measured(multiply_adds(net, Spec.tile), validate(net, valid, spec) if valid else None)


def check(original: Checkpoint, tiles: list[TileFile], recipe: Recipe, how: SlimOptions) -> None:
    """Raise BadInput for what can't be made slim, before anything is drawn."""
    net, flops = original.net, f"--flops {how.share:g}"
    if not how.sparse and how.share >= original.slim:
        raise BadInput(f"{flops}: the network has {original.slim:.1%} of its multiply-adds already; ask for less")
    least = pruning_of(original, net).least
    if how.share < least:
        raise BadInput(f"{flops}: with 8 channels in every layer {least:.1%} are left; ask for more")
    if net.channels != RED_GREEN_BLUE:
        raise BadInput(
            f"CHECKPOINT's network takes {counted(net.channels, 'channel')}; dlink trains networks of red, green, blue"
        )
    if len(tiles) < FEWEST:
        raise BadInput(f"{tiles[0].image.parent}: {counted(len(tiles), 'tile')}; at least {FEWEST} tell what matters")
    if recipe.crop < 1 or recipe.crop % net.multiple:
        raise BadInput(f"--crop {recipe.crop}: {original.arch} needs a multiple of {net.multiple}")


def pruning_of(original: Checkpoint, net: RoadNet) -> Pruning:
    return Pruning(net, axes_of_arch(original.arch), outline(original.arch, original.width, net.channels))


def prune(slimming: SlimRun, target: float) -> None:
    """Take the least important channels away, in the weights and in what the optimiser remembers of them."""
    run, pruning = slimming.run, slimming.pruning
    run.crops.epoch = run.course.done
    importance = importances(run.net, pruning.along, pruning.size, sample(run), run.recipe.seed)
    kept = most_important(importance, least_important(importance, pruning, target))
    names = dict(run.net.named_parameters())
    remembered = {name: run.optimiser.state.get(weight, {}) for name, weight in names.items()}
    replace_net(run, shaped_and_filled(run.net, cut(run.net.state_dict(), pruning.along, kept, pruning.size)))
    moments = {
        moment: cut({k: v[moment] for k, v in remembered.items() if v}, pruning.along, kept, pruning.size)
        for moment in MOMENTS
    }
    for name, weight in run.net.named_parameters():
        if remembered[name]:
            cut_moments = {moment: moments[moment][name] for moment in MOMENTS}
            run.optimiser.state[weight] = {**remembered[name], **cut_moments}


def sample(run: TrainingRun) -> Iterator[Tensor]:
    """Batches of prepared crops, of tiles that the seed chooses."""
    generator = torch.Generator().manual_seed(run.recipe.seed)
    chosen = torch.randperm(len(run.crops), generator=generator).tolist()[:SAMPLE]
    for i in range(0, len(chosen), run.recipe.batch):
        x = torch.stack([run.crops[index][0] for index in chosen[i : i + run.recipe.batch]])
        yield x.to(run.world.device, memory_format=torch.channels_last)


def shaped_and_filled(net: RoadNet, state: dict[str, Tensor]) -> RoadNet:
    slim = shaped(net, state)
    slim.load_state_dict(state)
    return slim


def replace_net(run: TrainingRun, net: RoadNet) -> None:
    """Go on with another network, and a new optimiser."""
    run.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run.model = run.world.wrap(Logits(run.net))
    run.optimiser = torch.optim.Adam(run.net.parameters(), run.recipe.rate)


def epoch(slimming: SlimRun, out: Path, state_path: Path) -> None:
    """Run one epoch, and write the files."""
    run, course = slimming.run, slimming.run.course
    run.crops.epoch = course.done
    course.rates.append(course.rate)
    course.losses.append(run_epoch(run))
    course.done += 1
    course.best = min(course.losses[-1], course.best)
    if slimming.pruning.share <= slimming.how.share:
        with replacing(out) as part:
            write_checkpoint(run.net, part, half=slimming.how.half)
    write_history(course, out)
    with replacing(state_path) as part:
        torch.save(state_of(slimming), part)


def state_of(slimming: SlimRun) -> dict[str, Any]:
    run, how = slimming.run, slimming.how
    return {
        "recipe": asdict(run.recipe),
        "how": {k: v for k, v in asdict(how).items() if k != "views"} | {"flops": how.share},
        "original": {"sha256": slimming.original.sha256},
        "course": asdict(run.course),
        "net": run.net.state_dict(),
        "optimiser": run.optimiser.state_dict(),
        "scaler": run.scaler.state_dict(),
    }


def restore(path: Path, slimming: SlimRun) -> None:
    """Load a state file into a slimming that has not begun."""
    run = slimming.run
    if not path.exists():
        raise BadInput(f"{path}: nothing to resume; leave --resume out to begin")
    state = load(path)
    if not isinstance(state, dict) or state.keys() != STATE or not all(isinstance(v, dict) for v in state.values()):
        raise BadModel(f"{path}: not the state of a slimming; --resume goes on from what dlink-slim wrote beside OUT")
    now = state_of(slimming)
    for name in ("original", "recipe", "how"):
        if different := {k: v for k, v in state[name].items() if now[name].get(k) != v}:
            raise BadInput(f"{path}: was begun with {different}; resume with the same, or begin anew")
    weights = plain_tensors(state["net"], path)
    try:
        sizes(axes_of_arch(run.recipe.arch), weights, str(path))
        replace_net(run, shaped_and_filled(run.net, state["net"]))
        run.optimiser.load_state_dict(state["optimiser"])
        run.scaler.load_state_dict(state["scaler"])
        run.course = Course(**state["course"])
    except (KeyError, RuntimeError, TypeError, ValueError) as e:
        raise BadModel(f"{path}: a damaged state of a slimming; begin anew; {first_line(e)}") from e
