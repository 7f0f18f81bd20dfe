"""The keys of the networks' state_dicts, and how alike those of a checkpoint are."""

from collections.abc import Sequence, Set
from functools import cache
from typing import TypeVar

import torch

from dlink.nets.network import RoadNet
from dlink.nets.zoo import ARCHS, build
from dlink.runtime.errors import BadInput, BadModel
from dlink.runtime.spec import RED_GREEN_BLUE

COUNTER = "num_batches_tracked"  # of norms; the authors' PyTorch did not write it
SHOWN = 4  # keys named in a message before it says how many more

T = TypeVar("T")


@cache
def keys_of(arch: str) -> frozenset[str]:
    """The keys of a network's state_dict, without the norms' counters."""
    net = outline(arch, ARCHS[arch].step / ARCHS[arch].planes)
    return frozenset(k for k in net.state_dict() if not k.endswith(COUNTER))


def outline(arch: str, width: float, channels: int = RED_GREEN_BLUE) -> RoadNet:
    """A network on the meta device: it has shapes and takes no memory."""
    with torch.device("meta"):
        return build(arch, width, channels)


def outline_of(arch: str, width: float, channels: int, what: str) -> RoadNet:
    """The same for a checkpoint: BadModel if there is no such width. `what` is for the message."""
    try:
        return outline(arch, width, channels)
    except BadInput as e:
        raise BadModel(f"{what}: {str(e).partition(': ')[2]}; is it another network (--arch)?") from e


def overlap(a: Set[str], b: Set[str]) -> float:
    return len(a & b) / len(a | b)


def renamed(state: dict[str, T]) -> dict[str, T]:
    """The keys as in our network. PP-LinkNet's "hdc" names its pyramid `psp` and has an unused dilated centre."""
    if not any(key.startswith("psp.") for key in state):
        return state
    used = {key: value for key, value in state.items() if not key.startswith("dblock.")}
    return {key.replace("psp.", "dblock.", 1) if key.startswith("psp.") else key: v for key, v in used.items()}


def named(keys: Sequence[str], most: int = SHOWN) -> str:
    """The first keys, and how many more there are."""
    rest = len(keys) - most
    return ", ".join(keys[:most]) + (f" and {rest} more" if rest > 0 else "")
