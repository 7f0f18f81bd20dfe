import json
from dataclasses import replace

import numpy as np
import pytest

from dlink.trt_runtime.errors import BadInput, BadModel
from dlink.trt_runtime.spec import ONNX_KEY, Spec

# PP-LinkNet's own constants, in BGR order: minus the mean, divided by the deviation, of pixel / 255
MEAN, DEVIATION = (0.3262061, 0.39206991, 0.41451698), (0.11344261, 0.1211441, 0.14105087)


def test_preparation_is_the_authors():
    rgb = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    bgr = rgb[..., ::-1]
    expected = bgr.transpose(0, 3, 1, 2).astype(np.float64) / 255.0 * 3.2 - 1.6
    x = Spec(tile=32).prepare(rgb)
    assert (x.dtype, x.shape, x.flags.c_contiguous) == (np.float32, (2, 3, 32, 32), True)
    np.testing.assert_allclose(x, expected, atol=1e-6)


def test_each_channel_has_its_own_scale():
    scale = tuple(1 / (255 * d) for d in DEVIATION)
    shift = tuple(-m / d for m, d in zip(MEAN, DEVIATION, strict=True))
    rgb = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    expected = (rgb[..., ::-1] / 255 - MEAN) / DEVIATION
    x = Spec(tile=32, scale=scale, shift=shift).prepare(rgb)
    np.testing.assert_allclose(x, expected.transpose(0, 3, 1, 2), atol=1e-5)


def test_rgb_networks_get_rgb():
    red = np.zeros((1, 32, 32, 3), np.uint8)
    red[..., 0] = 255
    assert Spec(tile=32, channels="RGB").prepare(red)[0, 0].min() == pytest.approx(1.6)


def test_json_gives_the_spec_back():
    spec = Spec(tile=512, channels="RGB", views=(0, 2), threshold=0.3, precision="fp16", width=0.25)
    assert Spec.from_json(spec.to_json(), "x") == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tile": 100}, "multiple of 32, got 100"),
        ({"tile": 0}, "multiple of 32, got 0"),
        ({"channels": "GBR"}, "RGB or BGR, got 'GBR'"),
        ({"views": ()}, "numbers from 0 to 7"),
        ({"threshold": 1.0}, r"in \[0, 1\), got 1.0"),
        ({"threshold": float("nan")}, "got nan"),
        ({"precision": "fp8"}, "fp32, fp16, int8, got 'fp8'"),
        ({"scale": (1.0, 1.0)}, "three numbers each"),
        ({"shift": (0.0, 0.0, float("inf"))}, "three numbers each"),
        ({"gsd_m": 0.0}, "gsd_m must be positive"),
    ],
)
def test_a_bad_value_is_refused_at_birth(change, message):
    with pytest.raises(BadInput, match=message):
        replace(Spec(), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "m.onnx: spec of format 2, this dlink reads 1"),
        ({"colour": "blue"}, "m.onnx: its spec has keys this dlink does not know: colour; update dlink"),
        ({"tile": 33}, "m.onnx: its spec is damaged: tile must be"),
        ({"tile": "large"}, "m.onnx: its spec is damaged"),
        ({"views": 8}, "m.onnx: its spec is damaged"),
    ],
)
def test_a_foreign_spec_has_its_message(change, message):
    values = {**json.loads(Spec().to_json()), **change}
    with pytest.raises(BadModel, match=message):
        Spec.from_json(json.dumps(values), "m.onnx")


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_what_is_no_json_object_is_refused(text):
    with pytest.raises(BadModel, match=r"m.onnx: its spec is not JSON|m.onnx: spec of format"):
        Spec.from_json(text, "m.onnx")


def test_a_file_without_a_spec_says_so():
    with pytest.raises(BadModel, match=f"m.onnx: says nothing of its preparation .no {ONNX_KEY}.; .*dlink-export"):
        Spec.of_onnx({"other": "1"}, "m.onnx")
