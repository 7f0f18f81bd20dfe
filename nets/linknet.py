"""LinkNet34 and the D-LinkNets, as the authors of the DeepGlobe 2018 road challenge's winner published them.

A ResNet encoder, a chain of dilated convolutions in the centre, LinkNet's decoders with additive skips (neither the
stem nor a sum is activated again), and a head of three convolutions. Attribute names are the keys of published
checkpoints.
"""

import torch
from torch import Tensor, nn

from dlink.nets.layers import BasicBlock, Bottleneck, Decoder, DilatedCentre


class LinkNet(nn.Module):
    """float (N, 3, H, W), H and W multiples of 32 -> probability (N, 1, H, W).

    `planes` are the channels of the stem (64 as published), `blocks` the residual blocks of each encoder stage.
    With `dilations` the centre is a chain of so many dilated convolutions and the head keeps sides even; 0 is LinkNet.
    """

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], blocks: tuple[int, ...], planes: int, dilations: int
    ) -> None:
        super().__init__()
        self.stages = len(blocks)
        self.firstconv = nn.Conv2d(3, planes, 7, 2, 3, bias=False)
        self.firstbn = nn.BatchNorm2d(planes)
        self.firstmaxpool = nn.MaxPool2d(3, 2, 1)
        filters = [planes * 2**i * block.expansion for i in range(self.stages)]
        for i, depth in enumerate(blocks):
            first = block(filters[i - 1] if i else planes, planes * 2**i, stride=2 if i else 1)
            rest = [block(filters[i], planes * 2**i) for _ in range(depth - 1)]
            setattr(self, f"encoder{i + 1}", nn.Sequential(first, *rest))
        self.dblock = DilatedCentre(filters[-1], dilations) if dilations else nn.Identity()
        for i in reversed(range(self.stages)):
            setattr(self, f"decoder{i + 1}", Decoder(filters[i], filters[max(i - 1, 0)]))
        mid = planes // 2
        if dilations:
            self.finaldeconv1 = nn.ConvTranspose2d(filters[0], mid, 4, 2, 1)
            self.finalconv2 = nn.Conv2d(mid, mid, 3, padding=1)
            self.finalconv3 = nn.Conv2d(mid, 1, 3, padding=1)
        else:  # sides of 512 become 1025, 1023 and 1024
            self.finaldeconv1 = nn.ConvTranspose2d(filters[0], mid, 3, 2)
            self.finalconv2 = nn.Conv2d(mid, mid, 3)
            self.finalconv3 = nn.Conv2d(mid, 1, 2, padding=1)

    def logits(self, x: Tensor) -> Tensor:
        """What `forward` gives before its sigmoid."""
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

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(x))
