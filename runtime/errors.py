"""The errors that dlink raises on purpose, grouped by what the caller can do about them.

::

    DlinkError
      BadInput        an image, option or file of the caller cannot be used
      BadModel        a model file or checkpoint is damaged, foreign or of another version: make it again
        BadPlan         a TensorRT plan is damaged, or its manifest is missing or another plan's: build it again
        Mismatch        a sound plan for another GPU, TensorRT or driver: build it on this machine
        Untrusted       a plan lacks the required signature or verdict: sign or check it
      CheckFailed     a file was made or measured, and it misses a limit
      Busy            a model has as many images to do as the caller allows: come back later
      Closed          a model was used after close(): open it again
      NoEngine        this machine lacks the GPU, driver, memory or TensorRT for the task
      EngineFailed    an engine failed during a run: open the model again, with other options, or export it again
        NoProbability   a result is not a probability: the weights are damaged or exceed their precision
        GpuFailed       CUDA or TensorRT failed: open the model again; if that fails, in a new process

A message names the file or option, what was found, and what to do. Any other exception is a bug and keeps its
traceback. A missing package stays Python's own ModuleNotFoundError.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class DlinkError(Exception):
    """Base class of dlink's errors. The message is one line: what was found, where, and what to do.

    Example:
        >>> from dlink.runtime import DlinkError, open_model
        >>> try:
        ...     open_model("missing.onnx")
        ... except DlinkError as e:
        ...     print(type(e).__name__, "-", e)
        BadInput - missing.onnx: no such file; dlink-export writes .onnx files, dlink-build plans
    """


class BadInput(DlinkError, ValueError):
    """An image, option or file of the caller cannot be used."""


class BadModel(DlinkError, ValueError):
    """A model file or checkpoint is damaged, foreign or of another version."""


class BadPlan(BadModel):
    """A TensorRT plan is damaged, or its manifest is missing or belongs to another plan."""


class Mismatch(BadModel):
    """A plan is sound, but it is for another GPU, TensorRT or driver than this machine has."""


class Untrusted(BadModel):
    """A plan lacks the required signature or verdict."""


class CheckFailed(DlinkError, RuntimeError):
    """A file was made or measured, and it misses a limit."""


class Busy(DlinkError, RuntimeError):
    """A model has as many images to do as the caller allows."""


class Closed(DlinkError, RuntimeError):
    """A model was used after close()."""


class NoEngine(DlinkError, RuntimeError):
    """This machine lacks the GPU, driver, memory or TensorRT for the task."""


class EngineFailed(DlinkError, RuntimeError):
    """An engine failed during a run, or its result is not a probability."""


class NoProbability(EngineFailed):
    """A network gave values that are not probabilities: NaN, infinite, or outside 0 to 1.

    Args:
        where: Which tile, for the message.
        tiles: Indices of the bad tiles within the call.
        roads: The results of all tiles of the call; those of bad tiles are worthless.
        network: Which network, for the message.

    Example:
        >>> import numpy as np
        >>> from dlink.runtime import HostBackend, NoProbability, Segmenter, Spec
        >>> broken = HostBackend(lambda x: np.full((1, 64, 64), np.nan, np.float32), Spec(tile=64))
        >>> try:
        ...     Segmenter(broken).mask(image)
        ... except NoProbability as e:
        ...     print(str(e).partition(" (")[0])
        the tile at rows 0 to 64, columns 0 to 64: the network gives values that are not probabilities
    """

    def __init__(
        self, where: str, tiles: tuple[int, ...] = (), roads: Any = None, network: str = "the network"
    ) -> None:
        super().__init__(
            f"{where}: {network} gives values that are not probabilities (NaN, infinite, or outside 0 to 1); its "
            f"weights are damaged, or its values exceed its precision: export it again, in the second case as fp32"
        )
        self.tiles, self.roads, self.network = tiles, roads, network

    @classmethod
    def of(cls, tiles: Sequence[int], roads: Any, network: str = "the network") -> "NoProbability":
        """The error of some tiles of a call whose results are `roads` (N, S, S)."""
        return cls(f"tile {', '.join(str(i + 1) for i in tiles)} of {len(roads)}", tuple(tiles), roads, network)


class GpuFailed(EngineFailed):
    """CUDA or TensorRT failed during a run."""


@contextmanager
def within(what: object) -> Iterator[None]:
    """Put the name of the picture or model before the message of an EngineFailed."""
    try:
        yield
    except EngineFailed as e:
        e.args = (f"{what}: {e}",)
        raise
