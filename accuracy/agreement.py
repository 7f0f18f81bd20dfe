"""Measures how two models' roads differ on the same tiles, mask first. gates.py has the limits.

`Agreement.to_json` gives plain values:

    {"tiles": 14, "labelled": 14, "label_road": 31415, "settings": [{
        "views": 8,
        "agreement": 0.9912,                            IoU between the two masks, pooled; null: no road in either
        "worst": 0.942, "worst_tile": "017",            the tile whose masks agree least
        "max_difference": 0.31,                         largest difference of a pixel's probabilities
        "near": {"pixels": 14680064, "undecided": 0, "settled": 0},  pixels that rounding could decide, see rounding.py
        "candidate": {"pooled": 0.7108, "mean": 0.69},  IoU against the labels; null without labels
        "reference": {"pooled": 0.7106, "mean": 0.69},
        "drop": {"pooled": -0.0002, "mean": 0.0},       reference - candidate; null without labels
        "roads": {"candidate": {...}, "reference": {...}},  see roads.py; null without labels
        "estimates": {                                  the gates' figures with 95 % intervals over tiles
            "agreement": {"value": 0.9912, "low": 0.985, "high": 0.995, "tiles": 14},
            "iou": {...}, "apls": {...}, "broken": {...}    candidate against reference, see gates.py
        }                                               without labels only the first; the last two where measured
    }, ...]}
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dlink.accuracy.bootstrap import Estimate, estimate, loss, ratio
from dlink.accuracy.iou import IoU, Overlap
from dlink.accuracy.pixels import Mask
from dlink.accuracy.roads import Connectivity, Roads, RoadTally, apls_drop, broken_rise
from dlink.imagery.images import Image, TileFile
from dlink.imagery.labels import read_tile
from dlink.imagery.reading import RGB, Reading
from dlink.runtime.backend import Probs
from dlink.runtime.errors import BadInput, within
from dlink.runtime.progress import Tick
from dlink.runtime.rounding import Near, Pair, settle
from dlink.runtime.segmenter import Views

BOTH = (8, 1)  # numbers of views that are compared


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """What is asked of a check."""

    views: str = "both"  # or one of their numbers
    limit: int | None = None  # tiles, the first by name
    reading: Reading = RGB  # of the tiles; --gsd gives metres a pixel for apls and broken too
    report: Path | None = None  # the page to write

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of views."""
        return BOTH if self.views == "both" else (int(self.views),)


@dataclass(frozen=True)
class Each:
    """One tile's own figures."""

    id: str
    agreement: float  # IoU between the two masks, 1 where both are empty
    candidate: float | None = None  # IoU with the label; None: no label
    reference: float | None = None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How the two models differ with one number of views."""

    views: int
    agreement: float | None  # IoU between the two masks, pooled over tiles; None: no road in either
    worst: float  # the lowest IoU between the two masks of one tile
    worst_tile: str
    max_difference: float  # of a pixel's probabilities
    candidate: IoU | None  # against the labels; None: no labels
    reference: IoU | None
    candidate_roads: Roads | None = None  # further figures against the labels
    reference_roads: Roads | None = None
    near: Near = field(default_factory=Near)  # pixels that rounding could decide
    estimates: Mapping[str, Estimate] = field(default_factory=dict)  # the gates' figures, by gate
    each: tuple[Each, ...] = field(default=(), repr=False)  # not in JSON

    @property
    def drop(self) -> IoU | None:
        """The reference's IoU minus the candidate's; negative if the candidate is better."""
        if self.candidate is None or self.reference is None:
            return None
        pooled = None
        if self.candidate.pooled is not None and self.reference.pooled is not None:
            pooled = self.reference.pooled - self.candidate.pooled
        return IoU(pooled, self.reference.mean - self.candidate.mean)

    def estimate(self, gate: str, tiles: int) -> Estimate:
        """A gate's figure of so many tiles; without an interval if none was computed."""
        if gate in self.estimates:
            return self.estimates[gate]
        values = {"agreement": self.agreement, "iou": self.drop.pooled if self.drop else None}
        return Estimate(values.get(gate), None, None, tiles)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as the module's docstring shows them."""
        names = ("views", "agreement", "worst", "worst_tile", "max_difference", "candidate", "reference", "drop")
        values = {name: getattr(self, name) for name in names}
        roads = {"candidate": self.candidate_roads, "reference": self.reference_roads}
        values["roads"] = {k: asdict(v) for k, v in roads.items() if v} or None
        values["estimates"] = {name: asdict(estimate) for name, estimate in self.estimates.items()}
        values["near"] = asdict(self.near)
        return {k: asdict(v) if isinstance(v, IoU) else v for k, v in values.items()}


@dataclass(frozen=True)
class Agreement:
    """How two models' roads differ on the same tiles."""

    tiles: int
    labelled: int  # tiles that have a label
    label_road: int  # road pixels in the labels of all tiles
    settings: tuple[Setting, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for json.dumps."""
        settings = [s.to_json() for s in self.settings]
        return {"tiles": self.tiles, "labelled": self.labelled, "label_road": self.label_road, "settings": settings}


class EvidenceSink(Protocol):
    """Collects what a report shows of each tile, see evidence.py."""

    def add(self, each: Each, image: Image, label: Mask | None, pair: Pair) -> None:
        """Add one tile; `pair` holds probabilities (H, W)."""
        ...


class Model(Protocol):
    """A Segmenter, or its recorded probabilities."""

    threshold: float

    def probabilities(self, image: Image, views: Views = None) -> Probs: ...


@dataclass
class Tally:
    """Counts for a Setting, a tile at a time."""

    views: int
    masks: Overlap = field(default_factory=Overlap)
    candidate: RoadTally = field(default_factory=RoadTally)
    reference: RoadTally = field(default_factory=RoadTally)
    each: list[Each] = field(default_factory=list)
    max_difference: float = 0.0
    near: Near = field(default_factory=Near)

    def add(self, id: str, pair: Pair, label: Mask | None, measure: Connectivity | None) -> Each:
        """Count one tile; `pair` holds probabilities (H, W)."""
        (a, _), (b, _) = pair
        self.max_difference = max(self.max_difference, float(np.abs(a - b).max()))
        candidate, reference, near = settle(pair)
        self.near += near
        each = Each(id, self.masks.add(candidate, reference))
        if label is not None:
            ious = self.candidate.add(candidate, label, measure), self.reference.add(reference, label, measure)
            each = Each(id, each.agreement, *ious)
        self.each.append(each)
        return each

    def setting(self) -> Setting:
        worst = min(self.each, key=lambda each: each.agreement)
        masks = self.masks.iou()
        return Setting(
            views=self.views,
            agreement=masks.pooled if masks else None,
            worst=worst.agreement,
            worst_tile=worst.id,
            max_difference=self.max_difference,
            near=self.near,
            candidate=self.candidate.pixels.overlap.iou(),
            reference=self.reference.pixels.overlap.iou(),
            candidate_roads=self.candidate.figures(),
            reference_roads=self.reference.figures(),
            estimates=self.estimates(),
            each=tuple(self.each),
        )

    def estimates(self) -> dict[str, Estimate]:
        """The gates' figures."""
        estimates = {"agreement": estimate(np.array(self.masks.each), ratio)}
        if self.candidate.overlaps:
            estimates["iou"] = estimate(np.hstack([self.reference.overlaps, self.candidate.overlaps]), loss)
        if self.candidate.graphs:
            columns = np.hstack([self.reference.graphs, self.candidate.graphs])
            estimates |= {"apls": estimate(columns, apls_drop), "broken": estimate(columns, broken_rise)}
        return estimates


def compare(
    candidate: Model,
    reference: Model,
    tiles: Sequence[TileFile],
    views: Sequence[int] = BOTH,
    report: Tick = lambda done, total, words: None,
    *,
    connectivity: Callable[[Mask], Connectivity] | None = None,
    evidence: EvidenceSink | None = None,
) -> Agreement:
    """Run both models on every tile, each with its own threshold, and compare. One tile at a time is in memory.

    A tile or label that cannot be read is an error and is never left out. `report` is called with (tiles done, all
    tiles, the tile's id). With `connectivity`, which makes a label's measure of masks, roads are also compared as
    graphs; that takes longer (connectivity.py). `evidence` gets every tile with the first number of views.
    """
    if not tiles or not views:
        raise BadInput(f"nothing to compare: {len(tiles)} tiles, {len(views)} numbers of views")
    tallies = [Tally(count) for count in views]
    labelled = label_road = 0
    for done, tile in enumerate(tiles, 1):
        image, label = read_tile(tile)
        measure = None
        if label is not None:
            labelled += 1
            label_road += int(np.count_nonzero(label))
            measure = connectivity(label) if connectivity else None
        for tally in tallies:
            pair = [roads(candidate, image, tally.views, f"tile {tile.id}, the candidate")]
            pair += [roads(reference, image, tally.views, f"tile {tile.id}, the reference")]
            each = tally.add(tile.id, pair, label, measure)
            if evidence is not None and tally is tallies[0]:
                evidence.add(each, image, label, pair)
        report(done, len(tiles), tile.id)
    return Agreement(len(tiles), labelled, label_road, tuple(tally.setting() for tally in tallies))


def roads(model: Model, image: Image, views: int, what: str) -> tuple[Probs, float]:
    """A model's probabilities and threshold; `what` names the run if it fails."""
    with within(what):
        return model.probabilities(image, views), model.threshold
