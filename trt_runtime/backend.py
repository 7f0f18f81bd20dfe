"""The seam between images and networks: a Backend, its plain implementation, and which file opens which."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlink.trt_runtime.errors import BadInput, Closed
from dlink.trt_runtime.spec import Spec
from dlink.trt_runtime.views import TURN, check_views, look, unlook

Tiles: TypeAlias = NDArray[np.uint8]
Probs: TypeAlias = NDArray[np.float32]
Net: TypeAlias = Callable[[NDArray[np.float32]], Probs]  # x (N, 3, S, S) -> (N, S, S), valid until the next call


class Backend(Protocol):
    """Runs one network on square tiles.

    Preparation, the views and their mean are behind `probabilities`, not in front of it: a GPU then receives 3 bytes
    a pixel instead of 96, and no caller can forget a step.
    """

    spec: Spec
    max_tiles: int  # the most tiles that `probabilities` takes at once
    engine: str  # what runs the network, its version and the precision it computes in, for reports
    executed: Mapping[str, float]  # share of the multiply-adds by that precision; empty where the engine does not say

    def probabilities(self, tiles: Tiles, views: Sequence[int] | None = None) -> Probs:
        """Road probability of every pixel of 1 to `max_tiles` RGB tiles: uint8 (N, S, S, 3) -> float32 (N, S, S).

        The mean over `views`, the spec's where None. The caller owns the result. Any thread may call.
        """
        ...

    def close(self) -> None:
        """Free everything; a second call does nothing."""
        ...


@dataclass
class Spent:
    """Where a HostBackend's time went so far, in seconds."""

    prepare: float = 0.0
    network: float = 0.0
    undo: float = 0.0


@dataclass
class HostBackend:
    """A Backend of any float32 network, in NumPy. Plain on purpose: the others are tested against it.

    Each view is one copy: the turned ones are prepared from the turned pixels, and flips are copied out of those. The
    sum of the turned ones is turned back once.
    """

    net: Net | None
    spec: Spec
    max_tiles: int = 1
    engine: str = "NumPy"
    executed: Mapping[str, float] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def probabilities(self, tiles: Tiles, views: Sequence[int] | None = None) -> Probs:
        views = self.spec.views if views is None else views
        check_views(views)
        side = self.spec.tile
        if tiles.dtype != np.uint8 or tiles.ndim != 4 or tiles.shape[1:] != (side, side, 3):
            raise BadInput(f"tiles must be uint8 (N, {side}, {side}, 3), got {tiles.dtype} {tiles.shape}")
        if not 1 <= len(tiles) <= self.max_tiles:
            raise BadInput(f"{len(tiles)} tiles at once; this model takes 1 to {self.max_tiles}")
        with self.lock:
            total = self.sum_of(tiles, [v for v in views if not v & TURN])
            turned = self.sum_of(np.rot90(tiles, axes=(1, 2)), [v ^ TURN for v in views if v & TURN])
            clock = time.perf_counter()
            total += unlook(turned, TURN)
            total /= np.float32(len(views))
            self.spent.undo += time.perf_counter() - clock
        return total

    def sum_of(self, tiles: Tiles, flips: Sequence[int]) -> Probs:
        """The probabilities of the tiles as they stand, summed over some flips."""
        total = np.zeros(tiles.shape[:3], np.float32)
        if not flips:
            return total
        if self.net is None:
            raise Closed("this model is closed; open it again")
        clock = [time.perf_counter()]
        x = self.spec.prepare(tiles)
        for flip in flips:
            seen = np.ascontiguousarray(look(x, flip))
            clock.append(time.perf_counter())
            prob = self.net(seen)
            clock.append(time.perf_counter())
            total += unlook(prob, flip)
            clock.append(time.perf_counter())
        steps = np.diff(clock)
        self.spent.prepare += float(steps[0::3].sum())
        self.spent.network += float(steps[1::3].sum())
        self.spent.undo += float(steps[2::3].sum())
        return total

    def close(self) -> None:
        with self.lock:
            self.net = None


@dataclass(frozen=True)
class Opening:
    """How a model file is opened; open_model says what each means."""

    threads: int | None = None
    keys: Sequence[Path] = ()
    require_verdict: bool = False


PLAIN = Opening()

# Each of these is imported only when a file asks for it, and its engine with it.
OPENERS = {".onnx": "dlink.trt_runtime.openvino_backend", ".plan": "dlink.trt_runtime.plan"}


def open_backend(path: Path, opening: Opening = PLAIN) -> Backend:
    """The Backend for a model file: OpenVINO for .onnx, TensorRT for .plan."""
    if path.suffix not in OPENERS:
        raise BadInput(f"{path}: not a model; expected a name ending in {' or '.join(OPENERS)}")
    backend: Backend = import_module(OPENERS[path.suffix]).open(path, opening)
    return backend
