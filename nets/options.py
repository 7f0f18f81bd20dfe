"""Which network of a checkpoint is read. The module is light: commands import it before PyTorch is loaded."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """What of a checkpoint is read; None lets its keys decide."""

    arch: str | None = None
    key: str | None = None  # of the dictionary, or the prefix, that has the network
    road: int | None = None  # the class that is road, of two
