"""OpenVINO's NNCF: python by_nncf.py FP32_ONNX TRAIN OUT SIDE default|mixed|accuracy|onnx

OUT is an OpenVINO .xml, for "onnx" an .onnx. Accuracy control may drop 0.002 of the pooled IoU on eight tiles of TRAIN.
"""

import sys
from pathlib import Path

import nncf
import onnx
import openvino
from tiles import inputs, labels

source, train, out, side, kind = sys.argv[1:]
folder, side = Path(train), int(side)
data = nncf.Dataset(inputs(folder, side, 0, 24), (lambda x: {"image": x}) if kind == "onnx" else None)


def pooled(model: openvino.CompiledModel, items) -> tuple[float, None]:
    both = either = 0
    for x, label in items:
        road = model(x)[0][0, 0] > 0.5
        both, either = both + int((road & label).sum()), either + int((road | label).sum())
    return both / either, None


if kind == "onnx":
    onnx.save(nncf.quantize(onnx.load(source), data, subset_size=24), out)
    raise SystemExit
model = openvino.Core().read_model(source)
model.reshape([1, 3, side, side])
if kind == "accuracy":
    judged = list(zip(inputs(folder, side, 24, 32), labels(folder, side, 24, 32), strict=True))
    made = nncf.quantize_with_accuracy_control(
        model, data, nncf.Dataset(judged), pooled, max_drop=0.002, subset_size=24
    )
else:
    preset = nncf.QuantizationPreset.MIXED if kind == "mixed" else nncf.QuantizationPreset.PERFORMANCE
    made = nncf.quantize(model, data, preset=preset, subset_size=24)
openvino.save_model(made, out, compress_to_fp16=False)
