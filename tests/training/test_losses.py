"""Losses: the published formulas, and nothing infinite."""

import pytest
import torch

from dlink.training.losses import LOSSES

P = torch.tensor([0.9, 0.2, 0.6, 0.5, 0.7, 0.1, 0.3, 0.8]).reshape(2, 1, 2, 2)
G = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0]).reshape(2, 1, 2, 2)


def entropy(p, g):
    return -(g * p.log() + (1 - g) * (1 - p).log())


def published_focal(p, g):
    """As PP-LinkNet's loss.py puts it: alpha 0.25, gamma 0.5."""
    right = p * g + (1 - p) * (1 - g)
    return ((0.25 * g + 0.75 * (1 - g)) * (1 - right) ** 0.5 * entropy(p, g)).mean()


def published_dice(p, g):
    """Each tile's own, of squares."""
    own = 1 - 2 * (p * g).sum((1, 2, 3)) / ((p * p).sum((1, 2, 3)) + (g * g).sum((1, 2, 3)))
    return own.mean()


def test_each_loss_is_the_published_one():
    logits = torch.logit(P)
    dice = 1 - 2 * (P * G).sum() / (P.sum() + G.sum())
    assert LOSSES["bce+dice"](logits, G).item() == pytest.approx((entropy(P, G).mean() + dice).item(), abs=1e-5)
    assert LOSSES["focal"](logits, G).item() == pytest.approx(published_focal(P, G).item(), abs=1e-6)
    expected = 5 * published_focal(P, G) + published_dice(P, G)
    assert LOSSES["focal+dice"](logits, G).item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [0.0, 1e-6, 30.0, 1e4, 1e30])
@pytest.mark.parametrize("target", [0.0, 1.0, 0.3])
def test_no_logit_is_too_large(loss, size, target):
    logits = torch.tensor([size, -size, 0.0, size]).reshape(1, 1, 2, 2).requires_grad_()
    value = LOSSES[loss](logits, torch.full((1, 1, 2, 2), target))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_falls_where_probabilities_go_to_the_label(loss):
    logits = torch.zeros(1, 1, 8, 8, requires_grad=True)
    target = (torch.arange(64).reshape(1, 1, 8, 8) % 3 == 0).float()
    before = LOSSES[loss](logits, target)
    for _ in range(20):
        (slope,) = torch.autograd.grad(LOSSES[loss](logits, target), logits)
        logits = (logits - 5 * slope).requires_grad_()
    assert LOSSES[loss](logits, target) < 0.8 * before
