"""The authors' eight-view prediction in eager PyTorch: the baseline of dlink's speed.

As in their test.py with one GPU: two batches of four, BGR, x = pixel / 255 * 3.2 - 1.6, each map undone, then summed.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


def eight_view_sum(net: nn.Module, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """RGB uint8 (S, S, 3) -> float32 (S, S), the sum of eight probabilities: road where it exceeds 4."""
    bgr = image[..., ::-1]
    pair = np.stack([bgr, np.rot90(bgr)])
    four = np.concatenate([pair, pair[:, ::-1]])
    mirrored = four[:, :, ::-1]
    a, b = predict(net, four), predict(net, mirrored)
    four_sums = a + b[:, :, ::-1]
    pair_sums = four_sums[:2] + four_sums[2:, ::-1]
    total: NDArray[np.float32] = pair_sums[0] + np.rot90(pair_sums[1], -1)
    return total


def predict(net: nn.Module, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 (N, S, S, 3) in the network's channel order -> probability (N, S, S)."""
    x = np.array(batch.transpose(0, 3, 1, 2), np.float32) / 255.0 * 3.2 - 1.6
    where = next((p.device for p in net.parameters()), torch.device("cpu"))
    with torch.no_grad():
        prob: NDArray[np.float32] = net(torch.from_numpy(x.astype(np.float32)).to(where)).squeeze(1).cpu().numpy()
    return prob
