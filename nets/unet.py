"""The U-Net with seven pooling layers and D-UNet, as the authors of the DeepGlobe 2018 winner published them.

A stage is two 3x3 convolutions with bias and ReLU, without norms. Transposed 4x4 convolutions enlarge the maps, which
are then concatenated with the encoder's stage of the same size. Attribute names are the keys of published checkpoints.
"""

import torch
from torch import Tensor, nn

from dlink.nets.network import RoadNet
from dlink.runtime.spec import RED_GREEN_BLUE

POOLS = 7


def stage(cin: int, cout: int) -> nn.Sequential:
    """Two 3x3 convolutions, a ReLU after each."""
    return nn.Sequential(nn.Conv2d(cin, cout, 3, 1, 1), nn.ReLU(), nn.Conv2d(cout, cout, 3, 1, 1), nn.ReLU())


def upsample(cin: int, cout: int) -> nn.Sequential:
    """(N, cin, H, W) -> (N, cout, 2H, 2W)."""
    return nn.Sequential(nn.ConvTranspose2d(cin, cout, 4, 2, 1, bias=False), nn.ReLU())


class UNet(RoadNet):
    """Seven stages of `planes`, 2 `planes`, ... 64 `planes` (published: 8) down to 1/128, and back."""

    multiple = 2**POOLS

    def __init__(self, planes: int, channels: int = RED_GREEN_BLUE) -> None:
        super().__init__()
        self.channels = channels
        filters = [planes * 2**i for i in range(POOLS + 1)]
        self.max_pool = nn.MaxPool2d(2)
        for i, cout in enumerate(filters[:-1]):
            setattr(self, f"down{i + 1}", stage(filters[i - 1] if i else channels, cout))
        self.center = stage(filters[-2], filters[-1])
        for i in reversed(range(POOLS)):
            setattr(self, f"up{i + 1}", stage(filters[i + 1], filters[i]))
            setattr(self, f"trans{i + 1}", upsample(filters[i + 1], filters[i]))
        self.conv_last = nn.Sequential(nn.Conv2d(planes, 1, 3, 1, 1))

    def logits(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for i in range(POOLS):
            x = getattr(self, f"down{i + 1}")(self.max_pool(x) if i else x)
            skips.append(x)
        x = self.center(self.max_pool(x))
        for i in reversed(range(POOLS)):
            x = getattr(self, f"up{i + 1}")(torch.cat((getattr(self, f"trans{i + 1}")(x), skips[i]), 1))
        y: Tensor = self.conv_last(x)
        return y


class DilatedSum(nn.Module):
    """`dilate_center`: 3x3 convolutions with dilations 1, 2, 4, ... 32 in a chain; the sum of the six, no input."""

    def __init__(self, cin: int, cout: int, depth: int = 6) -> None:
        super().__init__()
        for i in range(depth):
            conv = nn.Conv2d(cout if i else cin, cout, 3, dilation=2**i, padding=2**i)
            setattr(self, f"dilate{i + 1}", conv)

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = self.children()
        x = total = torch.relu(first(x))
        for dilate in rest:
            x = torch.relu(dilate(x))
            total = total + x
        return total


class DUNet(RoadNet):
    """VGG-13's first six convolutions, a dilated centre at 1/8, and a U-Net's decoder. `planes` (published: 64)."""

    def __init__(self, planes: int, channels: int = RED_GREEN_BLUE) -> None:
        super().__init__()
        self.channels = channels
        filters = [planes, 2 * planes, 4 * planes]
        self.max_pool = nn.MaxPool2d(2)
        for i, cout in enumerate(filters):
            setattr(self, f"conv{2 * i + 1}", nn.Conv2d(filters[i - 1] if i else channels, cout, 3, 1, 1))
            setattr(self, f"conv{2 * i + 2}", nn.Conv2d(cout, cout, 3, 1, 1))
        self.dilate_center = DilatedSum(filters[2], 2 * filters[2])
        for i in reversed(range(3)):
            setattr(self, f"up{i + 1}", stage(2 * filters[i], filters[i]))
            setattr(self, f"trans{i + 1}", upsample(2 * filters[i], filters[i]))
        self.conv_last = nn.Sequential(nn.Conv2d(planes, 1, 3, 1, 1))

    def logits(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for i in range(3):
            x = self.max_pool(x) if i else x
            for j in (2 * i + 1, 2 * i + 2):
                x = torch.relu(getattr(self, f"conv{j}")(x))
            skips.append(x)
        x = self.dilate_center(self.max_pool(x))
        for i in reversed(range(3)):
            x = getattr(self, f"up{i + 1}")(torch.cat((getattr(self, f"trans{i + 1}")(x), skips[i]), 1))
        y: Tensor = self.conv_last(x)
        return y
