"""2:4 sparse weights: of four successive input channels, two have zeros, and GPUs since Ampere leave these out.

The pattern is in each output channel and each position of the kernel (onnx_graph/sparsity.py has TensorRT's rule).
`make_sparse` sets them once, and every training of a sparse network keeps them (`zeros_held`). A zero is its own
mark, so a checkpoint or the state of a stopped training needs no masks.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dlink.nets.channels import CONVOLUTIONS
from dlink.nets.multiply_adds import multiply_adds
from dlink.nets.network import RoadNet
from dlink.runtime.spec import Spec
from dlink.runtime.two_of_four import ENOUGH, MOST, OF
from dlink.training.importance import spread, still


def layers(net: nn.Module) -> dict[str, nn.Conv2d]:
    """The convolutions that can have the pattern: ordinary ones, of one group, of a multiple of four channels."""
    found = {name: module for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    return {name: conv for name, conv in found.items() if conv.groups == 1 and conv.in_channels % OF == 0}


def in_fours(weight: Tensor) -> Tensor:
    """A weight (K, C, R, S) by its fours of input channels: (K, C / 4, 4, R, S)."""
    return weight.reshape(len(weight), -1, OF, *weight.shape[2:])


def make_sparse(net: RoadNet, sample: Callable[[], Iterable[Tensor]], seed: int) -> None:
    """Give a network's convolutions the pattern, where it changes the roads least by a sample of prepared crops.

    Norms are estimated again, because the sum of half as many weights has another mean and deviation. DESIGN.md,
    "Training", has what either brings.
    """
    curvature = curvatures(net, sample(), seed)
    set_zeros(net, {name: conv.weight.detach().square() * curvature[name] for name, conv in layers(net).items()})
    estimate_norms(net, sample())


def curvatures(net: RoadNet, batches: Iterable[Tensor], seed: int) -> dict[str, Tensor]:
    """The curvature of the distillation loss by each layer's weights, the mean of a kernel's positions: (K, C, 1, 1).

    It is estimated as in importance.py, by one backward pass a crop.
    """
    convs = layers(net)
    found = {name: torch.zeros_like(conv.weight[..., :1, :1]) for name, conv in convs.items()}
    weights = [conv.weight for conv in convs.values()]
    generator = torch.Generator().manual_seed(seed)
    with still(net):
        for weight in weights:
            weight.requires_grad_(True)
        for x in (batch[i : i + 1] for batch in batches for i in range(len(batch))):
            gradients = torch.autograd.grad(spread(net.logits(x), generator), weights)
            for curvature, gradient in zip(found.values(), gradients, strict=True):
                curvature += gradient.square().mean((2, 3), keepdim=True)
    return found


def set_zeros(net: nn.Module, importance: Mapping[str, Tensor]) -> None:
    """Of each four weights, those two become zeros that matter less; `importance` is by layer, like its weight."""
    with torch.no_grad():
        for name, conv in layers(net).items():
            fours = in_fours(importance[name])
            least = fours.topk(OF - MOST, dim=2, largest=False).indices
            zeros = torch.zeros_like(fours, dtype=torch.bool).scatter(2, least, True).flatten(1, 2)
            conv.weight.masked_fill_(zeros, 0)


def estimate_norms(net: RoadNet, batches: Iterable[Tensor]) -> None:
    """Replace the norms' statistics by the means of those of the batches.

    Norms with an infinite variance stay as they are: behind them is a part of the network that does nothing.
    """
    training = net.training
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d) and estimable(m)]
    momenta = [norm.momentum for norm in norms]
    net.eval()
    for norm in norms:
        norm.train().reset_running_stats()
        norm.momentum = None  # PyTorch's word for the mean of all
    with torch.no_grad():
        for x in batches:
            net.logits(x)
    net.train(training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def estimable(norm: nn.BatchNorm2d) -> bool:
    return norm.running_var is not None and bool(norm.running_var.isfinite().all())


def sparse_layers(net: nn.Module) -> dict[str, nn.Conv2d]:
    """The convolutions that have the pattern."""
    return {name: conv for name, conv in layers(net).items() if (in_fours(conv.weight) != 0).sum(2).max() <= MOST}


def sparse_share(net: RoadNet) -> float:
    """The share of a network's multiply-adds in convolutions that have the pattern."""
    work = multiply_adds(net, Spec.tile)
    return sum(work[name] for name in sparse_layers(net)) / sum(work.values())


def sparse_weights(net: nn.Module) -> list[Tensor]:
    """The weights with the pattern, if most weights have it: else a layer has it by chance, and is to lose it."""
    found = [conv.weight for conv in sparse_layers(net).values()]
    every = sum(module.weight.numel() for module in net.modules() if isinstance(module, CONVOLUTIONS))
    return found if sum(weight.numel() for weight in found) >= ENOUGH * every else []


@contextmanager
def zeros_held(weights: Iterable[Tensor], optimiser: torch.optim.Optimizer) -> Iterator[None]:
    """Within the block, the optimiser's steps leave at zero what is zero of these weights before it.

    The optimiser keeps moments of the zeros too, which nothing else reads.
    """
    zeros = [(weight, weight.detach() == 0) for weight in weights]

    def restore(*_: Any) -> None:
        with torch.no_grad():
            for weight, where in zeros:
                weight.masked_fill_(where, 0)

    hook = optimiser.register_step_post_hook(restore)
    try:
        yield
    finally:
        hook.remove()
