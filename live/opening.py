"""What opens an engine, for the first time and again."""

from collections.abc import Callable
from os import PathLike
from typing import Any

from dlink.live.engine import Engine
from dlink.live.local import Local
from dlink.live.process import Process
from dlink.runtime import BadInput, Segmenter, open_model, path_of


def opener(model: str | PathLike[str] | Segmenter, process: bool, options: dict[str, Any]) -> Callable[[], Engine]:
    """A function that opens a model file in a process of its own or in this one, or uses an open Segmenter."""
    if isinstance(model, Segmenter):
        if options:
            raise BadInput(f"{', '.join(options)}: options of open_model are for a model file, and this model is open")
        return lambda: Local(model, own=False)
    path = path_of("model", model)
    if process:
        return lambda: Process(path, options)
    return lambda: Local(open_model(path, **options))
