"""LinkNet34, the D-LinkNets and PP-LinkNet, with the attribute names of the published checkpoints.

They consist of a ResNet encoder, a centre (a chain of dilated convolutions, or PP-LinkNet's pyramid of pools),
LinkNet's decoders with additive skips (no ReLU follows a sum), and a head of three convolutions.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dlink.nets.layers import BasicBlock, Bottleneck, Decoder
from dlink.nets.network import RoadNet
from dlink.runtime.spec import RED_GREEN_BLUE

HYBRID = {3: (1, 2, 5, 1, 2, 5), 4: (1, 2, 5)}  # dilations of the blocks of a stage: PP-LinkNet's "hdc"


class LinkNet(RoadNet):
    """`planes` are the channels of the stem (64 as published), `blocks` the residual blocks of each encoder stage.

    `centre` makes the centre for a number of channels; with it the head is D-LinkNet's, without it LinkNet's. The last
    `kept` stages and their decoders do not change the size, as in PP-LinkNet's "64" (1) and "128" (2). `hybrid` dilates
    the last two stages.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: tuple[int, ...],
        planes: int,
        centre: Callable[[int], nn.Module] | None = None,
        kept: int = 0,
        hybrid: bool = False,
        channels: int = RED_GREEN_BLUE,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.stages = len(blocks)
        self.firstconv = nn.Conv2d(channels, planes, 7, 2, 3, bias=False)
        self.firstbn = nn.BatchNorm2d(planes)
        self.firstmaxpool = nn.MaxPool2d(3, 2, 1)
        filters = [planes * 2**i * block.expansion for i in range(self.stages)]
        strides = [1 if i == 0 or i >= self.stages - kept else 2 for i in range(self.stages)]
        for i, depth in enumerate(blocks):
            dilations = HYBRID.get(i + 1, (1,) * depth) if hybrid else (1,) * depth
            first = block(filters[i - 1] if i else planes, planes * 2**i, strides[i], dilations[0])
            rest = [block(filters[i], planes * 2**i, dilation=d) for d in dilations[1:]]
            setattr(self, f"encoder{i + 1}", nn.Sequential(first, *rest))
        self.dblock = centre(filters[-1]) if centre else nn.Identity()
        for i in reversed(range(self.stages)):
            stride = strides[i] if i else 2
            setattr(self, f"decoder{i + 1}", Decoder(filters[i], filters[max(i - 1, 0)], stride))
        mid = planes // 2
        if centre:
            self.finaldeconv1 = nn.ConvTranspose2d(filters[0], mid, 4, 2, 1)
            self.finalconv2 = nn.Conv2d(mid, mid, 3, padding=1)
            self.finalconv3 = nn.Conv2d(mid, 1, 3, padding=1)
        else:  # sides of 512 become 1025, 1023 and 1024
            self.finaldeconv1 = nn.ConvTranspose2d(filters[0], mid, 3, 2)
            self.finalconv2 = nn.Conv2d(mid, mid, 3)
            self.finalconv3 = nn.Conv2d(mid, 1, 2, padding=1)

    def logits(self, x: Tensor) -> Tensor:
        """The output before the sigmoid."""
        x = self.firstmaxpool(torch.relu(self.firstbn(self.firstconv(x))))
        skips = []
        for i in range(1, self.stages + 1):
            x = getattr(self, f"encoder{i}")(x)
            skips.append(x)
        x = self.dblock(x)
        for i in range(self.stages, 0, -1):
            x = getattr(self, f"decoder{i}")(x)
            if i > 1:
                x = x + skips[i - 2]
        x = torch.relu(self.finaldeconv1(x))
        x = torch.relu(self.finalconv2(x))
        y: Tensor = self.finalconv3(x)
        return y
