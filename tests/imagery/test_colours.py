"""Which of a raster's bands are a network's: by interpretation, by description, in order; or refused."""

import pytest

from dlink.imagery.colours import bands_of, plain
from dlink.imagery.reading import Reading
from dlink.runtime import BadInput

RGB, GREY = ["red", "green", "blue"], ["gray", "undefined", "undefined"]
EIGHT = ["Coastal", "Blue", "Green", "Yellow", "Red", "Red edge", "NIR1", "NIR2"]
NIR = Reading(planes=("red", "green", "blue", "nir"))


def numbers(roles, words=None, how=Reading()):  # noqa: B008
    return bands_of(roles, words or [None] * len(roles), how).numbers


@pytest.mark.parametrize(
    ("roles", "words", "found"),
    [
        (RGB, None, (1, 2, 3)),
        ([*RGB[::-1], "undefined"], None, (3, 2, 1)),
        ([*RGB, "alpha"], None, (1, 2, 3)),
        (["undefined", *RGB], None, (2, 3, 4)),
        (["gray"], None, (1,)),
        (["gray", "alpha"], None, (1,)),
        (["gray", "alpha", "undefined", "undefined"], None, (1, 3, 4)),
        ([*GREY, "undefined"], ["Blue", "Green", "Red", "NIR"], (3, 2, 1)),
        (["gray", *["undefined"] * 7], EIGHT, (5, 3, 2)),
        (GREY, ["B04 (Red)", "B03 (Green)", "B02 (Blue)"], (1, 2, 3)),
        (GREY, ["red 665 nm", "green 560 nm", "blue 490 nm"], (1, 2, 3)),
        (["red", "undefined", "undefined"], [None, "green", "blue"], (1, 2, 3)),
        ([*GREY, "undefined"], ["B02", "B03", "B04", "B08"], (3, 2, 1)),
    ],
)  # fmt: skip
def test_bands_are_found_by_what_the_file_says(roles, words, found):
    bands = bands_of(roles, words or [None] * len(roles), Reading())
    assert bands.numbers == found
    assert not bands.note or roles[1:2] == ["alpha"]


@pytest.mark.parametrize("count", [3, 4, 8])
def test_bands_without_names_are_taken_in_order_and_it_is_said(count):
    bands = bands_of(["gray"] + ["undefined"] * (count - 1), [None] * count, Reading())
    assert bands.numbers == (1, 2, 3)
    assert "its bands have no names: 1, 2, 3 are taken as red, green, blue; --bands says otherwise" in bands.note


def test_names_that_are_no_colours_are_shown_with_what_was_taken():
    """B2 is blue in Landsat 8, and green in Landsat 7."""
    note = bands_of(GREY, ["B2", "B3", "B4"], Reading()).note
    assert note.startswith("its bands' names (B2, B3, B4) are none of these: 1, 2, 3 are taken as red, green, blue")


def test_the_first_of_two_bands_is_grey_and_it_is_said():
    assert bands_of(["gray", "undefined"], [None, None], Reading()).note == "band 1 of 2 is taken as grey"


def test_a_description_that_contradicts_a_declared_colour_is_said():
    bands = bands_of(RGB, ["Blue", "Green", "Red"], Reading())
    assert bands.numbers == (1, 2, 3)
    assert bands.note.startswith("band 1 is declared red and described as blue: taken as red")


@pytest.mark.parametrize(
    ("roles", "words", "how", "message"),
    [
        (GREY, ["NIR", "Red", "Green"], Reading(), r"bands \(nir, red, green\) none is blue; --bands says"),
        (GREY, ["red", "green", "red"], Reading(), r"\(red, green, red\) 2 are red"),
        (RGB, None, NIR, r"takes red, green, blue, nir; of its 3 bands \(red, green, blue\) none is nir"),
        (["gray"], None, NIR, r"of its 1 band \(gray\) none is red; give a picture that has it"),
        ([*RGB[::-1], "undefined"], None, NIR, "none is nir; --bands says which they are, such as --bands 3,2,1,4"),
        ([*RGB, "alpha"], None, NIR, "none is nir; --bands says which they are, such as --bands 1,2,3,4"),
    ],
)
def test_a_band_that_nobody_can_know_is_refused(roles, words, how, message):
    with pytest.raises(BadInput, match=message):
        numbers(roles, words, how)


def test_other_bands_are_found_by_interpretation_and_description():
    assert numbers([*RGB, "nir"], how=NIR) == (1, 2, 3, 4)
    assert numbers([*RGB, "undefined"], [None, None, None, "Near Infrared"], how=NIR) == (1, 2, 3, 4)
    assert numbers(["gray"] + ["undefined"] * 3, how=NIR) == (1, 2, 3, 4)  # none has a name, as many as the network's
    assert numbers(["gray"], how=Reading(planes=("pan",))) == (1,)


def test_a_networks_names_are_read_like_descriptions():
    how = Reading(planes=("red", "green", "blue", "nir1"))
    assert numbers(["gray", *["undefined"] * 7], EIGHT, how) == (5, 3, 2, 7)
    assert numbers([*GREY, "undefined"], ["Blue", "Green", "Red", "NIR"], Reading(planes=("Red", "G", "Blue"))) == (
        3,
        2,
        1,
    )
    both = Reading(planes=("nir1", "nir"))
    assert numbers(["gray", "undefined"], ["x", "y"], both) == (1, 2)


def test_the_users_numbers_come_first():
    assert numbers([*RGB, "undefined"], how=Reading(bands="4,1,2")) == (4, 1, 2)
    assert numbers(RGB, how=Reading(bands="2")) == (2,)
    assert numbers([*RGB, "alpha"], how=Reading(planes=NIR.planes, bands="3,2,1,4")) == (3, 2, 1, 4)
    for how, words in (
        (Reading(bands="1,2"), "--bands 1,2: 2 bands; the network takes 3: red, green, blue, in this order"),
        (Reading(planes=NIR.planes, bands="1"), "--bands 1: 1 band; the network takes 4: red, green, blue, nir"),
    ):
        with pytest.raises(BadInput, match=words):
            numbers([*RGB, "undefined"], how=how)
    with pytest.raises(BadInput, match="--bands 1,2,9: there is no band 9, there are 3"):
        numbers(RGB, how=Reading(bands="1,2,9"))


@pytest.mark.parametrize(
    ("text", "name"),
    [("Red", "red"), ("R", "red"), ("B8A", ""), ("near-infrared", "nir"), ("Red edge", "rededge")],
)
def test_a_description_names_a_band(text, name):
    assert plain(text) == name
