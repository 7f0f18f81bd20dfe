import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from dlink.imagery import pictures
from dlink.imagery.images import read_image, write_image
from dlink.imagery.jobs import Job, OutputOptions
from dlink.imagery.pictures import COLOUR, paint, segment_picture
from dlink.runtime import BadInput, Spec, open_model
from tests.support.models import red, write_pointwise

NOTHING = OutputOptions()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Its probability at a pixel is `red` of it."""
    path = write_pointwise(tmp_path_factory.mktemp("model") / "red.onnx", Spec(tile=64, views=(0,)))
    with open_model(path) as model:
        yield model


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (100, 150, 3), np.uint8)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def segment(path, out, model, how=NOTHING, overlay=None, said=None):
    ticks, said = [], [] if said is None else said
    segment_picture(Job(path, out, overlay, geo=False), model, how, lambda *tick: ticks.append(tick), said.append)
    return ticks


def test_a_mask_is_one_channel_of_0_and_255(tmp_path, image, model):
    write_image(tmp_path / "a.png", image)
    segment(tmp_path / "a.png", tmp_path / "m.png", model)
    mask = cv2.imread(str(tmp_path / "m.png"), cv2.IMREAD_UNCHANGED)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, np.where(red(image) > 0.5, 255, 0))


def test_what_takes_long_in_a_large_picture_is_said_before_it_begins(tmp_path, image, model, monkeypatch):
    write_image(tmp_path / "a.png", image)
    said = []
    segment(tmp_path / "a.png", tmp_path / "m.png", model, overlay=tmp_path / "o.png", said=said)
    assert said == []
    monkeypatch.setattr(pictures, "LARGE", image.shape[0] * image.shape[1])
    for name in ("a.png", "a.jpg", "a.tif"):
        write_image(tmp_path / name, image)
        segment(tmp_path / name, tmp_path / "m.png", model, overlay=tmp_path / "o.png", said=said)
        assert said == [f"{what} 150 x 100 px" for what in ("reading", "finding the roads in", "writing", "painting")]
        said.clear()


@pytest.mark.parametrize("probability", [False, True])
def test_a_large_picture_is_painted_in_stripes_and_looks_the_same(tmp_path, image, model, monkeypatch, probability):
    write_image(tmp_path / "a.png", image)
    outs = []
    for name, rows in (("whole", 1024), ("stripes", 16)):
        monkeypatch.setattr(pictures, "STRIPE", rows)
        out, overlay = tmp_path / f"{name}.png", tmp_path / f"{name}_overlay.png"
        segment(tmp_path / "a.png", out, model, OutputOptions(probability=probability), overlay)
        outs.append((out.read_bytes(), overlay.read_bytes()))
    assert outs[0] == outs[1]


def test_probabilities_are_16_bits(tmp_path, image, model):
    write_image(tmp_path / "a.png", image)
    segment(tmp_path / "a.png", tmp_path / "p.png", model, OutputOptions(probability=True))
    prob = cv2.imread(str(tmp_path / "p.png"), cv2.IMREAD_UNCHANGED)
    assert prob.dtype == np.uint16
    np.testing.assert_allclose(prob / 65535, red(image), atol=1e-5)


def test_windows_are_counted(tmp_path, image, model):
    write_image(tmp_path / "a.png", image)
    ticks = segment(tmp_path / "a.png", tmp_path / "m.png", model)
    assert ticks == [(i + 1, 12) for i in range(12)]  # down in 48 + 32 + 20 px, across in 48 + 32 + 32 + 38


def test_a_turned_jpeg_has_its_mask_as_it_is_shown(tmp_path, model):
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :20] = 255  # a white left third
    write_image(tmp_path / "plain.jpg", image)
    jpeg = (tmp_path / "plain.jpg").read_bytes()
    tiff = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, 6, 0)  # Orientation: a quarter turn clockwise
    exif = b"Exif\0\0" + tiff
    (tmp_path / "turned.jpg").write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    segment(tmp_path / "turned.jpg", tmp_path / "m.png", model)
    mask = cv2.imread(str(tmp_path / "m.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (60, 40) == cv2.imread(str(tmp_path / "turned.jpg")).shape[:2]
    assert mask[:18].all()  # the white third is on top now
    assert not mask[22:].any()


def test_roads_are_tinted_and_lined():
    image = np.full((10, 10, 3), 100, np.uint8)
    mask = np.zeros((10, 10), np.uint8)
    mask[2:7, 2:7] = 255
    painted = paint(image, mask)
    assert tuple(painted[2, 4]) == tuple(painted[6, 6]) == COLOUR
    assert tuple(painted[4, 4]) == (162, 60, 162)  # 6 parts of 100 and 4 of the colour
    np.testing.assert_array_equal(painted[mask == 0], 100)


def test_an_overlay_stands_beside_the_mask(tmp_path, image, model):
    write_image(tmp_path / "a.png", image)
    segment(tmp_path / "a.png", tmp_path / "m.png", model, overlay=tmp_path / "o.png")
    np.testing.assert_array_equal(read_image(tmp_path / "o.png"), paint(image, model.mask(image)))


def test_a_picture_that_cannot_be_opened_is_bad_input(tmp_path, model):
    with pytest.raises(BadInput, match=r"a.png: Is a directory"):
        (tmp_path / "a.png").mkdir()
        segment(tmp_path / "a.png", Path("m.png"), model)
