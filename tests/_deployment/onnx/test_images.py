"""Images are resized in a graph as by `resize_and_crop` and `ImageResizer`."""

import numpy as np
import onnxruntime
import pytest
import torch

from sk_aft._data._resize import ImageGeometry, resize_and_crop
from sk_aft._deployment.onnx._builder import GraphBuilder
from sk_aft._deployment.onnx._images import resized_and_cropped, resized_images
from sk_aft.preprocessing import ImageResizer

SIZES = [(32, 32), (100, 80), (20, 28), (31, 200), (64, 48), (47, 63), (33, 1)]


def run(graph, output, feeds):
    session = onnxruntime.InferenceSession(graph.model([output]).SerializeToString())
    return session.run(None, feeds)[0]


def images_of(size, n_images=3):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n_images, *size, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("wanted", [(32, 32), (24, 40)])
@pytest.mark.parametrize("crop_mode", ["squash", "center"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop_fraction", [1.0, 0.875])
def test_resizing_and_cropping(size, wanted, interpolation, crop_fraction, crop_mode):
    geometry = ImageGeometry(wanted, interpolation, crop_fraction, crop_mode)
    images = images_of(size).transpose(0, 3, 1, 2).astype(np.float32)
    graph = GraphBuilder()
    given = graph.input("images", np.float32, ["n", 3, "h", "w"])
    output = resized_and_cropped(graph, geometry, given, (0.0, 255.0))
    expected = resize_and_crop(torch.from_numpy(images), geometry, (0.0, 255.0)).numpy()
    found = run(graph, output, {"images": images})
    assert found.shape == (3, 3, *wanted)
    np.testing.assert_allclose(found, expected, atol=4e-3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("as_floats", [False, True])
def test_pixels_of_8_bits_are_whole_after_resizing(size, as_floats):
    images = images_of(size)
    fitted_to = images_of((32, 32))
    resizer = ImageResizer().fit([*fitted_to, *(fitted_to / 255)] if as_floats else fitted_to)
    graph = GraphBuilder()
    feeds = {"images": images}
    given = graph.input("images", np.float32 if as_floats else np.uint8, ["n", "h", "w", 3])
    is_8_bit = None
    if as_floats:
        is_8_bit = graph.input("is_8_bit", bool, ["n"])
        feeds = {"images": images.astype(np.float32) / 255, "is_8_bit": np.ones(3, dtype=bool)}
    found = run(graph, resized_images(graph, resizer, given, is_8_bit), feeds) * 255
    expected = resizer.transform(list(images))
    assert expected.dtype == np.uint8
    # Errors of rounding decide where the bilinear mean is close to a half.
    is_other = np.abs(found - expected) > 1e-3
    assert is_other.mean() < 1e-3
    np.testing.assert_allclose(found, expected, atol=1.001)


def test_halves_are_rounded_up_in_both():
    images = np.full((1, 2, 64, 3), 2, dtype=np.uint8)
    images[:, 0, :, :] = 3  # the mean of two rows is 2.5
    resizer = ImageResizer(size=(1, 64)).fit(images)
    graph = GraphBuilder()
    given = graph.input("images", np.uint8, ["n", "h", "w", 3])
    found = run(graph, resized_images(graph, resizer, given, None), {"images": images})
    np.testing.assert_array_equal(resizer.transform(images), np.full((1, 3, 1, 64), 3))
    np.testing.assert_allclose(found, np.full((1, 3, 1, 64), 3) / 255, rtol=1e-6)
