"""Takes channels away from a network: those that matter least for the work that they cost.

Over all layers at once, channels go where the importance lost per multiply-add saved is least. A layer keeps a multiple
of 8 channels, which is what matrix units take at once; one that has no more than 8 is left alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from dlink.nets.channels import Axes, sizes
from dlink.nets.multiply_adds import multiply_adds
from dlink.nets.network import RoadNet
from dlink.runtime.spec import Spec

STEP = 8  # channels


@dataclass(frozen=True)
class Work:
    """The multiply-adds of one convolution as a function of the groups' sizes."""

    rest: float  # positions and taps of the kernel, and channels that never change
    along: tuple[tuple[str, ...], ...]  # the groups along either axis of its weight

    def multiply_adds(self, size: Mapping[str, int]) -> float:
        return self.rest * prod(sum(size[group] for group in groups) for groups in self.along)


class Pruning:
    """What can be taken away of a network, and what it would save.

    along: the groups along the axes of its tensors (nets/channels.py). whole: the outline of the network of its width,
    of whose multiply-adds `share` is a share.
    """

    def __init__(self, net: RoadNet, along: Mapping[str, Axes], whole: RoadNet) -> None:
        self.along = along
        self.size = sizes(along, net.state_dict(), "network")
        self.whole = sizes(along, whole.state_dict(), "network")
        self.works = works(net, along, self.size)
        self.most = self.of(self.whole)

    def of(self, size: Mapping[str, int]) -> float:
        """The multiply-adds with these sizes."""
        return sum(work.multiply_adds(size) for work in self.works)

    @property
    def share(self) -> float:
        return self.of(self.size) / self.most

    @property
    def least(self) -> float:
        """The share with nothing left to take away."""
        return self.of({g: n if g == self.witness else min(n, STEP) for g, n in self.size.items()}) / self.most

    @cached_property
    def witness(self) -> str:
        """The group that stays whole, so that the shapes tell the width: of those that are, that with least work."""
        return min(
            (group for group, n in self.size.items() if n == self.whole[group]),
            key=lambda group: self.of(self.size) - self.of({**self.size, group: 0}),
        )


def works(net: RoadNet, along: Mapping[str, Axes], size: Mapping[str, int]) -> list[Work]:
    """The work of each convolution of a network for one view of a tile of the published size."""
    found = []
    for name, count in multiply_adds(net, Spec.tile).items():
        groups = tuple(along[f"{name}.weight"].values())
        found.append(Work(count / Work(1, groups).multiply_adds(size), groups))
    return found


def next_size(count: int) -> int:
    """The next smaller number of channels; the same number if there is none."""
    fewer = (count - 1) // STEP * STEP
    return fewer if fewer >= STEP else count


def least_important(importance: Mapping[str, Tensor], pruning: Pruning, share: float) -> dict[str, int]:
    """The groups' sizes with at most this share of the multiply-adds that lose the least importance, step by step."""
    lost = {group: torch.cat([torch.zeros(1), values.sort().values.cumsum(0)]) for group, values in importance.items()}
    size = dict(pruning.size)
    while (now := pruning.of(size)) > share * pruning.most:
        price: dict[str, float] = {}
        for group, count in size.items():
            after = next_size(count)
            if after < count and group != pruning.witness:
                gone = [float(lost[group][pruning.size[group] - n]) for n in (after, count)]
                price[group] = (gone[0] - gone[1]) / (now - pruning.of({**size, group: after}))
        cheapest = min(price, key=lambda group: price[group])
        size[cheapest] = next_size(size[cheapest])
    return size


def most_important(importance: Mapping[str, Tensor], size: Mapping[str, int]) -> dict[str, Tensor]:
    """The indices of so many channels of each group, ascending."""
    return {group: importance[group].topk(n).indices.sort().values for group, n in size.items()}
