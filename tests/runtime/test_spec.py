import json
from dataclasses import replace

import numpy as np
import pytest

from dlink.runtime.errors import BadInput, BadModel
from dlink.runtime.spec import ONNX_KEY, Spec

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
    spec = Spec(tile=512, channels="RGB", views=(0, 2), threshold=0.3, precision="fp16", width=0.25, target="building")
    assert Spec.from_json(spec.to_json(), "x") == spec


def test_files_from_before_there_were_targets_draw_roads():
    text = Spec(tile=64).to_json()
    assert "target" not in text
    assert Spec.from_json(text, "x").target == "road"
    building = Spec(tile=64, target="building")
    assert Spec.from_json(building.to_json(), "x") == building


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
        ({"gsd_m": float("inf")}, "gsd_m must be positive, up to 1000, got inf"),
        ({"gsd_m": float("nan")}, "gsd_m must be positive"),
        ({"threshold": True}, "threshold is 'True', expected float"),
        ({"threshold": None}, "threshold is 'None', expected float"),
        ({"tile": 64.0}, "tile is '64.0', expected int"),
        ({"tile": "64"}, "tile is '64', expected int"),
        ({"tile": 1 << 20}, "at most 8192, got 1048576"),
        ({"views": [0.0]}, "views is '0.0', expected int"),
        ({"views": (True,)}, "views is 'True', expected int"),
        ({"views": 8}, "views is '8', expected tuple"),
        ({"width": None}, "width is 'None', expected float"),
        ({"width": 0.0}, "width must be greater than 0, up to 16, got 0"),
        ({"width": float("inf")}, "width must be greater than 0, up to 16, got inf"),
        ({"arch": ""}, "arch must be the name of a network"),
        ({"arch": "a\nb"}, "arch must be the name of a network"),
        ({"arch": 3}, "arch is '3', expected str"),
        ({"scale": (1e38,) * 3}, "prepared pixels must lie within 65504"),
        ({"shift": (0.0, 0.0, 1e6)}, "prepared pixels must lie within 65504"),
        ({"scale": (1.0, 0.0, 1.0)}, "scale must not be 0 or next to it"),
        ({"scale": 10**400}, "scale is '1"),
        ({"width": 10**400}, "int too large to convert to float"),
        ({"target": ""}, "target must be a word such as road or building, got ''"),
        ({"target": "a road"}, "target must be a word such as road or building, got 'a road'"),
        ({"target": "a\0b"}, "target must be a word"),
        ({"target": "x" * 41}, "target must be a word"),
        ({"target": None}, "target is 'None', expected str"),
        ({"checkpoint_sha256": "xyz"}, "checkpoint_sha256 must be 64 hexadecimal digits or empty, got 'xyz'"),
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


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", "3", "null", "[" * 10_000, '{"format": 1, "gsd_m": Infinity}', '{"gsd_m": NaN}', "9" * 5000],
)
def test_what_is_no_json_object_is_refused(text):
    with pytest.raises(BadModel, match=r"m.onnx: its spec is not (JSON|a JSON object)") as e:
        Spec.from_json(text, "m.onnx")
    assert len(str(e.value)) < 200


def test_numbers_beyond_any_float_are_refused():
    for text in ("1e999", "1" + "0" * 400):
        with pytest.raises(BadModel, match=r"m.onnx: its spec is (damaged|not JSON): "):
            Spec.from_json(Spec().to_json().replace('"gsd_m": 0.5', f'"gsd_m": {text}'), "m.onnx")


def test_whole_numbers_do_for_floats_and_lists_for_tuples():
    spec = Spec(gsd_m=1, views=[0, 2])
    assert (spec.gsd_m, type(spec.gsd_m), spec.views) == (1.0, float, (0, 2))


def test_a_file_without_a_spec_says_so():
    with pytest.raises(BadModel, match=f"m.onnx: says nothing of its preparation .no {ONNX_KEY}.; .*dlink-export"):
        Spec.of_onnx({"other": "1"}, "m.onnx")


def test_what_an_export_took_of_its_checkpoint_is_in_the_json_if_it_was_asked_for():
    took = Spec(checkpoint_key="state_dict.ema", checkpoint_class=0)
    assert Spec.from_json(took.to_json(), "x") == took
    assert "checkpoint_key" not in Spec().to_json()
    assert "checkpoint_class" not in Spec().to_json()
    for wrong in ({"checkpoint_class": 2}, {"checkpoint_key": "x" * 401}):
        with pytest.raises(BadInput, match="checkpoint_key must be a short text and checkpoint_class 0 or 1"):
            Spec(**wrong)


@pytest.mark.parametrize("planes", [1, 4])
def test_tiles_of_another_number_of_planes_are_not_prepared(planes):
    with pytest.raises(BadInput, match=rf"this model takes 3 bands \(red, green, blue\), got an image of {planes}"):
        Spec(tile=32).prepare(np.zeros((1, 32, 32, planes), np.uint8))
