"""Which channels of a network belong together, and networks whose layers have other numbers of them.

A group is a set of channels that several layers share: the outputs of one convolution, those that are added to them
(a residual stage and the decoder that joins it), their norms, and the inputs of all convolutions that read them. A
channel of a group can be taken away only in all of these. Each group is named by its first convolution; the image's
channels and the network's output are no groups, because they never change.

Groups are found by tracing the network, so they are right for every network that consists of the layers below.
"""

import copy
import operator
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor, fx, nn

from dlink.nets.keys import COUNTER, outline
from dlink.nets.network import RoadNet
from dlink.nets.pyramid import pooled, resized
from dlink.nets.zoo import ARCHS
from dlink.runtime.errors import BadModel

Groups: TypeAlias = tuple[str, ...]  # those that lie along an axis, one after another
Axes: TypeAlias = dict[int, Groups]  # by the axis of a tensor
Convolution: TypeAlias = nn.Conv2d | nn.ConvTranspose2d

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
KEEPS = (nn.MaxPool2d, nn.ReLU, nn.Identity)  # modules whose result has their input's channels
KEEPS_TOO = (torch.relu, torch.sigmoid, pooled, resized, "float")  # functions and methods that do
FIXED = ""  # stands for the image's channels and the output's


class Sets:
    """Names that belong together, united pair by pair. The name that was there first stands for its set."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {}

    def root(self, name: str) -> str:
        while self.parent.setdefault(name, name) != name:
            name = self.parent[name]
        return name

    def unite(self, a: str, b: str) -> None:
        first, second = sorted((self.root(a), self.root(b)), key=list(self.parent).index)
        self.parent[second] = first


@cache
def axes_of_arch(arch: str) -> Mapping[str, Axes]:
    """`axes` of a network by name. They are the same for every width."""
    return axes(outline(arch, ARCHS[arch].step / ARCHS[arch].planes))


def axes(net: RoadNet) -> dict[str, Axes]:
    """The groups along the axes of each tensor of a network's state_dict, by key."""
    sets = Sets()
    layers = traced(net, sets)
    found: dict[str, Axes] = {}
    for name, (before, after) in layers.items():
        module = net.get_submodule(name)
        into, out = (tuple(sets.root(group) for group in groups) for groups in (before, after))
        for key, value in module.state_dict().items():
            if key == COUNTER:
                continue
            both: Axes = {0: into, 1: out} if isinstance(module, nn.ConvTranspose2d) else {0: out, 1: into}
            along = both if value.ndim > 1 else {0: out}
            found[f"{name}.{key}"] = {axis: groups for axis, groups in along.items() if groups != (FIXED,)}
    return found


def traced(net: RoadNet, sets: Sets) -> dict[str, tuple[Groups, Groups]]:
    """The groups of the inputs and of the outputs of each layer with weights; those that are added are united."""
    sets.root(FIXED)
    layers: dict[str, tuple[Groups, Groups]] = {}
    held: dict[fx.Node, Groups] = {}
    for node in fx.symbolic_trace(net).graph.nodes:
        before = [held[other] for other in node.all_input_nodes]
        what = net.get_submodule(node.target) if node.op == "call_module" else node.target
        if node.op == "placeholder":
            held[node] = (FIXED,)
        elif isinstance(what, CONVOLUTIONS):
            held[node] = (node.target,)
            sets.root(node.target)
            layers[node.target] = (before[0], held[node])
        elif isinstance(what, nn.BatchNorm2d):
            held[node] = before[0]
            layers[node.target] = (before[0], before[0])
        elif what is torch.cat:
            held[node] = tuple(group for groups in before for group in groups)
        elif what is operator.add:
            held[node] = before[0]
            for a, b in zip(*before, strict=True):
                sets.unite(a, b)
        elif node.op == "output":
            for group in before[0]:
                sets.unite(FIXED, group)
        elif isinstance(what, KEEPS) or what in KEEPS_TOO:
            held[node] = before[0]
        else:
            raise AssertionError(f"{node.op} {what}: nobody has said what it does to channels")
    return layers


def sizes(along: Mapping[str, Axes], state: Mapping[str, Tensor], what: str) -> dict[str, int]:
    """The number of channels of each group, by a state_dict's shapes. BadModel if two of them don't fit together."""
    found: dict[str, int] = {}
    given: dict[str, str] = {}  # the tensor that a group's size is from
    for key, axis, groups in each(along):
        if len(groups) == 1:
            count, group = state[key].shape[axis], groups[0]
            given.setdefault(group, key)
            if found.setdefault(group, count) != count:
                raise BadModel(
                    f"{what}: its channels don't fit together: {key} has {count} and {given[group]} {found[group]}, "
                    f"where both have the same; take the file that training or pruning wrote"
                )
    for key, axis, groups in each(along):
        count, wanted = state[key].shape[axis], sum(found[group] for group in groups)
        if count != wanted:
            raise BadModel(
                f"{what}: its channels don't fit together: {key} takes {count}, and {' + '.join(groups)} give "
                f"{wanted}; take the file that training or pruning wrote"
            )
    return found


def each(along: Mapping[str, Axes]) -> Iterable[tuple[str, int, Groups]]:
    """Each key, with each of its axes and the groups along it."""
    return ((key, axis, groups) for key, axes in along.items() for axis, groups in axes.items())


def shaped(net: RoadNet, state: Mapping[str, Tensor]) -> RoadNet:
    """A copy of a network with the shapes of a state_dict that has its keys, on its device, with unset values."""
    net = copy.deepcopy(net)
    for name, module in net.named_modules():
        for key, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if key == COUNTER:
                continue
            blank = torch.empty_like(value, memory_format=torch.contiguous_format).resize_(state[f"{name}.{key}"].shape)
            setattr(module, key, nn.Parameter(blank) if isinstance(value, nn.Parameter) else blank)
        count_channels(module)
    return net


def count_channels(module: nn.Module) -> None:
    """Set a layer's own numbers of channels from its weights."""
    if isinstance(module, CONVOLUTIONS):
        out, into = module.weight.shape[:2] if isinstance(module, nn.Conv2d) else module.weight.shape[1::-1]
        module.out_channels, module.in_channels = out, into
    elif isinstance(module, nn.BatchNorm2d):
        module.num_features = module.weight.shape[0]


def cut(
    state: Mapping[str, Tensor], along: Mapping[str, Axes], kept: Mapping[str, Tensor], size: Mapping[str, int]
) -> dict[str, Tensor]:
    """A state_dict with the kept channels of each group alone. `size` has the groups' numbers of channels before.

    `kept` are ascending indices; a group that it leaves out stays whole.
    """
    state = dict(state)
    for key, axis, groups in each(along):
        if key in state and any(group in kept for group in groups):
            which = joined(groups, kept, size).to(state[key].device)
            state[key] = state[key].index_select(axis, which).contiguous()
    return state


def joined(groups: Iterable[str], kept: Mapping[str, Tensor], size: Mapping[str, int]) -> Tensor:
    """Indices along an axis on which several groups lie one after another."""
    parts, start = [], 0
    for group in groups:
        parts.append(start + kept.get(group, torch.arange(size[group])))
        start += size[group]
    return torch.cat(parts)
