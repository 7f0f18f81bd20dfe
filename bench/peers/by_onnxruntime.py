"""ONNX Runtime's quantize_static: python by_onnxruntime.py FP32_ONNX TRAIN OUT SIDE [default|symmetric]"""

import sys
from pathlib import Path

from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from tiles import inputs

source, train, out, side, kind = sys.argv[1:]


class Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self.left = inputs(Path(train), int(side), 0, 24)

    def get_next(self) -> dict | None:
        return {"image": self.left.pop(0)} if self.left else None


options = {}
if kind == "symmetric":
    options = {
        "activation_type": QuantType.QInt8,
        "weight_type": QuantType.QInt8,
        "per_channel": True,
        "op_types_to_quantize": ["Conv", "ConvTranspose", "Add"],
        "extra_options": {"ActivationSymmetric": True, "WeightSymmetric": True},
    }
quantize_static(source, out, Reader(), quant_format=QuantFormat.QDQ, **options)
