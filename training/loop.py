"""The training loop, with the authors' optimiser and schedule. It can be stopped and resumed.

The authors use Adam at 2e-4 on binary cross-entropy plus soft Dice, and keep the epoch with the lowest training loss.
Their schedule is `plateau`: after more than 3 epochs without a better loss, the best weights are loaded again and the
rate is divided by 5, also at every further such epoch; after more than 6 such epochs, or below a rate of 5e-7, it ends.
`poly` is PP-LinkNet's (1 - progress)^0.9 over a fixed number of epochs, for short trainings; it keeps the last epoch.
With validation tiles either schedule keeps the epoch with the best pooled IoU (one view).

Beside the checkpoint it writes the history, `<name>.csv` and `<name>.png`, and `<name>.state`. `resume` continues from
the state as if the training had never stopped.
"""

import copy
import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from dlink.imagery.images import TileFile
from dlink.nets.channels import shaped
from dlink.nets.checkpoint import check_fit, plain_tensors, read_checkpoint, write_checkpoint
from dlink.nets.content import first_line, load
from dlink.nets.keys import keys_of
from dlink.nets.network import RoadNet
from dlink.nets.options import NetworkOptions
from dlink.nets.preparation import in_words
from dlink.nets.slim import slim_of
from dlink.nets.zoo import build, spec_of
from dlink.runtime.errors import BadInput, BadModel, CheckFailed
from dlink.runtime.files import replacing
from dlink.runtime.progress import Count
from dlink.runtime.spec import RED_GREEN_BLUE
from dlink.runtime.words import counted
from dlink.training.crops import Crops, ErrorsAsItems, batches, collate, labelled
from dlink.training.distil import taught
from dlink.training.encoder import Filled, fill_encoder
from dlink.training.history import write_history
from dlink.training.losses import LOSSES
from dlink.training.recipe import Course, Recipe, TrainingStep
from dlink.training.sparse import sparse_weights, zeros_held
from dlink.training.validate import validate
from dlink.training.world import World, joined

log = logging.getLogger(__name__)

Weights: TypeAlias = dict[str, Tensor]

STATE = {"recipe", "course", "net", "best", "optimiser", "scaler"}  # keys of a state file, see state_of
RELOAD_AFTER, STOP_AFTER, DIVISOR, LEAST_RATE = 3, 6, 5.0, 5e-7  # the authors' train.py
POLY_POWER = 0.9  # PP-LinkNet


class Logits(nn.Module):
    """A network whose `forward` gives logits, for DistributedDataParallel, which wraps `forward`."""

    def __init__(self, net: RoadNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.logits(x)


@dataclass
class TrainingRun:
    """A training under way."""

    net: RoadNet
    model: nn.Module  # gives the logits
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    half: torch.dtype  # the type of mixed precision
    crops: Crops
    recipe: Recipe
    course: Course
    world: World
    workers: int
    start: float
    report: Callable[[TrainingStep], None]


def train(
    tiles: list[TileFile],
    out: Path,
    recipe: Recipe,
    *,
    workers: int = 0,
    resume: bool = False,
    init: Path | None = None,
    network: NetworkOptions = NetworkOptions(),  # noqa: B008  # frozen
    encoder: Path | None = None,
    valid: list[TileFile] | None = None,
    distil: bool = False,
    half: bool = False,
    report: Callable[[TrainingStep], None] = lambda step: None,
    drawing: Count = lambda done, total: None,
    say: Callable[[str], None] = lambda words: None,
) -> Course:
    """Train on a folder's tiles, and write the checkpoint to `out` after each epoch that is to be kept.

    init: a checkpoint of the same network to start from, for a second stage on other tiles.
    network: what of that checkpoint is read.
    encoder: a classifier's weights with torchvision's key names.
    valid: labelled tiles whose IoU is measured after each epoch.
    distil: the target of one view is the mean of eight views of `init`. Labels and the recipe's loss and colours are
        ignored. `drawing` is called with (tiles whose eight views are computed, all tiles).
    half: store the convolutions' weights in float16, which halves the file.

    The processes that torchrun starts train one network together.
    """
    if distil and init is None:
        raise BadInput("--init is missing: name the trained network to teach")
    chosen = tiles if distil else labelled(tiles)
    checked = labelled(valid) if valid else []
    if recipe.patience and not checked:
        raise BadInput("--patience: looks at the validation IoU; give --valid a folder of labelled tiles")
    state_path = out.with_suffix(".state")
    if not resume and state_path.exists():
        raise BadInput(
            f"{state_path}: a training of this name was begun or finished; --resume goes on with it, or delete it"
        )
    with joined() as world:
        torch.manual_seed(recipe.seed)
        net, filled = begin(recipe, init, encoder, network)
        if recipe.crop < 1 or recipe.crop % net.multiple:
            raise BadInput(f"--crop {recipe.crop}: {recipe.arch} needs a multiple of {net.multiple}")
        if filled:
            say(str(filled))
        saved = read_state(state_path) if resume else None
        if saved:
            net = as_slim_as(saved["net"], net, recipe, state_path)
        net.to(world.device)
        teacher = copy.deepcopy(net) if distil else None
        run = new_run(net, recipe, chosen, world, workers, report)
        say_preparation(run, say)
        best = restore(saved, state_path, run) if saved else copied(net)
        views, half_views = out.with_suffix(".views"), run.half if recipe.amp else None
        with taught(run.crops, teacher, views, world, half_views, drawing) if teacher else nullcontext():
            while run.course.done < recipe.epochs and not finished(run):
                best = epoch(run, best, checked, out, half, state_path)
        return run.course


def new_run(
    net: RoadNet, recipe: Recipe, tiles: list[TileFile], world: World, workers: int,
    report: Callable[[TrainingStep], None],
) -> TrainingRun:  # fmt: skip
    """A training that has not begun, of a network on its device."""
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    half = half_of(world.device)
    return TrainingRun(
        net=net,
        model=world.wrap(Logits(net)),
        optimiser=torch.optim.Adam(net.parameters(), recipe.rate),
        scaler=torch.amp.GradScaler(world.device.type, enabled=recipe.amp and half == torch.float16),
        half=half,
        crops=Crops(
            tiles, recipe.prepared(spec_of(recipe.arch, tile=recipe.crop)), recipe.seed, colours=recipe.colours
        ),
        recipe=recipe,
        course=Course(recipe.rate),
        world=world,
        workers=workers,
        start=time.monotonic(),
        report=report if world.first else lambda step: None,
    )


def say_preparation(run: TrainingRun, say: Callable[[str], None]) -> None:
    """Say what cannot be read from a checkpoint: how its pixels are prepared."""
    if run.world.first:
        say(f"pixels prepared as {in_words(run.crops.spec)}; --channels, --mean and --std give another preparation")


def half_of(device: torch.device) -> torch.dtype:
    """bfloat16, or float16 with scaled gradients on GPUs that have no bfloat16."""
    return torch.float16 if device.type == "cuda" and not torch.cuda.is_bf16_supported() else torch.bfloat16


def epoch(run: TrainingRun, best: Weights, checked: list[TileFile], out: Path, half: bool, state_path: Path) -> Weights:
    """Run one epoch, validate, write the files and apply the schedule. Returns the best weights so far."""
    course, recipe, world = run.course, run.recipe, run.world
    run.crops.epoch = course.done
    course.rates.append(course.rate)
    loss = world.mean(run_epoch(run))
    course.losses.append(loss)
    course.done += 1
    course.stale = 0 if loss < course.best else course.stale + 1
    course.best = min(loss, course.best)
    if checked:
        found = validate(run.net, checked, run.crops.spec) if world.first else (0.0, 0.0)
        one, eight = world.agreed(found)
        course.ious.append((one, eight))
    keep = course.since_best_iou == 0 if checked else course.stale == 0 or recipe.schedule == "poly"
    if keep:
        best = copied(run.net)
        if world.first:
            with replacing(out) as part:
                write_checkpoint(run.net, part, half=half)
    if recipe.schedule == "plateau" and course.stale > RELOAD_AFTER:
        run.net.load_state_dict(best)
        course.rate /= DIVISOR
    if world.first:
        write_history(course, out)
        with replacing(state_path) as part:
            torch.save(state_of(run, best), part)
    return best


def finished(run: TrainingRun) -> bool:
    course, recipe = run.course, run.recipe
    if recipe.patience and course.since_best_iou >= recipe.patience:
        return True
    return recipe.schedule == "plateau" and (course.stale > STOP_AFTER or course.rate < LEAST_RATE)


def run_epoch(run: TrainingRun) -> float:
    """One pass over the crops. Returns this process's mean loss."""
    course, recipe, world = run.course, run.recipe, run.world
    generator = torch.Generator().manual_seed(recipe.seed * 100_003 + course.done)
    order = world.share(torch.randperm(len(run.crops), generator=generator).tolist())
    full = len(order) >= recipe.batch  # drop an incomplete last batch: one crop would upset the batch norms
    how: dict[str, Any] = {"sampler": order, "generator": generator, "num_workers": run.workers, "drop_last": full}
    loader = DataLoader(ErrorsAsItems(run.crops), recipe.batch, collate_fn=collate, **how)
    run.net.train()
    if run.crops.levels:
        hold_norms(run.net)
    total = 0.0
    with zeros_held(sparse_weights(run.net), run.optimiser):
        for i, (x, target, which) in enumerate(batches(loader)):
            rate = course.rate
            if recipe.schedule == "poly":
                rate *= poly((course.done + i / len(loader)) / recipe.epochs)
            set_rate(run.optimiser, rate)
            loss = step(run, x.to(world.device, memory_format=torch.channels_last), target.to(world.device), which)
            total += loss
            seconds = time.monotonic() - run.start
            run.report(TrainingStep(course.done + 1, recipe.epochs, i + 1, len(loader), total / (i + 1), rate, seconds))
    return total / len(loader)


def poly(progress: float) -> float:
    """The factor of the rate, from 1 down to 0."""
    return float((1 - progress) ** POLY_POWER)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def hold_norms(net: nn.Module) -> None:
    """Freeze the norms' statistics, so that a student starts equal to its teacher for any batch."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def step(run: TrainingRun, x: Tensor, target: Tensor, which: Tensor) -> float:
    """Train on one batch. Returns its loss."""
    with torch.autocast(x.device.type, run.half, enabled=run.recipe.amp):
        logits = run.model(x)
    if run.crops.levels:  # of the losses, only cross-entropy is lowest where both probabilities are equal
        loss = binary_cross_entropy_with_logits(logits.float(), target)
    else:
        loss = LOSSES[run.recipe.loss](logits.float(), target)
    if not torch.isfinite(loss):
        raise CheckFailed(f"the loss is {loss.item()} in epoch {run.course.done + 1}, {blame(run, logits, which)}")
    run.optimiser.zero_grad()
    run.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    run.scaler.step(run.optimiser)
    run.scaler.update()
    return loss.item()


def blame(run: TrainingRun, logits: Tensor, which: Tensor) -> str:
    """The tiles that a loss of NaN or infinity comes from, in words."""
    names = [run.crops.tiles[i].id for i in which.tolist()]
    bad = [name for name, each in zip(names, logits, strict=True) if not torch.isfinite(each).all()]
    if bad:
        return f"first at tile {bad[0]}: lower --rate, or look at that tile; the last good epoch is kept"
    return f"at tiles {', '.join(names)}: lower --rate; the last good epoch is kept"


def begin(
    recipe: Recipe, init: Path | None, encoder: Path | None, network: NetworkOptions
) -> tuple[RoadNet, Filled | None]:
    """The network with fresh weights, a checkpoint's weights, or a classifier's weights in its encoder."""
    if init and encoder:
        raise BadInput("--encoder and --init: begin from one of them; a checkpoint has an encoder already")
    if init is None:
        net = build(recipe.arch, recipe.width)
        return net, fill_encoder(net, encoder) if encoder else None
    taken: dict[str, Any] = {"key": network.key, "road": network.road}
    read = read_checkpoint(init, **taken)
    for note in read.notes:
        log.warning("%s", note)
    if keys_of(read.arch) != keys_of(recipe.arch) or read.width != recipe.width:
        raise BadInput(
            f"{init}: {read.arch} of width {read.width:g}, expected {recipe.arch} of width {recipe.width:g}; "
            f"give --arch and --width as it has them"
        )
    if read.net.channels != RED_GREEN_BLUE:
        raise BadInput(
            f"{init}: its network takes {counted(read.net.channels, 'channel')}; dlink trains networks of red, green, "
            f"blue: begin from one of these, or train it with its own program and export it with --bands"
        )
    return (read if read.arch == recipe.arch else read_checkpoint(init, recipe.arch, **taken)).net, None


def copied(net: RoadNet) -> Weights:
    return {k: v.clone() for k, v in net.state_dict().items()}


def state_of(run: TrainingRun, best: Weights) -> dict[str, Any]:
    return {
        "recipe": asdict(run.recipe),
        "course": asdict(run.course),
        "net": run.net.state_dict(),
        "best": best,
        "optimiser": run.optimiser.state_dict(),
        "scaler": run.scaler.state_dict(),
    }


def read_state(path: Path) -> dict[str, Any]:
    """What a state file holds."""
    if not path.exists():
        raise BadInput(f"{path}: nothing to resume; leave --resume out to begin")
    state = load(path)
    if not isinstance(state, dict) or state.keys() != STATE or not all(isinstance(v, dict) for v in state.values()):
        raise BadModel(f"{path}: not the state of a training; --resume goes on from what dlink-train wrote beside OUT")
    return state


def as_slim_as(weights: Weights, net: RoadNet, recipe: Recipe, path: Path) -> RoadNet:
    """The network, or one of the weights' channels if they are those of a slim network."""
    slim = slim_of(recipe.arch, net.channels, plain_tensors(weights, path), str(path))
    return shaped(net, slim.net.state_dict()) if slim and slim.width == recipe.width else net


def restore(state: dict[str, Any], path: Path, run: TrainingRun) -> Weights:
    """Load what a state file holds into a run. Returns the best weights so far."""
    recipe = asdict(run.recipe)
    different = {k: v for k, v in state["recipe"].items() if recipe.get(k) != v}
    if different or state["recipe"].keys() != recipe.keys():
        raise BadInput(f"{path}: was begun with {different or 'another version'}; resume with the same, or begin anew")
    best: Weights = state["best"]
    for weights in (state["net"], best):
        check_fit(run.net, plain_tensors(weights, path), str(path))
    try:
        run.net.load_state_dict(state["net"])
        run.optimiser.load_state_dict(state["optimiser"])
        run.scaler.load_state_dict(state["scaler"])
        run.course = Course(**{**state["course"], "ious": [tuple(pair) for pair in state["course"]["ious"]]})
    except (KeyError, RuntimeError, TypeError, ValueError) as e:
        raise BadModel(f"{path}: a damaged state of a training; begin anew; {first_line(e)}") from e
    return best
