"""The base class of all networks: an image in, the probability of road out."""

from torch import Tensor, nn, sigmoid

from dlink.runtime.spec import RED_GREEN_BLUE


class RoadNet(nn.Module):
    """float (N, `channels`, H, W), H and W multiples of `multiple` -> probability (N, 1, H, W)."""

    multiple = 32  # px
    channels = RED_GREEN_BLUE  # of the input

    def logits(self, x: Tensor) -> Tensor:
        """The output before the sigmoid. An ensemble has none."""
        raise NotImplementedError

    def road(self, x: Tensor) -> Tensor:
        """The probability, in float32 for every precision of the network."""
        return sigmoid(self.logits(x).float())

    def forward(self, x: Tensor) -> Tensor:
        return self.road(x)
