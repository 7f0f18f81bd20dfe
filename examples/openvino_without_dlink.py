"""Draws the roads of one tile by an ONNX file of dlink, with OpenVINO and NumPy; dlink is not imported.

    python examples/openvino_without_dlink.py roads.onnx tile.png mask.png

Needs pip install openvino opencv-python-headless. An ONNX file holds only the network. The key `dlink.spec` of its
metadata says, as JSON, what has to be done around the network. This program does all of it, and shows what a program in
another language has to do. dlink adds images of any size, a check that the file is undamaged, and int8 in float on x86
processors without VNNI, where OpenVINO's int8 sums are wrong.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import openvino
from numpy.typing import NDArray

TURN, FLIP_V, FLIP_H = 1, 2, 4  # the bits of a view's number, in the order in which they are applied


def apply_view(x: NDArray[np.float32], view: int) -> NDArray[np.float32]:
    """x (..., S, S) as a view shows it."""
    if view & TURN:
        x = np.rot90(x, 1, axes=(-2, -1))  # a quarter turn counter-clockwise
    if view & FLIP_V:
        x = x[..., ::-1, :]
    if view & FLIP_H:
        x = x[..., ::-1]
    return x


def undo_view(x: NDArray[np.float32], view: int) -> NDArray[np.float32]:
    """The same steps undone, the last one first."""
    if view & FLIP_H:
        x = x[..., ::-1]
    if view & FLIP_V:
        x = x[..., ::-1, :]
    if view & TURN:
        x = np.rot90(x, -1, axes=(-2, -1))
    return x


def road_probability(model_path: str, tile: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
    """Road probability of each pixel of an RGB tile (S, S, 3), float32 (S, S), and the threshold of the mask."""
    model = openvino.Core().read_model(model_path)
    spec = json.loads(model.get_rt_info(["framework", "dlink.spec"]).astype(str))
    side = spec["tile"]
    if tile.shape != (side, side, 3):
        sys.exit(f"Error: the picture must have {side} x {side} px, got {tile.shape[1]} x {tile.shape[0]}")
    model.reshape([1, 3, side, side])
    # OpenVINO would compute a float32 file in bfloat16 where the CPU has it. FP16 and INT8 files allow that.
    options = {"INFERENCE_PRECISION_HINT": "f32"} if spec["precision"] == "fp32" else {}
    network = openvino.compile_model(model, "CPU", options)

    # 1. Preparation: the network's order of colours, planes instead of pixels, and scale and shift for each colour.
    colours = tile if spec["channels"] == "RGB" else tile[..., ::-1]
    scale, shift = (np.array(spec[key], np.float32)[:, None, None] for key in ("scale", "shift"))
    x = np.moveaxis(colours, -1, 0).astype(np.float32) * scale + shift  # (3, S, S)

    # 2. Views: the network sees the tile flipped and turned, and each answer is turned back. 3. Their mean.
    total = np.zeros((side, side), np.float32)
    for view in spec["views"]:
        seen = np.ascontiguousarray(apply_view(x, view))
        total += undo_view(network(seen[None])[0][0, 0], view)  # (1, 1, S, S) -> (S, S)
    return total / np.float32(len(spec["views"])), spec["threshold"]


def main(model_path: str, picture: str, out: str) -> None:
    if not Path(picture).is_file():
        sys.exit(f"Error: {picture}: there is no such file")
    bgr = cv2.imread(picture)
    if bgr is None:
        sys.exit(f"Error: {picture}: not a picture that OpenCV reads")
    probability, threshold = road_probability(model_path, np.ascontiguousarray(bgr[..., ::-1], np.uint8))
    mask = np.where(probability > threshold, 255, 0).astype(np.uint8)  # 4. Road where it is greater than the threshold.
    if not cv2.imwrite(out, mask):
        sys.exit(f"Error: {out}: can't be written")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"usage: {sys.argv[0]} MODEL TILE MASK")
    main(*sys.argv[1:])
