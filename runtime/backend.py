"""The seam between images and networks: a Backend, its plain implementation, and which file opens which."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlink.runtime.errors import BadInput, Closed, DlinkError, EngineFailed, NoProbability
from dlink.runtime.life import CLOSED, ENGINES, check_process
from dlink.runtime.spec import Spec
from dlink.runtime.values import whole
from dlink.runtime.views import TURN, apply_view, check_views, undo_view

Tiles: TypeAlias = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]  # each (S, S, 3) RGB
Probs: TypeAlias = NDArray[np.float32]
Net: TypeAlias = Callable[[NDArray[np.float32]], Probs]  # x (N, 3, S, S) -> (N, S, S), valid until the next call

OutputForm: TypeAlias = Literal[
    "probability", "level", "mask"
]  # float32 in [0, 1]; uint8 in 255 steps; uint8, 255 is road
Roads: TypeAlias = NDArray[Any]  # (N, S, S) in the form that was asked for
Running: TypeAlias = Callable[[], Roads]  # call it for the result; it waits until it is there

MOST_THREADS, MOST_SLOTS = 1024, 64
SLACK = 2e-3  # outside [0, 1] that is rounding: an ensemble's weights sum to 1 within 1e-3


class Backend(Protocol):
    """Runs one network on square tiles.

    Preparation, the views and their mean are behind it, not in front of it: a GPU then receives 3 bytes a pixel instead
    of 96, and no caller can forget a step. Any thread may call anything.
    """

    spec: Spec
    max_tiles: int  # the most tiles that it takes at once
    slots: int  # how many runs can be under way at once
    engine: str  # what runs the network, its version and the precision it computes in, for reports
    executed: Mapping[str, float]  # share of the multiply-adds by that precision; empty where the engine does not say

    def tiles_per_batch(self, views: Sequence[int] | None = None) -> int:
        """How many tiles go through the network at once with these views, the spec's where None: 1 to `max_tiles`."""
        ...

    def start(
        self, tiles: Tiles, views: Sequence[int] | None = None, form: OutputForm = "probability", threshold: float = 0.5
    ) -> Running:
        """Begin with 1 to `tiles_per_batch(views)` tiles. The pixels are the caller's again when this returns.

        Where all slots are taken it waits for the oldest, whose result is kept for whoever began it. EngineFailed, here
        or from the result, where the engine fails or a tile's result is no probability.
        """
        ...

    def probabilities(self, tiles: Tiles, views: Sequence[int] | None = None) -> Probs:
        """Road probability of every pixel of 1 to `max_tiles` RGB tiles: uint8 (N, S, S, 3) -> float32 (N, S, S).

        The mean over `views`, the spec's where None. The caller owns the result.
        """
        ...

    def close(self) -> None:
        """End what is under way and free everything; a second call does nothing. See life.py for whole models."""
        ...


@dataclass
class Spent:
    """Where a HostBackend's time went so far, in seconds."""

    prepare: float = 0.0
    network: float = 0.0
    undo: float = 0.0


@dataclass(eq=False)
class HostBackend:
    """A Backend of any float32 network, in NumPy. Plain on purpose: the others are tested against it.

    Each view is one copy: the turned ones are prepared from the turned pixels, and flips are copied out of those. The
    sum of the turned ones is turned back once. `start` does it all at once. A call that is under way when the model is
    closed ends at its next view.
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
    faults: set[int] = field(default_factory=set, init=False, repr=False)  # tiles of the call under way

    def __post_init__(self) -> None:
        ENGINES.add(self)

    def tiles_per_batch(self, views: Sequence[int] | None = None) -> int:
        return self.max_tiles

    def start(
        self, tiles: Tiles, views: Sequence[int] | None = None, form: OutputForm = "probability", threshold: float = 0.5
    ) -> Running:
        prob, bad = self.mean_of(tiles, self.spec.views if views is None else views)
        prob[bad] = 0
        roads = formed(np.clip(prob, 0, 1, out=prob), form, threshold)
        if bad:
            raise NoProbability.of(bad, roads)
        return lambda: roads

    def probabilities(self, tiles: Tiles, views: Sequence[int] | None = None) -> Probs:
        prob: Probs = self.start(tiles, views)()
        return prob

    def mean_of(self, tiles: Tiles, views: Sequence[int]) -> tuple[Probs, list[int]]:
        """The mean of what the network gives through the views, and the tiles of which a view is no probability."""
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
        """The probabilities of the tiles as they stand, summed over some flips."""
        total = np.zeros(tiles.shape[:3], np.float32)
        if not flips:
            return total
        clock = [time.perf_counter()]
        x = self.spec.prepare(tiles)
        for flip in flips:
            seen = np.ascontiguousarray(apply_view(x, flip))
            clock.append(time.perf_counter())
            prob = self.run(seen)
            clock.append(time.perf_counter())
            total += undo_view(prob, flip)
            self.faults.update(i for i, each in enumerate(prob) if not is_probable(each))
            clock.append(time.perf_counter())
        steps = np.diff(clock)
        self.spent.prepare += float(steps[0::3].sum())
        self.spent.network += float(steps[1::3].sum())
        self.spent.undo += float(steps[2::3].sum())
        return total

    def run(self, x: NDArray[np.float32]) -> Probs:
        """The network, its failures as ours."""
        if self.net is None or self.closing:
            raise Closed(CLOSED)
        try:
            return self.net(x)
        except DlinkError:
            raise
        except RuntimeError as e:
            said = " ".join(str(e).split())
            raise EngineFailed(f"{self.engine} failed while it ran the network: {said}") from e

    def close(self) -> None:
        if os.getpid() != self.pid:
            return
        self.closing = True
        with self.lock:
            self.net = None


def is_probable(prob: Probs) -> bool:
    """Whether all of a tile's values are probabilities, rounding apart; NaN is none."""
    return bool(prob.min() >= -SLACK and prob.max() <= 1 + SLACK)


def check_tiles(tiles: Tiles, spec: Spec, most: int) -> None:
    """Refuse what is not 1 to `most` tiles of the spec's size."""
    side = spec.tile
    if isinstance(tiles, np.ndarray) and tiles.ndim != 4:
        raise BadInput(f"tiles must be uint8 (N, {side}, {side}, 3), got {tiles.dtype} {tiles.shape}")
    for tile in tiles:
        if tile.dtype != np.uint8 or tile.shape != (side, side, 3):
            raise BadInput(f"tiles must be uint8 (N, {side}, {side}, 3), got {tile.dtype} {(len(tiles), *tile.shape)}")
    if not 1 <= len(tiles) <= most:
        raise BadInput(f"{len(tiles)} tiles at once; this model takes 1 to {most}")


def formed(prob: Probs, form: OutputForm, threshold: float) -> Roads:
    """Probabilities in the form that is asked for."""
    if form == "probability":
        return prob
    if form == "level":
        levels: Roads = (prob * np.float32(255) + np.float32(0.5)).astype(np.uint8)
        return levels
    if form != "mask":
        raise BadInput(f"form must be probability, level or mask, got {form!r}")
    mask: Roads = (prob > threshold).astype(np.uint8)
    mask *= 255
    return mask


@dataclass(frozen=True)
class Opening:
    """How a model file is opened; open_model says what each means."""

    threads: int | None = None
    keys: Sequence[Path] = ()
    require_verdict: bool = False
    slots: int = 2

    def __post_init__(self) -> None:
        if self.threads is not None:
            whole("threads", self.threads, 1, MOST_THREADS)
        whole("slots", self.slots, 1, MOST_SLOTS)
        if not isinstance(self.require_verdict, bool):
            raise BadInput(f"require_verdict must be True or False, got {self.require_verdict!r:.40}")


PLAIN = Opening()

# Each of these is imported only when a file asks for it, and its engine with it.
OPENERS = {".onnx": "dlink.openvino_runtime.openvino_backend", ".plan": "dlink.trt_runtime.opener"}


def open_backend(path: Path, opening: Opening = PLAIN) -> Backend:
    """The Backend for a model file: OpenVINO for .onnx, TensorRT for .plan."""
    if path.suffix not in OPENERS:
        raise BadInput(f"{path}: not a model; expected a name ending in {' or '.join(OPENERS)}")
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise BadInput(f"{path}: {found}; dlink-export writes .onnx files, dlink-build plans")
    backend: Backend = import_module(OPENERS[path.suffix]).open(path, opening)
    return backend
