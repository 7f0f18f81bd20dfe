"""The seam between images and networks: the Backend protocol, its NumPy implementation, and who opens which file."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from dlink.runtime.errors import BadInput, Closed, DlinkError, EngineFailed, NoProbability
from dlink.runtime.files import refuse_checkpoint
from dlink.runtime.life import CLOSED, ENGINES, check_process
from dlink.runtime.spec import COLOURS, Spec
from dlink.runtime.values import whole
from dlink.runtime.views import TURN, apply_view, check_views, undo_view

Tiles: TypeAlias = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]  # each (S, S, C), RGB for most networks
Probs: TypeAlias = NDArray[np.float32]
Net: TypeAlias = Callable[[NDArray[np.float32]], Probs]  # x (N, C, S, S) -> (N, S, S), valid until the next call

# The output form: float32 in [0, 1]; uint8 in 255 steps; uint8, 255 is road.
OutputForm: TypeAlias = Literal["probability", "level", "mask"]
Roads: TypeAlias = NDArray[Any]  # (N, S, S) in an output form
Running: TypeAlias = Callable[[], Roads]  # waits for the result and returns it

MOST_THREADS, MOST_SLOTS = 1024, 64
SLACK = 2e-3  # how far rounding may lead outside [0, 1]: an ensemble's weights sum to 1 within 1e-3


class Backend(Protocol):
    """Runs one network on square tiles. Any thread may call any method.

    The backend does the preparation, the views and their mean itself. So a GPU receives 3 bytes a pixel instead of 96,
    and no caller can forget a step.
    """

    spec: Spec
    max_tiles: int  # the most tiles in one call of `probabilities`
    slots: int  # how many runs can be under way at once
    engine: str  # name, version and precision of the engine, for reports
    executed: Mapping[str, float]  # share of the multiply-adds by precision; empty where the engine does not report it

    def tiles_per_batch(self, views: Sequence[int] | None = None) -> int:
        """How many tiles fit one batch with these views (None: the spec's), from 1 to `max_tiles`."""
        ...

    def start(
        self, tiles: Tiles, views: Sequence[int] | None = None, form: OutputForm = "probability", threshold: float = 0.5
    ) -> Running:
        """Start a run of 1 to `tiles_per_batch(views)` tiles. The caller may change the pixels once this returns.

        If all slots are busy, this waits for the oldest run and keeps that run's result for its own caller. An engine
        that fails raises EngineFailed, here or from the result; so does a result that is not a probability.
        """
        ...

    def probabilities(self, tiles: Tiles, views: Sequence[int] | None = None) -> Probs:
        """Road probability of every pixel, the mean over `views` (None: the spec's).

        Takes 1 to `max_tiles` tiles: uint8 (N, S, S, C) -> float32 (N, S, S). The caller owns the result.
        """
        ...

    def close(self) -> None:
        """End the runs under way and free everything. A second call does nothing. life.py has the rules for models."""
        ...


@dataclass
class Spent:
    """Time that a HostBackend has spent so far, in seconds."""

    prepare: float = 0.0
    network: float = 0.0
    undo: float = 0.0


@dataclass(eq=False)
class HostBackend:
    """A Backend of any float32 network, in NumPy. It is plain on purpose: the other backends are tested against it.

    Each view is one copy. The turned views are flips of the tile prepared from its turned pixels, and their sum is
    turned back once. `start` computes the whole result before it returns. A call that is under way when the model is
    closed raises Closed before its next view.

    Args:
        net: The network: float32 (N, C, S, S) prepared pixels -> float32 (N, S, S) probabilities in [0, 1]. Its result
            must stay valid until the next call. A RuntimeError of the network becomes EngineFailed.
        spec: Tile size, preparation, views and threshold.
        max_tiles: The most tiles in one call.
        engine: The engine's name, for reports.
        executed: Share of the multiply-adds by precision, for reports.

    Example:
        >>> import numpy as np
        >>> from dlink.runtime import HostBackend, Segmenter, Spec
        >>> def net(x):  # road where the pixel is bright
        ...     return (x.mean(axis=1) > 0).astype(np.float32)
        >>> with Segmenter(HostBackend(net, Spec(tile=64))) as model:
        ...     mask = model.mask(np.full((2, 3, 3), 200, np.uint8))
        >>> mask
        array([[255, 255, 255],
               [255, 255, 255]], dtype=uint8)
    """

    net: Net | None
    spec: Spec
    max_tiles: int = 1
    engine: str = "NumPy"
    executed: Mapping[str, float] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    slots: int = field(default=1, init=False)
    pid: int = field(default_factory=os.getpid, init=False)
    closing: bool = field(default=False, init=False)
    faults: set[int] = field(default_factory=set, init=False, repr=False)  # bad tiles of the call under way

    def __post_init__(self) -> None:
        ENGINES.add(self)

    def tiles_per_batch(self, views: Sequence[int] | None = None) -> int:
        return self.max_tiles

    def start(
        self, tiles: Tiles, views: Sequence[int] | None = None, form: OutputForm = "probability", threshold: float = 0.5
    ) -> Running:
        prob, bad = self.mean_of(tiles, self.spec.views if views is None else views)
        prob[bad] = 0
        roads = to_form(np.clip(prob, 0, 1, out=prob), form, threshold)
        if bad:
            raise NoProbability.of(bad, roads)
        return lambda: roads

    def probabilities(self, tiles: Tiles, views: Sequence[int] | None = None) -> Probs:
        prob: Probs = self.start(tiles, views)()
        return prob

    def mean_of(self, tiles: Tiles, views: Sequence[int]) -> tuple[Probs, list[int]]:
        """The mean over the views, and the indices of tiles with a value that is not a probability."""
        check_views(views)
        check_tiles(tiles, self.spec, self.max_tiles)
        check_process(self.pid)
        tiles = np.asarray(tiles)
        with self.lock:
            self.faults = set()
            total = self.sum_of(tiles, [v for v in views if not v & TURN])
            turned = self.sum_of(np.rot90(tiles, axes=(1, 2)), [v ^ TURN for v in views if v & TURN])
            clock = time.perf_counter()
            total += undo_view(turned, TURN)
            total /= np.float32(len(views))
            self.spent.undo += time.perf_counter() - clock
            return total, sorted(self.faults)

    def sum_of(self, tiles: NDArray[np.uint8], flips: Sequence[int]) -> Probs:
        """The sum of the tiles' probabilities over some flips."""
        total = np.zeros(tiles.shape[:3], np.float32)
        if not flips:
            return total
        clock = [time.perf_counter()]
        x = self.spec.prepare(tiles)
        for flip in flips:
            flipped = np.ascontiguousarray(apply_view(x, flip))
            clock.append(time.perf_counter())
            prob = self.run(flipped)
            clock.append(time.perf_counter())
            total += undo_view(prob, flip)
            self.faults.update(i for i, tile in enumerate(prob) if not is_probability(tile))
            clock.append(time.perf_counter())
        steps = np.diff(clock)
        self.spent.prepare += float(steps[0::3].sum())
        self.spent.network += float(steps[1::3].sum())
        self.spent.undo += float(steps[2::3].sum())
        return total

    def run(self, x: NDArray[np.float32]) -> Probs:
        """Run the network. Its RuntimeError becomes EngineFailed."""
        if self.net is None or self.closing:
            raise Closed(CLOSED)
        try:
            return self.net(x)
        except DlinkError:
            raise
        except RuntimeError as e:
            reason = " ".join(str(e).split())
            raise EngineFailed(f"{self.engine} failed while it ran the network: {reason}") from e

    def close(self) -> None:
        if os.getpid() != self.pid:
            return
        self.closing = True
        with self.lock:
            self.net = None


def is_probability(prob: Probs) -> bool:
    """Whether all values of a tile are within SLACK of [0, 1]. NaN is not."""
    return bool(prob.min() >= -SLACK and prob.max() <= 1 + SLACK)


def check_tiles(tiles: Tiles, spec: Spec, most: int) -> None:
    """Raise BadInput unless these are 1 to `most` tiles of the spec's size."""
    side, planes = spec.tile, len(spec.bands)
    wanted = f"tiles must be uint8 (N, {side}, {side}, {planes})"
    if isinstance(tiles, np.ndarray) and tiles.ndim != 4:
        raise BadInput(f"{wanted}, got {tiles.dtype} {tiles.shape}")
    for tile in tiles:
        if tile.ndim == 3 and spec.bands != COLOURS:
            spec.check_planes(tile.shape[2])
        if tile.dtype != np.uint8 or tile.shape != (side, side, planes):
            raise BadInput(f"{wanted}, got {tile.dtype} {(len(tiles), *tile.shape)}")
    if not 1 <= len(tiles) <= most:
        raise BadInput(f"{len(tiles)} tiles at once; this model takes 1 to {most}")


def shape_of(spec: Spec) -> str:
    """An image's shape for a message, "(H, W, 3)"."""
    return f"(H, W, {len(spec.bands)})"


def check_form(form: object) -> None:
    """Raise BadInput unless this is an output form."""
    if form not in get_args(OutputForm):
        raise BadInput(f"form must be {', '.join(get_args(OutputForm))}, got {form!r}")


def to_form(prob: Probs, form: OutputForm, threshold: float) -> Roads:
    """Probabilities in an output form."""
    if form == "probability":
        return prob
    if form == "level":
        levels: Roads = (prob * np.float32(255) + np.float32(0.5)).astype(np.uint8)
        return levels
    check_form(form)
    mask: Roads = (prob > threshold).astype(np.uint8)
    mask *= 255
    return mask


@dataclass(frozen=True)
class Opening:
    """Options of opening a model file; open_model explains each."""

    threads: int | None = None
    keys: Sequence[Path] = ()
    require_verdict: bool = False
    slots: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None:
            whole("threads", self.threads, 1, MOST_THREADS)
        if self.slots is not None:
            whole("slots", self.slots, 1, MOST_SLOTS)
        if not isinstance(self.require_verdict, bool):
            raise BadInput(f"require_verdict must be True or False, got {self.require_verdict!r:.40}")


PLAIN = Opening()

# A module here, and its engine, is imported only when such a file is opened.
OPENERS = {".onnx": "dlink.openvino_runtime.openvino_backend", ".plan": "dlink.trt_runtime.opener"}


def open_backend(path: Path, opening: Opening = PLAIN) -> Backend:
    """Open a model file as a Backend: OpenVINO for .onnx, TensorRT for .plan."""
    refuse_checkpoint(path)
    if path.suffix not in OPENERS:
        raise BadInput(f"{path}: not a model; expected a name ending in {' or '.join(OPENERS)}")
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise BadInput(f"{path}: {found}; dlink-export writes .onnx files, dlink-build plans")
    backend: Backend = import_module(OPENERS[path.suffix]).open(path, opening)
    return backend
