"""The channel axis of images, and the range of their floats."""

import numpy as np
import pytest

from sk_aft._data._pixels import FLOAT_RANGES, channels_last, range_after_fit, range_of
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
    ],
)
def test_the_range_of_floats(numbers, expected):
    assert range_of(np.array(numbers)) == expected


# What was seen during fit, what is found now -> how it is read.
AFTER_FIT = {
    ("any", None): None,
    ("any", "binary"): "fractions",
    ("any", "fractions"): "fractions",
    ("any", "small"): "other",
    ("any", "levels"): "levels",
    ("any", "other"): "other",
    ("any", "signed"): "signed",
    (None, "binary"): "fractions",
    (None, "fractions"): "fractions",
    (None, "small"): "levels",
    (None, "levels"): "levels",
    ("fractions", "binary"): "fractions",
    ("levels", "binary"): "levels",
    ("levels", "small"): "levels",
    ("other", "binary"): "other",
    ("other", "fractions"): "other",
    ("other", "small"): "other",
    ("other", "levels"): "other",
}


@pytest.mark.parametrize("fitted", ["any", None, "fractions", "levels", "other", "signed"])
@pytest.mark.parametrize("found", [None, *FLOAT_RANGES])
def test_floats_are_read_as_those_of_the_fit_or_refused(fitted, found):
    if (fitted, found) in AFTER_FIT:
        assert range_after_fit(fitted, found) == AFTER_FIT[fitted, found]
    elif found in (None, fitted):
        assert range_after_fit(fitted, found) == fitted
    else:
        with pytest.raises(ValueError, match="bring them to the same range"):
            range_after_fit(fitted, found)
