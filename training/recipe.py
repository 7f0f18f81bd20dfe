"""The settings of a training, and its progress."""

from dataclasses import dataclass, field
from pathlib import Path

from dlink.nets.options import NetworkOptions
from dlink.nets.preparation import Preparation
from dlink.runtime.errors import BadInput
from dlink.training.augment import COLOURS
from dlink.training.losses import LOSSES

SCHEDULES = ("plateau", "poly")
FLOPS = 0.4  # the share of the multiply-adds that a slimming leaves by default


@dataclass(frozen=True, kw_only=True)
class Recipe(Preparation):
    """The settings of a training, and how its pixels are prepared. The defaults are the D-LinkNet authors'."""

    arch: str = "dlinknet34"
    width: float = 1.0
    crop: int = 1024  # side of the training crops, px
    batch: int = 4  # crops a step, in each process
    epochs: int = 300  # at most
    rate: float = 2e-4
    loss: str = "bce+dice"
    schedule: str = "plateau"
    colours: str = "released"  # amounts of the colour shifts: the released code's, or the slides'
    patience: int = 0  # stop after so many epochs without a better validation IoU; 0: never
    seed: int = 0
    amp: bool = False  # mixed precision

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("schedule", SCHEDULES), ("loss", tuple(LOSSES)), ("colours", tuple(COLOURS))):
            if getattr(self, name) not in known:
                raise BadInput(f"--{name} {getattr(self, name)}: must be one of {', '.join(known)}")
        if min(self.batch, self.epochs) < 1 or not self.rate > 0 or self.patience < 0:
            raise BadInput(f"batch, epochs and rate must be positive, got {self.batch}, {self.epochs}, {self.rate}")


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where a training begins; with fresh weights where nothing is given."""

    init: Path | None = None  # a checkpoint of the same network
    network: NetworkOptions = field(default_factory=NetworkOptions)  # what of it is read; the recipe names the network
    encoder: Path | None = None  # a classifier's weights, with torchvision's names
    resume: bool = False  # from the .state file that a stopped training left


@dataclass(frozen=True, kw_only=True)
class SlimOptions:
    """How much of a network is left, and how it is made slim; or that all of it is left, with sparse weights."""

    flops: float | None = None  # share of the whole network's multiply-adds; None: FLOPS, or all if `sparse`
    sparse: bool = False  # zeros in two of four weights, in place of prunings
    prunings: int = 8  # one after another, with epochs between them
    labels: float = 0.5  # share of the labels in the targets, where there are labels
    variants: int = 0  # of each tile, in other colours, sizes and places
    views: Path | None = None  # folder that keeps the original's eight views for further runs
    half: bool = False  # store the convolutions' weights in float16

    @property
    def share(self) -> float:
        """The share of the whole network's multiply-adds that is left, if nothing was taken away before."""
        return self.flops if self.flops is not None else 1.0 if self.sparse else FLOPS

    def __post_init__(self) -> None:
        if self.flops is not None and not 0 < self.flops < 1:
            raise BadInput(
                f"--flops {self.flops:g}: must be between 0 and 1, such as 0.4 for 40 % of the multiply-adds"
            )
        if self.sparse and self.flops is not None:
            raise BadInput("--sparse and --flops: give one of them; to have both, make what --flops wrote sparse")
        if self.prunings < 1 or not 0 <= self.labels <= 1 or self.variants < 0:
            raise BadInput(
                f"--prunings must be at least 1, --labels from 0 to 1 and --variants at least 0, got {self.prunings}, "
                f"{self.labels:g} and {self.variants}"
            )


@dataclass
class TrainingStep:
    """The progress of a training, for a progress line."""

    epoch: int  # from 1
    epochs: int
    step: int  # from 1, within the epoch
    steps: int
    loss: float  # mean of the epoch so far
    rate: float
    seconds: float  # since this run began


@dataclass
class Course:
    """What the schedule keeps from epoch to epoch, and what the history shows."""

    rate: float
    done: int = 0  # finished epochs
    stale: int = 0  # epochs since the lowest loss
    best: float = float("inf")
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    ious: list[tuple[float, float]] = field(default_factory=list)  # pooled, of the validation tiles: 1 view, 8 views

    @property
    def since_best_iou(self) -> int:
        """Epochs since the best IoU of one view."""
        ones = [one for one, _ in self.ious]
        return len(ones) - 1 - ones.index(max(ones)) if ones else 0
