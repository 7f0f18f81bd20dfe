"""NVIDIA ModelOpt's ONNX quantisation: python by_modelopt.py FP32_ONNX TRAIN OUT SIDE entropy|max"""

import sys
from pathlib import Path

import numpy as np
from modelopt.onnx.quantization import quantize
from tiles import inputs

source, train, out, side, method = sys.argv[1:]
quantize(
    source,
    quantize_mode="int8",
    calibration_data=np.concatenate(inputs(Path(train), int(side), 0, 24)),
    calibration_method=method,
    calibration_eps=["cpu"],
    output_path=out,
)
