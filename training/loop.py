"""The authors' training: loss, optimiser, schedule, in a loop that can be stopped and taken up again.

Adam at 2e-4 on binary cross-entropy plus soft Dice; the best epoch by training loss is what is kept. Their schedule,
`plateau`: after more than 3 epochs without a better loss the best weights are loaded again and the rate divided by 5,
at every further such epoch too; after more than 6, or below 5e-7, it ends. `poly` is PP-LinkNet's
(1 - progress)^0.9 over a fixed number of epochs, for when time is short; there the last epoch is kept.

Beside the checkpoint stands `<name>.state`, from which `resume` goes on as if it had never stopped.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dlink.nets.checkpoint import read_checkpoint, write_checkpoint
from dlink.nets.network import RoadNet
from dlink.nets.zoo import build
from dlink.training.crops import Crops, labelled
from dlink.trt_runtime.errors import BadInput
from dlink.trt_runtime.files import replacing
from dlink.trt_runtime.images import TileFile
from dlink.trt_runtime.spec import Spec

Weights: TypeAlias = dict[str, Tensor]

SCHEDULES = ("plateau", "poly")
RELOAD_AFTER, STOP_AFTER, DIVISOR, LEAST_RATE = 3, 6, 5.0, 5e-7  # the authors' train.py
POLY_POWER = 0.9  # PP-LinkNet


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training depends on besides its tiles."""

    arch: str = "dlinknet34"
    width: float = 1.0
    crop: int = 1024  # side of the training crops, px
    batch: int = 4
    epochs: int = 300  # at most
    rate: float = 2e-4
    schedule: str = "plateau"
    seed: int = 0
    amp: bool = False  # bfloat16 where it is safe

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise BadInput(f"schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        if min(self.batch, self.epochs) < 1 or not self.rate > 0:
            raise BadInput(f"batch, epochs and rate must be positive, got {self.batch}, {self.epochs}, {self.rate}")


@dataclass
class Step:
    """Where a training is, for a progress line."""

    epoch: int  # from 1
    epochs: int
    step: int  # from 1, within the epoch
    steps: int
    loss: float  # mean of the epoch so far
    rate: float
    seconds: float  # since this run began


@dataclass
class Course:
    """What the schedule remembers from epoch to epoch."""

    rate: float
    done: int = 0  # epochs behind us
    stale: int = 0  # epochs since the loss was last better
    best: float = float("inf")
    losses: list[float] = field(default_factory=list)


def road_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy (mean) + soft Dice over the whole batch, 1 - 2 sum(p g) / (sum p + sum g)."""
    p = torch.sigmoid(logits)
    dice = (2 * (p * target).sum() + 1e-6) / (p.sum() + target.sum() + 1e-6)
    return nn.functional.binary_cross_entropy_with_logits(logits, target) + 1 - dice


def train(
    tiles: list[TileFile],
    out: Path,
    recipe: Recipe,
    *,
    workers: int = 0,
    resume: bool = False,
    init: Path | None = None,
    half: bool = False,
    report: Callable[[Step], None] = lambda step: None,
) -> Course:
    """Train on a folder's tiles and write the checkpoint to `out` whenever an epoch deserves to be kept.

    `init` is a checkpoint of the same network to begin from, for a second stage on other tiles. `half` stores the
    result in float16: half the file, and read as float32 again.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    net = begin(recipe, init).to(device)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(net.parameters(), recipe.rate)
    course, best = Course(recipe.rate), copied(net)
    state_path = out.with_suffix(".state")
    if resume:
        course, best = restore(state_path, recipe, net, optimiser)
    elif state_path.exists():
        raise BadInput(f"{state_path}: a training of this name was begun; --resume goes on with it, or delete it")
    crops = Crops(labelled(tiles), Spec(tile=recipe.crop), recipe.seed)
    start = time.monotonic()
    while course.done < recipe.epochs and not finished(course, recipe):
        crops.epoch = course.done
        loss = run_epoch(net, optimiser, crops, course, recipe, workers, start, report)
        course.losses.append(loss)
        course.done += 1
        course.stale = 0 if loss < course.best else course.stale + 1
        course.best = min(loss, course.best)
        if course.stale == 0 or recipe.schedule == "poly":
            best = copied(net)
            with replacing(out) as part:
                write_checkpoint(net, part, half=half)
        elif course.stale > RELOAD_AFTER:
            net.load_state_dict(best)
            course.rate /= DIVISOR
        with replacing(state_path) as part:
            state = {"net": net.state_dict(), "best": best, "optimiser": optimiser.state_dict()}
            torch.save({"recipe": asdict(recipe), "course": asdict(course), **state}, part)
    return course


def finished(course: Course, recipe: Recipe) -> bool:
    return recipe.schedule == "plateau" and (course.stale > STOP_AFTER or course.rate < LEAST_RATE)


def run_epoch(
    net: RoadNet,
    optimiser: torch.optim.Optimizer,
    crops: Crops,
    course: Course,
    recipe: Recipe,
    workers: int,
    start: float,
    report: Callable[[Step], None],
) -> float:
    """One pass over the crops; the mean loss."""
    device = next(net.parameters()).device
    order = torch.Generator().manual_seed(recipe.seed * 100_003 + course.done)
    whole = len(crops) >= recipe.batch  # a last batch of one would upset the batch norms
    loader = DataLoader(crops, recipe.batch, shuffle=True, generator=order, num_workers=workers, drop_last=whole)
    net.train()
    total = 0.0
    for i, (x, target) in enumerate(loader):
        rate = course.rate
        if recipe.schedule == "poly":
            rate *= (1 - (course.done + i / len(loader)) / recipe.epochs) ** POLY_POWER
        for group in optimiser.param_groups:
            group["lr"] = rate
        x = x.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.amp):
            logits = net.logits(x)
        loss = road_loss(logits.float(), target.to(device))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += loss.item()
        seconds = time.monotonic() - start
        report(Step(course.done + 1, recipe.epochs, i + 1, len(loader), total / (i + 1), rate, seconds))
    return total / len(loader)


def begin(recipe: Recipe, init: Path | None) -> RoadNet:
    """The network with fresh weights, or with those of a checkpoint."""
    if init is None:
        return build(recipe.arch, recipe.width)
    read = read_checkpoint(init)
    if (read.arch, read.width) != (recipe.arch, recipe.width):
        raise BadInput(
            f"{init}: {read.arch} of width {read.width:g}, to train is {recipe.arch} of width {recipe.width:g}; "
            f"give --arch and --width as it has them"
        )
    return read.net


def copied(net: RoadNet) -> Weights:
    return {k: v.clone() for k, v in net.state_dict().items()}


def restore(path: Path, recipe: Recipe, net: RoadNet, optimiser: torch.optim.Optimizer) -> tuple[Course, Weights]:
    """Load a state file into network and optimiser; gives where the schedule was and the best weights so far."""
    if not path.exists():
        raise BadInput(f"{path}: nothing to resume; leave --resume out to begin")
    state: dict[str, Any] = torch.load(path, weights_only=True)
    theirs = {k: v for k, v in state["recipe"].items() if asdict(recipe)[k] != v}
    if theirs:
        raise BadInput(f"{path}: was begun with {theirs}; resume with the same, or begin anew")
    net.load_state_dict(state["net"])
    optimiser.load_state_dict(state["optimiser"])
    return Course(**state["course"]), state["best"]
