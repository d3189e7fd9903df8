import io
import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from sk_aft.preprocessing import ImageResizer, SubwordTokenizer, make_preprocessor
from sk_aft.preprocessing._auto import transform_checked


def encoded(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


# ---------------------------------------------------------------- ImageResizer


def test_small_images_that_are_alike_keep_their_size():
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 20, 3), dtype=np.uint8)
    resizer = ImageResizer().fit(images)
    assert (resizer.size_, resizer.n_channels_) == ((28, 20), 3)
    np.testing.assert_array_equal(resizer.transform(images), np.moveaxis(images, 3, 1))
    assert resizer.transform(images).dtype == np.uint8


@pytest.mark.parametrize("form", [list, lambda x: [Image.fromarray(image) for image in x]])
def test_images_in_a_list_are_the_same_images(photographs, form):
    resizer = ImageResizer().fit(photographs)
    expected = resizer.transform(photographs)
    np.testing.assert_array_equal(resizer.transform(form(photographs)), expected)
    np.testing.assert_array_equal(clone(resizer).fit_transform(form(photographs)), expected)


def test_large_or_different_images_become_64_by_64(photographs):
    large = np.repeat(np.repeat(photographs, 2, axis=1), 2, axis=2)
    assert ImageResizer().fit(large).size_ == (64, 64)
    assert ImageResizer().fit([photographs[0], photographs[1][:50]]).size_ == (64, 64)
    difference = ImageResizer().fit_transform(large) - np.moveaxis(photographs, 3, 1).astype(float)
    assert np.abs(difference).mean() < 5


@pytest.mark.parametrize(("size", "expected"), [(32, (32, 32)), ((16, 24), (16, 24))])
def test_a_size_that_was_asked_for(photographs, size, expected):
    resized = ImageResizer(size).fit_transform(photographs)
    assert resized.shape == (6, 3, *expected)
    assert resized.dtype == np.uint8
    np.testing.assert_allclose(resized.mean(axis=(2, 3)), photographs.mean(axis=(1, 2)), atol=1.5)


def test_resizing_is_what_pillow_does(photographs):
    resized = ImageResizer(24).fit_transform(photographs)
    for image, ours in zip(photographs, resized, strict=True):
        pillows = Image.fromarray(image).resize((24, 24), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(np.moveaxis(ours, 0, 2).astype(int), pillows, atol=2)


@pytest.mark.parametrize("size", ["auto", 32])
def test_floats_stay_floats_and_mean_the_same(photographs, size):
    resizer = ImageResizer(size).fit(photographs)
    floats = resizer.transform(photographs / 255)
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, resizer.transform(photographs) / 255, atol=0.003)


def test_grey_images_have_one_channel(photographs):
    grey = np.ascontiguousarray(photographs[..., 0])
    for form in (grey, grey[..., None], [Image.fromarray(image) for image in grey]):
        resizer = ImageResizer().fit(form)
        assert resizer.n_channels_ == 1
        np.testing.assert_array_equal(resizer.transform(form), grey[:, None])


def test_grey_and_coloured_images_mixed_have_three(photographs):
    mixed = [photographs[0], photographs[1][..., 0]]
    images = ImageResizer().fit_transform(mixed)
    np.testing.assert_array_equal(images[0], np.moveaxis(photographs[0], 2, 0))
    np.testing.assert_array_equal(images[1], np.stack([mixed[1]] * 3))


def test_colours_become_grey_where_training_images_were(photographs):
    resizer = ImageResizer().fit(photographs[..., 0])
    grey = resizer.transform(photographs)
    assert grey.shape == (6, 1, 64, 64)
    for image, ours in zip(photographs, grey, strict=True):
        np.testing.assert_allclose(ours[0], Image.fromarray(image).convert("L"), atol=1)
    assert resizer.transform(photographs / 255).max() <= 1


def test_grey_becomes_colours_where_training_images_were(photographs):
    resizer = ImageResizer().fit(photographs)
    grey = photographs[..., 0]
    np.testing.assert_array_equal(resizer.transform(grey), np.stack([grey] * 3, axis=1))


def test_transparent_images_are_put_on_white(photographs):
    alpha = photographs[..., :1] / 255
    transparent = np.concatenate([photographs, photographs[..., :1]], axis=3)
    expected = (photographs * alpha + 255 * (1 - alpha)).round()
    np.testing.assert_array_equal(
        ImageResizer().fit_transform(transparent), np.moveaxis(expected, 3, 1)
    )


def test_files_are_read(photographs, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(len(photographs))]
    for path, image in zip(paths, photographs, strict=True):
        path.write_bytes(encoded(image))
    expected = ImageResizer().fit_transform(photographs)
    for form in (paths, [str(path) for path in paths], [path.read_bytes() for path in paths]):
        np.testing.assert_array_equal(ImageResizer().fit_transform(form), expected)
    paths[3].write_text("not an image")
    with pytest.raises(ValueError, match=r"Row 3 \('.*3\.png'\) is not a readable image"):
        ImageResizer().fit(paths)
    with pytest.raises(ValueError, match=r"Row 3 \('.*3\.png'\) is not a readable image"):
        ImageResizer().fit(photographs).transform(paths)


def test_a_fitted_resizer_can_be_pickled_and_cloned(photographs):
    resizer = ImageResizer(16).fit(photographs)
    copy = pickle.loads(pickle.dumps(resizer))
    np.testing.assert_array_equal(copy.transform(photographs), resizer.transform(photographs))
    assert clone(resizer).size == 16
    with pytest.raises(NotFittedError):
        clone(resizer).transform(photographs)


def test_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match="Expected image rows, got numeric rows"):
        ImageResizer().fit(np.eye(3))


# ---------------------------------------------------------------- make_preprocessor


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("numeric", StandardScaler), ("image", ImageResizer), ("text", SubwordTokenizer)],
)
def test_auto_fits_the_kind_of_rows(kind, expected):
    assert type(make_preprocessor("auto", kind)) is expected


def test_auto_takes_parameters():
    assert make_preprocessor("auto", "text", max_length=7).max_length == 7


def test_an_estimator_is_cloned_and_none_is_none():
    scaler = MinMaxScaler((0, 2)).fit(np.eye(2))
    copy = make_preprocessor(scaler, "numeric")
    assert copy is not scaler
    assert copy.feature_range == (0, 2)
    assert not hasattr(copy, "scale_")
    assert make_preprocessor(None, "numeric") is None


def test_parameters_reach_an_estimator_too():
    assert make_preprocessor(MinMaxScaler(), "numeric", clip=True).clip


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.uint8, bool])
@pytest.mark.parametrize("parameters", [{}, {"with_mean": False}, {"with_std": False}])
def test_checked_numbers_are_scaled_as_scikit_learn_does(dtype, parameters):
    X = (100 + 20 * np.random.RandomState(0).normal(size=(50, 4))).astype(dtype)
    X[:, 1] = 7  # does not vary
    scaler = make_preprocessor("auto", "numeric", **parameters).fit(X)
    before = X.copy()
    np.testing.assert_allclose(
        transform_checked(scaler, X).astype(np.float64),
        scaler.transform(X),
        rtol=2e-3,
        atol=1e-5 if dtype != np.float16 else 2e-3,
    )
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"crop_fraction": 0}, "The 'crop_fraction' parameter of ImageResizer"),
        ({"crop_fraction": 2}, "The 'crop_fraction' parameter of ImageResizer"),
        ({"crop_mode": "border"}, "The 'crop_mode' parameter of ImageResizer"),
        ({"interpolation": "nearest"}, "The 'interpolation' parameter of ImageResizer"),
        ({"size": 0}, "The size of images is 0"),
        ({"max_size": True}, "The size of images is True"),
    ],
)
def test_parameters_of_the_resizer_that_cannot_be(parameters, message):
    with pytest.raises(ValueError, match=message):
        ImageResizer(**parameters).fit(np.zeros((2, 9, 9), np.uint8))
