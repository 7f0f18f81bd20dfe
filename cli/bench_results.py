"""How `dlink-bench` prints and keeps a result, and its exit status."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dlink.bench.conditions import Held
from dlink.bench.rows import append_row
from dlink.runtime.errors import CheckFailed


@dataclass(frozen=True, kw_only=True)
class Results:
    """How results are printed, and where they are appended."""

    as_json: bool = False
    append: Path | None = None  # a file of rows
    strict: bool = False  # a result that is no headline is an error


def end(held: Sequence[Held], missing: Sequence[str], no_headline: Sequence[str]) -> None:
    """Exit with 1: a line for each condition that failed, and what could not be held or is against a headline."""
    failed = [each for each in held if each.failed]
    for each in failed:
        click.echo(f"failed: {each}", err=True)
    strict = [f"--strict: no headline: {'; '.join(no_headline)}"] if no_headline else []
    if why := [*missing, *strict]:
        raise CheckFailed("; ".join(why))
    if failed:
        raise SystemExit(1)


def write_result(result: Mapping[str, Any], text: str, results: Results) -> None:
    append_row(results.append, result)
    click.echo(json.dumps(result, indent=1) if results.as_json else text)
