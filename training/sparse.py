"""2:4 sparse weights: of four successive input channels, two have zeros, and GPUs since Ampere leave these out.

The pattern is in each output channel and each position of the kernel (onnx_graph/sparsity.py has TensorRT's rule).
`make_sparse` sets the zeros once. `zeros_held` keeps them while the rest is trained: it needs no masks, because a zero
is its own mark, also in a checkpoint and in the state of a stopped training.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dlink.nets.multiply_adds import multiply_adds
from dlink.nets.network import RoadNet
from dlink.onnx_graph.sparsity import MOST, OF
from dlink.runtime.spec import Spec


def layers(net: nn.Module) -> dict[str, nn.Conv2d]:
    """The convolutions that can have the pattern: ordinary ones, of one group, of a multiple of four channels."""
    found = {name: module for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    return {name: conv for name, conv in found.items() if conv.groups == 1 and conv.in_channels % OF == 0}


def in_fours(weight: Tensor) -> Tensor:
    """A weight (K, C, R, S) by its fours of input channels: (K, C / 4, 4, R, S)."""
    return weight.unflatten(1, (-1, OF))


def make_sparse(net: nn.Module) -> None:
    """Give a network's convolutions the pattern. Of each four weights, the two of the greatest magnitude stay."""
    with torch.no_grad():
        for conv in layers(net).values():
            fours = in_fours(conv.weight.abs())
            least = fours.topk(OF - MOST, dim=2, largest=False).indices
            zeros = torch.zeros_like(fours, dtype=torch.bool).scatter(2, least, True).flatten(1, 2)
            conv.weight.masked_fill_(zeros, 0)


@contextmanager
def zeros_held(net: nn.Module, optimiser: torch.optim.Optimizer) -> Iterator[None]:
    """Within the block, each step of the optimiser leaves at zero what was zero before the block.

    The optimiser still keeps moments of these weights, which no other weight reads.
    """
    zeros = [(conv.weight, conv.weight.detach() == 0) for conv in layers(net).values()]

    def restore(*_: Any) -> None:
        with torch.no_grad():
            for weight, where in zeros:
                weight.masked_fill_(where, 0)

    hook = optimiser.register_step_post_hook(restore)
    try:
        yield
    finally:
        hook.remove()


def sparse_share(net: RoadNet) -> float:
    """The share of a network's multiply-adds in convolutions with the pattern."""
    work = multiply_adds(net, Spec.tile)
    sparse = [name for name, conv in layers(net).items() if int((in_fours(conv.weight) != 0).sum(2).max()) <= MOST]
    return sum(work[name] for name in sparse) / sum(work.values())
