"""How two models' roads differ on the same tiles, mask first; and what difference is too much.

`Agreement.to_json` gives plain values, to be kept beside a model as its verdict:

    {"tiles": 14, "labelled": 14, "label_road": 31415, "settings": [{
        "views": 8,
        "agreement": 0.9912,                            IoU between the two masks, pooled; null: no road in either
        "worst": 0.942, "worst_tile": "017",            the tile whose masks agree least
        "max_difference": 0.31,                         of a pixel's probability, the largest of all
        "candidate": {"pooled": 0.7108, "mean": 0.69},  IoU against the labels; null without labels
        "reference": {"pooled": 0.7106, "mean": 0.69},
        "drop": {"pooled": -0.0002, "mean": 0.0}        reference - candidate; null without labels
    }, ...]}
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlink.accuracy.iou import IoU, Overlap
from dlink.trt_runtime.backend import Probs
from dlink.trt_runtime.errors import BadInput, CheckFailed
from dlink.trt_runtime.images import TileFile, read_tile
from dlink.trt_runtime.segmenter import Segmenter, as_mask

BOTH = (8, 1)  # numbers of views that are compared
MIN_AGREEMENT = {"fp32": 0.99, "fp16": 0.99, "int8": 0.97}  # plain INT8 of a D-LinkNet34 agrees to 0.977 and more
MAX_IOU_DROP = 0.005


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How the two differ with one number of views."""

    views: int
    agreement: float | None  # IoU between the two masks, pooled over tiles; None: no road in either
    worst: float  # IoU between the two masks of one tile, the lowest of all
    worst_tile: str
    max_difference: float  # of a pixel's probability
    candidate: IoU | None  # against the labels, of the labelled tiles; None: there are none
    reference: IoU | None

    @property
    def drop(self) -> IoU | None:
        """What the candidate loses of the reference's IoU; negative where it gains."""
        if self.candidate is None or self.reference is None:
            return None
        lost = None
        if self.candidate.pooled is not None and self.reference.pooled is not None:
            lost = self.reference.pooled - self.candidate.pooled
        return IoU(lost, self.reference.mean - self.candidate.mean)


@dataclass(frozen=True)
class Agreement:
    """How two models' roads differ on the same tiles."""

    tiles: int
    labelled: int  # tiles that have a label
    label_road: int  # road pixels in the labels of all tiles
    settings: tuple[Setting, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for json.dumps."""
        settings = [{**asdict(s), "drop": asdict(s.drop) if s.drop else None} for s in self.settings]
        return {"tiles": self.tiles, "labelled": self.labelled, "label_road": self.label_road, "settings": settings}


@dataclass(frozen=True)
class Limits:
    """What difference is too much: each number is still allowed."""

    max_iou_drop: float  # of the pooled IoU, with every number of views
    min_agreement: float

    @classmethod
    def of(cls, precision: str, max_iou_drop: float | None = None, min_agreement: float | None = None) -> "Limits":
        """The usual ones for a graph of this precision, where none are given."""
        return cls(
            MAX_IOU_DROP if max_iou_drop is None else max_iou_drop,
            MIN_AGREEMENT[precision] if min_agreement is None else min_agreement,
        )

    def broken(self, found: Agreement) -> list[str]:
        """Why the roads are not the same, in words; empty where they are."""
        why = []
        if found.labelled and not found.label_road:
            why.append(
                f"no road in any of the {found.labelled} labels, where road is 128 or more: give labels with roads"
            )
        for s in found.settings:
            with_views = f"with {count_of_views(s.views)}"
            if s.agreement is None:
                why.append(f"no road in either mask on {found.tiles} tiles {with_views}: give tiles with roads")
            elif s.agreement < self.min_agreement:
                why.append(f"the masks agree to {s.agreement:.6g} {with_views}, less than {self.min_agreement:g}")
            lost = s.drop.pooled if s.drop else None
            if lost is not None and lost > self.max_iou_drop:
                why.append(f"IoU drops by {lost:.6g} {with_views}, more than {self.max_iou_drop:g}")
        return why


def count_of_views(count: int) -> str:
    return "1 view" if count == 1 else f"{count} views"


@dataclass
class Tally:
    """A Setting in the making, a tile at a time."""

    views: int
    masks: Overlap = field(default_factory=Overlap)
    candidate: Overlap = field(default_factory=Overlap)
    reference: Overlap = field(default_factory=Overlap)
    worst: tuple[float, str] | None = None
    max_difference: float = 0.0

    def add(self, id: str, pair: Sequence[tuple[Probs, float]], label: NDArray[np.bool_] | None) -> None:
        """Count one tile: the candidate's and the reference's probabilities (H, W), each with its threshold."""
        (a, _), (b, _) = pair
        difference = float(np.abs(a - b).max())
        if not np.isfinite(difference):
            whose = "reference" if np.isfinite(a).all() else "candidate"
            raise CheckFailed(f"tile {id}: the {whose}'s probabilities are not finite numbers; export it again")
        self.max_difference = max(self.max_difference, difference)
        candidate, reference = (as_mask(prob, threshold) > 0 for prob, threshold in pair)
        own = self.masks.add(candidate, reference)
        if self.worst is None or own < self.worst[0]:
            self.worst = own, id
        if label is not None:
            self.candidate.add(candidate, label)
            self.reference.add(reference, label)

    def setting(self) -> Setting:
        assert self.worst is not None, "compare() refuses no tiles"
        masks = self.masks.iou()
        return Setting(
            views=self.views,
            agreement=masks.pooled if masks else None,
            worst=self.worst[0],
            worst_tile=self.worst[1],
            max_difference=self.max_difference,
            candidate=self.candidate.iou(),
            reference=self.reference.iou(),
        )


def compare(
    candidate: Segmenter,
    reference: Segmenter,
    tiles: Sequence[TileFile],
    views: Sequence[int] = BOTH,
    report: Callable[[int, int, str], None] = lambda done, total, words: None,
) -> Agreement:
    """Draw both models' roads on every tile, each by its own threshold. One tile at a time is in memory.

    A tile or label that can't be read is an error, never left out. `report` is told (done, all, the tile's id).
    """
    if not tiles or not views:
        raise BadInput(f"nothing to compare: {len(tiles)} tiles, {len(views)} numbers of views")
    tallies = [Tally(count) for count in views]
    labelled = label_road = 0
    for done, tile in enumerate(tiles, 1):
        image, label = read_tile(tile)
        if label is not None:
            labelled += 1
            label_road += int(np.count_nonzero(label))
        for tally in tallies:
            pair = [(model.probabilities(image, tally.views), model.threshold) for model in (candidate, reference)]
            tally.add(tile.id, pair, label)
        report(done, len(tiles), tile.id)
    return Agreement(len(tiles), labelled, label_road, tuple(tally.setting() for tally in tallies))
