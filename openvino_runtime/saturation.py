"""Whether int8 is wrong on this processor: x86 without VNNI adds products of bytes, two at a time, in 16 bits.

OpenVINO makes 0 .. 255 of int8 activations; times a weight of 127, twice, that is 64,770. The instruction (vpmaddubsw)
stops at 32,767 and says nothing; OpenVINO's manual calls it the saturation issue. An int8 file of the embedded network
whose masks agree to 0.99 with the float network's agreed to 0.69 there, and lost 0.16 of its IoU. So it is tried, on a
sum that is known.
"""

from functools import cache

import numpy as np

from dlink.openvino_runtime.quiet_openvino import core, openvino

CHANNELS, SIDE = 32, 8


@cache
def saturates() -> bool:
    """Run one convolution of the largest values in int8, and see if its sums are all there. 10 ms, once a process."""
    ops = openvino.opset13
    x = ops.parameter([1, CHANNELS, SIDE, SIDE], np.float32)
    whole = ops.fake_quantize(x, *(np.float32(v) for v in (-128, 127, -128, 127)), 256)
    weights = ops.convert(ops.constant(np.full((CHANNELS, CHANNELS, 1, 1), 127, np.int8)), "f32")
    scaled = ops.multiply(weights, np.full((CHANNELS, 1, 1, 1), 1 / 127, np.float32))
    y = ops.convolution(whole, scaled, [1, 1], [0, 0], [0, 0], [1, 1])
    compiled = core().compile_model(openvino.Model([y], [x], "sum"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(np.full((1, CHANNELS, SIDE, SIDE), 127, np.float32))[0]
    return bool(np.abs(found / (127 * CHANNELS) - 1).max() > 0.01)
