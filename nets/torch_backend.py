"""PyTorch as a Backend, the reference for checks of exported files."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dlink.nets.checkpoint import read_checkpoint
from dlink.runtime.backend import HostBackend, Net, Probs
from dlink.runtime.spec import Spec


def open(path: Path, spec: Spec) -> HostBackend:
    """A checkpoint as a Backend in float32, with the preparation and views of `spec`."""
    net = read_checkpoint(path, spec.arch).net
    return HostBackend(
        network(net), spec, engine=f"PyTorch {torch.__version__}, f32, {torch.get_num_threads()} threads"
    )


def network(net: nn.Module) -> Net:
    """A network as a function of NumPy arrays."""

    def run(x: NDArray[np.float32]) -> Probs:
        with torch.inference_mode():
            prob: Probs = net(torch.from_numpy(x))[:, 0].numpy()
        return prob

    return run
