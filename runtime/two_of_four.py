"""The pattern of 2:4 sparse weights, for which GPUs since Ampere have kernels (onnx_graph/sparsity.py has the rule)."""

OF, MOST = 4, 2  # of so many successive input channels, so many weights may be other than zero
ENOUGH = 0.5  # of a network: one with less in the pattern was not made sparse, or lost its zeros
