"""Compares a quantised network's roads with the float network's on the holdout, with one view and with eight.

The holdout are tiles that the network was not calibrated on. Both networks run in OpenVINO, by the runtime that will
run the file: the float network in float32, the quantised one as it is.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlink.accuracy.bootstrap import Figure, estimate, loss
from dlink.accuracy.iou import Overlap
from dlink.accuracy.road_graphs.connectivity import connectivity_with
from dlink.accuracy.roads import apls_drop, broken_rise
from dlink.calib.sample import Tile
from dlink.openvino_runtime import openvino_backend
from dlink.openvino_runtime.timing import Layer, Timed
from dlink.runtime.backend import Opening, Probs
from dlink.runtime.errors import BadInput
from dlink.runtime.progress import Tick
from dlink.runtime.rounding import Near, Sides, settle
from dlink.runtime.views import BY_COUNT
from dlink.runtime.words import counted

VIEWS = (1, 8)
LEAST = 0.97  # agreement of masks that may be called the same roads
ENOUGH = {1: 0.985, 8: 0.992}  # agreement by views at which speed comes first: about what other tools' INT8 has


@dataclass(frozen=True)
class Score:
    """A candidate compared with the float network with one number of views, pooled over tiles."""

    views: int
    iou: float | None  # of the candidate with the labels; None without labels
    drop: float | None  # the float network's IoU minus the candidate's
    drop_interval: tuple[float, float] | None  # its 95 % interval over tiles
    apls_drop: float | None  # the float network's mean APLS minus the candidate's
    broken_rise: float | None  # the candidate's broken links per km of labelled road minus the float network's
    agreement: float  # IoU between the two masks; 1 where neither has any road
    error: float  # root mean square difference of probabilities
    near: Near = field(default_factory=Near)  # pixels that rounding could decide


@dataclass(frozen=True)
class HoldoutLimits:
    """The largest differences that still count as the same roads."""

    max_iou_drop: float = 0.005
    min_agreement: float | None = None  # None: LEAST, and ENOUGH for what is fast

    @property
    def least(self) -> float:
        return LEAST if self.min_agreement is None else self.min_agreement

    def held(self, scores: Sequence[Score]) -> bool:
        return all((s.drop or 0.0) <= self.max_iou_drop and s.agreement >= self.least for s in scores)

    def good(self, scores: Sequence[Score]) -> bool:
        """Whether they are good enough that speed may come first."""
        enough = self.min_agreement is not None or all(s.agreement >= ENOUGH[s.views] for s in scores)
        return enough and self.held(scores)


class Evaluator:
    """Holds the float network's probabilities on the holdout, and compares candidates with them."""

    def __init__(self, reference: Path, tiles: Sequence[Tile], tick: Tick) -> None:
        self.tiles = tiles
        self.reference: dict[int, list[Probs]] = {views: [] for views in VIEWS}
        backend = openvino_backend.open(reference)
        self.spec = backend.spec
        for done, tile in enumerate(tiles, 1):
            for views in VIEWS:
                self.reference[views].append(backend.probabilities(tile.image[None], BY_COUNT[views])[0])
            tick(done, len(tiles), "run in float")
        backend.close()
        self.looks = [None if tile.label is None else connectivity_with(tile.label, self.spec.gsd_m) for tile in tiles]
        self.graphs = {
            views: [self.graph(i, p > self.spec.threshold) for i, p in enumerate(probs)]
            for views, probs in self.reference.items()
        }
        if not any((probs > self.spec.threshold).any() for probs in self.reference[1]):
            raise BadInput(
                f"the float network finds no road on {counted(len(tiles), 'tile')} kept back, so there is nothing to "
                f"compare; give tiles with roads, or more tiles"
            )

    @property
    def labelled(self) -> int:
        return sum(tile.label is not None for tile in self.tiles)

    def some(self, count: int) -> "Evaluator":
        """An evaluator of fewer tiles, evenly chosen."""
        at = sorted(set(np.linspace(0, len(self.tiles) - 1, count).astype(int).tolist()))
        other = copy.copy(self)
        other.tiles = [self.tiles[i] for i in at]
        other.looks = [self.looks[i] for i in at]
        other.reference = {views: [probs[i] for i in at] for views, probs in self.reference.items()}
        other.graphs = {views: [found[i] for i in at] for views, found in self.graphs.items()}
        return other

    def graph(self, tile: int, mask: Sides) -> tuple[float, ...]:
        """Graph figures of a tile: APLS, links broken and bridged, the label's km, and 1; empty without a label."""
        look = self.looks[tile]
        return () if look is None else (*look(mask), 1)

    def score(self, candidate: Path, views: Sequence[int] = VIEWS) -> list[Score]:
        """Run a candidate on the tiles with each number of views. Graphs are compared only for all of VIEWS."""
        # Two tiles at once, unless the last one would be alone with half of the threads.
        backend = openvino_backend.open(candidate, Opening(slots=1 + (len(self.tiles) % 2 == 0)))
        scores = []
        for count in views:
            runs = [backend.start(tile.image[None], BY_COUNT[count]) for tile in self.tiles]
            probs = [run()[0] for run in runs]
            scores.append(self.compare(count, probs, graphs=len(views) == len(VIEWS)))
        backend.close()
        return scores

    def timed(self, candidate: Path) -> tuple[float, dict[Layer, float]]:
        """The error of a candidate with one view, as `Score.error`, and the seconds of its layers."""
        timed = Timed(candidate)
        probs = [timed.backend.probabilities(tile.image[None], BY_COUNT[1])[0] for tile in self.tiles]
        timed.backend.close()
        return self.compare(1, probs, graphs=False).error, timed.seconds

    def compare(self, views: int, probs: list[Probs], graphs: bool) -> Score:
        masks, near, squares, columns, traced = Overlap(), Near(), 0.0, [], []
        for i, (tile, prob, other) in enumerate(zip(self.tiles, probs, self.reference[views], strict=True)):
            a, b, undecided = settle([(prob, self.spec.threshold), (other, self.spec.threshold)])
            near += undecided
            masks.add(a, b)
            squares += float(np.mean((prob - other) ** 2, dtype=np.float64))
            if tile.label is not None:
                columns.append([*overlap(b, tile.label), *overlap(a, tile.label)])
                if graphs:
                    traced.append([*self.graphs[views][i], *self.graph(i, a)])
        agreement = masks.iou()
        drop = estimate(np.array(columns), loss) if columns else None
        both, either = (sum(column[k] for column in columns) for k in (2, 3))
        return Score(
            views=views,
            iou=both / either if either else None,
            drop=drop.value if drop else None,
            drop_interval=(drop.low, drop.high) if drop and drop.low is not None and drop.high is not None else None,
            apls_drop=figure_of(traced, apls_drop),
            broken_rise=figure_of(traced, broken_rise),
            agreement=1.0 if agreement is None or agreement.pooled is None else agreement.pooled,
            error=float(np.sqrt(squares / len(self.tiles))),
            near=near,
        )


def overlap(mask: NDArray[np.bool_], label: NDArray[np.bool_]) -> tuple[int, int]:
    """The number of pixels in both masks, and in either."""
    return int(np.count_nonzero(mask & label)), int(np.count_nonzero(mask | label))


def figure_of(rows: list[list[float]], figure: Figure) -> float | None:
    """A figure of all tiles' graphs; None without graphs or without road."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(figure(np.sum(rows, axis=0))) if rows else np.nan
    return value if np.isfinite(value) else None


def scores_in_words(scores: Sequence[Score]) -> str:
    """Scores as text."""
    parts = []
    for s in scores:
        between = f" ({s.drop_interval[0]:.4f} to {s.drop_interval[1]:.4f})" if s.drop_interval else ""
        drop = "" if s.drop is None else f"IoU drop {s.drop:.4f}{between}, "
        drop += "" if s.apls_drop is None else f"APLS drop {s.apls_drop:.4f}, "
        near = f" ({s.near.words})" if s.near.words else ""
        parts.append(f"{drop}masks agree {s.agreement:.4f} with {s.views} view{'s' if s.views > 1 else ''}{near}")
    return "; ".join(parts)


def to_json(scores: Sequence[Score]) -> list[dict[str, Any]]:
    return [asdict(s) for s in scores]
