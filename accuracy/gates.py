"""The limits of a check (gates) and its verdict.

    gate       figure that is compared with the limit                                       usual limit
    agreement  IoU between the two models' masks, pooled over tiles; at least               0.99, INT8 0.97
    iou        pooled IoU with the labels: the reference's minus the candidate's; at most   0.005
    apls       mean APLS of the labelled tiles: the reference's minus the candidate's       none, on request
    broken     broken links a km of the labels' roads: candidate's minus reference's        none, on request

All but the first need labels. A gate compares the figure of all tiles together, not an end of its interval. Otherwise
the result would depend on the number of tiles: nothing would pass on a few tiles. But a few tiles prove less, and the
outcome says so. If the 95 % interval (bootstrap.py) reaches beyond the limit, it reads "held, but 14 tiles cannot rule
out an IoU drop of 0.012".
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from dlink.accuracy.agreement import Agreement
from dlink.accuracy.bootstrap import Estimate
from dlink.runtime.errors import BadInput
from dlink.runtime.words import counted

MIN_AGREEMENT = {"fp32": 0.99, "fp16": 0.99, "int8": 0.97}  # plain INT8 of a D-LinkNet34 agrees to 0.977 and more
MAX_IOU_DROP = 0.005


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One gate of the table above, and its words."""

    name: str
    field: str  # of GateLimits
    title: str
    missed: str  # why it failed; {}: the figure
    beyond: str  # what the interval cannot rule out; {}: its end
    none: str = "no roads in the labels of {}"  # why there is no figure; {}: how many tiles
    least: bool = False  # the limit is a minimum, not a maximum
    labels: bool = True  # whether it needs labels
    top: float = 1.0  # the highest limit that makes sense


AGREEMENT = Gate(
    name="agreement",
    field="min_agreement",
    title="agreement",
    missed="the masks agree to {}",
    beyond="an agreement of {}",
    none="no road in either mask on {}",
    least=True,
    labels=False,
)
IOU = Gate(name="iou", field="max_iou_drop", title="IoU drop", missed="IoU drops by {}", beyond="an IoU drop of {}")
APLS = Gate(
    name="apls", field="max_apls_drop", title="APLS drop", missed="APLS drops by {}", beyond="an APLS drop of {}"
)
BROKEN = Gate(
    name="broken",
    field="max_broken_rise",
    title="rise of broken links a km",
    missed="broken links a km rise by {}",
    beyond="{} more broken links a km",
    top=math.inf,
)
GATES = {gate.name: gate for gate in (AGREEMENT, IOU, APLS, BROKEN)}


@dataclass(frozen=True)
class Outcome:
    """The result of one gate with one number of views."""

    gate: Gate
    views: int
    limit: float
    found: Estimate

    @property
    def held(self) -> bool:
        """Whether the figure is within the limit. A figure equal to the limit is; a missing one is not."""
        value = self.found.value
        return value is not None and not past(self.gate, value, self.limit)

    @property
    def end(self) -> float | None:
        """The worse end of the interval."""
        return self.found.low if self.gate.least else self.found.high

    @property
    def doubt(self) -> str:
        """What the tiles cannot rule out although the gate was held; empty if nothing."""
        if not self.held:
            return ""
        if self.found.tiles == 1:
            return f"held, but one tile says nothing of others {with_views(self.views)}"
        if self.end is None or not past(self.gate, self.end, self.limit):
            return ""
        beyond = self.gate.beyond.format(f"{self.end:.3g}")
        return f"held, but {self.found.tiles} tiles cannot rule out {beyond} {with_views(self.views)}"

    @property
    def why(self) -> str:
        """Why the gate was not held; empty if it was."""
        if self.held:
            return ""
        if self.found.value is None:
            none = self.gate.none.format(counted(self.found.tiles, "tile"))
            return f"{none} {with_views(self.views)}: give tiles with roads"
        missed = self.gate.missed.format(f"{self.found.value:.6g}")
        return f"{missed} {with_views(self.views)}, {'less' if self.gate.least else 'more'} than {self.limit:g}"

    def to_json(self) -> dict[str, Any]:
        """Plain values, as Verdict.to_json shows them."""
        found = asdict(self.found)
        words = self.why or self.doubt
        return {
            "gate": self.gate.name,
            "views": self.views,
            "limit": self.limit,
            "held": self.held,
            **found,
            "words": words,
        }


def past(gate: Gate, value: float, limit: float) -> bool:
    return value < limit if gate.least else value > limit


def with_views(count: int) -> str:
    return f"with {counted(count, 'view')}"


@dataclass(frozen=True)
class GateLimits:
    """The largest allowed differences. None: not checked."""

    max_iou_drop: float  # of the pooled IoU, with every number of views; where there are labels
    min_agreement: float
    max_apls_drop: float | None = None
    max_broken_rise: float | None = None  # links a km

    @classmethod
    def of(
        cls,
        precision: str,
        max_iou_drop: float | None = None,
        min_agreement: float | None = None,
        max_apls_drop: float | None = None,
        max_broken_rise: float | None = None,
    ) -> "GateLimits":
        """These limits; where None, the usual ones for a graph of this precision."""
        return cls(
            MAX_IOU_DROP if max_iou_drop is None else max_iou_drop,
            MIN_AGREEMENT[precision] if min_agreement is None else min_agreement,
            max_apls_drop,
            max_broken_rise,
        )

    @property
    def graphs(self) -> bool:
        """Whether roads must be compared as graphs."""
        return self.max_apls_drop is not None or self.max_broken_rise is not None

    def outcomes(self, found: Agreement) -> list[Outcome]:
        """Every gate with every number of views. Gates that need labels are left out if the labels have no roads."""
        road = bool(found.labelled and found.label_road)
        limits = [(gate, getattr(self, gate.field)) for gate in GATES.values() if road or not gate.labels]
        return [
            Outcome(gate, s.views, limit, s.estimate(gate.name, found.labelled if gate.labels else found.tiles))
            for s in found.settings
            for gate, limit in limits
            if limit is not None
        ]

    def broken(self, found: Agreement, target: str = "road") -> list[str]:
        """Why the roads are not the same; empty if they are."""
        why = [outcome.why for outcome in self.outcomes(found) if not outcome.held]
        if found.labelled and not found.label_road:
            labels = counted(found.labelled, "label")
            none = f"no {target} in any of {labels}: give labels with {target}s"
            return [none, *why]
        return why

    def to_json(self) -> dict[str, float]:
        """The limits that are checked."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}


@dataclass(frozen=True, kw_only=True)
class AskedLimits:
    """The limits that a user gave: by --gate, or by the options that two of them have."""

    gates: tuple[str, ...] = ()
    max_iou_drop: float | None = None
    min_agreement: float | None = None

    @property
    def given(self) -> dict[str, float]:
        """Fields of GateLimits. BadInput for what is no limit, and for one that is given twice."""
        own = {"iou": self.max_iou_drop, "agreement": self.min_agreement}
        return limits_of([*self.gates, *(f"{name}={limit!r}" for name, limit in own.items() if limit is not None)])


@dataclass(frozen=True)
class Verdict:
    """The result of a check against its limits, to be kept beside a model.

    `to_json`:

        {"same": true,                                   every limit is held
         "why": [],                                      reasons if not
         "doubts": ["held, but 14 tiles cannot rule out an IoU drop of 0.012 with 8 views"],
         "notes": [],                                    pixels that rounding decides, see runtime/rounding.py
         "limits": {"max_iou_drop": 0.005, "min_agreement": 0.99},
         "gates": [{"gate": "iou", "views": 8, "limit": 0.005, "held": true, "value": 0.0002, "low": -0.004,
                    "high": 0.012, "tiles": 14, "words": "held, but 14 tiles ..."}, ...],
         "agreement": {...}}                             see agreement.py
    """

    found: Agreement
    limits: GateLimits
    target: str = "road"  # what both models draw, for the words

    @property
    def why(self) -> list[str]:
        """Why the roads are not the same; empty if they are."""
        return self.limits.broken(self.found, self.target)

    @property
    def outcomes(self) -> list[Outcome]:
        return self.limits.outcomes(self.found)

    @property
    def doubts(self) -> list[str]:
        """What these tiles cannot rule out although every limit is held."""
        return list(dict.fromkeys(outcome.doubt for outcome in self.outcomes if outcome.doubt))

    @property
    def notes(self) -> list[str]:
        """How many pixels rounding decides, if any."""
        return [f"{with_views(s.views)} {s.near.words}" for s in self.found.settings if s.near.words]

    def to_json(self) -> dict[str, Any]:
        return {
            "same": not self.why,
            "why": self.why,
            "doubts": self.doubts,
            "notes": self.notes,
            "limits": self.limits.to_json(),
            "gates": [outcome.to_json() for outcome in self.outcomes],
            "agreement": self.found.to_json(),
        }


def limits_of(texts: Iterable[str]) -> dict[str, float]:
    """Options such as `iou=0.003,apls=0.01` as values of GateLimits by field."""
    limits: dict[str, float] = {}
    for text in texts:
        for part in text.split(","):
            name, _, number = (word.strip() for word in part.partition("="))
            if name not in GATES:
                raise BadInput(f"--gate {text}: there is no gate {name!r}; there are {', '.join(GATES)}")
            gate = GATES[name]
            if gate.field in limits:
                raise BadInput(f"--gate {text}: {name} is given twice; give it once")
            limits[gate.field] = limit_of(gate, number, text)
    return limits


def limit_of(gate: Gate, number: str, text: str) -> float:
    example = f"such as {gate.name}={'0.98' if gate.least else '0.01'}"
    try:
        limit = float(number)
    except ValueError as e:
        raise BadInput(f"--gate {text}: {gate.name} needs a number, {example}, got {number!r}") from e
    if not 0 <= limit <= gate.top or math.isinf(limit):
        allowed = "0 or more" if gate.top > 1 else "from 0 to 1"
        raise BadInput(f"--gate {text}: {gate.name} must be {allowed}, {example}, got {number}")
    return limit
