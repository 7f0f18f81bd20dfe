"""Slim networks: those whose layers have lost different shares of their channels (dlink-slim).

A slim checkpoint has the keys of its network, and shapes that fit together but are those of no width. So nothing is
stored beside the weights: the shapes tell everything. Its width is that of the narrowest network that has as many
channels in every layer; dlink-slim leaves one layer whole, so that this is the width that the network was trained with.
Its share is that of this network's multiply-adds, for a tile of the published size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from torch import Tensor

from dlink.nets.channels import axes_of_arch, shaped, sizes
from dlink.nets.keys import COUNTER, outline_of
from dlink.nets.multiply_adds import total
from dlink.nets.network import RoadNet
from dlink.nets.zoo import arch_of, build
from dlink.runtime.spec import Spec

DIGITS = 4  # of a share


@dataclass(frozen=True)
class Slim:
    """What a slim checkpoint's shapes tell."""

    net: RoadNet  # in memory, its values not set
    width: float
    share: float  # of the multiply-adds of the network of that width


def slim_of(arch: str, channels: int, state: Mapping[str, Tensor], what: str) -> Slim | None:
    """The slim network of a state_dict; None if its shapes are those of a width, or differ in more than channels.

    BadModel if its channels do not fit together; `what` is for the message.
    """
    small = smallest(arch, channels)
    along = axes_of_arch(arch)
    if not differs_in_channels_alone(small, arch, state):
        return None
    found, narrow = sizes(along, state, what), sizes(along, small.state_dict(), arch)
    times = max(ceil(found[group] / narrow[group]) for group in found)
    if all(found[group] == times * narrow[group] for group in found):
        return None
    width = times * arch_of(arch).step / arch_of(arch).planes
    whole = outline_of(arch, width, channels, f"{what} of width {width:g}")
    net = shaped(small, state)
    return Slim(net, width, round(total(net, Spec.tile) / total(whole, Spec.tile), DIGITS))


def smallest(arch: str, channels: int) -> RoadNet:
    """The narrowest network of that name."""
    return build(arch, arch_of(arch).step / arch_of(arch).planes, channels)


def differs_in_channels_alone(net: RoadNet, arch: str, state: Mapping[str, Tensor]) -> bool:
    """Whether a state_dict has a network's keys, and its shapes apart from the axes along which groups lie."""
    wanted = {key: value.shape for key, value in net.state_dict().items() if not key.endswith(COUNTER)}
    if wanted.keys() != state.keys():
        return False
    along = axes_of_arch(arch)
    return all(
        len(shape) == state[key].ndim
        and all(axis in along[key] or n == state[key].shape[axis] for axis, n in enumerate(shape))
        and state[key].numel() > 0
        for key, shape in wanted.items()
    )
