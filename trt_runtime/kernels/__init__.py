"""The CUDA kernels around the network: their source, the shipped PTX, how it is built and launched."""
