"""Does a quantised network draw the float network's roads? On tiles it was not calibrated on, with one view and eight.

Both run in OpenVINO, by the very runtime that will run the file: the float network in float32, the other as it is.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlink.accuracy.iou import Overlap
from dlink.calib.observe import Tick
from dlink.calib.sample import Tile
from dlink.trt_runtime import openvino_backend
from dlink.trt_runtime.backend import Probs
from dlink.trt_runtime.errors import BadInput
from dlink.trt_runtime.views import BY_COUNT

VIEWS = (1, 8)


@dataclass(frozen=True)
class Score:
    """A candidate beside the float network with one number of views, pooled over tiles."""

    views: int
    iou: float | None  # of the candidate with the labels; None without labels
    drop: float | None  # what the float network has more
    agreement: float  # IoU between the two masks; 1 where neither has any road
    error: float  # root mean square difference of probabilities


@dataclass(frozen=True)
class Limits:
    """What is still the same."""

    max_iou_drop: float = 0.005
    min_agreement: float = 0.97

    def held(self, scores: Sequence[Score]) -> bool:
        return all((s.drop or 0.0) <= self.max_iou_drop and s.agreement >= self.min_agreement for s in scores)


class Judge:
    """Knows the float network's probabilities on the tiles held back."""

    def __init__(self, reference: Path, tiles: Sequence[Tile], tick: Tick) -> None:
        self.tiles = tiles
        self.reference: dict[int, list[Probs]] = {views: [] for views in VIEWS}
        backend = openvino_backend.open(reference)
        self.spec = backend.spec
        for done, tile in enumerate(tiles, 1):
            for views in VIEWS:
                self.reference[views].append(backend.probabilities(tile.image[None], BY_COUNT[views])[0])
            tick(done, len(tiles), "judged in float")
        backend.close()
        if not any((probs > self.spec.threshold).any() for probs in self.reference[1]):
            raise BadInput(
                f"the float network finds no road on any of the {len(tiles)} tiles held back, so there is nothing to "
                f"judge by; give tiles with roads, or more of them"
            )

    @property
    def labelled(self) -> int:
        return sum(tile.label is not None for tile in self.tiles)

    def some(self, count: int) -> "Judge":
        """The same judge with fewer tiles, evenly taken."""
        at = sorted(set(np.linspace(0, len(self.tiles) - 1, count).astype(int).tolist()))
        other = copy.copy(self)
        other.tiles = [self.tiles[i] for i in at]
        other.reference = {views: [probs[i] for i in at] for views, probs in self.reference.items()}
        return other

    def score(self, candidate: Path, views: Sequence[int] = VIEWS) -> list[Score]:
        """Run a candidate on the tiles, with each number of views."""
        backend = openvino_backend.open(candidate)
        scores = []
        for count in views:
            probs = [backend.probabilities(tile.image[None], BY_COUNT[count])[0] for tile in self.tiles]
            scores.append(self.compare(count, probs))
        backend.close()
        return scores

    def compare(self, views: int, probs: list[Probs]) -> Score:
        masks, mine, theirs, squares = Overlap(), Overlap(), Overlap(), 0.0
        for tile, prob, other in zip(self.tiles, probs, self.reference[views], strict=True):
            a, b = prob > self.spec.threshold, other > self.spec.threshold
            masks.add(a, b)
            squares += float(np.mean((prob - other) ** 2, dtype=np.float64))
            if tile.label is not None:
                mine.add(a, tile.label)
                theirs.add(b, tile.label)
        agreement, candidate, reference = pooled(masks), pooled(mine), pooled(theirs)
        return Score(
            views,
            candidate,
            None if candidate is None or reference is None else reference - candidate,
            1.0 if agreement is None else agreement,
            float(np.sqrt(squares / len(self.tiles))),
        )


def pooled(overlap: Overlap) -> float | None:
    iou = overlap.iou()
    return iou.pooled if iou else None


def say(scores: Sequence[Score]) -> str:
    """Scores in words."""
    parts = []
    for s in scores:
        drop = "" if s.drop is None else f"IoU drop {s.drop:.4f}, "
        parts.append(f"{drop}masks agree {s.agreement:.4f} with {s.views} view{'s' if s.views > 1 else ''}")
    return "; ".join(parts)


def to_json(scores: Sequence[Score]) -> list[dict[str, Any]]:
    return [asdict(s) for s in scores]
