"""What became of the offered frames: counters that always add up."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Counts:
    """Frames by what became of them, at one moment: `offered` is the sum of the others."""

    offered: int = 0
    roads: int = 0  # computed in time
    late: int = 0  # computed, but after the deadline
    replaced: int = 0  # a newer frame took its place before it was begun
    expired: int = 0  # too old to be in time, so it was not begun
    failed: int = 0  # its pixels or the network failed
    left: int = 0  # not computed when the Live was closed
    waiting: int = 0  # waits, or is being computed

    @property
    def add_up(self) -> bool:
        """Whether each offered frame is counted once."""
        ended = self.roads + self.late + self.replaced + self.expired + self.failed + self.left
        return self.offered == ended + self.waiting
