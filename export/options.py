"""What is asked of an export: light, so that a bad option is seen before PyTorch is loaded."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from dlink.runtime.spec import Spec


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What the user says of the file's Spec; None is the network's own."""

    tile: int = 1024
    precision: str = "fp32"
    threshold: float | None = None
    channels: str | None = None
    gsd_m: float = 0.5

    def __post_init__(self) -> None:
        self.on(Spec())  # raises what is wrong with them

    def on(self, spec: Spec) -> Spec:
        """A Spec with what was said."""
        given: dict[str, Any] = {name: value for name, value in asdict(self).items() if value is not None}
        return replace(spec, **given)
