"""How much each channel of a network matters for its roads.

A channel's importance is the second-order Taylor term of the distillation loss: the curvature by a factor on that
channel, where every layer reads it. For cross-entropy with the network's own probabilities this is, by Gauss and
Newton, E[sum over pixels of p (1 - p) (d logit / d factor)^2]. With a random sign for each pixel it is the square of
one gradient, so that one backward pass of a crop estimates it for all channels. There is no first-order term, because
a network that is its own teacher is at the minimum. Labels are not needed.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dlink.nets.channels import CONVOLUTIONS, Axes
from dlink.nets.network import RoadNet


class Factors:
    """Factors of one on the channels that the convolutions read, for each crop and each channel of a group."""

    def __init__(self, size: Mapping[str, int]) -> None:
        self.size = size
        self.of: dict[str, Tensor] = {}

    def renew(self, crops: int, device: torch.device) -> None:
        """New factors for a batch."""
        self.of = {g: torch.ones(crops, n, 1, 1, device=device, requires_grad=True) for g, n in self.size.items()}

    def times(self, groups: tuple[str, ...], x: Tensor) -> Tensor:
        return x * torch.cat([self.of[group] for group in groups], 1)


@contextmanager
def factored(net: RoadNet, along: Mapping[str, Axes], size: Mapping[str, int]) -> Iterator[Factors]:
    """Within the block, what each convolution reads is multiplied by the factors of its groups."""
    factors = Factors(size)
    hooks: list[Any] = []
    for name, module in net.named_modules():
        into = 0 if isinstance(module, nn.ConvTranspose2d) else 1
        if isinstance(module, CONVOLUTIONS) and (groups := along[f"{name}.weight"].get(into)):

            def multiply(_: nn.Module, given: tuple[Any, ...], groups: tuple[str, ...] = groups) -> Tensor:
                return factors.times(groups, given[0])

            hooks.append(module.register_forward_pre_hook(multiply))
    try:
        yield factors
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def still(net: nn.Module) -> Iterator[None]:
    """Within the block, a network is in evaluation mode and its weights get no gradients."""
    training, wanted = net.training, [p for p in net.parameters() if p.requires_grad]
    net.eval().requires_grad_(False)
    try:
        yield
    finally:
        net.train(training)
        for p in wanted:
            p.requires_grad_(True)


def importances(
    net: RoadNet, along: Mapping[str, Axes], size: Mapping[str, int], batches: Iterable[Tensor], seed: int
) -> dict[str, Tensor]:
    """The importance of each channel of each group, double (C,), by prepared crops (N, 3, S, S)."""
    total = {group: torch.zeros(n, dtype=torch.double) for group, n in size.items()}
    generator = torch.Generator().manual_seed(seed)
    with still(net), factored(net, along, size) as factors:
        for x in batches:
            factors.renew(len(x), x.device)
            spread(net.logits(x), generator).backward()  # type: ignore[no-untyped-call]
            for group, factor in factors.of.items():
                assert factor.grad is not None
                total[group] += factor.grad.square().sum(0).flatten().cpu()
    return total


def spread(logits: Tensor, generator: torch.Generator) -> Tensor:
    """The sum whose squared gradients estimate the curvature: of the logits, with a random sign for each pixel."""
    p = torch.sigmoid(logits.detach())
    sign = torch.randint(0, 2, p.shape, generator=generator).to(p.device) * 2 - 1
    return (logits * (p * (1 - p)).sqrt() * sign).sum()
