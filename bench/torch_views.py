"""The eight views and their way back, as views.py has them, for PyTorch's tensors."""

import torch

from dlink.runtime.views import FLIP_H, FLIP_V, TURN


def torch_look(x: torch.Tensor, view: int) -> torch.Tensor:
    """A view of x (..., S, S)."""
    x = torch_turn(x, 1) if view & TURN else x
    return torch_flip(x, view)


def torch_unlook(x: torch.Tensor, view: int) -> torch.Tensor:
    """Inverse of `torch_look`."""
    x = torch_flip(x, view)
    return torch_turn(x, -1) if view & TURN else x


def torch_turn(x: torch.Tensor, quarters: int) -> torch.Tensor:
    return x.rot90(quarters, (-2, -1))


def torch_flip(x: torch.Tensor, view: int) -> torch.Tensor:
    axes = [axis for axis, flip in ((-2, FLIP_V), (-1, FLIP_H)) if view & flip]
    return x.flip(axes) if axes else x
