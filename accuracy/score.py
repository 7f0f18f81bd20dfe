"""Scores masks or graphs against their truths: all figures of this folder, for each tile and for all together.

Figures are pooled: counts are added up over tiles first, so a tile counts by how much road it has. APLS and `mean-iou`
are means over tiles. `miou` is the mean over two classes: of the road's pooled IoU and of the background's, which is
TN / (TN + FP + FN). Other definitions are in iou.py, pixels.py, links.py, apls.py and footprints.py, intervals in
bootstrap.py.

For buildings the figures of road graphs are left out, and those of footprints are there instead.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from multiprocessing import get_context
from typing import Any, TypeAlias

import cv2
import numpy as np

from dlink.accuracy import footprints
from dlink.accuracy.bootstrap import Estimate, Figure, Floats, estimate
from dlink.accuracy.pixels import PixelCounts, boundary
from dlink.accuracy.road_graphs.apls import apls
from dlink.accuracy.road_graphs.graph import from_mask
from dlink.accuracy.road_graphs.links import links_of
from dlink.accuracy.truth import Pair, metres_a_pixel, read_graphs, read_pair, read_polygons
from dlink.imagery.reading import RGB, Reading
from dlink.runtime.errors import BadInput
from dlink.runtime.progress import Tick

ROADS, BUILDINGS = "road", "building"
FEW = 4  # fewer pairs are scored without starting processes


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Options of scoring."""

    gsd_m: float | None = (
        None  # metres a pixel, or metres a unit of a graph's coordinates; None: the file's, else GSD_M
    )
    buffer_m: float = 3.0  # of the relaxed measures
    gap_m: float = 0.0  # shorter gaps are bridged in both graphs
    threshold: float = 0.5  # of probabilities
    reading: Reading = RGB  # its road_value: values of truths that are road, and of masks of more than two values
    target: str = ROADS  # or BUILDINGS


GSD_M = 0.5  # DeepGlobe's


@dataclass(frozen=True, kw_only=True)
class TileScores:
    """The counts of one pair. A column that the pair or the target does not have is 0."""

    id: str
    pixels: int = 0
    both: int = 0  # road pixels in mask and truth
    either: int = 0
    mask_road: int = 0
    truth_road: int = 0
    mask_near: int = 0  # road pixels of the mask near road of the truth
    truth_near: int = 0  # road pixels of the truth near road of the mask
    boundary_m: float = 0.0  # sum of distances
    boundary_pixels: int = 0
    components: int = 0
    truth_components: int = 0
    broken: int = 0
    bridged: int = 0
    truth_km: float = 0.0
    apls: float = 0.0
    apls_truth: float = 0.0  # one direction: the truth's paths in the mask
    apls_mask: float = 0.0  # the mask's paths in the truth
    pruned: int = 0  # spurs and loops dropped from both graphs
    gaps: int = 0  # bridged in both graphs
    footprints: int = 0  # buildings in the mask
    truth_footprints: int = 0
    hits: int = 0  # footprints of the mask that are in the truth

    @property
    def iou(self) -> float:
        return self.both / self.either if self.either else 1.0


def score_pair(pair: Pair, how: ScoreOptions) -> TileScores:
    """One pair's counts. Errors name its files."""
    if pair.graphs and how.target == BUILDINGS:
        return with_footprints(TileScores(id=pair.id), footprints.of_polygons(*read_polygons(pair)))
    if pair.graphs:
        mask, truth = read_graphs(pair, how.gsd_m)
        found = apls(mask, truth, 1.0)
        km = float(truth.lengths.sum()) / 1000
        return TileScores(id=pair.id, truth_km=km, apls=found.score, apls_mask=found.forward, apls_truth=found.back)
    own, label = read_pair(pair, how.threshold, how.reading)
    if own.shape != label.shape:
        raise BadInput(
            f"{pair.mask}: {own.shape[1]} x {own.shape[0]} px, its truth {pair.truth} is {label.shape[1]} x "
            f"{label.shape[0]}"
        )
    gsd_m = how.gsd_m or metres_a_pixel(pair) or GSD_M
    pixels = PixelCounts(buffer=how.buffer_m / gsd_m)
    pixels.add(own, label)
    edge = boundary(own, label, gsd_m)
    row = TileScores(
        id=pair.id,
        pixels=own.size,
        both=pixels.overlap.both,
        either=pixels.overlap.either,
        mask_road=pixels.mask_road,
        truth_road=pixels.label_road,
        mask_near=pixels.mask_near,
        truth_near=pixels.label_near,
        boundary_m=edge.total_m,
        boundary_pixels=edge.pixels,
    )
    if how.target == BUILDINGS:
        return with_footprints(row, footprints.of_masks(own, label))
    traced = from_mask(own, gap=how.gap_m / gsd_m), from_mask(label, gap=how.gap_m / gsd_m)
    links = links_of(own, label, traced, gsd_m)
    paths = apls(traced[0].graph, traced[1].graph, gsd_m)
    return replace(
        row,
        components=links.components,
        truth_components=links.truth_components,
        broken=links.broken,
        bridged=links.bridged,
        truth_km=links.km,
        apls=paths.score,
        apls_mask=paths.forward,
        apls_truth=paths.back,
        pruned=sum(t.spurs + t.loops for t in traced),
        gaps=sum(t.bridged for t in traced),
    )


def with_footprints(row: TileScores, found: footprints.Found) -> TileScores:
    return replace(row, footprints=found.proposed, truth_footprints=found.true, hits=found.hits)


def score_pairs(pairs: Sequence[Pair], how: ScoreOptions, workers: int, report: Tick) -> list[TileScores]:
    """Every pair's counts, in the order of the pairs, computed by several processes."""
    rows = []
    for done, row in enumerate(in_order(pairs, how, workers), 1):
        rows.append(row)
        report(done, len(pairs), row.id)
    return rows


def in_order(pairs: Sequence[Pair], how: ScoreOptions, workers: int) -> Iterator[TileScores]:
    if workers == 1 or len(pairs) < FEW:
        yield from (score_pair(pair, how) for pair in pairs)
        return
    # Spawned, because OpenCV's threads do not survive a fork. One thread each, since there are several processes.
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from pool.map(score_pair, pairs, [how] * len(pairs))


def of(*names: str) -> Callable[[TileScores], list[float]]:
    """The columns that a figure adds up, then 1."""
    return lambda row: [float(getattr(row, name)) for name in names] + [1.0]


def ratio(sums: Floats) -> Floats:
    return np.asarray(sums[..., 0] / sums[..., 1])


def mean(sums: Floats) -> Floats:
    return np.asarray(sums[..., 0] / sums[..., -1])


def f1(sums: Floats) -> Floats:
    return np.asarray(2 * sums[..., 0] / (sums[..., 1] + sums[..., 2]))


def quality(sums: Floats) -> Floats:
    """The relaxed IoU, from both relaxed ratios."""
    p, r = sums[..., 0] / sums[..., 1], sums[..., 2] / sums[..., 3]
    return np.asarray(np.where(p + r > 0, p * r / np.maximum(p + r - p * r, 1e-12), 0.0))


def two_classes(sums: Floats) -> Floats:
    """The mean of the IoU of both classes, from the pixels in both masks, in either, and of all."""
    both, either, pixels = sums[..., 0], sums[..., 1], sums[..., 2]
    return np.asarray((both / either + (pixels - either) / (pixels - both)) / 2)


Figures: TypeAlias = dict[str, tuple[Callable[[TileScores], list[float]], Figure]]
PIXELS: Figures = {
    "iou": (of("both", "either"), ratio),
    "mean-iou": (of("iou"), mean),
    "miou": (of("both", "either", "pixels"), two_classes),
    "precision": (of("both", "mask_road"), ratio),
    "recall": (of("both", "truth_road"), ratio),
    "f1": (of("both", "mask_road", "truth_road"), f1),
    "relaxed-precision": (of("mask_near", "mask_road"), ratio),
    "relaxed-recall": (of("truth_near", "truth_road"), ratio),
    "relaxed-iou": (of("mask_near", "mask_road", "truth_near", "truth_road"), quality),
    "boundary-m": (of("boundary_m", "boundary_pixels"), ratio),
}
LINKS: Figures = {
    "broken-per-km": (of("broken", "truth_km"), ratio),
    "bridged-per-km": (of("bridged", "truth_km"), ratio),
}
GRAPHS: Figures = {"apls": (of("apls"), mean)}
FOOTPRINTS: Figures = {
    "building-precision": (of("hits", "footprints"), ratio),
    "building-recall": (of("hits", "truth_footprints"), ratio),
    "building-f1": (of("hits", "footprints", "truth_footprints"), f1),
}
WANTED: dict[tuple[str, bool], Figures] = {  # of a target, and of pairs of graphs or of masks
    (ROADS, True): GRAPHS,
    (ROADS, False): {**PIXELS, **LINKS, **GRAPHS},
    (BUILDINGS, True): FOOTPRINTS,
    (BUILDINGS, False): {**PIXELS, **FOOTPRINTS},
}
TOTALS = ("components", "truth_components", "truth_km", "footprints", "truth_footprints", "hits")
AT_MOST = ("boundary-m", "broken-per-km", "bridged-per-km")  # less is better
AT_LEAST = tuple(name for name in (*PIXELS, *LINKS, *GRAPHS, *FOOTPRINTS) if name not in AT_MOST)


@dataclass(frozen=True)
class Scores:
    """The scores of all pairs."""

    rows: tuple[TileScores, ...]
    figures: dict[str, Estimate]

    @classmethod
    def of(cls, rows: Sequence[TileScores], graphs: bool, target: str = ROADS) -> "Scores":
        wanted = WANTED[target, graphs]
        return cls(
            tuple(rows),
            {name: estimate(np.array([take(r) for r in rows]), figure) for name, (take, figure) in wanted.items()},
        )

    def below(self, least: dict[str, float]) -> list[str]:
        """The figures below their minimum, in words. A figure that these tiles do not have counts as below."""
        why = []
        for name, limit in least.items():
            value = self.figures[name].value if name in self.figures else None
            if value is None or value < limit:
                got = "not there" if value is None else f"{value:.4f}"
                why.append(f"{name} is {got}, at least {limit:g} is asked for")
        return why

    def to_json(self) -> dict[str, Any]:
        """Plain values: figures with their intervals, and a row of counts for each pair."""
        total = {n: sum(getattr(r, n) for r in self.rows) for n in TOTALS}
        return {
            "tiles": len(self.rows),
            **total,
            "figures": {name: asdict(e) for name, e in self.figures.items()},
            "rows": [asdict(row) for row in self.rows],
        }


def csv_lines(rows: Sequence[TileScores]) -> Iterator[list[object]]:
    """A header, then each pair's counts and its own IoU."""
    names = [f.name for f in fields(TileScores)]
    yield [*names, "iou"]
    for row in rows:
        yield [*(getattr(row, name) for name in names), row.iou]


def least_of(text: str) -> dict[str, float]:
    """The option `--min iou=0.6,apls=0.5` as minimums by figure."""
    least = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            least[name.strip()] = float(value)
        except ValueError as e:
            raise BadInput(f"--min {part}: expected NAME=NUMBER, such as iou=0.6") from e
        if name.strip() not in AT_LEAST:
            raise BadInput(f"--min {name.strip()}: no such figure; there are {', '.join(AT_LEAST)}")
    return least
