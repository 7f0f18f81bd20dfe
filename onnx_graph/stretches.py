"""Finds which values of a network must share their scale, so that the network stays the same function.

ReLU, max pooling and sums keep a positive factor, f(c x) = c f(x). So a stretch of the graph between convolutions may
run at another scale: the convolutions before it take the factor into their weights and biases, and those after it
divide by it. Export uses this to keep float16 networks in range; calibration also evens out channels.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

HALF_MAX = 65504.0  # the largest float16
COMFORT = 2048.0  # values are scaled to at most this, 32 times below float16's end
ENDS = ""  # the name of the stretch of all values that must keep their scale


class Kind(Enum):
    """The effect of a step on its inputs' scale."""

    KEEPS = auto()  # the result has the inputs' factor, whichever it is
    BEGINS = auto()  # a convolution: its result has a scale of its own
    FIXED = auto()  # its inputs and its result must keep their scale


@dataclass(frozen=True)
class ScaleStep:
    """One step of a network: the names of its result and of its inputs."""

    result: str
    inputs: Iterable[str]
    kind: Kind


def stretches(steps: Iterable[ScaleStep]) -> dict[str, str]:
    """Each result's name -> the name that stands for its stretch, or ENDS."""
    parent: dict[str, str] = {ENDS: ENDS}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    def join(a: str, b: str) -> None:
        x, y = root(a), root(b)
        parent[x if y == ENDS else y] = y if y == ENDS else x

    for step in steps:
        root(step.result)
        if step.kind is not Kind.BEGINS:
            for name in (*([ENDS] if step.kind is Kind.FIXED else []), *step.inputs):
                join(step.result, name)
    return {name: root(name) for name in list(parent) if name != ENDS}


def comfortable(stretch: Mapping[str, str], peaks: Mapping[str, float]) -> dict[str, float]:
    """The powers of two that bring stretches within COMFORT, by the peaks of their values.

    ENDS has none, and neither has a stretch that is within it or has a value that is not finite.
    """
    largest: dict[str, float] = defaultdict(float)
    for name, root in stretch.items():
        largest[root] = max(largest[root], peaks.get(name, 0.0))
    return {
        root: 2.0 ** math.floor(math.log2(COMFORT / peak))
        for root, peak in largest.items()
        if COMFORT < peak < math.inf and root != ENDS
    }
