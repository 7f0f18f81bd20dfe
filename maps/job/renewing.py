"""Goes on with a map whose rasters were replaced: which are taken as they are now, and which blocks are made again."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dlink.imagery.notes import say
from dlink.maps.job.plan import Plan, SourceFile, changed, gone
from dlink.maps.job.planning import look, source_of
from dlink.maps.job.ranges import ranges
from dlink.runtime.errors import BadInput
from dlink.runtime.progress import Tick, ignore
from dlink.runtime.words import counted

REDO, KEEP = "redo", "keep"  # what becomes of blocks that are done, of rasters that were replaced
WAYS = "--replaced redo computes {} again, --replaced keep keeps them, if it shows the same"


@dataclass(frozen=True)
class Renewed:
    """A plan with its rasters as they are now, and the blocks that are done and must be made again."""

    plan: Plan
    again: frozenset[int] = frozenset()


def renewed(plan: Plan, done: set[int], replaced: str | None = None, tick: Tick = ignore) -> Renewed:
    """The plan with the rasters that were replaced.

    Args:
        plan: The plan as it was.
        done: The blocks that are done.
        replaced: What becomes of blocks that are done of replaced rasters: REDO or KEEP; None: that is an error.
        tick: Called with (rasters done, all rasters, words) while the range of samples is found again.

    Raises:
        BadInput: A raster that is needed is gone, or is another one, or has blocks that are done.
    """
    sources = list(plan.sources)
    old: dict[int, set[int]] = {}  # replaced rasters, and their blocks that are done
    for i, source in enumerate(sources):
        if not (why := changed(source)):
            continue
        blocks = plan.touching(source)
        if gone(source):
            if not blocks <= done:
                raise BadInput(why)
            say(Path(source.name), "is gone since the map was planned; its blocks are done, and stay as they are")
            continue
        old[i] = blocks & done
        if old[i] and replaced is None:
            raise BadInput(f"{had_blocks(source, len(old[i]))}: {WAYS.format('them')}")
        sources[i] = as_it_is(plan, source)
    if not old:
        return Renewed(plan)
    say_replaced(plan, old, replaced)
    new = replace(plan, sources=tuple(sources))
    if replaced == KEEP:
        return Renewed(new)
    again = frozenset().union(*old.values())
    new = replace(new, stretch=ranges_of(new, old, tick))
    if new.stretch != plan.stretch and done:
        if replaced is None:
            raise BadInput(f"{other_range(plan.sources[min(old)], len(done))}: {WAYS.format('all')}")
        again = frozenset(done)
    check_there(plan, again)
    return Renewed(new, again)


def check_there(plan: Plan, again: frozenset[int]) -> None:
    """Raise BadInput if a raster is gone that is needed for blocks that are to be made again."""
    for source in plan.sources if again else ():
        if gone(source) and plan.touching(source) & again:
            raise BadInput(changed(source))


def had_blocks(source: SourceFile, count: int) -> str:
    done = "block of it is" if count == 1 else "blocks of it are"
    return f"{source.name}: has changed since the map was planned, and {count} {done} done"


def other_range(source: SourceFile, count: int) -> str:
    return (
        f"{source.name}: has changed since the map was planned, and with it the range of the samples of all rasters of "
        f"its type; {counted(count, 'block is', 'blocks are')} done"
    )


def as_it_is(plan: Plan, source: SourceFile) -> SourceFile:
    """A raster as it is now, which must lie where it lay."""
    how = plan.asked.reading.of_network(plan.of_model)
    new = source_of(look(source.name, how), plan.grid)
    if replace(new, files=source.files) != source:
        raise BadInput(f"{source.name}: is another raster than the one that was planned with; choose another folder")
    return new


def say_replaced(plan: Plan, old: Mapping[int, set[int]], replaced: str | None) -> None:
    for i, blocks in old.items():
        then = "no block of it was done, so it is taken as it is now"
        if blocks:
            count = counted(len(blocks), "block")
            then = f"{count} of it are made again" if replaced == REDO else f"{count} of it stay as they are"
        say(Path(plan.sources[i].name), f"has changed since the map was planned; {then}")


def ranges_of(plan: Plan, replaced: Collection[int], tick: Tick) -> dict[str, str]:
    """The plan's ranges of samples, of the types of replaced rasters found again."""
    kinds = {plan.sources[i].samples for i in replaced} & plan.stretch.keys()
    concerned = [source for source in plan.sources if source.samples in kinds]
    return {**plan.stretch, **ranges(concerned, plan.asked.reading.of_network(plan.of_model), tick)}
