"""Results as lines of JSON, a row each, in a file that grows."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def append_row(path: Path | None, row: Mapping[str, Any]) -> None:
    """Append a row, where a file is named. A last line that was cut short is ended first, and costs itself alone."""
    if path is None:
        return
    cut = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with path.open("a") as f:
        f.write("\n" * bool(cut) + json.dumps(row) + "\n")
