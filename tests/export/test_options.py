"""The preparation that an export writes into the Spec."""

import numpy as np
import pytest

from dlink.export.options import ExportOptions
from dlink.nets.zoo import spec_of
from dlink.runtime import BadInput, Spec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COLOUR = np.array([10, 100, 250], np.uint8)  # red, green, blue


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
@pytest.mark.parametrize("spec", [Spec(), spec_of("pplinknet34-psp64")], ids=lambda spec: spec.arch)
def test_mean_and_deviation_are_in_the_order_of_the_colours(channels, spec):
    made = ExportOptions(tile=32, channels=channels, mean=MEAN, std=STD).on(spec)
    x = made.prepare(np.broadcast_to(COLOUR, (1, 32, 32, 3)))[0, :, 0, 0]
    wanted = (COLOUR / 255 - MEAN) / STD
    np.testing.assert_allclose(x if channels == "RGB" else x[::-1], wanted, atol=1e-5)


def test_without_a_mean_the_preparation_is_the_networks_own():
    spec = spec_of("pplinknet34-psp64")
    made = ExportOptions(tile=32).on(spec)
    assert (made.scale, made.shift) == (spec.scale, spec.shift)


def test_what_the_masks_show_is_kept_in_the_spec():
    assert ExportOptions(tile=32).on(Spec()).target == "road"
    assert ExportOptions(tile=32, target="building").on(Spec()).target == "building"
    with pytest.raises(BadInput, match="target must be a word such as road or building, got 'a house'"):
        ExportOptions(tile=32, target="a house")
