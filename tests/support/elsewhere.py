"""Small networks of the kinds that people train elsewhere, and their files."""

import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 64
FREE = {0: "batch", 2: "height", 3: "width"}


def block(cin: int, cout: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU())


class Unet(nn.Module):
    """Upsampled by copies of pixels and concatenated."""

    def __init__(self, classes: int = 1) -> None:
        super().__init__()
        self.down1, self.down2, self.down3 = block(3, 8), block(8, 16, 2), block(16, 16, 2)
        self.up2, self.up1 = block(32, 16), block(24, 8)
        self.dropout = nn.Dropout2d()
        self.head = nn.Conv2d(8, classes, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(a)
        c = self.down3(b)
        b = self.up2(torch.cat([functional.interpolate(c, scale_factor=2.0), b], 1))
        a = self.up1(torch.cat([functional.interpolate(b, size=a.shape[-2:]), a], 1))
        y: Tensor = self.head(self.dropout(a))
        return y


class Link(nn.Module):
    """Transposed convolutions with norms, and sums."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.same = block(3, 8, 2), block(8, 16, 2), block(16, 16)
        self.up = nn.Sequential(nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.ConvTranspose2d(8, 1, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(a)
        y: Tensor = self.head(self.up(b + self.same(b)) + a)
        return y


class Fcn(nn.Module):
    """Classes at a quarter of the size; `full` enlarges them to the image's. Returns a dictionary, as torchvision."""

    def __init__(self, classes: int = 4, full: bool = True) -> None:
        super().__init__()
        self.down1, self.down2 = block(3, 8, 2), block(8, 16, 2)
        self.apart = nn.Conv2d(16, 16, 3, 1, 2, dilation=2, groups=16)
        self.head, self.aux = nn.Conv2d(16, classes, 1), nn.Conv2d(8, classes, 1)
        self.full = full

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        a = self.down1(x)
        y = self.head(functional.silu(self.apart(self.down2(a))))
        if self.full:
            y = functional.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return {"out": y, "aux": self.aux(a)}


class Attention(nn.Module):
    """Patches that attend to each other, as in a SegFormer: reshapes with a batch, a norm, a softmax inside."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 16, 7, 4, 3), nn.LayerNorm(16)
        self.qkv, self.mix = nn.Linear(16, 48), nn.Linear(16, 16)
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.patches(x)
        n, c, h, w = a.shape
        t = self.norm(a.flatten(2).transpose(1, 2))
        q, k, v = (part.reshape(n, -1, 2, 8).transpose(1, 2) for part in self.qkv(t).chunk(3, 2))
        t = t + self.mix(((q @ k.transpose(-1, -2) / 4).softmax(-1) @ v).transpose(1, 2).reshape(n, -1, c))
        y: Tensor = self.head(functional.gelu(t).transpose(1, 2).reshape(n, c, h, w))
        return y


class Mixed(nn.Module):
    """What other encoders have: a norm before a convolution, weights used twice, a sigmoid inside, the image itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8)
        self.twice, self.prelu = nn.Conv2d(8, 8, 3, 1, 1), nn.PReLU(8)
        self.gate = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU6(), nn.Conv2d(4, 8, 1), nn.Sigmoid())
        self.head = nn.Conv2d(11, 1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = functional.leaky_relu(self.norm(functional.avg_pool2d(self.first(x), 2)))
        a = self.prelu(self.twice(self.twice(a)) + 0.1)
        a = a * self.gate(functional.adaptive_avg_pool2d(a, 1))
        a = functional.interpolate(a, scale_factor=2.0, mode="bilinear", align_corners=True)
        y: Tensor = self.head(torch.cat([a, x], 1))
        return y


class After(nn.Module):
    """A network and something after it; `last` has the image's channels last."""

    def __init__(self, net: nn.Module, then: str = "", last: bool = False, key: str = "") -> None:
        super().__init__()
        self.net, self.then, self.last, self.key = net, then, last, key
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y = self.net(x.permute(0, 3, 1, 2) if self.last else x)
        y = y[self.key] if self.key else y
        y = {
            "": lambda v: v,
            "sigmoid": torch.sigmoid,
            "softmax": lambda v: v.softmax(1),
            "argmax": lambda v: v.argmax(1),
        }[self.then](y)
        z: Tensor = y.permute(0, 2, 3, 1) if self.last else y
        return z


def trained(net: nn.Module, loud: float = 1.0) -> nn.Module:
    """Norms that do something, and outputs on either side of 0."""
    torch.manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    head = net.get_submodule("head")
    with torch.no_grad():
        head.weight *= 6 * loud
        head.bias.copy_(torch.linspace(-0.4, 0.4, len(head.bias)) if len(head.bias) > 1 else head.bias * 0 + 0.2)
    return net.eval()


def to_onnx(
    net: nn.Module, path: Path, opset: int = 17, free: bool = True, side: int = SIDE, last: bool = False
) -> Path:
    """The file of a network: by the TorchScript exporter up to opset 20, 21 by ONNX's own converter."""
    shape = (1, side, side, 3) if last else (1, 3, side, side)
    names = ["out", "aux"] if isinstance(net, Fcn) else ["out"]
    axes = {0: "batch", 1: "height", 2: "width"} if last else FREE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.rand(shape),),
            path,
            opset_version=min(opset, 17),
            input_names=["x"],
            output_names=names,
            dynamic_axes={"x": axes} if free else None,
            dynamo=False,
        )
    if opset > 17:
        onnx.save(onnx.version_converter.convert_version(onnx.load(path), opset), path)
    return path


def to_archive(net: nn.Module, path: Path, side: int = SIDE) -> Path:
    torch.export.save(torch.export.export(net, (torch.rand(1, 3, side, side),)), path)
    return path
