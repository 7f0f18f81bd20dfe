"""Loads ImageNet weights into the encoder, from a state_dict with torchvision's key names, and reports what matched.

This is the papers' largest single gain. A ResNet fills `firstconv`, `firstbn` and the encoder stages, a VGG-13 the six
convolutions of D-UNet. Other weights are not changed.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dlink.nets.checkpoint import check_finite, check_floats, read_state
from dlink.nets.keys import COUNTER, named
from dlink.runtime.errors import BadInput

RESNET = ((r"^conv1\.", "firstconv."), (r"^bn1\.", "firstbn."), (r"^layer(\d)\.", r"encoder\1."))
VGG13 = {0: 1, 2: 2, 5: 3, 7: 4, 10: 5, 12: 6}  # features.N -> convN
SHOWN = 3


@dataclass(frozen=True)
class Filled:
    """What was filled, for a line to the user."""

    taken: int
    wanted: int
    unused: tuple[str, ...]

    def __str__(self) -> str:
        filled = f"{self.taken} of {self.wanted} tensors of the encoder filled"
        return f"{filled}; not used: {named(self.unused, SHOWN)}" if self.unused else filled


def fill_encoder(net: nn.Module, path: Path) -> Filled:
    """Copy a classifier's weights into a network's encoder. BadInput if they do not fill all of it."""
    wanted = {k: v for k, v in net.state_dict().items() if is_encoder(net, k) and not k.endswith(COUNTER)}
    if not wanted:
        raise BadInput(f"{path}: {type(net).__name__} has no encoder that a classifier's weights would fit")
    state = read_state(path)
    matched = {key: (source, value) for source, value in state.items() if (key := renamed(source)) in wanted}
    missing = [k for k in wanted if k not in matched]
    if missing:
        first = ", ".join(missing[:SHOWN]) + (" ..." if len(missing) > SHOWN else "")
        raise BadInput(
            f"{path}: fills {len(matched)} of {len(wanted)} tensors of the encoder; missing: {first}; "
            f"is it of another ResNet than --arch has?"
        )
    misshapen = [k for k, (_, v) in matched.items() if v.shape != wanted[k].shape]
    if misshapen:
        k = misshapen[0]
        raise BadInput(
            f"{path}: {matched[k][0]} is {tuple(matched[k][1].shape)}, {k} wants {tuple(wanted[k].shape)}; "
            f"such weights are for --width 1"
        )
    taken = dict(matched.values())
    check_floats(taken, str(path))
    check_finite(taken, str(path))
    with torch.no_grad():
        for key, (_, value) in matched.items():
            wanted[key].copy_(value)
    return Filled(len(matched), len(wanted), tuple(k for k in state if k not in taken))


def is_encoder(net: nn.Module, key: str) -> bool:
    if hasattr(net, "firstconv"):
        return key.startswith(("firstconv.", "firstbn.", "encoder"))
    return bool(re.match(r"conv[1-6]\.", key))


def renamed(key: str) -> str:
    """Our key for a torchvision key; empty if there is none."""
    if vgg := re.match(r"features\.(\d+)\.(.*)", key):
        return f"conv{VGG13.get(int(vgg[1]), 0)}.{vgg[2]}"
    for pattern, replacement in RESNET:
        key, count = re.subn(pattern, replacement, key)
        if count:
            return key
    return ""
