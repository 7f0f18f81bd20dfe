"""Evaluates INT8 files of one network, in dlink's environment.

python judge.py FP32_ONNX FP16_ONNX VALID TRAIN SIDE FILE...

Every FILE (.onnx or OpenVINO's .xml) runs in OpenVINO with its defaults, FP32 in float32, on the tiles of VALID and on
those of TRAIN from the 33rd on. The times in the last table are those of bare requests of a 1024 px tile, all files in
turn.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import openvino
from tiles import inputs, labels

from dlink.openvino_runtime.executed import executed
from dlink.runtime.rounding import settle
from dlink.runtime.views import apply_view, undo_view

core = openvino.Core()
ROUNDS = 9


def load(path: Path, side: int, hint: str | None = None) -> openvino.CompiledModel:
    model = core.read_model(path)
    model.reshape([1, 3, side, side])
    options = {"PERFORMANCE_HINT": "LATENCY"} | ({"INFERENCE_PRECISION_HINT": hint} if hint else {})
    return core.compile_model(model, "CPU", options)


def probabilities(model: openvino.CompiledModel, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities with one view, and the mean of eight views."""
    seen = [undo_view(model(np.ascontiguousarray(apply_view(x, v)))[0][0, 0].copy(), v) for v in range(8)]
    return seen[0], np.mean(seen, axis=0)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def rtx(path: Path) -> str:
    """Whether TensorRT-RTX compiles the file, or its error."""
    if path.suffix != ".onnx":
        return "not ONNX"
    import tensorrt_rtx as trt

    log = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(path.read_bytes()):
        return f"refused: {parser.get_error(0).desc()[:160]}"
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    shape = [d if d > 0 else 1 for d in network.get_input(0).shape]
    profile.set_shape(network.get_input(0).name, shape, shape, shape)
    config.add_optimization_profile(profile)
    return "yes" if builder.build_serialized_network(network, config) else "refused while building"


def main() -> None:
    fp32, fp16, valid, train, side, *files = sys.argv[1:]
    side = int(side)
    sets = {"valid": (Path(valid), 0, 10_000), "train from 33": (Path(train), 32, 10_000)}
    data = {name: (inputs(f, side, a, b), np.array(labels(f, side, a, b))) for name, (f, a, b) in sets.items()}

    def roads(path: str, hint: str | None = None) -> dict[str, np.ndarray]:
        model = load(Path(path), side, hint)
        return {name: np.array([probabilities(model, x) for x in xs]) for name, (xs, _) in data.items()}

    reference = roads(fp32, "f32")
    for path in [fp16, *files]:
        found = roads(path)
        row = {"file": Path(path).name}
        for name, (_, label) in data.items():
            for i, views in enumerate((1, 8)):
                a, b, _ = settle([(found[name][:, i], 0.5), (reference[name][:, i], 0.5)])
                row[f"{name}, {views}"] = [round(iou(b, label) - iou(a, label), 4), round(iou(a, b), 4)]
        row["int8"] = round(executed(load(Path(path), side)).get("int8", 0.0), 3)
        row["MB"] = round(sum(p.stat().st_size for p in Path(path).parent.glob(f"{Path(path).stem}.*")) / 1e6, 1)
        row["tensorrt-rtx"] = rtx(Path(path))
        print(json.dumps(row), flush=True)
    x = np.zeros((1, 3, 1024, 1024), np.float32)
    models = {Path(p).name: load(Path(p), 1024) for p in [fp16, *files]}
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, model in models.items():
            start = time.perf_counter()
            model(x)
            times[name].append(time.perf_counter() - start)
    base = np.median(times[Path(fp16).name])
    for name, seen in times.items():
        print(
            json.dumps(
                {"file": name, "ms": round(float(np.median(seen)) * 1e3), "of FP16": round(base / np.median(seen), 2)}
            )
        )


main()
