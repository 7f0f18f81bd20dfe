"""How much work a network is: the multiply-adds of its convolutions for one view of a tile."""

import copy

import torch
from torch import Tensor, nn

from dlink.nets.channels import CONVOLUTIONS
from dlink.nets.network import RoadNet


def multiply_adds(net: RoadNet, tile: int) -> dict[str, int]:
    """The multiply-adds of each convolution for one view of `tile` x `tile` pixels, by the layer's name.

    Everything else (sums, norms, which an export folds, pools and resizes) is left out: it is under 1 % of the work.
    """
    counted: dict[str, int] = {}

    def count(name: str, module: nn.Module, x: Tensor, y: Tensor) -> None:
        weight = module.get_parameter("weight")
        positions = (x if isinstance(module, nn.ConvTranspose2d) else y).shape[-2:].numel()  # where the kernel is laid
        counted[name] = weight.numel() * positions

    hollow = without_norms(copy.deepcopy(net).to("meta"))
    for name, module in hollow.named_modules():
        if isinstance(module, CONVOLUTIONS):
            module.register_forward_hook(lambda m, x, y, name=name: count(name, m, x[0], y))
    with torch.no_grad():
        hollow.eval()(torch.empty(1, net.channels, tile, tile, device="meta"))
    return counted


def without_norms(net: RoadNet) -> RoadNet:
    """The network with its norms, which change no shape, taken out: on the meta device they are most of the time."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    return net


def by_stage(counted: dict[str, int]) -> dict[str, int]:
    """The sums of layers of the same stage, which begins the layer's name: firstconv, encoder1, ..."""
    stages: dict[str, int] = {}
    for name, value in counted.items():
        stage = name.partition(".")[0]
        stages[stage] = stages.get(stage, 0) + value
    return stages


def total(net: RoadNet, tile: int) -> int:
    """The multiply-adds of all convolutions of a network, for one view of a tile."""
    return sum(multiply_adds(net, tile).values())
