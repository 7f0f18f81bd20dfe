"""Which values of a network must share their scale, so that the network stays the same function.

ReLU, max pooling and sums keep a positive factor, f(c x) = c f(x), so a stretch of the graph between convolutions may
run at another scale: the convolutions that lead into it take the factor into their weights and biases, those that lead
out take it back. Export keeps float16 networks in range by it, calibration evens out channels as well.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

COMFORT = 2048.0  # values seen are brought to at most this, 32 times below float16's end
ENDS = ""  # stands for the stretch of whatever must keep its scale


class Kind(Enum):
    """What a step makes of its inputs' scale."""

    KEEPS = auto()  # any positive factor: its result has the same
    BEGINS = auto()  # a convolution, which gives its result a scale of its own
    FIXED = auto()  # its inputs and its result must stay as they are


@dataclass(frozen=True)
class Step:
    """One step of a network: its result and those that it is made of, by name."""

    result: str
    inputs: Iterable[str]
    kind: Kind


def stretches(steps: Iterable[Step]) -> dict[str, str]:
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
