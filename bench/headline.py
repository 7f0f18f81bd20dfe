"""Whether a figure may be quoted: not if the machine had other things to do, nor if it varied widely.

A figure that fails is printed all the same. It says of this machine what it did, and of the model little.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dlink.runtime.words import counted

if TYPE_CHECKING:  # commands read this module for their --help
    from dlink.bench.watch.watch import Conditions

# An idle system's own processes take 1 to 2 % of its processors. A network uses all cores, and each layer waits for the
# slowest of them, so others cost more than their share.
MOST_OTHERS = 0.05
MOST_STOLEN = 0.02  # a hypervisor's part; there is no way to see what else its other machines slow down
# Files differ in speed from 5 % on (compare.FASTER). Times that vary by twice as much cannot show that.
MOST_SPREAD = 0.10
FEWEST = 5  # calls; fewer have no quartiles, and no p99 to speak of


def why_no_headline(conditions: "Conditions", rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The reasons against quoting the figures of these rows; each has its `views`, `spread` and `calls` or `roads`."""
    found = []
    for words, share, most in (
        ("other processes took", conditions.others_share, MOST_OTHERS),
        ("the hypervisor took", conditions.stolen_share, MOST_STOLEN),
    ):
        if share is not None and share > most:
            found.append(f"{words} {share:.1%} of the processors' time, more than {most:.0%}")
    if conditions.throttled:
        found.append(f"the processor was throttled, {conditions.throttled} times")
    for reason, share in (conditions.gpu_throttled or {}).items():
        found.append(f"the GPU was held back by its {reason} in {share:.0%} of the looks")
    for row in rows:
        name = row_name(row)
        calls = row["roads"] if "roads" in row else row["calls"]  # frames at a rate that have roads
        if calls < FEWEST:
            found.append(f"{name}: {counted(calls, 'call is', 'calls are')} too few; --seconds gives more time")
        elif row["spread"] > MOST_SPREAD:
            found.append(
                f"{name}: the times vary, their interquartile range is {row['spread']:.1%} of the median, more than "
                f"{MOST_SPREAD:.0%}"
            )
    return found


def row_name(row: Mapping[str, Any]) -> str:
    """Which row of a result it is, such as "8 views" or "1 view, 10 frames a second"."""
    views = row["views"]
    name = counted(views, "view") if isinstance(views, int) else f"{views} views"
    return f"{name}, {row['rate']:g} frames a second" if row.get("rate") else name
