"""Teach one view what eight give: the mean of a frozen network's eight views is the target of its copy's one.

Then a drone runs an eighth of the work. Tiles need no labels.
"""

import torch
from torch import Tensor, nn

from dlink.trt_runtime.views import ALL, FLIP_H, FLIP_V, TURN

HEIGHT, WIDTH = -2, -1


def look(x: Tensor, view: int) -> Tensor:
    """trt_runtime.views.look on the last two axes of a tensor."""
    if view & TURN:
        x = torch.rot90(x, 1, (HEIGHT, WIDTH))
    if view & FLIP_V:
        x = x.flip(HEIGHT)
    if view & FLIP_H:
        x = x.flip(WIDTH)
    return x


def unlook(x: Tensor, view: int) -> Tensor:
    """Inverse of `look`."""
    if view & FLIP_H:
        x = x.flip(WIDTH)
    if view & FLIP_V:
        x = x.flip(HEIGHT)
    if view & TURN:
        x = torch.rot90(x, -1, (HEIGHT, WIDTH))
    return x


def eight_views(teacher: nn.Module, x: Tensor) -> Tensor:
    """The mean over the eight views of the probabilities of square crops (N, 3, S, S) -> (N, 1, S, S)."""
    with torch.no_grad():
        total = torch.zeros_like(x[:, :1], dtype=torch.float32)
        for view in ALL:
            total += unlook(teacher(look(x, view)).float(), view)
    return total / len(ALL)
