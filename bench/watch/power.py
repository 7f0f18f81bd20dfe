"""Energy of a monitor that gives power: the trapezoids between its readings."""

from abc import ABC, abstractmethod


class Power(ABC):
    """A Meter of what has a power and no counter. It is as good as it is read often."""

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.last = now, self.watts()
        self.total = 0.0  # joules

    @abstractmethod
    def watts(self) -> float:
        """The power now."""

    def joules(self, now: float) -> float:
        before, power = self.last
        self.last = now, self.watts()
        self.total += (now - before) * (power + self.last[1]) / 2
        return self.total
