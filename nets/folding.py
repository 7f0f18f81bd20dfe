"""Folds batch norms into the convolutions before them, transposed ones too; PyTorch's helper does the arithmetic."""

import copy
from typing import TypeVar

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Net = TypeVar("Net", bound=nn.Module)


def fold_norms(net: Net) -> Net:
    """A copy of a network in evaluation mode whose batch norms are part of the convolutions before them."""
    net = copy.deepcopy(net)
    modules = dict(net.named_modules())
    for node in fx.symbolic_trace(net).graph.nodes:
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        source, norm = node.args[0].target, modules[node.target]
        conv = modules[source]
        fused = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d))
        net.set_submodule(source, fused)
        net.set_submodule(node.target, nn.Identity())
    return net
