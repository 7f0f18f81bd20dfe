"""The networks by name: `build("dlinknet34", width=0.25)`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dlink.nets.layers import BasicBlock, Bottleneck, DilatedCentre
from dlink.nets.linknet import LinkNet
from dlink.nets.network import RoadNet
from dlink.nets.pyramid import PyramidPool
from dlink.nets.unet import DUNet, UNet
from dlink.runtime.errors import BadInput
from dlink.runtime.spec import COLOURS, RED_GREEN_BLUE, Spec, order_of

# PP-LinkNet's preparation, in BGR order: pixel / 255, minus the mean, divided by the deviation.
MEAN, DEVIATION = (0.3262061, 0.39206991, 0.41451698), (0.11344261, 0.1211441, 0.14105087)
PP_SPEC: dict[str, Any] = {
    "scale": tuple(1 / (255 * d) for d in DEVIATION),
    "shift": tuple(-m / d for m, d in zip(MEAN, DEVIATION, strict=True)),
    "threshold": 0.25,  # its test.py: 2.0 of 8 views
}


@dataclass(frozen=True)
class Arch:
    """How to make a network, and how to recognise its checkpoints."""

    make: Callable[..., RoadNet]  # from `planes`, the first layer's outputs, and `channels`, its inputs
    first: str = "firstconv.weight"  # key of the first layer
    planes: int = 64  # published outputs of the first layer
    step: int = 8  # `planes` is a multiple of this, so that every layer has a whole number of channels
    spec: dict[str, Any] = field(default_factory=dict)  # values that differ from the D-LinkNet authors'


def dilated(depth: int) -> Callable[[int], DilatedCentre]:
    return partial(DilatedCentre, depth=depth)


BLOCKS34, BLOCKS101 = (3, 4, 6, 3), (3, 4, 23, 3)
BASIC, PSP = partial(LinkNet, BasicBlock, BLOCKS34), partial(LinkNet, BasicBlock, BLOCKS34, centre=PyramidPool)

WIDEST = 16  # times the published channels: a D-LinkNet34 of this width takes 32 GB

# Of networks with the same keys, a checkpoint is taken for the first; --arch names another.
ARCHS = {
    "dlinknet34": Arch(partial(BASIC, centre=dilated(4))),
    "dlinknet50": Arch(partial(LinkNet, Bottleneck, BLOCKS34, centre=dilated(5))),
    "dlinknet101": Arch(partial(LinkNet, Bottleneck, BLOCKS101, centre=dilated(5))),
    "dlinknet34-dilate5": Arch(partial(BASIC, centre=dilated(5))),
    "dlinknet34-less-pool": Arch(partial(LinkNet, BasicBlock, BLOCKS34[:3], centre=dilated(5))),
    "linknet34": Arch(BASIC),
    "unet": Arch(UNet, "down1.0.weight", planes=8, step=1),
    "dunet": Arch(DUNet, "conv1.weight"),
    "pplinknet34-psp64": Arch(partial(PSP, kept=1), spec=PP_SPEC),
    "pplinknet34-psp128": Arch(partial(PSP, kept=2), spec=PP_SPEC),
    "pplinknet34-psp": Arch(PSP, spec=PP_SPEC),
    "pplinknet34-psp64-hdc": Arch(partial(PSP, kept=1, hybrid=True), spec=PP_SPEC),
}


def arch_of(arch: str) -> Arch:
    if arch not in ARCHS:
        raise BadInput(f"--arch {arch}: not a network of dlink; there are {', '.join(ARCHS)}")
    return ARCHS[arch]


def build(arch: str, width: float = 1.0, channels: int = RED_GREEN_BLUE) -> RoadNet:
    """The network with fresh weights. `width` multiplies the channels of every layer, `channels` are the input's."""
    a = arch_of(arch)
    planes = a.planes * width
    if planes < a.step or planes % a.step:
        raise BadInput(f"--width {width}: must be a multiple of {a.step / a.planes}, so that channels come out whole")
    if width > WIDEST:
        raise BadInput(f"--width {width:g}: must be at most {WIDEST}, its memory grows with the square")
    return a.make(int(planes), channels=channels)


def spec_of(arch: str, **values: Any) -> Spec:
    """A Spec with the network's published preparation and threshold; `values` override them."""
    return Spec(arch=arch, **{**published(arch, tuple(values.get("bands", COLOURS))), **values})


def published(arch: str, bands: tuple[str, ...]) -> dict[str, Any]:
    """The network's own values of a Spec. Bands that nobody published for get the D-LinkNet authors' preparation."""
    if bands == COLOURS:
        return arch_of(arch).spec
    scale, shift = ((numbers[0],) * len(bands) for numbers in (Spec.scale, Spec.shift))
    return {**arch_of(arch).spec, "scale": scale, "shift": shift, "channels": order_of(bands)}
