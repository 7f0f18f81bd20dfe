"""The kernels around the network on the GPU: their source, the PTX that ships, and how that is made."""
