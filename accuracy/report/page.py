"""The report of a check: one HTML file that contains everything and opens offline.

report.html is the frame, report.css and report.js are put into it, charts are SVG (plots.py) and pictures are data
URIs. A content security policy with hashes lets nothing else run or load. Text from the user (names, ids, rows) is
escaped. The page holds at most 3 MB of pictures, and says how many tiles are left out.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from dlink.accuracy.agreement import Agreement, Setting
from dlink.accuracy.bootstrap import DRAWS
from dlink.accuracy.curves import THRESHOLDS, Calibration, Curve
from dlink.accuracy.gates import Outcome, Verdict, with_views
from dlink.accuracy.report import plots, tables
from dlink.accuracy.report.charts import MOST_DOTS, key
from dlink.accuracy.report.evidence import SIDE, Evidence, Picture, Shown
from dlink.accuracy.report.tables import Rows, count, difference, number
from dlink.runtime.errors import BadInput
from dlink.runtime.files import replacing

MOST_BYTES = 3_000_000  # of pictures; base64 adds a third

GATES = (
    "A gate compares the estimate (the dot) with the limit (the vertical line). The bar is the 95 % interval: the "
    "figure of other tiles of this kind may lie anywhere in it."
)
POOLED = (
    "IoU and agreement, pooled: the pixels that are in both masks divided by those that are in either, over "
    "all tiles. Mean: the mean of the tiles' own, 1 where both masks are empty."
)
INTERVALS = (
    f"Intervals: 95 %, by {DRAWS} draws of as many tiles with replacement, widened for few tiles (expanded percentile, "
    "Hesterberg 2014). They say nothing about tiles of another kind."
)
ERROR = (
    "Calibration error: the mean over pixels of the distance between probability and share of road, in ten bins "
    "(Guo et al. 2017)."
)
GRAPHS = (
    "APLS: how similar the lengths of paths along the roads of two masks are, 1 if they are the same (SpaceNet 3). "
    "Broken links are roads of the label that the mask interrupts; bridged links are gaps of the label that it closes."
)
COLOURS = (
    ("swatch swatch-hits", "hit: in both"),
    ("swatch swatch-extras", "extra: in the candidate alone"),
    ("swatch swatch-misses", "miss: in the other alone"),
)


@dataclass(frozen=True, kw_only=True)
class About:
    """What was checked, in words, for the report."""

    model: str
    reference: str
    tiles: str
    facts: Mapping[str, object] = field(default_factory=dict)  # by title: a value or a mapping (machine, versions)
    layers: Rows = ()  # of an INT8 graph: name, type, share (of the work, 0 to 1), precision, why
    latency: Rows = ()  # rows of dlink-bench: views, p50_ms, tiles_per_s ...


def write_report(path: Path, verdict: Verdict, evidence: Evidence, about: About) -> None:
    """Write the page to `path`, whole or not at all."""
    check_path(path)
    text = page(verdict, evidence, about)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def check_path(path: Path) -> None:
    """Raise BadInput for a path that can't be written, before minutes of work."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise BadInput(f"{path}: a report's name must end in .html")
    if path.is_dir():
        raise BadInput(f"{path}: a folder; name a file in it, such as {path / 'report.html'}")
    if not path.parent.is_dir():
        raise BadInput(f"{path}: there is no folder {path.parent}; make it first")


def page(verdict: Verdict, evidence: Evidence, about: About) -> str:
    """The whole page."""
    here = files("dlink.accuracy.report")
    style, script, frame = (
        here.joinpath(f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js", "html")
    )
    found = verdict.found
    sections = (
        head(verdict, about),
        f'<h2>Gates</h2><p class="quiet">{GATES}</p>{cards(map(gate_card, verdict.outcomes))}',
        f"<h2>Figures</h2>{cards(map(score_card, found.settings))}",
        charts(found.settings[0], evidence),
        worst(evidence, found),
        tables.section("Layers", "The precision of each layer of the graph.", about.layers),
        tables.section("Latency", "One tile with all its views.", about.latency),
        small_print(found, about),
    )
    return Template(frame).substitute(
        title=escape(f"{state(verdict)}: {about.model} against {about.reference}"),
        style=style,
        script=script,
        style_hash=policy_hash(style),
        script_hash=policy_hash(script),
        body="\n".join(filter(None, sections)),
    )


def policy_hash(text: str) -> str:
    """The hash of a style or script, as a content security policy lists it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def state(verdict: Verdict) -> str:
    return f"{'Not the same' if verdict.why else 'Same'} {verdict.target}s"


def head(verdict: Verdict, about: About) -> str:
    found = verdict.found
    labels = f"{found.labelled:,} with labels" if found.labelled else "no labels, so only the masks' agreement"
    kind, sign = ("bad", "✕") if verdict.why else ("good", "✓")
    notes = "".join(f"<li>{escape(words)}</li>" for words in (*verdict.why, *verdict.doubts, *verdict.notes))
    return (
        f'<header class="{kind}"><h1><span aria-hidden="true">{sign}</span> {state(verdict)}</h1>'
        f"<p><strong>{escape(about.model)}</strong> against <strong>{escape(about.reference)}</strong></p>"
        f'<p class="quiet">{count(found.tiles, "tile")} of {escape(about.tiles)}, {labels}</p><ul>{notes}</ul></header>'
    )


def cards(each: "map[str]") -> str:
    return f'<div class="cards">{"".join(each)}</div>'


def gate_card(outcome: Outcome) -> str:
    gate, found = outcome.gate, outcome.found
    kind, word = ("good", "✓ held") if outcome.held else ("bad", "✕ not held")
    interval = "no interval"
    if found.low is not None and found.high is not None:
        interval = f"95 %: {number(found.low)} to {number(found.high)}"
    title = gate.title[:1].upper() + gate.title[1:]
    return (
        f'<section class="card"><h3>{escape(title)} {with_views(outcome.views)}</h3>'
        f"<p><strong>{number(found.value)}</strong>, at {'least' if gate.least else 'most'} {outcome.limit:g}: "
        f'<span class="state {kind}">{word}</span></p>'
        f'<p class="quiet">{interval}, {count(found.tiles, "tile")}</p>{plots.interval(outcome)}'
        f"<p><small>{escape(outcome.why or outcome.doubt)}</small></p></section>"
    )


def score_card(setting: Setting) -> str:
    """A table of candidate, reference and difference, one line for each figure."""
    body = "".join(
        f'<tr><th scope="row">{title}</th><td>{number(a)}</td><td>{number(b)}</td><td>{difference(a, b)}</td></tr>'
        for title, a, b in score_lines(setting)
    )
    table = tables.html_table(["", "candidate", "reference", "difference"], body, "scores") if body else ""
    return (
        f'<section class="card"><h3>{with_views(setting.views).capitalize()}</h3>'
        f"<p>The masks agree to <strong>{number(setting.agreement)}</strong> (pooled IoU), at worst to "
        f"{number(setting.worst)} on tile {escape(setting.worst_tile)}. A pixel's probability is off by at most "
        f"{setting.max_difference:.2g}.</p>{table}</section>"
    )


def score_lines(setting: Setting) -> list[tuple[str, float | None, float | None]]:
    lines: list[tuple[str, float | None, float | None]] = []
    if (a := setting.candidate) and (b := setting.reference):
        lines += [("IoU, pooled", a.pooled, b.pooled), ("IoU, mean of tiles", a.mean, b.mean)]
    if (p := setting.candidate_roads) and (q := setting.reference_roads):
        lines += [("precision", p.precision, q.precision), ("recall", p.recall, q.recall), ("F1", p.f1, q.f1)]
        if p.apls is not None:
            lines += [
                ("APLS, mean of tiles", p.apls, q.apls),
                ("broken links a km", p.broken_per_km, q.broken_per_km),
                ("bridged links a km", p.bridged_per_km, q.bridged_per_km),
            ]
    return lines


def charts(setting: Setting, evidence: Evidence) -> str:
    """The chart of tiles; if the labels have roads, also thresholds and calibration."""
    figures = [tile_chart(setting)]
    counts = (evidence.candidate.pooled(), evidence.reference.pooled())
    if counts[0][1].any():
        figures += [*threshold_charts(Curve.of(counts[0]), Curve.of(counts[1]), evidence.thresholds[0])]
        figures += [calibration_chart(Calibration.of(counts[0]), Calibration.of(counts[1]))]
    return f'<h2>Charts, {with_views(setting.views)}</h2><div class="charts">{"".join(figures)}</div>'


def tile_chart(setting: Setting) -> str:
    labelled = [each for each in setting.each if each.candidate is not None]
    drawn = labelled or list(setting.each)
    words = "Each dot is a tile."
    if len(drawn) > MOST_DOTS:
        words += f" {MOST_DOTS:,} of {len(drawn):,} are drawn, evenly chosen by their difference."
    chart = plots.tiles_by_label(drawn) if labelled else plots.tiles_by_agreement(drawn)
    return chart_figure("Tile by tile", chart, "", words)


def threshold_charts(candidate: Curve, reference: Curve, own: float) -> tuple[str, str]:
    best = float(THRESHOLDS[candidate.best])
    highest = number(float(candidate.iou[candidate.best]))
    lines = key(
        ("line candidate", "IoU"),
        ("line candidate dashed", "precision"),
        ("line candidate dotted", "recall"),
        ("line reference", "the reference's IoU"),
        ("mark own", f"threshold in use: {own:g}"),
        ("mark best", f"best: {best:g}"),
    )
    dots = key(
        ("line candidate", "candidate"),
        ("line reference", "reference"),
        ("dot own", f"threshold in use: {own:g}"),
        ("dot best", f"best: {best:g}"),
    )
    words = (
        f"The candidate's IoU is highest, {highest}, at {best:g}. A threshold chosen here must be checked elsewhere."
    )
    return (
        chart_figure("Thresholds", plots.over_thresholds(candidate, reference, own), lines, words),
        chart_figure(
            "Precision and recall",
            plots.precision_by_recall(candidate, reference, own),
            dots,
            "Each point of a line is a threshold.",
        ),
    )


def calibration_chart(candidate: Calibration, reference: Calibration) -> str:
    lines = key(("line candidate", "candidate"), ("line reference", "reference"), ("bar", "the candidate's pixels"))
    words = (
        "On the diagonal a probability means what it says. Expected calibration error: candidate "
        f"{number(candidate.error)}, reference {number(reference.error)}. Bars: pixels, on a logarithmic scale."
    )
    return chart_figure("Calibration of probabilities", plots.calibration(candidate, reference), lines, words)


def chart_figure(title: str, chart: str, keys: str, words: str) -> str:
    return f"<figure><h3>{title}</h3>{chart}{keys}<figcaption>{words}</figcaption></figure>"


def worst(evidence: Evidence, found: Agreement) -> str:
    """The worst tiles, as many as fit, and how many are left out."""
    room, tiles = MOST_BYTES, []
    for tile in evidence.worst():
        room -= sum(len(picture.data) for picture in tile.pictures)
        if room >= 0:
            tiles.append(tile)
    chosen = "whose masks agree least"
    if found.labelled:
        chosen = "with the lowest IoU with their label, then those whose masks agree least"
    words = f"Those {chosen}, {with_views(found.settings[0].views)}."
    if left := found.tiles - len(tiles):
        words += f" {count(left, 'other tile')} left out."
    words += f" Pictures are at most {SIDE} px wide or high; open one to enlarge it."
    return f"<h2>Worst tiles</h2><p>{words}</p>{key(*COLOURS)}{''.join(map(tile_section, tiles))}"


def tile_section(tile: Shown) -> str:
    each = tile.each
    words = f"{tile.width} x {tile.height} px. The masks agree to {number(each.agreement)}."
    if each.candidate is not None:
        words += f" IoU with the label: candidate {number(each.candidate)}, reference {number(each.reference)}."
    figures = "".join(picture_figure(picture, each.id) for picture in tile.pictures)
    return (
        f'<section class="tile"><h3>Tile {escape(each.id)}</h3><p class="quiet">{words}</p>'
        f'<div class="pictures">{figures}</div></section>'
    )


def picture_figure(picture: Picture, id: str) -> str:
    colours = " (hits blue, extras yellow, misses orange)" if "against" in picture.title else ""
    alt = escape(f"Tile {id}: {picture.title}{colours}")
    data = base64.b64encode(picture.data).decode()
    return (
        f'<figure><button class="zoom" aria-label="Enlarge {alt}"><img alt="{alt}" '
        f'src="data:image/{picture.kind};base64,{data}"></button><figcaption>{escape(picture.title)}</figcaption></figure>'
    )


def small_print(found: Agreement, about: About) -> str:
    """What the figures mean, and how they were measured."""
    parts = [POOLED, INTERVALS]
    if found.labelled:
        parts.append(ERROR)
    if any(s.candidate_roads and s.candidate_roads.apls is not None for s in found.settings):
        parts.append(GRAPHS)
    definitions = "".join(f"<p><small>{words}</small></p>" for words in parts)
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(tables.words(v))}</dd>" for k, v in about.facts.items())
    return f"<h2>How this was measured</h2>{definitions}<dl>{facts}</dl>"
