"""The options of an export. The module is light, so that a bad option is found before PyTorch is loaded."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from dlink.runtime.errors import BadInput
from dlink.runtime.spec import Spec, Triple

LARGEST_PIXEL = 255


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Which network of a checkpoint is read; None lets its keys decide."""

    arch: str | None = None
    key: str | None = None  # of the dictionary, or the prefix, that has the network
    road: int | None = None  # the class that is road


@dataclass(frozen=True, kw_only=True)
class AdoptOptions:
    """What the user says of a network from elsewhere; None leaves it to what the file shows."""

    activation: str | None = None  # what must still be applied to its output: none, sigmoid or softmax
    output_name: str | None = None  # the output, or an inner tensor, that has the roads


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The user's values for the file's Spec; None keeps the network's own."""

    tile: int = 1024
    precision: str = "fp32"
    threshold: float | None = None
    channels: str | None = None
    gsd_m: float = 0.5
    mean: Triple | None = None  # of pixels in 0..1, in the order red, green, blue whatever the channels are
    std: Triple | None = None

    def __post_init__(self) -> None:
        self.check_preparation()
        self.on(Spec())  # raises BadInput for a bad value

    def on(self, spec: Spec) -> Spec:
        """A Spec with these values."""
        values: dict[str, Any] = {name: value for name, value in asdict(self).items() if value is not None}
        mean, std = values.pop("mean", None), values.pop("std", None)
        spec = replace(spec, **values)
        if mean is None or std is None:
            return spec
        order = 1 if spec.channels == "RGB" else -1
        pairs = list(zip(mean, std, strict=True))[::order]
        scale: Any = tuple(1 / (LARGEST_PIXEL * s) for _, s in pairs)
        shift: Any = tuple(-m / s for m, s in pairs)
        return replace(spec, scale=scale, shift=shift)

    def check_preparation(self) -> None:
        if (self.mean is None) != (self.std is None):
            given, missing = ("--mean", "--std") if self.std is None else ("--std", "--mean")
            raise BadInput(f"{given}: {missing} is missing; give both, or neither for the network's own preparation")
        for option, numbers in (("--mean", self.mean), ("--std", self.std)):
            if numbers and not all(0 <= n <= 1 for n in numbers):
                text = ",".join(f"{n:g}" for n in numbers)
                raise BadInput(f"{option} {text}: must be in 0..1; divide numbers for pixels of 0..255 by 255")
        if self.std and not all(self.std):
            raise BadInput("--std: must be greater than 0; give 1,1,1 for pixels that are only divided by 255")


def preparation(spec: Spec) -> str:
    """What a network's input is made of, in words. Mean and deviation are in the order red, green, blue."""
    if (spec.scale, spec.shift) == (Spec.scale, Spec.shift):
        return f"{spec.channels}, pixel / 255 * 3.2 - 1.6 (the D-LinkNet authors')"
    order = 1 if spec.channels == "RGB" else -1
    pairs = list(zip(spec.scale, spec.shift, strict=True))[::order]
    mean = ",".join(f"{-shift / (LARGEST_PIXEL * scale):.4g}" for scale, shift in pairs)
    std = ",".join(f"{1 / (LARGEST_PIXEL * scale):.4g}" for scale, _ in pairs)
    return f"{spec.channels}, mean {mean} and std {std} of red, green, blue in 0..1"
