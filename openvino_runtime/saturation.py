"""Tests whether int8 sums saturate on this processor, as they do on x86 without VNNI.

There the instruction vpmaddubsw adds two products of bytes in 16 bits. OpenVINO maps int8 activations to 0 .. 255, so
two products with a weight of 127 can make 64,770. The instruction stops at 32,767 without an error; OpenVINO's manual
calls it the saturation issue. The embedded network's int8 file, whose masks agree to 0.99 with the float network's,
agreed to 0.69 there and lost 0.16 of its IoU. So one known sum is computed and compared.
"""

from functools import cache

import numpy as np

from dlink.openvino_runtime.quiet_openvino import core, openvino

CHANNELS, SIDE = 32, 8


@cache
def saturates() -> bool:
    """Run one int8 convolution of the largest values and compare its sums. Takes 10 ms, once a process."""
    ops = openvino.opset13
    x = ops.parameter([1, CHANNELS, SIDE, SIDE], np.float32)
    rounded = ops.fake_quantize(x, *(np.float32(v) for v in (-128, 127, -128, 127)), 256)
    weights = ops.convert(ops.constant(np.full((CHANNELS, CHANNELS, 1, 1), 127, np.int8)), "f32")
    scaled = ops.multiply(weights, np.full((CHANNELS, 1, 1, 1), 1 / 127, np.float32))
    y = ops.convolution(rounded, scaled, [1, 1], [0, 0], [0, 0], [1, 1])
    compiled = core().compile_model(openvino.Model([y], [x], "sum"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    sums = compiled(np.full((1, CHANNELS, SIDE, SIDE), 127, np.float32))[0]
    return bool(np.abs(sums / (127 * CHANNELS) - 1).max() > 0.01)
