"""The channel axis of images, and the range of their floats."""

import numpy as np
import pytest

from sk_aft._data._pixels import (
    RANGES,
    Ranges,
    channels_last,
    range_of,
    ranges_after_fit,
    whole_range_of,
)
from sk_aft._data._rows import as_rows

FIRST = [(3, 32, 32), (1, 28, 28), (4, 16, 16), (3, 20, 50), (13, 16, 16), (2, 16, 16), (2, 16, 20)]
FIRST += [(20, 16, 16), (13, 64, 48), (5, 30, 10)]
LAST = [(32, 32, 3), (28, 28, 1), (16, 16, 4), (20, 50, 3), (16, 16, 13), (16, 16, 2), (16, 20, 2)]
LAST += [(16, 16, 20), (64, 48, 13), (30, 10, 5), (3, 3, 3), (4, 5, 3), (8, 8, 16)]
UNCLEAR = [(3, 32, 3), (16, 16, 16), (1, 28, 1), (16, 24, 20), (13, 20, 24), (4, 4, 16)]


@pytest.mark.parametrize("shape", FIRST, ids=str)
def test_channels_that_come_first_are_moved(shape):
    image = np.random.default_rng(0).random(shape)
    expected = np.moveaxis(image, 0, 2)
    for images in (np.stack([image] * 2), [image] * 2, [image, image[..., ::-1]]):
        np.testing.assert_array_equal(as_rows(images).values[0], expected)


@pytest.mark.parametrize("shape", LAST, ids=str)
def test_channels_that_come_last_stay(shape):
    image = np.zeros(shape)
    assert channels_last(image) is image
    assert as_rows(np.stack([image] * 2)).values.shape == (2, *shape)


@pytest.mark.parametrize("shape", UNCLEAR, ids=str)
def test_channels_that_may_be_either_say_how_to_say_it(shape):
    with pytest.raises(ValueError, match=r"first or last.*np.moveaxis\(X, 1, -1\)"):
        as_rows(np.zeros((2, *shape)))


def test_one_image_of_several_sizes_names_the_row():
    with pytest.raises(ValueError, match="Row 1 of X: Images of shape"):
        as_rows([np.zeros((8, 8, 3)), np.zeros((16, 16, 16))])


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([0.0, 1.0], "binary"),
        ([0.0, 0.5, 1.0], "fractions"),
        ([0.0, 1.5], "small"),
        ([0.0, 16.0], "levels"),
        ([0.5, 128.0], "levels"),
        ([0.0, 255.0], "levels"),
        ([0.0, 256.0], "other"),
        ([-0.1, 3.0], "signed"),
        ([np.nan, 0.5, np.inf], "fractions"),
        ([np.nan], None),
        ([], None),
        ([-1e-4, 0.5, 1 + 5e-4], "fractions"),
        ([-1e-4, 0.5, 255.1], "levels"),
        ([-0.01, 0.5], "signed"),
    ],
)
def test_the_range_of_floats(numbers, expected):
    assert range_of(np.array(numbers)) == expected


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([0, 1], "binary"), ([0, 2], "levels"), ([0, 255], "levels"), ([0, 256], "16 bits")],
)
@pytest.mark.parametrize("dtype", [np.uint16, np.int64])
def test_the_range_of_whole_numbers(numbers, expected, dtype):
    assert whole_range_of(np.array(numbers, dtype)) == expected


def test_ranges_are_found_wherever_the_number_is():
    numbers = np.zeros((300, 30, 30))
    for value, expected in [
        (0.5, "fractions"),
        (200.0, "levels"),
        (300.0, "other"),
        (-1, "signed"),
    ]:
        numbers[299, 29, 29] = value
        assert range_of(numbers) == expected
    assert whole_range_of(numbers.astype(bool)) == "binary"
    whole = np.zeros((300, 30, 30), np.uint16)
    for value, expected in [(1, "binary"), (3, "levels"), (300, "16 bits")]:
        whole[299, 29, 29] = value
        assert whole_range_of(whole) == expected


# What floats were seen during fit, what are found now -> how they are read.
FIT = "this is the fit"
AFTER_FIT = {
    (FIT, None): None,
    (FIT, "binary"): "binary",
    (FIT, "fractions"): "fractions",
    (FIT, "small"): "other",
    (FIT, "levels"): "levels",
    (FIT, "other"): "other",
    (FIT, "signed"): "signed",
    (None, "binary"): "binary",
    (None, "fractions"): "fractions",
    (None, "small"): "levels",
    (None, "levels"): "levels",
    ("binary", "fractions"): "fractions",
    ("fractions", "binary"): "fractions",
    ("levels", "binary"): "levels",
    ("levels", "small"): "levels",
    ("other", "binary"): "other",
    ("other", "fractions"): "other",
    ("other", "small"): "other",
    ("other", "levels"): "other",
}
OF_FLOATS = [None, *(name for name in RANGES if name != "16 bits")]


@pytest.mark.parametrize("fitted", [FIT, *(name for name in OF_FLOATS if name != "small")])
@pytest.mark.parametrize("found", OF_FLOATS)
def test_floats_are_read_as_those_of_the_fit_or_refused(fitted, found):
    before = None if fitted == FIT else Ranges(floats=fitted)
    if (fitted, found) in AFTER_FIT:
        assert ranges_after_fit(before, Ranges(found)).floats == AFTER_FIT[fitted, found]
    elif found in (None, fitted) or fitted == "signed":
        assert ranges_after_fit(before, Ranges(found)).floats == fitted
    else:
        with pytest.raises(ValueError, match="bring them to the same range"):
            ranges_after_fit(before, Ranges(found))


@pytest.mark.parametrize(
    ("fitted", "found", "expected"),
    [
        (None, Ranges(None, "binary"), "binary"),
        (None, Ranges("binary", "binary"), "binary"),
        (None, Ranges("fractions", "binary"), "levels"),
        (Ranges(), Ranges(None, "binary"), "levels"),
        (Ranges("binary"), Ranges(None, "binary"), "binary"),
        (Ranges("fractions"), Ranges(None, "binary"), "levels"),
        (Ranges(None, "binary"), Ranges(None, "levels"), "levels"),
        (Ranges(None, "levels"), Ranges(None, "binary"), "levels"),
        (Ranges(None, "levels"), Ranges(None, "16 bits"), "16 bits"),
        (Ranges(None, "16 bits"), Ranges(None, "levels"), "16 bits"),
        (Ranges(None, "16 bits"), Ranges(None, "binary"), "16 bits"),
        (Ranges(None, "levels"), Ranges(), "levels"),
    ],
)
def test_whole_numbers_are_read_as_those_of_the_fit(fitted, found, expected):
    after = ranges_after_fit(fitted, found)
    assert after.whole == expected
    assert ranges_after_fit(fitted, after) == after  # rows that carry their range
