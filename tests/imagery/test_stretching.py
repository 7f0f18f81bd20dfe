"""Samples of any type as 8 bits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dlink.imagery.stretching import Histogram, Levels, levels_of
from dlink.runtime import BadInput, Spec
from dlink.runtime.stretch import Stretch

BYTES = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)


def whole(samples, valid=None):
    """The samples in two parts."""
    for rows in (slice(0, 3), slice(3, None)):
        yield samples[:, rows], None if valid is None else valid[rows]


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        (BYTES.astype(np.uint16) * 5 + 200, "200:1475"),
        (BYTES.astype(np.int16) - 128, "-128:127"),
        (BYTES.astype(np.uint32) * 1000, "0:255000"),
        (BYTES.astype(np.float32) / 255, "0:1"),
        (BYTES.astype(np.float64) / 100 - 1, "-1:1.55"),
    ],
)
def test_a_range_by_value_gives_the_bytes_again(samples, text):
    levels = levels_of(samples.dtype, Stretch.of(text), 1, iter(()))
    np.testing.assert_array_equal(levels.bytes_of(samples), BYTES)


def test_both_ends_are_cut_off_and_nan_is_0():
    samples = np.array([[[-np.inf, -5, 0, 0.5, 1, 7, np.inf, np.nan]]], np.float32)
    assert Levels(((0.0, 1.0),)).bytes_of(samples).tolist() == [[[0, 0, 0, 128, 255, 255, 255, 0]]]


def test_each_band_has_its_range():
    samples = np.stack([BYTES[0].astype(np.uint16), BYTES[0].astype(np.uint16) * 4 + 9])
    levels = levels_of(samples.dtype, Stretch.of("0:255,9:1029"), 2, iter(()))
    np.testing.assert_array_equal(levels.bytes_of(samples), np.repeat(BYTES, 2, axis=0))


@pytest.mark.parametrize("stretch", [None, Stretch.of("200:1475"), Stretch.of("2,98")])
def test_8_bits_are_taken_as_they_are(stretch):
    """A network's stretch is for the samples that it was trained on, not for pictures beside them."""
    assert levels_of(np.dtype(np.uint8), stretch, 3, iter(())) is None


@given(arrays.arrays(np.uint16, (2, 8, 20)))
def test_percentiles_are_those_of_the_whole_picture(samples):
    histogram = Histogram(2, samples.dtype)
    for part in whole(samples):
        histogram.add(*part)
    for (low, high), band in zip(histogram.percentiles(2, 98), samples, strict=True):
        ends = np.percentile(band, [2, 98], method="inverted_cdf")
        assert (low, high) == (ends[0], ends[1] if ends[0] < ends[1] else int(ends[0]) + 1)


@given(st.sampled_from([np.float32, np.float64, np.int32]), st.integers(0, 99))
def test_percentiles_of_other_types_are_near(dtype, seed):
    samples = (np.random.default_rng(seed).normal(0, 1000, (1, 30, 30))).astype(dtype)
    histogram = Histogram(1, samples.dtype)
    histogram.add(samples, None)
    found = histogram.percentiles(2, 98)[0]
    np.testing.assert_allclose(found, np.percentile(samples, [2, 98], method="inverted_cdf"), rtol=0.008)


def test_what_has_no_data_is_not_counted():
    samples = np.full((1, 10, 10), 500, np.uint16)
    samples[:, 5:] = 60000
    valid = np.arange(10)[:, None].repeat(10, axis=1) < 5
    samples[0, 0, 0] = 400
    assert levels_of(samples.dtype, Stretch(percentiles=(0, 100)), 1, whole(samples, valid)).ranges == ((400, 500),)


@pytest.mark.parametrize(
    ("samples", "ranges", "words"),
    [
        (BYTES.astype(np.uint16), ((0, 255),), "uint16 samples, all between 0 and 255, which became 0..255"),
        (BYTES.astype(np.float32), ((0, 255),), "float32 samples, all between 0 and 255"),
        (BYTES.astype(np.float32) / 255, ((0, 1),), "float32 samples, all between 0 and 1, which became 0..255"),
        (
            BYTES.astype(np.uint16) * 5 + 200,
            ((225, 1450),),
            "uint16 samples, stretched by percentiles 2,98 of the picture; --str",
        ),
        (BYTES.astype(np.float32) / 2550, ((0, 0),), "float32 samples, stretched by percentiles 2,98 of"),
    ],
)
def test_without_a_stretch_the_values_decide_and_it_is_said(samples, ranges, words):
    levels = levels_of(samples.dtype, None, 1, whole(samples))
    assert levels.note.startswith(words)
    assert levels.ranges == ranges or not any(ranges[0])


@pytest.mark.parametrize("text", ["98,2", "2", "5:1", "1:1", "a:b", "0:1,nan:2", "2,98,99", "-1,50", "0:inf", ""])
def test_a_stretch_that_is_none_is_refused(text):
    with pytest.raises(BadInput, match="--stretch .*(expected percentiles such as 2,98|is no range)"):
        Stretch.of(text)


def test_a_spec_holds_a_stretch_that_is_one():
    assert Spec(stretch="200:1475").stretch == "200:1475"
    with pytest.raises(BadInput, match="stretch much: expected percentiles such as 2,98"):
        Spec(stretch="much")


def test_a_range_for_each_band_or_for_all():
    with pytest.raises(BadInput, match="--stretch 0:1,0:2: 2 ranges for 3 bands; give one, or one each"):
        levels_of(np.dtype(np.uint16), Stretch.of("0:1,0:2"), 3, iter(()))


@pytest.mark.parametrize("text", ["2,98", "0.5,99.5", "200:1475", "-1:0.25,0:9"])
def test_a_stretch_is_written_as_it_is_read(text):
    assert str(Stretch.of(text)) == text
