"""Validation: pooled IoU on tiles that are not trained on, with one view and with eight."""

import torch
from torch import nn

from dlink.accuracy.iou import Overlap
from dlink.imagery.images import TileFile
from dlink.imagery.labels import read_tile
from dlink.nets.torch_backend import network
from dlink.runtime.backend import HostBackend
from dlink.runtime.segmenter import Segmenter
from dlink.runtime.spec import Spec


def validate(net: nn.Module, tiles: list[TileFile], spec: Spec) -> tuple[float, float]:
    """IoU with one view and with eight, pooled over the tiles. The network's mode is restored."""
    training = net.training
    model = segmenter(net, spec)
    overlaps = {1: Overlap(), 8: Overlap()}
    for tile in tiles:
        image, label = read_tile(tile)
        assert label is not None  # `labelled` has only such tiles
        for views, overlap in overlaps.items():
            overlap.add(model.mask(image, views) > 0, label)
    net.train(training)
    pooled = [iou.pooled if (iou := overlap.iou()) else None for overlap in overlaps.values()]
    one, eight = (0.0 if v is None else v for v in pooled)
    return one, eight


def segmenter(net: nn.Module, spec: Spec, half: torch.dtype | None = None) -> Segmenter:
    """A Segmenter around a network in training, in evaluation mode on its own device.

    half: the type of mixed precision; None: float32.
    """
    return Segmenter(HostBackend(network(net.eval(), half), spec))
