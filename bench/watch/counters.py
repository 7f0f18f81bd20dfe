"""Reads the kernel's files of one number or word. What cannot be read is NotRead, whose message is the reason."""

from pathlib import Path

from dlink.runtime.errors import DlinkError

SYS, PROC = Path("/sys"), Path("/proc")
SHOWN = 40  # characters of a damaged file


class NotRead(DlinkError, RuntimeError):
    """Something of this machine cannot be measured here. The message says what, and why."""


def read_text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except PermissionError as e:
        raise NotRead(f"{path}: only root may read it") from e
    except (OSError, UnicodeDecodeError) as e:
        raise NotRead(f"{path}: {getattr(e, 'strerror', None) or e}") from e


def read_number(path: Path) -> int:
    text = read_text(path)
    try:
        return int(text)
    except ValueError as e:
        raise NotRead(f"{path}: {text[:SHOWN]!r} is no whole number") from e
