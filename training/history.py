"""The history of a training: a CSV with a row for each epoch, and its curves as a picture."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from dlink.imagery.images import write_image
from dlink.runtime.files import replacing
from dlink.training.recipe import Course

Colour: TypeAlias = tuple[int, int, int]

COLUMNS = ("epoch", "loss", "rate", "iou_1_view", "iou_8_views")
HEIGHT, WIDTH, EDGE = 480, 800, 60  # px
INK, FAINT, LOSS, ONE, EIGHT = (40, 40, 40), (220, 220, 220), (200, 60, 40), (40, 90, 200), (30, 140, 70)


def write_history(course: Course, out: Path) -> None:
    """`<out>.csv` and `<out>.png` beside a checkpoint."""
    with replacing(out.with_suffix(".csv")) as part, part.open("w", newline="") as f:
        rows = csv.writer(f)
        rows.writerow(COLUMNS)
        for i, loss in enumerate(course.losses):
            ious = [f"{v:.6f}" for v in course.ious[i]] if i < len(course.ious) else ["", ""]
            rows.writerow([i + 1, f"{loss:.6f}", f"{course.rates[i]:.6g}", *ious])
    write_image(out.with_suffix(".png"), curves(course))


def curves(course: Course) -> NDArray[np.uint8]:
    """The curves, RGB (H, W, 3): the loss divided by its largest value, and both IoUs, from 0 to 1."""
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    for tenth in range(0, 11, 2):
        y = row(tenth / 10)
        cv2.line(picture, (EDGE, y), (WIDTH - EDGE, y), FAINT, 1)
        write(picture, f"{tenth / 10:.1f}", (EDGE - 40, y + 4))
    top = max(course.losses, default=1.0) or 1.0
    lines: list[tuple[str, Sequence[float], tuple[int, int, int]]] = [
        (f"loss / {top:.3g}", [v / top for v in course.losses], LOSS)
    ]
    if course.ious:
        ones, eights = zip(*course.ious, strict=True)
        lines += [(f"IoU, 1 view: {ones[-1]:.3f}", ones, ONE), (f"IoU, 8 views: {eights[-1]:.3f}", eights, EIGHT)]
    for i, (name, values, colour) in enumerate(lines):
        draw(picture, values, colour)
        x = EDGE + i * 230
        cv2.line(picture, (x, 24), (x + 24, 24), colour, 2, cv2.LINE_AA)
        write(picture, name, (x + 30, 28))
    write(picture, f"epoch 1 to {len(course.losses)}", (WIDTH // 2 - 50, HEIGHT - 16))
    return picture


def draw(picture: NDArray[np.uint8], values: Sequence[float], colour: Colour) -> None:
    across = np.linspace(EDGE, WIDTH - EDGE, max(len(values), 2))[: len(values)]
    points = np.array([(round(x), row(v)) for x, v in zip(across, values, strict=True)], np.int32)
    cv2.polylines(picture, [points], False, colour, 2, cv2.LINE_AA)
    if len(points) == 1:
        cv2.circle(picture, tuple(map(int, points[0])), 3, colour, -1, cv2.LINE_AA)


def row(value: float) -> int:
    return round(HEIGHT - EDGE + 10 - min(max(value, 0.0), 1.0) * (HEIGHT - 2 * EDGE))


def write(picture: NDArray[np.uint8], words: str, at: tuple[int, int]) -> None:
    cv2.putText(picture, words, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, INK, 1, cv2.LINE_AA)
