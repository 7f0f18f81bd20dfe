"""Everything dlink raises on purpose, by what would put it right.

DlinkError
  BadInput      an image, option or file of the caller's can't be used
  BadModel      a model file or checkpoint is damaged, foreign or of another version: make it again
    BadPlan       a TensorRT plan is damaged, or its manifest is missing or another's: build it again
    Mismatch      a plan is sound, but for another GPU, TensorRT or driver: build it here
    Untrusted     a plan lacks the signature or the verdict that was asked for: sign or check it
  CheckFailed   a file was made or measured and does not hold what it must
  Closed        a model was used after its close(): open it again
  NoEngine      there is no GPU, driver, memory or TensorRT here that could do this
  EngineFailed  an engine failed while a model ran: open the model again, with other options, or export it again
    NoProbability a tile's result is no probability: the network's weights or its precision are at fault
    GpuFailed     CUDA or TensorRT failed: open the model again, in a new process if that fails as well

A message names the file or option, what was found, and what would do. Anything else that escapes is a bug and keeps
its traceback. A missing package stays Python's own ModuleNotFoundError.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class DlinkError(Exception):
    """Base of the errors of this package."""


class BadInput(DlinkError, ValueError):
    """An image, option or file of the caller's can't be used."""


class BadModel(DlinkError, ValueError):
    """A model file or checkpoint is damaged, foreign or of another version."""


class BadPlan(BadModel):
    """A TensorRT plan is damaged, or its manifest is missing or another's."""


class Mismatch(BadModel):
    """A plan is sound, but for another GPU, TensorRT or driver than this machine's."""


class Untrusted(BadModel):
    """A plan lacks the signature or the verdict that was asked for."""


class CheckFailed(DlinkError, RuntimeError):
    """A network does not hold what was asked of it."""


class Closed(DlinkError, RuntimeError):
    """A model was used after its close()."""


class NoEngine(DlinkError, RuntimeError):
    """There is no GPU, driver, memory or TensorRT here that could do this."""


class EngineFailed(DlinkError, RuntimeError):
    """An engine failed while a model ran, or gave what is no probability."""


class NoProbability(EngineFailed):
    """A network gives values that are no probabilities: not a number, infinite, or outside 0 to 1.

    `tiles` are the places in a call's tiles of those at fault, `roads` is what came of all.
    """

    def __init__(self, where: str, tiles: tuple[int, ...] = (), roads: Any = None) -> None:
        super().__init__(
            f"{where}: the network gives values that are no probabilities (not a number, infinite, or outside 0 to 1); "
            f"its weights are damaged, or its values exceed its precision: export it again, as fp32 if that is so"
        )
        self.tiles, self.roads = tiles, roads

    @classmethod
    def of(cls, tiles: Sequence[int], roads: Any) -> "NoProbability":
        """Of some tiles among those that gave `roads` (N, S, S)."""
        return cls(f"tile {', '.join(str(i + 1) for i in tiles)} of {len(roads)}", tuple(tiles), roads)


class GpuFailed(EngineFailed):
    """CUDA or TensorRT failed while a model ran."""


@contextmanager
def within(what: object) -> Iterator[None]:
    """Say of an engine's failure in which picture, or by which model, it was."""
    try:
        yield
    except EngineFailed as e:
        e.args = (f"{what}: {e}",)
        raise
