"""A line of roads.jsonl: what became of one offered frame."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dlink.live.frame import Outcome, What
from dlink.live.pose import Pose
from dlink.runtime import BadModel
from dlink.runtime.values import load_json, value_of


@dataclass(frozen=True, kw_only=True)
class Line:
    """What became of an offered frame. Times are seconds; `captured`, `begun`, `done` are of the monotonic clock.

    Args:
        id: The frame's.
        what: What became of it: see live/counts.py.
        captured: When the camera took it.
        utc: The same, since 1970-01-01 UTC, where it is known.
        pts: The video's own time stamp.
        video: The file of the recording that has the frame.
        index: Its number there, from 0, of the frames that can be decoded.
        pose: The camera.
        begun: When its computation began.
        done: When it ended.
        age: `done` less `captured`.
        rung: Which views it got: 8, 4, 1 or adaptive.
        views: How many views each tile got.
        scale: Pixels of the network a pixel of the frame.
        mask: The file of its mask, in the session's folder.
        error: Why it failed, or why its mask is missing.
    """

    id: int
    what: What
    captured: float
    utc: float | None = None
    pts: float | None = None
    video: str | None = None
    index: int | None = None
    pose: Pose | None = None
    begun: float | None = None
    done: float | None = None
    age: float | None = None
    rung: str | None = None
    views: float | None = None
    scale: float | None = None
    mask: str | None = None
    error: str = ""

    def to_json(self) -> str:
        """One line; what is not known is left out."""
        return json.dumps({name: known(value) for name, value in asdict(self).items() if value not in (None, "")})


def known(value: Any) -> Any:
    """A value of a line; of a pose, what is known of it."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def line_of(outcome: Outcome, mask: str | None, error: str = "") -> Line:
    """The line of an outcome, whose frame's tag may be (video, index)."""
    frame, roads = outcome.frame, outcome.roads
    video, index = frame.tag or (None, None)
    line = Line(
        id=frame.id,
        what=outcome.what,
        captured=frame.captured,
        utc=frame.utc,
        pts=frame.pts,
        video=video,
        index=index,
        pose=frame.pose,
        mask=mask,
        error=outcome.error or error,
    )
    if roads is None:
        return line
    return Line(
        **{name: getattr(line, name) for name in ("id", "what", "captured", "utc", "pts", "video", "index", "pose")},
        mask=mask,
        error=line.error,
        begun=roads.begun,
        done=roads.done,
        age=roads.done - frame.captured,
        rung=str(roads.rung),
        views=float(roads.views),
        scale=roads.scale,
    )


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a file. A last line that was cut off, as by a crash, is left out; other damage raises BadModel."""
    with path.open("rb") as f:
        for number, text in enumerate(f, 1):
            if not text.endswith(b"\n"):
                return
            try:
                yield as_line(load_json(text))
            except (TypeError, ValueError) as e:
                raise BadModel(f"{path}, line {number}: {e}; it is damaged, or of another version of dlink") from e


def as_line(values: Any) -> Line:
    if not isinstance(values, dict) or values.get("what") not in What.__args__:  # type: ignore[attr-defined]
        raise ValueError("it does not say what became of a frame")
    what = values.pop("what")
    hints = {name: hint for name, hint in Line.__annotations__.items() if name != "what"}
    if unknown := sorted(values.keys() - hints.keys()):
        raise ValueError(f"unknown: {', '.join(unknown)[:80]}")
    return Line(what=what, **{name: value_of(hints[name], value, name, {}) for name, value in values.items()})
