"""How a network's pixels are prepared, as a user says it: the order of the channels, a mean and a deviation.

The module is light, so that a bad option is found before PyTorch is loaded.
"""

from dataclasses import dataclass, replace
from typing import Any

from dlink.runtime.errors import BadInput
from dlink.runtime.spec import COLOURS, Numbers, Spec
from dlink.runtime.words import counted

LARGEST_PIXEL = 255


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The user's values for the preparation in a Spec; None keeps the network's own.

    Raises:
        BadInput: Only one of mean and deviation is given, or a number is out of range.
    """

    channels: str | None = None
    mean: Numbers | None = None  # of pixels in 0..1, in the order of the bands whatever the channels are
    std: Numbers | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            given, missing = ("--mean", "--std") if self.std is None else ("--std", "--mean")
            raise BadInput(f"{given}: {missing} is missing; give both, or neither for the network's own preparation")
        for option, numbers in (("--mean", self.mean), ("--std", self.std)):
            if numbers and not all(0 <= n <= 1 for n in numbers):
                text = ",".join(f"{n:g}" for n in numbers)
                raise BadInput(f"{option} {text}: must be in 0..1; divide numbers for pixels of 0..255 by 255")
        if self.std and not all(self.std):
            raise BadInput("--std: must be greater than 0; give 1,1,1 for pixels that are only divided by 255")

    def prepared(self, spec: Spec) -> Spec:
        """A Spec with this preparation."""
        spec = replace(spec, channels=self.channels or spec.channels)
        if self.mean is None or self.std is None:
            return spec
        for option, numbers in (("--mean", self.mean), ("--std", self.std)):
            if len(numbers) != len(spec.bands):
                raise BadInput(
                    f"{option}: {counted(len(numbers), 'number')} for {spec.bands_in_words}; give one for each"
                )
        pairs = in_order(list(zip(self.mean, self.std, strict=True)), spec)
        scale: Any = tuple(1 / (LARGEST_PIXEL * s) for _, s in pairs)
        shift: Any = tuple(-m / s for m, s in pairs)
        return replace(spec, scale=scale, shift=shift)


def in_order(values: list[Any], spec: Spec) -> list[Any]:
    """Values in the order of the bands in the order of the network's channels, and the other way round."""
    order = range(len(values))[spec.order] if isinstance(spec.order, slice) else spec.order
    return [values[i] for i in order]


def in_words(spec: Spec) -> str:
    """What a network's input is made of. Mean and deviation are in the order of the bands."""
    order = ", ".join(in_order(list(spec.bands), spec)) if spec.bands != COLOURS else spec.channels
    if set(spec.scale) | set(spec.shift) == {Spec.scale[0], Spec.shift[0]}:
        return f"{order}, pixel / 255 * 3.2 - 1.6 (the D-LinkNet authors')"
    pairs = in_order(list(zip(spec.scale, spec.shift, strict=True)), spec)
    mean = ",".join(f"{-shift / (LARGEST_PIXEL * scale):.4g}" for scale, shift in pairs)
    std = ",".join(f"{1 / (LARGEST_PIXEL * scale):.4g}" for scale, _ in pairs)
    return f"{order}, mean {mean} and std {std} of {', '.join(spec.bands)} in 0..1"
