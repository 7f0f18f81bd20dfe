"""Reads a session's folder, also one that was cut off."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlink.live.session.head import NAME, Head, read_head
from dlink.live.session.line import Line, read_lines
from dlink.live.session.session import LINES
from dlink.runtime import BadInput


@dataclass(frozen=True)
class Recorded:
    """A session that was written.

    Args:
        folder: Its folder.
        head: What it was computed with.
        lines: What became of each offered frame, in the order in which they ended.
    """

    folder: Path
    head: Head
    lines: Sequence[Line]

    @property
    def cut_off(self) -> bool:
        """Whether the session runs still, or was killed."""
        return self.head.ended is None


def read_session(folder: Path) -> Recorded:
    """Read a session.

    Raises:
        BadInput: The folder has no session.
        BadModel: A file is damaged or of another version.
    """
    if not (folder / NAME).is_file():
        raise BadInput(f"{folder}: no session; expected the folder that dlink-live wrote with -o, with {NAME}")
    lines = folder / LINES
    return Recorded(folder, read_head(folder), tuple(read_lines(lines)) if lines.exists() else ())
