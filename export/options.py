"""The options of an export. The module is light, so that a bad option is found before PyTorch is loaded."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from dlink.runtime.spec import Spec


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Which network of a checkpoint is read; None lets its keys decide."""

    arch: str | None = None
    key: str | None = None  # of the dictionary, or the prefix, that has the network


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The user's values for the file's Spec; None keeps the network's own."""

    tile: int = 1024
    precision: str = "fp32"
    threshold: float | None = None
    channels: str | None = None
    gsd_m: float = 0.5

    def __post_init__(self) -> None:
        self.on(Spec())  # raises BadInput for a bad value

    def on(self, spec: Spec) -> Spec:
        """A Spec with these values."""
        values: dict[str, Any] = {name: value for name, value in asdict(self).items() if value is not None}
        return replace(spec, **values)
