"""The building blocks that the networks share, with the attribute names of the published checkpoints.

The residual blocks carry torchvision's names (`conv1`, `bn1`, `downsample.0`, ...), so that a ResNet's state_dict fits.
"""

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Residual block of ResNet-18/34: two 3x3 convolutions. (N, cin, H, W) -> (N, cout, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, cin: int, planes: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, planes, 3, stride, dilation, dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = shortcut(cin, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + skip)


class Bottleneck(nn.Module):
    """Residual block of ResNet-50/101: 1x1, 3x3 (with the stride, as torchvision has it), 1x1 to 4 x planes."""

    expansion = 4

    def __init__(self, cin: int, planes: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.downsample = shortcut(cin, planes * 4, stride)

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + skip)


def shortcut(cin: int, cout: int, stride: int) -> nn.Sequential | None:
    """The 1x1 projection of a residual block whose two ends differ in shape; None where they do not."""
    if stride == 1 and cin == cout:
        return None
    return nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))


class DilatedCentre(nn.Module):
    """`dblock`: 3x3 convolutions with dilations 1, 2, 4, ... in a chain; the sum of the input and of all of them."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        for i in range(depth):
            setattr(self, f"dilate{i + 1}", nn.Conv2d(channels, channels, 3, dilation=2**i, padding=2**i))

    def forward(self, x: Tensor) -> Tensor:
        total = x
        for dilate in self.children():
            x = torch.relu(dilate(x))
            total = total + x
        return total


class Decoder(nn.Module):
    """LinkNet's decoder: 1x1 to cin/4, transposed 3x3 that doubles the sides (stride 1 keeps them), 1x1 to cout.

    (N, cin, H, W) -> (N, cout, stride H, stride W), each convolution followed by its norm and a ReLU.
    """

    def __init__(self, cin: int, cout: int, stride: int = 2) -> None:
        super().__init__()
        mid = cin // 4
        self.conv1 = nn.Conv2d(cin, mid, 1)
        self.norm1 = nn.BatchNorm2d(mid)
        self.deconv2 = nn.ConvTranspose2d(mid, mid, 3, stride=stride, padding=1, output_padding=stride - 1)
        self.norm2 = nn.BatchNorm2d(mid)
        self.conv3 = nn.Conv2d(mid, cout, 1)
        self.norm3 = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.conv1(x)))
        x = torch.relu(self.norm2(self.deconv2(x)))
        return torch.relu(self.norm3(self.conv3(x)))
