"""The losses of both papers. They take logits, so they are finite for every finite logit.

bce+dice is the D-LinkNet authors': binary cross-entropy (mean) plus soft Dice over the whole batch. focal and
focal+dice are PP-LinkNet's, as in its loss.py: alpha 0.25, gamma 0.5, and 5 focal + Dice of squares, each tile's own.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

ALPHA, GAMMA, FOCAL_SHARE = 0.25, 0.5, 5.0
SMOOTH = 1e-6  # avoids 0 / 0 without any road


def bce_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy + 1 - 2 sum(p g) / (sum p + sum g)."""
    p = torch.sigmoid(logits)
    dice = (2 * (p * target).sum() + SMOOTH) / (p.sum() + target.sum() + SMOOTH)
    return binary_cross_entropy_with_logits(logits, target) + 1 - dice


def focal(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy weighted by alpha and by (1 - p_t)^gamma. As published, the weight has no gradient.

    1 - p_t is computed as exp(log(1 - p_t)), because its square root has an infinite slope where p_t is 1.
    """
    with torch.no_grad():
        wrong = torch.exp(logsigmoid(-logits) * target + logsigmoid(logits) * (1 - target))
        weight = (ALPHA * target + (1 - ALPHA) * (1 - target)) * wrong.pow(GAMMA)
    return binary_cross_entropy_with_logits(logits, target, weight=weight)


def focal_dice(logits: Tensor, target: Tensor) -> Tensor:
    """5 focal + the mean over tiles of 1 - 2 sum(p g) / (sum p^2 + sum g^2)."""
    p = torch.sigmoid(logits)
    over, under = (2 * (p * target)).sum((1, 2, 3)), (p * p + target * target).sum((1, 2, 3))
    return FOCAL_SHARE * focal(logits, target) + (1 - (over + SMOOTH) / (under + SMOOTH)).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"bce+dice": bce_dice, "focal": focal, "focal+dice": focal_dice}
