"""Images are resized and standardised as those that a network was pretrained on."""

import pickle

import pytest
import torch
from torch.nn import functional as F

from sk_aft.modules._image_input import ImageInput, check_bands

MEAN, STD = [0.2, 0.5, 0.8], [0.1, 0.2, 0.4]
IMAGES = torch.rand(3, 3, 12, 10, generator=torch.Generator().manual_seed(0))


def standardised(images):
    return torch.stack([(images[:, band] - MEAN[band]) / STD[band] for band in range(3)], dim=1)


def test_each_band_is_standardised():
    prepared = ImageInput((12, 10), MEAN, STD)(IMAGES)
    torch.testing.assert_close(prepared, standardised(IMAGES))
    assert prepared.is_contiguous(memory_format=torch.channels_last)


def test_a_grey_image_is_the_same_in_each_band():
    grey = IMAGES[:, :1]
    prepared = ImageInput((20, 20), MEAN, STD)
    torch.testing.assert_close(prepared(grey), prepared(grey.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("size", [(24, 20), (6, 5), (12, 20), (6, 40)])
def test_images_are_resized_before_they_are_standardised(size):
    small = size[0] < 12
    resized = F.interpolate(IMAGES, size, mode="bilinear", antialias=small)
    torch.testing.assert_close(
        ImageInput(size, MEAN, STD)(IMAGES), standardised(resized), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(5, 7), (40, 30)])
def test_a_plain_image_stays_one(interpolation, size):
    plain = torch.full((2, 3, 12, 10), 0.25)
    prepared = ImageInput(size, MEAN, STD, interpolation)(plain)
    torch.testing.assert_close(prepared, standardised(torch.full((2, 3, *size), 0.25)))


def test_small_images_are_averaged_not_sampled():
    """A fine pattern becomes grey, as it does in Pillow."""
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * 1.0
    prepared = ImageInput((8, 8), [0.0] * 3, [1.0] * 3)(board.expand(1, 1, 32, 32))
    torch.testing.assert_close(prepared, torch.full((1, 3, 8, 8), 0.5), rtol=0, atol=0.05)


def test_its_numbers_are_no_weights():
    module = ImageInput((12, 10), MEAN, STD)
    assert not module.state_dict()
    assert not list(module.parameters())
    again = pickle.loads(pickle.dumps(module))
    torch.testing.assert_close(again(IMAGES), module(IMAGES))


@pytest.mark.parametrize("n_bands", [2, 4, 13])
def test_other_bands(n_bands):
    check_bands(1)
    check_bands(3)
    with pytest.raises(ValueError, match=rf"these have {n_bands} bands: use module=ResNet"):
        check_bands(n_bands)
