"""Random crops: parts of the image, in training only."""

import pytest
import torch
from torch.nn import functional as F

from sk_aft.modules import RandomCropAndFlip, RandomResizedCrop

# Its pixels are their own coordinates, from -1 to 1, so a crop shows where it was made.
SIZE = 128
COORDINATES = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
PIXEL = 4 / SIZE  # what sampling whole pixels may differ by
PLACES = torch.stack([COORDINATES.expand(SIZE, SIZE), COORDINATES[:, None].expand(SIZE, SIZE)])


def crops(n=100, **parameters):
    torch.manual_seed(0)
    return RandomResizedCrop(**parameters)(PLACES.expand(n, -1, -1, -1))


def extents(images):
    """Return left, right, top and bottom of each crop, in the coordinates of the image."""
    first, middle, last = SIZE // 4, SIZE // 2, 3 * SIZE // 4
    half_width = images[:, 0, middle, last] - images[:, 0, middle, first]
    half_height = images[:, 1, last, middle] - images[:, 1, first, middle]
    x, y = images[:, :, middle, middle].T
    return x - half_width, x + half_width, y - half_height, y + half_height


@pytest.mark.parametrize("min_crop", [0.2, 0.5, 0.9])
def test_crops_are_parts_of_the_image_of_at_least_the_smallest_area(min_crop):
    left, right, top, bottom = extents(crops(min_crop=min_crop))
    for low, high in ((left, right), (top, bottom)):
        assert low.min() > -1 - PIXEL
        assert high.max() < 1 + PIXEL
    area = (right - left) * (bottom - top) / 4
    # A part that is wider than the image is cut off.
    assert area.min() > min_crop * 0.75
    assert area.max() < 1 + PIXEL
    assert area.min() < min_crop + 0.2 * (1 - min_crop)
    assert area.max() > 0.9


def test_crops_differ_and_are_anywhere():
    left, right, top, bottom = extents(crops(min_crop=0.3))
    for low, high in ((left, right), (top, bottom)):
        centre = (low + high) / 2
        assert centre.min() < -0.2
        assert centre.max() > 0.2
        assert len(set(centre.tolist())) > 20


def test_a_crop_is_not_mirrored_unless_asked_for():
    left, right, *_ = extents(crops())
    assert (left < right).all()
    left, right, top, bottom = extents(crops(flip=True))
    assert 0.4 < (left > right).float().mean() < 0.6
    assert (top < bottom).all()


def test_mirroring_alone():
    images = torch.rand(1, 3, 9, 7).expand(100, -1, -1, -1)
    torch.manual_seed(0)
    turned = RandomResizedCrop(min_crop=1, flip=True)(images)
    is_same, is_mirrored = (
        (turned - other).abs().amax(dim=(1, 2, 3)) < 1e-5 for other in (images, images.flip(3))
    )
    assert (is_same ^ is_mirrored).all()
    assert 30 < is_mirrored.sum() < 70


@pytest.mark.parametrize("shape", [(5, 3, 32, 20), (5, 16, 7, 7), (1, 1, 1, 1)])
def test_the_shape_stays(shape):
    images = torch.rand(shape)
    cropped = RandomResizedCrop()(images)
    assert cropped.shape == shape
    assert images.min() - 1e-5 <= cropped.min()
    assert cropped.max() <= images.max() + 1e-5


def test_plain_images_stay_plain():
    images = torch.full((20, 3, 16, 16), 0.3)
    torch.testing.assert_close(RandomResizedCrop(0.1, flip=True)(images), images)


def test_images_stay_as_they_are_in_evaluation_and_without_a_crop():
    images = torch.rand(4, 3, 8, 8)
    assert RandomResizedCrop(0.1, flip=True).eval()(images) is images
    assert RandomResizedCrop(1.0)(images) is images


def test_gradients_reach_the_images():
    images = torch.rand(4, 3, 8, 8, requires_grad=True)
    RandomResizedCrop()(images).sum().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize("min_crop", [0, -0.1, 1.1, float("nan")])
def test_areas_that_cannot_be(min_crop):
    with pytest.raises(ValueError, match=f"min_crop is {min_crop}, expected a share above 0"):
        RandomResizedCrop(min_crop)


def test_images_are_shifted_and_mirrored_in_training_only():
    torch.manual_seed(0)
    image = torch.rand(2, 16, 16)
    batch = image.expand(64, -1, -1, -1)
    augment = RandomCropAndFlip()
    assert augment.eval()(batch) is batch
    padded = F.pad(image, (2, 2, 2, 2))
    places = [(down, right) for down in range(5) for right in range(5)]
    crops = [padded[:, down : down + 16, right : right + 16] for down, right in places]
    possible = torch.stack(crops + [crop.flip(2) for crop in crops])
    seen = set()
    for drawn in augment.train()(batch):
        matches = (possible == drawn).flatten(1).all(dim=1).nonzero().flatten().tolist()
        assert matches
        seen.add(matches[0])
    assert len(seen) > 20
    assert RandomCropAndFlip(max_shift=0, flip=False)(batch) is batch
    with pytest.raises(ValueError, match="max_shift is 2"):
        RandomCropAndFlip(max_shift=2)


@pytest.mark.parametrize("min_crop", [0.8, 0.95])
def test_a_crop_is_never_smaller_than_the_smallest_area(min_crop):
    side = 200
    torch.manual_seed(0)
    numbers = torch.arange(side, dtype=torch.float32)
    images = torch.stack([numbers[:, None].expand(side, side), numbers.expand(side, side)])
    crops = RandomResizedCrop(min_crop)(images.expand(50, 2, side, side))
    low, high = crops.amin((2, 3)), crops.amax((2, 3))
    areas = ((high - low + 2) / side).prod(dim=1)
    assert areas.min() >= min_crop - 0.01
    assert areas.min() < min_crop + 0.1
    assert low.min() >= 0
