"""How a long job says how far it is, to whoever shows it."""

from collections.abc import Callable
from typing import TypeAlias

Tick: TypeAlias = Callable[[int, int, str], None]  # done, all (0 where nobody knows), more words
Count: TypeAlias = Callable[[int, int], None]  # done, all


def ignore(*progress: object) -> None:
    """The Tick or Count of a caller that shows no progress."""
