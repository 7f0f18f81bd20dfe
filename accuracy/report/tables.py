"""Numbers and tables as HTML text for a report. Text from outside is escaped."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TypeAlias

Rows: TypeAlias = Sequence[Mapping[str, object]]  # column -> value; a row may lack some

MINUS = "\N{MINUS SIGN}"
OPEN_ROWS = 12  # a longer table is folded
TITLES = {  # of the columns of dlink's own rows
    "name": "layer",
    "share": "share of the work",
    "p50_ms": "median, ms",
    "p90_ms": "90 %, ms",
    "p99_ms": "99 %, ms",
    "max_ms": "longest, ms",
    "tiles_per_s": "tiles a second",
    "mpx_per_s": "Mpx a second",
    "prepare_ms": "prepare, ms",
    "network_ms": "network, ms",
    "undo_ms": "undo and mean, ms",
    "around_share": "around the network",
}
SHARES = ("share", "around_share")  # fractions of 1, shown in per cent


def number(value: float | None) -> str:
    """Four digits after the point, with a typographic minus; a dash for None."""
    return "–" if value is None else f"{value:.4f}".replace("-", MINUS)


def difference(a: float | None, b: float | None) -> str:
    return "–" if a is None or b is None else f"{a - b:+.4f}".replace("-", MINUS)


def count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def words(value: object) -> str:
    """A value as text; a mapping as its names and values."""
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)


def html_table(titles: Sequence[str], body: str, kind: str) -> str:
    """A table of these columns; `body` is HTML."""
    heads = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    return f'<table class="{kind}"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'


def section(title: str, words: str, rows: Rows) -> str:
    """A table with all columns of its rows, folded if it is long; empty without rows."""
    if not rows:
        return ""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    body = "".join(f"<tr>{''.join(cell(name, row.get(name)) for name in columns)}</tr>" for row in rows)
    whole = html_table([TITLES.get(name, name) for name in columns], body, "stack left")
    if len(rows) > OPEN_ROWS:
        whole = f"<details><summary>{len(rows)} rows</summary>{whole}</details>"
    return f'<h2>{escape(title)}</h2><p class="quiet">{escape(words)}</p>{whole}'


def cell(name: str, value: object) -> str:
    text = "" if value is None else str(value)
    if isinstance(value, float):
        text = f"{value:.1%}" if name in SHARES else f"{value:.4g}"
    return f'<td data-label="{escape(TITLES.get(name, name))}">{escape(text)}</td>'
