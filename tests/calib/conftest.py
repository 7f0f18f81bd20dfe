"""A network and an input that the tests of calibration share."""

import pytest

from dlink.runtime import Spec
from tests.export.test_export import SIDE
from tests.support.calibrated import scenes, small


@pytest.fixture(scope="module")
def fp32(tmp_path_factory):
    return small("dlinknet34", tmp_path_factory.mktemp("net") / "fp32.onnx")


@pytest.fixture(scope="module")
def x():
    return Spec(tile=SIDE).prepare(scenes(2).tiles[0].image[None])
