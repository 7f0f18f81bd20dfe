"""Computes a session's recorded frames again, and compares the masks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dlink.imagery.images import read_grey
from dlink.live.frame import Image
from dlink.live.scaling import resized, scaled
from dlink.live.session.head import Head
from dlink.live.session.line import Line
from dlink.live.session.reading import Recorded
from dlink.live.video.recording import frames_of
from dlink.runtime import BadInput, Segmenter, open_model
from dlink.runtime.files import file_sha256
from dlink.runtime.progress import Count
from dlink.runtime.segmenter import Views


@dataclass(frozen=True)
class Again:
    """What computing again showed: masks that were compared, those that differ, and the first of these frames."""

    compared: int
    differ: int
    first: int | None
    missing: int  # frames with roads that have no recording or no mask

    @property
    def words(self) -> str:
        rest = f", {self.missing} frames without a recording or a mask" if self.missing else ""
        return f"{self.compared} masks compared, {self.compared - self.differ} equal{rest}"


def again(recorded: Recorded, model: Path | None, threads: int | None, count: Count) -> Again:
    """Compute the recorded frames that got roads again, with the views and the scale of then.

    Raises:
        BadInput: The model is not the one of then, or there is nothing to compare.
    """
    head = recorded.head
    model = Path(head.path) if model is None else model
    if not model.is_file():
        raise BadInput(f"{model}: the session's model is not there any more; name it with --model")
    if file_sha256(model) != head.model.sha256:
        raise BadInput(f"{model}: is not the session's model, whose SHA-256 is {head.model.sha256[:12]}...")
    scout = scout_of(head)
    wanted = [line for line in recorded.lines if line.what in ("roads", "late")]
    usable = [line for line in wanted if line.video and line.mask]
    if not usable:
        raise BadInput(f"{recorded.folder}: has no frame with both a recording and a mask")
    differ: list[int] = []
    with open_model(model, halo=head.halo, threshold=head.threshold, threads=threads, scout=scout) as segmenter:
        for number, (line, image) in enumerate(recorded_frames(recorded.folder, usable)):
            count(number + 1, len(usable))
            if not is_equal(segmenter, line, image, recorded.folder):
                differ.append(line.id)
    return Again(len(usable), len(differ), min(differ, default=None), len(wanted) - len(usable))


def scout_of(head: Head) -> Path | None:
    """The session's scout, where it was then."""
    if head.scout is None:
        return None
    path = Path(head.options["scout"])
    if not path.is_file() or file_sha256(path) != head.scout.sha256:
        raise BadInput(
            f"{path}: is not the session's scout, whose SHA-256 is {head.scout.sha256[:12]}...; put it there"
        )
    return path


def recorded_frames(folder: Path, lines: list[Line]) -> Iterator[tuple[Line, Image]]:
    """The lines and their frames, in the recording's order."""
    for video in sorted({line.video for line in lines if line.video}):
        by_index = {line.index: line for line in lines if line.video == video}
        for index, image in enumerate(frames_of(folder / video)):
            if line := by_index.pop(index, None):
                yield line, image
        if by_index:
            raise BadInput(f"{folder / video}: has no frame {min(i or 0 for i in by_index)}; is it cut off?")


def is_equal(model: Segmenter, line: Line, image: Image, folder: Path) -> bool:
    """Whether a frame's mask is the session's."""
    views: Views = "adaptive" if line.rung == "adaptive" else int(line.rung or 1)
    levels = resized(model.levels(scaled(image, line.scale or 1.0), views), *image.shape[:2])
    mask = (levels > model.threshold * 255).astype(np.uint8) * 255
    return bool(np.array_equal(mask, read_grey(folder / str(line.mask))))
