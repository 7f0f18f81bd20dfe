"""Captures what C libraries write to stderr during a call.

libjpeg and libtiff return pixels for damaged data, and report the damage on stderr only. So during one call the
process's file descriptor 2 points to a file. Lines that belong to others are passed on afterwards. One thread captures
at a time, and os.fork waits for it. A program that another thread starts at that moment keeps the file as its stderr.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import BinaryIO

STDERR = 2
LOCK = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=LOCK.release)


@contextmanager
def captured_stderr(meant: Callable[[str], bool]) -> Iterator[list[str]]:
    """A list that is filled when the block ends: the lines on stderr for which `meant` is true."""
    lines: list[str] = []
    with LOCK, memory_file() as file:
        kept = duplicate(STDERR)
        os.dup2(file.fileno(), STDERR)
        try:
            yield lines
        finally:
            restore(kept, file)
            file.seek(0)
            for line in file.read().decode(errors="replace").splitlines(keepends=True):
                if meant(line):
                    lines.append(line.rstrip())
                elif kept is not None:
                    os.write(STDERR, line.encode())


def memory_file() -> BinaryIO:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return TemporaryFile()


def duplicate(number: int) -> int | None:
    """Another descriptor of the same open file; None if it is closed."""
    try:
        return os.dup(number)
    except OSError:
        return None


def restore(kept: int | None, file: BinaryIO) -> None:
    if kept is not None:
        os.dup2(kept, STDERR)
        os.close(kept)
    elif file.fileno() != STDERR:  # if stderr was closed, the new file may have got its number
        os.close(STDERR)
