"""The options of an export. The module is light, so that a bad option is found before PyTorch is loaded."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from dlink.nets.preparation import Preparation
from dlink.runtime.spec import COLOURS, Spec, order_of


@dataclass(frozen=True, kw_only=True)
class AdoptOptions:
    """What the user says of a network from elsewhere; None leaves it to what the file shows."""

    activation: str | None = None  # what must still be applied to its output: none, sigmoid or softmax
    output_name: str | None = None  # the output, or an inner tensor, that has the roads


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Preparation):
    """The user's values for the file's Spec; None keeps the network's own."""

    tile: int = 1024
    precision: str = "fp32"
    threshold: float | None = None
    bands: tuple[str, ...] | None = None  # what an image's planes are
    stretch: str | None = None  # of samples that are not 8 bits (runtime/stretch.py)
    gsd_m: float = 0.5
    target: str = "road"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.on(self.first)  # raises BadInput for a bad value

    @property
    def first(self) -> Spec:
        """A Spec of these bands, with the D-LinkNet authors' values."""
        bands = self.bands or COLOURS
        scale, shift = ((numbers[0],) * len(bands) for numbers in (Spec.scale, Spec.shift))
        return Spec(bands=bands, scale=scale, shift=shift, channels=order_of(bands))

    def on(self, spec: Spec) -> Spec:
        """A Spec with these values; `spec` has these bands."""
        values: dict[str, Any] = {name: value for name, value in asdict(self).items() if value is not None}
        return self.prepared(replace(spec, **{k: v for k, v in values.items() if k not in ("mean", "std")}))
