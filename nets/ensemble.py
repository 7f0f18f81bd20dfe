"""Several networks as one: the weighted mean of their probabilities for one image.

The image is prepared for the first network. A network with another preparation converts the prepared image.
"""

import hashlib
from collections.abc import Sequence
from math import isclose, isfinite, lcm

import torch
from torch import Tensor, nn

from dlink.nets.checkpoint import Checkpoint
from dlink.nets.multiply_adds import total
from dlink.nets.network import RoadNet
from dlink.nets.zoo import spec_of
from dlink.runtime.errors import BadInput
from dlink.runtime.spec import COLOURS, Spec

JOIN = "+"  # between the members' names in the spec


class Member(nn.Module):
    """One network. Its input is x * scale + shift, where x is the image prepared for the first network."""

    def __init__(self, net: RoadNet, scale: Sequence[float], shift: Sequence[float]) -> None:
        super().__init__()
        self.net = net
        self.own = any(s != 1 for s in scale) or any(s != 0 for s in shift)
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32)[:, None, None])
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net.road(x * self.scale + self.shift if self.own else x)
        return y


class Ensemble(RoadNet):
    """The weighted mean of its members' probabilities."""

    def __init__(self, members: Sequence[Member], weights: Sequence[float]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.weights = tuple(weights)
        self.multiple = lcm(*(m.net.multiple for m in members))
        self.channels = members[0].net.channels

    def road(self, x: Tensor) -> Tensor:
        total: Tensor
        total, *rest = (member(x) * weight for member, weight in zip(self.members, self.weights, strict=True))
        for road in rest:
            total = total + road
        return total


def ensemble(found: Sequence[Checkpoint], weights: Sequence[float]) -> Checkpoint:
    """Combine checkpoints into one network. `weights` are positive, one for each, and sum to 1."""
    if len(weights) != len(found):
        raise BadInput(f"--weights: {len(weights)} numbers for {len(found)} checkpoints; give one for each")
    if not all(isfinite(w) and w > 0 for w in weights) or not isclose(sum(weights), 1, abs_tol=1e-3):
        raise BadInput(f"--weights {','.join(f'{w:g}' for w in weights)}: must be positive and sum to 1")
    if len(channels := sorted({c.net.channels for c in found})) > 1:
        raise BadInput(
            f"the networks of an ensemble take the same image, and these take {' and '.join(map(str, channels))} "
            f"channels; export each by itself"
        )
    net = Ensemble([member(c, found[0]) for c in found], [w / sum(weights) for w in weights])
    digest = hashlib.sha256(" ".join([*(c.sha256 for c in found), *map(repr, weights)]).encode()).hexdigest()
    return Checkpoint(net.eval(), JOIN.join(c.arch for c in found), found[0].width, digest, slim=share_of(found))


def share_of(found: Sequence[Checkpoint]) -> float:
    """The share of the members' multiply-adds that is left of what their widths have."""
    if all(c.slim == 1 for c in found):
        return 1.0
    left = [total(c.net, Spec.tile) for c in found]
    return sum(left) / sum(work / c.slim for work, c in zip(left, found, strict=True))


def member(checkpoint: Checkpoint, first: Checkpoint) -> Member:
    """A member whose preparation is expressed by the first's: x2 = p s2 + b2, x1 = p s1 + b1, so x2 = x1 s2/s1 + ..."""
    bands = tuple(f"band {i + 1}" for i in range(first.net.channels))
    own, base = (spec_of(c.arch, bands=COLOURS if len(bands) == len(COLOURS) else bands) for c in (checkpoint, first))
    scale = [s2 / s1 for s2, s1 in zip(own.scale, base.scale, strict=True)]
    shift = [b2 - b1 * s for b2, b1, s in zip(own.shift, base.shift, scale, strict=True)]
    return Member(checkpoint.net, scale, shift)
