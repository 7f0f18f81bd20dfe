"""One range of samples for all rasters of a map that have the same type."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from dlink.imagery.notes import say
from dlink.imagery.reading import NATIVE, Reading
from dlink.imagery.source import opened
from dlink.imagery.stretching import Part, levels_of
from dlink.maps.job.plan import SourceFile
from dlink.runtime.errors import BadInput
from dlink.runtime.progress import Tick


def ranges(sources: Sequence[SourceFile], reading: Reading, tick: Tick) -> dict[str, str]:
    """One range for all rasters of a type, so that neighbours look alike; none for samples of 8 bits."""
    found = {}
    for samples in dict.fromkeys(source.samples for source in sources):
        same = [source for source in sources if source.samples == samples]
        bands, _, dtype = samples.split()
        try:
            levels = levels_of(np.dtype(dtype), reading.stretched, int(bands), parts(same, reading, tick))
        except BadInput as e:
            raise BadInput(f"{same[0].name}: {e}") from e
        if levels:
            found[samples] = str(levels.stretch)
            if levels.note:
                of = "the picture" if len(same) == 1 else f"all {len(same)} rasters"
                say(Path(same[0].name), levels.note.replace("the picture", of), f" (here {levels.stretch})")
    return found


def parts(sources: Sequence[SourceFile], reading: Reading, tick: Tick) -> Iterator[Part]:
    """All samples of some rasters."""

    def of(index: int) -> Iterator[Part]:
        with opened(Path(sources[index].name), replace(reading, gsd=NATIVE)) as source:
            yield from source.parts()
        tick(index + 1, len(sources), "rasters searched for the range of their samples")

    return chain.from_iterable(of(i) for i in range(len(sources)))
