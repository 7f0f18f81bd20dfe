"""ImageNet's weights for the encoder: a state_dict with torchvision's key names, loud about what matched.

The papers' largest single gain. A ResNet fills `firstconv`, `firstbn` and the encoder stages, a VGG-13 the six
convolutions of D-UNet. Nothing else is touched.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dlink.nets.checkpoint import COUNTER, check_finite, check_floats, read_state
from dlink.runtime.errors import BadInput

RESNET = ((r"^conv1\.", "firstconv."), (r"^bn1\.", "firstbn."), (r"^layer(\d)\.", r"encoder\1."))
VGG13 = {0: 1, 2: 2, 5: 3, 7: 4, 10: 5, 12: 6}  # features.N -> convN
SHOWN = 3


@dataclass(frozen=True)
class Filled:
    """What came of it, for a line to the user."""

    taken: int
    wanted: int
    unused: tuple[str, ...]

    def __str__(self) -> str:
        rest = len(self.unused) - SHOWN
        said = ", ".join(self.unused[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
        return f"{self.taken} of {self.wanted} tensors of the encoder filled" + (f"; not used: {said}" if said else "")


def fill_encoder(net: nn.Module, path: Path) -> Filled:
    """Put a classifier's weights into a network's encoder; BadInput where they do not fill all of it."""
    wanted = {k: v for k, v in net.state_dict().items() if is_encoder(net, k) and not k.endswith(COUNTER)}
    if not wanted:
        raise BadInput(f"{path}: {type(net).__name__} has no encoder that a classifier's weights would fit")
    state = read_state(path)
    named = {ours: (theirs, value) for theirs, value in state.items() if (ours := renamed(theirs)) in wanted}
    missing = [k for k in wanted if k not in named]
    if missing:
        raise BadInput(
            f"{path}: fills {len(named)} of {len(wanted)} tensors of the encoder; missing: {', '.join(missing[:SHOWN])}"
            f"{' ...' if len(missing) > SHOWN else ''}; is it of another ResNet than --arch has?"
        )
    misshapen = [k for k, (_, v) in named.items() if v.shape != wanted[k].shape]
    if misshapen:
        k = misshapen[0]
        raise BadInput(
            f"{path}: {named[k][0]} is {tuple(named[k][1].shape)}, {k} wants {tuple(wanted[k].shape)}; "
            f"such weights are for --width 1"
        )
    taken = dict(named.values())
    check_floats(taken, str(path))
    check_finite(taken, str(path))
    with torch.no_grad():
        for key, (_, value) in named.items():
            wanted[key].copy_(value)
    return Filled(len(named), len(wanted), tuple(k for k in state if k not in taken))


def is_encoder(net: nn.Module, key: str) -> bool:
    if hasattr(net, "firstconv"):
        return key.startswith(("firstconv.", "firstbn.", "encoder"))
    return bool(re.match(r"conv[1-6]\.", key))


def renamed(key: str) -> str:
    """torchvision's name as ours."""
    if vgg := re.match(r"features\.(\d+)\.(.*)", key):
        return f"conv{VGG13.get(int(vgg[1]), 0)}.{vgg[2]}"
    for pattern, ours in RESNET:
        key, count = re.subn(pattern, ours, key)
        if count:
            return key
    return ""
