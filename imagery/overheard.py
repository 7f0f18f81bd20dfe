"""What C libraries say on stderr while they work, for those that say it nowhere else.

libjpeg decodes damaged data to something, and libtiff to what was in memory; both tell stderr alone. So for one call
the process's file descriptor 2 leads to a file. Lines that others wrote meanwhile are passed on afterwards. One
thread at a time listens, and os.fork waits for it; a program that another thread starts just then keeps the file.
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
def overheard(meant: Callable[[str], bool]) -> Iterator[list[str]]:
    """A list that holds, once the block is left, the lines of stderr that were `meant`."""
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
        return os.fdopen(os.memfd_create("overheard"), "w+b")
    return TemporaryFile()


def duplicate(number: int) -> int | None:
    """Another number of the same open file; None where it is closed."""
    try:
        return os.dup(number)
    except OSError:
        return None


def restore(kept: int | None, file: BinaryIO) -> None:
    if kept is not None:
        os.dup2(kept, STDERR)
        os.close(kept)
    elif file.fileno() != STDERR:  # a closed number is the next file's
        os.close(STDERR)
