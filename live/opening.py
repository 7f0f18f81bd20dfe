"""What opens an engine, for the first time and again."""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from dlink.live.engine import Engine
from dlink.live.local import Local
from dlink.live.process import Process
from dlink.runtime import BadInput, BadModel, Segmenter, open_model, path_of
from dlink.runtime.files import file_sha256


def opener(model: str | PathLike[str] | Segmenter, process: bool, options: dict[str, Any]) -> Callable[[], Engine]:
    """A function that opens a model file in a process of its own or in this one, or uses an open Segmenter."""
    if isinstance(model, Segmenter):
        if options:
            raise BadInput(f"{', '.join(options)}: options of open_model are for a model file, and this model is open")
        return lambda: Local(model, own=False)
    path = path_of("model", model)
    paths = [path] if options.get("scout") is None else [path, path_of("scout", options["scout"])]
    if process:
        return same_files(paths, lambda: Process(path, options))
    return same_files(paths, lambda: Local(open_model(path, **options)))


def same_files(paths: Sequence[Path], start: Callable[[], Engine]) -> Callable[[], Engine]:
    """Opens an engine, and refuses files that are not the first ones any more: the roads would be another network's."""
    for path in paths[1:]:
        start = same_file(path, start)
    return same_file(paths[0], start)


def same_file(path: Path, start: Callable[[], Engine]) -> Callable[[], Engine]:
    """As `same_files`, of one file."""
    first: list[str] = []

    def opened() -> Engine:
        engine = start()
        try:
            now = file_sha256(path)
        except OSError as e:
            engine.close()
            raise BadModel(f"{path}: cannot be read again: {e}") from e
        if now != (first or [now])[0]:
            engine.close()
            raise BadModel(f"{path}: is another model than at the beginning; put that one back, or begin anew")
        first[:] = [now]
        return engine

    return opened
