"""The charts of a report, each as SVG text: intervals of gates, tiles, thresholds, calibration."""

import math
from collections.abc import Sequence

import numpy as np

from dlink.accuracy.agreement import Each
from dlink.accuracy.curves import BINS, THRESHOLDS, Calibration, Curve
from dlink.accuracy.gates import Outcome
from dlink.accuracy.report.charts import HEIGHT, LEFT, RIGHT, WIDTH, Axis, Chart, around, few, plain, svg
from dlink.runtime.words import counted

STRIP = 46  # height of an interval's strip
BARS = 34  # height of the bars under the calibration


def interval(outcome: Outcome) -> str:
    """A gate's estimate as a dot, its 95 % interval as a bar, its limit as a mark."""
    found = outcome.found
    ends = [v for v in (found.value, found.low, found.high, outcome.limit) if v is not None]
    if not outcome.gate.least:
        ends.append(0.0)
    pad = (max(ends) - min(ends) or 0.001) * 0.12
    axis = Axis("", min(ends) - pad, max(ends) + pad)

    def at(value: float) -> float:
        return 8 + axis.at(value) * (WIDTH - 16)

    line = 18
    parts = [f'<path class="grid" d="M8 {line}H{WIDTH - 8}"/>']
    for tick in [t for t in axis.ticks if 24 < at(t) < WIDTH - 24]:
        parts.append(f'<path class="grid" d="M{at(tick):.1f} {line - 4}V{line + 4}"/>')
        parts.append(f'<text class="tick" x="{at(tick):.1f}" y="{STRIP - 8}" text-anchor="middle">{plain(tick)}</text>')
    if found.low is not None and found.high is not None:
        parts.append(f'<path class="interval" d="M{at(found.low):.1f} {line}H{at(found.high):.1f}"/>')
    parts.append(f'<path class="limit" d="M{at(outcome.limit):.1f} 4V{line + 10}"/>')
    if found.value is not None:
        parts.append(f'<circle class="dot candidate" cx="{at(found.value):.1f}" cy="{line}" r="5"/>')
    description = f"{outcome.gate.title}: estimate {in_words(found.value)}, interval {in_words(found.low)} to "
    return svg(WIDTH, STRIP, f"{description}{in_words(found.high)}, limit {outcome.limit:g}", parts)


def in_words(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def tiles_by_label(each: Sequence[Each]) -> str:
    """Every labelled tile: the reference's IoU across, the candidate's up."""
    points = [(e.reference, e.candidate, e.id) for e in each if e.candidate is not None and e.reference is not None]
    order = np.argsort([y - x for x, y, _ in points], kind="stable")  # `few` keeps the largest gain and loss
    low, high = around([v for x, y, _ in points for v in (x, y)])
    chart = Chart(Axis("IoU of the reference with the label", low, high), Axis("IoU of the candidate", low, high))
    marks = [chart.line([low, high], [low, high], "even")]
    marks += [
        chart.dot(x, y, "candidate faint", f"{id}: reference {x:.4f}, candidate {y:.4f}", 4)
        for x, y, id in (points[i] for i in few(order))
    ]
    marks += [
        chart.word(low, high, "candidate better", "quiet", dx=8, dy=16),
        chart.word(high, low, "reference better", "quiet", "end", dx=-8, dy=-8),
    ]
    worse = sum(y < x for x, y, _ in points)
    tiles = counted(len(points), "tile")
    description = f"IoU of {tiles} with their labels: the candidate's is lower than the reference's on {worse}."
    return chart.svg(description, marks)


def tiles_by_agreement(each: Sequence[Each]) -> str:
    """Every tile's agreement, the lowest first."""
    ordered = sorted(each, key=lambda e: e.agreement)
    low, high = around([ordered[0].agreement, 1.0])
    chart = Chart(Axis("tiles, the worst first", 0, max(len(each), 2)), Axis("IoU between the two masks", low, high))
    chosen = few(np.arange(len(ordered)))
    marks = [
        chart.dot(i + 0.5, ordered[i].agreement, "candidate faint", f"{ordered[i].id}: {ordered[i].agreement:.4f}", 4)
        for i in chosen
    ]
    middle = ordered[len(ordered) // 2].agreement
    description = (
        f"Agreement of {counted(len(each), 'tile')}: lowest {ordered[0].agreement:.4f}, in the middle {middle:.4f}."
    )
    return chart.svg(description, marks)


def over_thresholds(candidate: Curve, reference: Curve, own: float) -> str:
    """Precision, recall and IoU of the candidate, and the reference's IoU."""
    chart = Chart(Axis("threshold of the probability"), Axis("precision, recall, IoU"))
    best = float(THRESHOLDS[candidate.best])
    highest = float(candidate.iou[candidate.best])
    marks = [
        chart.upright(own, "own"),
        chart.upright(best, "best"),
        chart.line(THRESHOLDS, reference.iou, "reference"),
        chart.line(THRESHOLDS, candidate.precision, "candidate dashed"),
        chart.line(THRESHOLDS, candidate.recall, "candidate dotted"),
        chart.line(THRESHOLDS, candidate.iou, "candidate"),
        chart.dot(best, highest, "best", f"best: IoU {highest:.4f} at {best:.3f}", 5),
    ]
    description = (
        f"Precision, recall and IoU over thresholds. The best IoU, {highest:.4f}, is at {best:.3f}; used is {own:g}."
    )
    return chart.svg(description, marks)


def precision_by_recall(candidate: Curve, reference: Curve, own: float) -> str:
    """Both models' curves; the candidate's threshold and its best one are marked."""
    chart = Chart(Axis("recall: share of the labels' road that is found"), Axis("precision: share that is right"))
    best, used = candidate.best, min(round(own * len(THRESHOLDS)), len(THRESHOLDS) - 1)
    marks = [
        chart.line(reference.recall, reference.precision, "reference"),
        chart.line(candidate.recall, candidate.precision, "candidate"),
    ]
    for i, kind, name in ((used, "own", "used"), (best, "best", "best")):
        x, y = float(candidate.recall[i]), float(candidate.precision[i])
        if math.isfinite(x) and math.isfinite(y):
            marks.append(chart.dot(x, y, kind, f"{name}, {THRESHOLDS[i]:g}: recall {x:.4f}, precision {y:.4f}", 5))
    return chart.svg("Precision by recall, of the candidate and the reference.", marks)


def calibration(candidate: Calibration, reference: Calibration) -> str:
    """Share of road among the pixels of each bin, and how many pixels those are."""
    chart = Chart(Axis("probability that the model gives"), Axis("share that is road in the labels"))
    marks = [chart.line([0, 1], [0, 1], "even")]
    for found, kind in ((reference, "reference"), (candidate, "candidate")):
        marks.append(chart.line(found.probability, found.share, kind))
        for x, y, pixels in zip(found.probability, found.share, found.pixels, strict=True):
            if pixels:
                title = f"{kind}: probability {x:.3f}, road {y:.3f}, {pixels:,.0f} pixels"
                marks.append(chart.dot(float(x), float(y), kind, title, 4))
    marks.append(bars(candidate, chart))
    description = (
        f"Calibration. Expected error: candidate {in_words(candidate.error)}, reference {in_words(reference.error)}."
    )
    return chart.svg(description, marks, below=BARS + 4)


def bars(found: Calibration, chart: Chart) -> str:
    """The candidate's pixels by probability, on a logarithmic scale, under the chart."""
    most = math.log10(max(found.pixels.max(), 10))
    base, step = HEIGHT + BARS, (WIDTH - LEFT - RIGHT) / BINS
    parts = []
    for i, pixels in enumerate(found.pixels):
        tall = BARS * math.log10(pixels) / most if pixels > 1 else 0
        title = f"<title>{i / BINS:g} to {(i + 1) / BINS:g}: {pixels:,.0f} pixels</title>"
        at = f'x="{LEFT + i * step + 1:.1f}" y="{base - tall:.1f}" width="{step - 2:.1f}" height="{tall:.1f}"'
        parts.append(f'<rect class="bar" {at}>{title}</rect>')
    return "".join(parts)
