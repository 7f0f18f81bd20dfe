"""PyTorch as a Backend, the reference for checks of exported files."""

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dlink.nets.checkpoint import read_checkpoint
from dlink.nets.options import NetworkOptions
from dlink.runtime.backend import HostBackend, Net, Probs
from dlink.runtime.errors import BadInput, DlinkError
from dlink.runtime.segmenter import Segmenter
from dlink.runtime.spec import Spec

log = logging.getLogger(__name__)


def open(path: Path, spec: Spec, options: NetworkOptions | None = None) -> HostBackend:
    """A checkpoint as a Backend in float32, with the preparation and views of `spec`."""
    options = options or NetworkOptions()
    try:
        read = read_checkpoint(path, options.arch or spec.arch, key=options.key, road=options.road)
    except DlinkError as e:
        raise type(e)(of_reference(str(e))) from e
    for note in read.notes:
        log.warning("%s", of_reference(note))
    net = read.net
    if net.channels != len(spec.bands):
        raise BadInput(
            f"{path}: its network takes {net.channels} channels, and the model {spec.bands_in_words}; compare a "
            f"network of the same bands"
        )
    return HostBackend(
        network(net), spec, engine=f"PyTorch {torch.__version__}, f32, {torch.get_num_threads()} threads"
    )


def of_reference(words: str) -> str:
    """A message of a checkpoint with the options' names of dlink-check, whose --key is another."""
    return re.sub(r"--(arch|key|class)\b", r"--against-\1", words)


def open_reference(
    path: Path, spec: Spec, threads: int | None = None, options: NetworkOptions | None = None
) -> Segmenter:
    """A checkpoint as the reference for a model of that spec: in float32, prepared and thresholded as it says."""
    if threads is not None:
        torch.set_num_threads(threads)
    return Segmenter(open(path, replace(spec, precision="fp32"), options))


def network(net: nn.Module, half: torch.dtype | None = None) -> Net:
    """A network, on whatever device it is, as a function of NumPy arrays.

    half: of mixed precision; float32 where None.
    """
    device = next(net.parameters()).device

    def run(x: NDArray[np.float32]) -> Probs:
        with torch.inference_mode(), torch.autocast(device.type, half, enabled=half is not None):
            prob: Probs = net(torch.from_numpy(x).to(device))[:, 0].float().cpu().numpy()
        return prob

    return run
