"""Compares the same network as FP32, FP16 and INT8: speed in turn, roads on the same tiles, size."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlink.calib.evaluator import Evaluator, Score
from dlink.calib.sample import Tile
from dlink.runtime import open_model
from dlink.runtime.progress import Tick

FASTER = 1.05  # the least ratio for which INT8 is called faster; smaller ones are within the noise of machines


@dataclass(frozen=True)
class FileRow:
    """The figures of one file. Times are medians of a whole tile, from image to mask."""

    precision: str
    bytes: int
    executed: Mapping[str, float]  # share of the multiply-adds by the precision that the engine computes in
    one_view_ms: float
    eight_views_ms: float
    scores: tuple[Score, ...]  # compared with the FP32 file, with one view and with eight

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    files: Mapping[str, Path], tiles: Sequence[Tile], rounds: int, threads: int | None, tick: Tick
) -> list[FileRow]:
    """Compare files by precision, including "fp32", on tiles with or without labels."""
    evaluator = Evaluator(files["fp32"], tiles, tick)
    times = in_turn(files, tiles, rounds, threads)
    rows = []
    for precision, path in files.items():
        with open_model(path, threads=threads) as model:
            executed = model.backend.executed
        one, eight = (float(np.median(times[precision, views]) * 1e3) for views in (1, 8))
        rows.append(FileRow(precision, path.stat().st_size, executed, one, eight, tuple(evaluator.score(path))))
    return rows


def in_turn(
    files: Mapping[str, Path], tiles: Sequence[Tile], rounds: int, threads: int | None
) -> dict[tuple[str, int], list[float]]:
    """Seconds of a tile by precision and number of views; each runs once a round, after a first round for warm-up."""
    models = {precision: open_model(path, threads=threads) for precision, path in files.items()}
    times: dict[tuple[str, int], list[float]] = {(p, views): [] for p in files for views in (1, 8)}
    for turn in range(rounds + 1):
        image = tiles[turn % len(tiles)].image
        for (precision, views), seen in times.items():
            start = time.perf_counter()
            models[precision].mask(image, views)
            if turn:
                seen.append(time.perf_counter() - start)
    for model in models.values():
        model.close()
    return times


def advice(rows: Sequence[FileRow]) -> str:
    """The file to use on this machine, by the times of eight views."""
    by = {row.precision: row for row in rows}
    ratio = by["fp16"].eight_views_ms / by["int8"].eight_views_ms
    if ratio < FASTER:
        return f"INT8 is not faster than FP16 on this machine ({ratio:.2f} times): use the FP16 file"
    return f"INT8 is {ratio:.2f} times as fast as FP16 on this machine"


def comparison_table(rows: Sequence[FileRow]) -> list[str]:
    """A line for each file."""
    lines = ["file    MB  1 view ms  8 views ms  in int8 | 1 view: IoU  agrees | 8 views: IoU  agrees"]
    for row in rows:
        one, eight = row.scores
        lines.append(
            f"{row.precision}  {row.bytes / 1e6:>4.1f}  {row.one_view_ms:>9.1f}  {row.eight_views_ms:>10.1f}  "
            f"{row.executed.get('int8', 0):>7.1%} | {figure(one.iou):>11}  {one.agreement:.4f} | "
            f"{figure(eight.iou):>12}  {eight.agreement:.4f}"
        )
    return lines


def figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
