"""Images are resized and cropped as Pillow and the libraries of pretrained models do."""

import numpy as np
import pytest
import torch
from PIL import Image

from sk_aft._data._resize import ImageGeometry, resize_and_crop
from sk_aft.modules._image_input import ImageInput
from sk_aft.preprocessing import ImageResizer

INTERPOLATIONS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}
RANDOM = np.random.RandomState(0)


def picture(height, width):
    """Return noise of high contrast, at whose edges bicubic interpolation overshoots."""
    return (RANDOM.rand(height, width, 3) > 0.5).astype(np.uint8) * 255


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("shape", [(90, 70), (20, 30), (20, 70)])
def test_resized_as_by_pillow(interpolation, shape):
    image = picture(*shape)
    pillow = Image.fromarray(image).resize((40, 50), INTERPOLATIONS[interpolation])
    expected = np.array(pillow).transpose(2, 0, 1).astype(int)
    options = {"size": (50, 40), "interpolation": interpolation}
    (resized,) = ImageResizer(**options).fit_transform([image])
    assert resized.dtype == np.uint8
    assert abs(resized - expected).max() <= 1
    (resized,) = ImageResizer(**options).fit_transform([image / 255])
    assert abs(resized * 255 - expected).max() <= 1.5


@pytest.mark.parametrize(
    ("shape", "size", "fraction", "resized"),
    [
        ((300, 411), (224, 224), 0.875, (256, 350)),  # as torchvision: int(256 * 411 / 300)
        ((60, 50), (224, 224), 0.875, (307, 256)),
        ((300, 411), (96, 160), 1.0, (117, 160)),
        ((64, 64), (64, 64), 1.0, (64, 64)),
    ],
)
def test_the_middle_is_kept(shape, size, fraction, resized):
    image = picture(*shape)
    whole = Image.fromarray(image).resize(resized[::-1], Image.BILINEAR)
    top, left = round((resized[0] - size[0]) / 2), round((resized[1] - size[1]) / 2)
    expected = np.array(whole)[top : top + size[0], left : left + size[1]].astype(int)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    found = resize_and_crop(planes, ImageGeometry(size, "bilinear", fraction, "center"))
    assert found.shape[2:] == size
    assert abs(found[0].permute(1, 2, 0).numpy() - expected).max() <= 2


def test_small_images_are_cropped_once():
    """By the preprocessor if they have the network's size, and else by the network."""
    options = {"interpolation": "bicubic", "crop_fraction": 0.875, "crop_mode": "center"}
    network = ImageInput((56, 56), mean=[0.0] * 3, std=[1.0] * 3, **options)
    for shape in [(56, 56), (40, 48), (56, 40), (80, 60)]:
        image = picture(*shape)
        resizer = ImageResizer(max_size=56, **options)
        made = torch.from_numpy(resizer.fit_transform([image])).float() / 255
        short = 64 / min(shape)
        whole = Image.fromarray(image).resize(
            (int(shape[1] * short), int(shape[0] * short)), Image.BICUBIC
        )
        top, left = (round((side - 56) / 2) for side in whole.size[::-1])
        expected = np.array(whole)[top : top + 56, left : left + 56] / 255
        found = network(made)[0].permute(1, 2, 0).numpy()
        assert abs(found - expected).max() <= 2 / 255
        is_kept = shape in [(40, 48), (56, 40)]
        assert resizer.size_ == (shape if is_kept else (56, 56))


def test_other_images_become_the_kept_size_without_a_crop():
    options = {"crop_fraction": 0.5, "crop_mode": "center"}
    resizer = ImageResizer(max_size=56, **options).fit([picture(32, 32)])
    image = picture(64, 128)
    made = resizer.transform([image])[0].transpose(1, 2, 0)
    expected = np.array(Image.fromarray(image).resize((64, 32), Image.BILINEAR))[:, 16:48]
    assert abs(made.astype(int) - expected).max() <= 1


def test_floats_stay_in_their_range_and_those_without_one_are_not_clamped():
    images = np.stack([picture(20, 20), picture(20, 20)])
    options = {"size": 50, "interpolation": "bicubic"}
    fractions = ImageResizer(**options).fit_transform(images / 255)
    assert fractions.min() == 0
    assert fractions.max() == 1
    levels = ImageResizer(**options).fit_transform(images)
    assert abs(fractions * 255 - levels).max() <= 2
    signed = ImageResizer(**options).fit_transform(images / 50 - 2)
    assert signed.min() < -2


@pytest.mark.parametrize("size", [0, 64.0, (64,), (64, -1), "large"])
def test_sizes_that_are_none(size):
    with pytest.raises(
        ValueError, match=r"size of images is .*expected a positive integer, or \(h"
    ):
        ImageResizer(size=size).fit([picture(8, 8)])
