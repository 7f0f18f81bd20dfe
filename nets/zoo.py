"""The networks by name: `build("dlinknet34", width=0.25)`."""

from dataclasses import dataclass

from dlink.nets.layers import BasicBlock, Bottleneck
from dlink.nets.linknet import LinkNet
from dlink.trt_runtime.errors import BadInput


@dataclass(frozen=True)
class Arch:
    """What tells one network of the family from another; see `LinkNet`."""

    block: type[BasicBlock] | type[Bottleneck]
    blocks: tuple[int, ...]  # residual blocks of each encoder stage
    dilations: int  # convolutions of the dilated centre


ARCHS = {
    "dlinknet34": Arch(BasicBlock, (3, 4, 6, 3), 4),
    "dlinknet50": Arch(Bottleneck, (3, 4, 6, 3), 5),
    "dlinknet101": Arch(Bottleneck, (3, 4, 23, 3), 5),
    "dlinknet34-less-pool": Arch(BasicBlock, (3, 4, 6), 5),
    "linknet34": Arch(BasicBlock, (3, 4, 6, 3), 0),
}
PLANES = 64  # channels of the stem as published
STEP = 8  # planes are multiples of this, so that every layer's channels divide by 4


def build(arch: str, width: float = 1.0) -> LinkNet:
    """The network with fresh weights. `width` multiplies the channels of every layer."""
    if arch not in ARCHS:
        raise BadInput(f"--arch {arch}: not a network of dlink; there are {', '.join(ARCHS)}")
    planes = PLANES * width
    if planes < STEP or planes % STEP:
        raise BadInput(f"--width {width}: must be a multiple of {STEP / PLANES}, so that channels come out whole")
    a = ARCHS[arch]
    return LinkNet(a.block, a.blocks, int(planes), a.dilations)
