"""The page of a map: its picture with the roads over it, its figures, how it was made, and what was left out.

Everything is in one file, which loads nothing. Names and words from outside are escaped. The same figures are in
report.json.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine

from dlink.maps.report.preview import Preview, encoded
from dlink.runtime.files import replacing
from dlink.runtime.words import counted

MOST_POINTS = 400_000  # of the lines on the picture; some 3 MB
MOST_ROWS = 200  # of a table


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a map's report says. `how` and `found` are words and figures by their names, in the order of the page."""

    title: str
    found: Mapping[str, str]
    how: Mapping[str, str]
    files: Mapping[str, str]  # results: what each is
    sources: Sequence[Mapping[str, Any]]
    left_out: Sequence[Mapping[str, str]]
    drawn: str = "roads"  # what is on the picture
    failed: Sequence[str] = ()


def write_report(page: Path, data: Path, report: Report, shown: Preview, lines: Sequence[NDArray[np.float64]]) -> None:
    """Write the page and the figures.

    Args:
        page: The HTML file.
        data: The JSON file.
        report: What they say.
        shown: The map's picture.
        lines: The roads (K, 2), in the map's coordinate system.
    """
    with replacing(page) as part:
        part.write_text(page_of(report, shown, lines), encoding="utf-8", errors="backslashreplace")  # of names
    with replacing(data) as part:
        part.write_text(json.dumps(asdict(report), indent=1))


def page_of(report: Report, shown: Preview, lines: Sequence[NDArray[np.float64]]) -> str:
    folder = files("dlink.maps.report")
    style = (folder / "report.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    frame = Template((folder / "report.html").read_text())
    return frame.substitute(
        title=escape(report.title), style=style, style_hash=f"sha256-{digest}", body=body(report, shown, lines)
    )


def body(report: Report, shown: Preview, lines: Sequence[NDArray[np.float64]]) -> str:
    high, wide = shown.pixels.shape[:2]
    picture = base64.b64encode(encoded(shown.pixels)).decode()
    path, drawn = svg_path(lines, shown.transform)
    words = f"The rasters, the first on top, and the {report.drawn} that were found."
    if drawn < len(lines):
        words += f" Of {len(lines):,} lines the first {drawn:,} are drawn."
    if shown.unread:
        words += f" Not in the picture: {counted(shown.unread, 'raster')}."
    return "".join(
        (
            f"<h1>{escape(report.title)}</h1>",
            table(report.found),
            f'<figure><svg viewBox="0 0 {wide} {high}" role="img" aria-label="The map">'
            f'<image href="data:image/jpeg;base64,{picture}" width="{wide}" height="{high}"/>'
            f'<path class="casing" d="{path}"/><path class="road" d="{path}"/></svg>'
            f"<figcaption>{words}</figcaption></figure>",
            "<h2>Files</h2>",
            table(report.files),
            "<h2>How it was made</h2>",
            table(report.how),
            *(["<h2>Left out</h2>", table({e["name"]: e["why"] for e in report.left_out})] if report.left_out else []),
            "<h2>Rasters</h2>",
            table({str(e["name"]): str(e["read"]) for e in report.sources}),
        )
    )


def table(rows: Mapping[str, str]) -> str:
    shown = list(rows.items())[:MOST_ROWS]
    more = f'<tr><td colspan="2">and {len(rows) - MOST_ROWS:,} more</td></tr>' if len(rows) > MOST_ROWS else ""
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in shown)
    return f"<table>{cells}{more}</table>"


def svg_path(lines: Sequence[NDArray[np.float64]], transform: Affine) -> tuple[str, int]:
    """The lines in the picture's pixels as one SVG path, and how many of them it has."""
    a, b, c, d, e, f = tuple(~transform)[:6]
    found, points = [], 0
    for line in lines:
        points += len(line)
        if points > MOST_POINTS:
            break
        x, y = line.T
        pairs = zip((a * x + b * y + c).round(1).tolist(), (d * x + e * y + f).round(1).tolist(), strict=True)
        found.append("M" + "L".join(f"{x:g} {y:g}" for x, y in pairs))
    return "".join(found), len(found)
