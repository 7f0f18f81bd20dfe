"""Appends results to a file, one line of JSON a row."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def append_row(path: Path | None, row: Mapping[str, Any]) -> None:
    """Append a row if a path is given. An unfinished last line is ended first, so that only that line is lost."""
    if path is None:
        return
    cut = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with path.open("a") as f:
        f.write("\n" * bool(cut) + json.dumps(row) + "\n")
