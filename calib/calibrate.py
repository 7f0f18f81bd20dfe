"""Calibrates an ONNX file on tiles: writes an INT8 ONNX file that draws the same roads."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import onnx

from dlink.calib.deconv import without_transposed
from dlink.calib.evaluator import Evaluator, HoldoutLimits, Score, scores_in_words, to_json
from dlink.calib.folded import with_folded_end
from dlink.calib.limits import METHODS
from dlink.calib.network import Network, read_network
from dlink.calib.placement import INT8, ROADS, SPEED, Unit, place, share_of
from dlink.calib.qdq import write_qdq
from dlink.calib.ranges import Ranges, gather
from dlink.calib.rescale import rescale
from dlink.calib.sample import Sample
from dlink.openvino_runtime.timing import slower
from dlink.runtime.errors import CheckFailed
from dlink.runtime.files import replacing
from dlink.runtime.onnx_bytes import write_sealed
from dlink.runtime.progress import Tick
from dlink.runtime.spec import INT8_KEY, ONNX_KEY
from dlink.runtime.words import counted

AUTO = "auto"
USEFUL = 0.5  # share of what could run in int8; with less the FP16 file is about as fast, and simpler
AS_GOOD = 1e-4  # of IoU or of an error's share; a smaller difference is a tie, because rounding may decide it
LEAST_GAIN = 1e-3  # of all units' gains: a smaller one is noise
RANKED_ON = 4  # tiles; about seventy candidates run on each


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """The options of a calibration."""

    method: str = AUTO  # or one of METHODS
    prefer: str = SPEED  # or ROADS: which layers are int8 at first, and which are reverted
    deconv: str = "int8"
    base: str = "fp16"  # precision of what is not int8
    keep: tuple[str, ...] = ()  # patterns of layers that stay FP16
    fold: bool = True  # the last convolution gives blocks of pixels; not for training, which would part their weights
    views: bool = True  # tiles are turned through the eight views, one view a tile
    limits: HoldoutLimits = field(default_factory=HoldoutLimits)


@dataclass(frozen=True)
class CalibrationResult:
    """The INT8 file that was written, and its evaluation."""

    method: str
    units: tuple[Unit, ...]
    scores: tuple[Score, ...]
    held: int
    labelled: int
    ranges: Ranges

    @property
    def share(self) -> float:
        return share_of(self.units)

    @property
    def verdict(self) -> str:
        return f"{scores_in_words(self.scores)}; {counted(self.held, 'tile')}, {self.labelled} with labels"

    def to_json(self) -> dict[str, object]:
        """Plain values: method, sample, verdict, and a row for each layer."""
        return {
            "method": self.method,
            "tiles": self.ranges.tiles,
            "tiles_sha256": self.ranges.tiles_sha256,
            "onnx_sha256": self.ranges.onnx_sha256,
            "verdict": self.verdict,
            "scores": to_json(self.scores),
            "int8_share": round(self.share, 4),
            "layers": [asdict(unit) for unit in self.units],
        }


class NotHeld(CheckFailed):
    """No placement that was tried draws the same roads. `units` and `scores` are those of the last one."""

    def __init__(self, message: str, units: Sequence[Unit], scores: Sequence[Score]) -> None:
        super().__init__(message)
        self.units, self.scores = units, scores


def calibrate(
    source: Path,
    out: Path,
    sample: Sample,
    how: CalibrationOptions,
    ranges: Path | None,
    progress: Callable[[str], Tick],
) -> CalibrationResult:
    """Write `out`, or nothing if the limits can't be met.

    `ranges` is a file of ranges to reuse, or to write as soon as they are gathered. `progress` gives a Tick for each
    stage.
    """
    graph = read_network(source)
    out.parent.mkdir(parents=True, exist_ok=True)
    if ranges is not None and ranges.exists():
        found = Ranges.read(ranges, graph)
    else:
        place(graph, how.deconv, how.keep)  # refuses unknown names before minutes of work
        found = gather(graph, sample, how.views, progress("calibrate"))
        if ranges is not None:
            found.write(ranges)
    with tempfile.TemporaryDirectory() as folder:
        work = Work(graph, found, how, Path(folder))
        evaluator = Evaluator(work.write_float(), sample.holdout, progress("evaluate"))
        method = how.method if how.method != AUTO else work.best_method(evaluator, progress("choose"))
        units, scores = work.held(evaluator, method, progress("revert"))
        result = CalibrationResult(method, tuple(units), tuple(scores), len(sample.holdout), evaluator.labelled, found)
        model = work.model(method, units)
    stamp(model, graph, result)
    with replacing(out) as part:
        write_sealed(model.SerializeToString(), part)
    return result


def stamp(model: onnx.ModelProto, graph: Network, result: CalibrationResult) -> None:
    """Write into the metadata what the file is: its Spec, and how it was made. The float file's other metadata stay."""
    spec = replace(
        graph.spec,
        precision="int8",
        scout=None,  # it was calibrated with the float network
        int8_method=result.method,
        int8_tiles_sha256=result.ranges.tiles_sha256,
        int8_verdict=result.verdict,
    )
    kept = {p.key: p.value for p in model.metadata_props}
    onnx.helper.set_model_props(model, {**kept, ONNX_KEY: spec.to_json(), INT8_KEY: json.dumps(result.to_json())})


class Work:
    """Makes and compares candidates from one network's ranges, in a folder."""

    def __init__(self, graph: Network, ranges: Ranges, how: CalibrationOptions, folder: Path) -> None:
        self.source, self.ranges, self.how, self.folder = graph, ranges, how, folder
        self.means = ranges.means(graph)
        self.graph = rescale(graph, ranges.factors(graph))
        if how.deconv == "conv":
            self.graph = without_transposed(self.graph)
        if how.fold:
            self.graph = with_folded_end(self.graph)
        self.units = place(self.graph, how.deconv, how.keep, how.prefer)
        self.roads = place(self.graph, how.deconv, how.keep, ROADS)

    def write_float(self) -> Path:
        """Write the unchanged network in float32."""
        path = self.folder / "float.onnx"
        model = onnx.ModelProto()
        model.CopyFrom(self.source.model)
        onnx.helper.set_model_props(model, {ONNX_KEY: replace(self.source.spec, precision="fp32").to_json()})
        write_sealed(model.SerializeToString(), path)
        return path

    def model(self, method: str, units: Sequence[Unit]) -> onnx.ModelProto:
        return write_qdq(self.graph, units, self.ranges.limits(method), self.means, self.how.base)

    def write(self, method: str, units: Sequence[Unit]) -> Path:
        """Write a candidate, to be evaluated."""
        return self.save(self.model(method, units))

    def save(self, model: onnx.ModelProto) -> Path:
        """Write a model as the candidate's file; its other metadata stay."""
        path = self.folder / "candidate.onnx"
        kept = {p.key: p.value for p in model.metadata_props}
        spec = replace(self.source.spec, precision="int8")
        onnx.helper.set_model_props(model, {**kept, ONNX_KEY: spec.to_json()})
        write_sealed(model.SerializeToString(), path)
        return path

    def best_method(self, evaluator: Evaluator, tick: Tick) -> str:
        """The method whose masks agree best with the float network's, with one view; the first of METHODS on a tie."""
        found = {}
        for done, method in enumerate(METHODS, 1):
            found[method] = evaluator.score(self.write(method, self.units), views=(1,))[0].agreement
            tick(done, len(METHODS), f"{method} agrees {found[method]:.4f}")
        return first_of_the_best(found)

    def held(self, evaluator: Evaluator, method: str, tick: Tick) -> tuple[list[Unit], list[Score]]:
        """A placement that meets the limits, and its scores: the fastest, or the one that costs least of the roads.

        Where the fastest ones agree too little, roads come first.
        """
        if self.how.prefer == SPEED and (found := self.fastest(evaluator, method, tick)):
            return found
        return self.nearest(evaluator, method, tick)

    def fastest(self, evaluator: Evaluator, method: str, tick: Tick) -> tuple[list[Unit], list[Score]] | None:
        """The placement with the fewest reverted layers that agrees well enough, and its scores. None: there is none.

        Layers are reverted by their part of the error for each millisecond that int8 saves: of those that are float
        where roads come first, if these are enough, and else of all.
        """
        good = self.how.limits.good

        def tried(count: int) -> tuple[list[Unit], list[Score]]:
            units = list(self.units)
            for cost in order[:count]:
                units[cost.at] = units[cost.at].reverted(f"reverted: {cost.words}")
            return units, evaluator.score(self.write(method, units))

        order: list[Cost] = []
        best = tried(0)
        if good(best[1]):
            return best
        ranked = [at for at in int8(self.units) if self.roads[at].precision != INT8]
        if not good(evaluator.score(self.write(method, self.roads))):
            ranked = int8(self.units)
        order = cheapest_first(self.costs(evaluator, method, self.units, ranked, tick))
        most = useful(self.units, order)
        found, least = None, 0
        while least < most:  # the fewest that are good enough, by halving
            count = (least + most) // 2
            best = tried(count + 1)
            tick(count + 1, len(order), f"reverted; {scores_in_words(best[1])}")
            if good(best[1]):
                found, most = best, count
            else:
                least = count + 1
        return found

    def nearest(self, evaluator: Evaluator, method: str, tick: Tick) -> tuple[list[Unit], list[Score]]:
        """The placement in which all that costs roads is float, with the fewest others that the limits need."""
        units = list(self.roads)
        scores = evaluator.score(self.write(method, units))
        if self.how.limits.held(scores):
            return units, scores
        order = worst_first(self.costs(evaluator, method, units, int8(units), tick))
        step, done, least = 1, 0, USEFUL * share_of(units)
        while done < len(order) and share_of(units) >= least:
            for cost in order[done : done + step]:
                units[cost.at] = units[cost.at].reverted(f"reverted: {cost.words}")
            done, step = done + step, step * 2
            scores = evaluator.score(self.write(method, units))
            tick(min(done, len(order)), len(order), f"reverted; {scores_in_words(scores)}")
            if self.how.limits.held(scores) and share_of(units) >= least:
                return units, scores
        limits = self.how.limits
        raise NotHeld(
            f"INT8 does not draw the same roads with any useful placement: {scores_in_words(scores)}, with "
            f"{share_of(units):.0%} of the operations left in int8; the limits are a drop of {limits.max_iou_drop:g} "
            f"and an agreement of {limits.least:g}; give more tiles like those in use, or stay with FP16",
            units,
            scores,
        )

    def costs(
        self, evaluator: Evaluator, method: str, units: Sequence[Unit], ranked: Sequence[int], tick: Tick
    ) -> "list[Cost]":
        """What some of the units cost in int8, and what they gain, in the order of `ranked`.

        Measured on RANKED_ON tiles with one view, in which errors show more.
        """
        evaluator = evaluator.some(RANKED_ON)
        whole, seconds = evaluator.timed(self.write(method, units))
        found = []
        for done, at in enumerate(ranked, 1):
            without = [u.reverted("") if i == at else u for i, u in enumerate(units)]
            error, now = evaluator.timed(self.write(method, without))
            part = 1 - error**2 / whole**2 if whole else 0.0
            found.append(Cost(at, part, slower(seconds, now)))
            tick(done, len(ranked), f"ranks {units[at].name} ({found[-1].words})")
        return found


@dataclass(frozen=True)
class Cost:
    """What a unit costs and gains in int8."""

    at: int  # its place among the units
    error: float  # the share of the squared error that goes if it alone is float
    seconds: float  # that one view of a tile then takes longer, on this machine

    @property
    def words(self) -> str:
        return f"{self.error:.1%} of the error for {1000 * self.seconds:.2f} ms"


def int8(units: Sequence[Unit]) -> list[int]:
    """The places of the units that are int8."""
    return [at for at, unit in enumerate(units) if unit.precision == INT8]


def first_of_the_best(found: Mapping[str, float]) -> str:
    """The name of the highest value; of values within AS_GOOD of it, the first."""
    return next(name for name, value in found.items() if value >= max(found.values()) - AS_GOOD)


def worst_first(costs: Sequence[Cost]) -> list[Cost]:
    """Sorted by error in steps of AS_GOOD, the largest first; units of the same step keep their order."""
    return sorted(costs, key=lambda cost: -round(cost.error / AS_GOOD))


def cheapest_first(costs: Sequence[Cost]) -> list[Cost]:
    """Sorted by error for each second of int8's gain, the largest first; first of all what gains nothing.

    Units without an error that could be taken back come last.
    """
    least = LEAST_GAIN * sum(max(cost.seconds, 0.0) for cost in costs)
    return sorted(costs, key=lambda cost: -max(cost.error, 0.0) / max(cost.seconds, least, 1e-9))


def useful(units: Sequence[Unit], order: Sequence[Cost]) -> int:
    """How many units may be reverted, so that USEFUL of the operations stay in int8."""
    left = whole = share_of(units)
    for count, cost in enumerate(order):
        left -= units[cost.at].share
        if left < USEFUL * whole:
            return count
    return len(order)
