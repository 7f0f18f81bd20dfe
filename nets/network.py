"""What every network of this package is: an image in, the logits of its roads out."""

from torch import Tensor, nn, sigmoid


class RoadNet(nn.Module):
    """float (N, 3, H, W), H and W multiples of `multiple` -> probability (N, 1, H, W)."""

    multiple = 32  # px

    def logits(self, x: Tensor) -> Tensor:
        """What `forward` gives before its sigmoid."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return sigmoid(self.logits(x))
