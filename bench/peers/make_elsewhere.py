"""Writes networks of other libraries, with made-up weights: python make_elsewhere.py FOLDER SIDE"""

import sys
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from torch import nn
from torchvision.models.segmentation import fcn_resnet50

folder, side = Path(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(0)


class Out(nn.Module):
    """A network of torchvision, without its dictionary."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)["out"]


networks = {
    "linknet": smp.Linknet("resnet34", encoder_weights=None, classes=1),
    "unet": smp.Unet("resnet34", encoder_weights=None, classes=1),
    "fcn": Out(fcn_resnet50(weights=None, weights_backbone=None, num_classes=2)),
}
for name, net in networks.items():
    for norm in [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.3, 0.3)
        nn.init.uniform_(norm.running_mean, -0.2, 0.2)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    net.eval()
    x = nn.functional.interpolate(torch.rand(1, 3, 16, 16) * 4 - 2, side, mode="bilinear")
    last = [m for m in net.modules() if isinstance(m, nn.Conv2d)][-1]
    with torch.no_grad():  # a head that finds both road and none
        last.weight *= 2 / net(x).std()
        last.bias.zero_()
        last.bias -= net(x).mean((0, 2, 3))
    free = {"x": {0: "batch", 2: "height", 3: "width"}}
    torch.onnx.export(
        net, (x,), folder / f"{name}-script.onnx", dynamo=False, opset_version=17, input_names=["x"], dynamic_axes=free
    )
    torch.onnx.export(net, (x,), folder / f"{name}-dynamo.onnx", dynamo=True, opset_version=18)
    torch.export.save(torch.export.export(net, (x,)), folder / f"{name}.pt2")
