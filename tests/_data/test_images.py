"""An image is read the same in every encoding, and an error says so if it cannot be."""

import io
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import xxhash
from PIL import Image, ImageCms
from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft._data._images import image_shape, load_image
from sk_aft._data._rows import as_rows
from sk_aft.modules import ResNet
from sk_aft.store import row_digests

RNG = np.random.RandomState(0)
X = (RNG.rand(120, 16, 16) * 80 + 1).astype(np.uint8)
Y = RNG.randint(0, 2, 120)
X[Y == 1, 4:10, 4:10] += 120  # a bright square
RGB = np.repeat(X[..., None], 3, axis=3)
# A black bar on nothing.
BAR = np.zeros((16, 16, 4), np.uint8)
BAR[3:13, 7:9, 3] = 255
ON_WHITE = np.full((16, 16, 3), 255, np.uint8)
ON_WHITE[3:13, 7:9] = 0


def pils(images, mode=None):
    images = [Image.fromarray(image) for image in images]
    return images if mode is None else [image.convert(mode) for image in images]


def encoded(image, format="PNG", **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def student(images, labels=Y):
    # The fastest network: how images are read does not depend on it.
    settings = {"beta": 0, "max_epochs": 10, "batch_size": 16, "random_state": 0}
    return AFTClassifier(ResNet, **settings).fit(images, labels)


# What says itself what it means, and floats from 0 to 255 and from 0 to 1.
CERTAIN = {
    "uint8": X,
    "int64": X.astype(np.int64),
    "uint16": X.astype(np.uint16),
    "nested lists": X[:12].tolist(),
    "list": list(X),
    "channel last": X[..., None],
    "RGB": RGB,
    "channels first": np.moveaxis(RGB, 3, 1),
    "opaque RGBA": np.concatenate([RGB, np.full_like(RGB[..., :1], 255)], axis=3),
    "tensor": torch.from_numpy(X),
    "tensors": [torch.from_numpy(x) for x in X],
    "frame": pd.DataFrame({"image": list(X)}),
    "PNG": [encoded(x) for x in X],
    "PNG of 16 bits": [encoded(x.astype(np.uint16) * 257) for x in X],
    "I;16": pils(X.astype(np.uint16)),
    "I;16 of 16 bits": pils(X.astype(np.uint16) * 257),
    "uint16 of 16 bits": X.astype(np.uint16) * 257,
    "int32 of 16 bits": X.astype(np.int32) * 257,
    "I of 16 bits": pils(X.astype(np.int32) * 257),
    "TIFF of 16 bits": [encoded(x.astype(np.uint16) * 257, "TIFF") for x in X],
    "I": pils(X.astype(np.int32)),
    **{mode: pils(X, mode) for mode in ("L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")},
    "HSV": [image.convert("HSV") for image in pils(RGB)],
    "RGBa": [image.convert("RGBa") for image in pils(X, "RGBA")],
    "La": [image.convert("La") for image in pils(X, "LA")],
    "PA": [image.convert("PA") for image in pils(X, "P")],
}
LEVELS = {
    "float32": X.astype(np.float32),
    "float64": X.astype(np.float64),
    "float16": X.astype(np.float16),
    "list": list(X.astype(float)),
    "RGB": RGB.astype(np.float32),
    "F": pils(X.astype(np.float32)),
    "TIFF": [encoded(x.astype(np.float32), "TIFF") for x in X],
    "frame of F": pd.DataFrame({"image": pils(X.astype(np.float32))}),
}
FRACTIONS = {
    "dtypes mixed": [X[0], np.float32(X[1] / 255), X[2].astype(np.int64), *np.float32(X[3:] / 255)],
    "float32": np.float32(X / 255),
    "float64": X / 255,
    "list": list(X / 255),
    "F": pils(np.float32(X / 255)),
    "TIFF": [encoded(np.float32(x / 255), "TIFF") for x in X],
}


@pytest.fixture(scope="module")
def of_bytes():
    return student(X)


@pytest.fixture(scope="module")
def of_levels():
    return student(LEVELS["float32"])


@pytest.fixture(scope="module")
def of_fractions():
    return student(FRACTIONS["float64"])


@pytest.mark.parametrize("fitted", ["of_bytes", "of_levels", "of_fractions"])
@pytest.mark.parametrize("images", CERTAIN.values(), ids=CERTAIN)
def test_a_student_predicts_the_same_from_every_encoding(fitted, images, request):
    model = request.getfixturevalue(fitted)
    probabilities = model.predict_proba(images)
    n_rows = len(probabilities)
    assert (probabilities.argmax(axis=1) == Y[:n_rows]).all()
    np.testing.assert_allclose(probabilities, model.predict_proba(X[:n_rows]), atol=1e-3)


@pytest.mark.parametrize("images", LEVELS.values(), ids=LEVELS)
@pytest.mark.parametrize("fitted", ["of_bytes", "of_levels"])
def test_floats_from_0_to_255_are_the_same_images(fitted, images, request):
    model = request.getfixturevalue(fitted)
    np.testing.assert_array_equal(model.predict_proba(images), model.predict_proba(X))


@pytest.mark.parametrize("images", FRACTIONS.values(), ids=FRACTIONS)
@pytest.mark.parametrize("fitted", ["of_bytes", "of_fractions"])
def test_floats_from_0_to_1_are_the_same_images(fitted, images, request):
    model = request.getfixturevalue(fitted)
    np.testing.assert_allclose(model.predict_proba(images), model.predict_proba(X), atol=1e-4)


@pytest.mark.parametrize("form", [{**CERTAIN, **LEVELS}[k] for k in ("I", "F", "P", "frame of F")])
def test_a_student_learns_from_any_of_them(form):
    model = student(form)
    assert model.score(X, Y) == 1
    assert model.score(form, Y) == 1


@pytest.mark.parametrize(
    ("fitted", "images", "message"),
    [
        ("of_levels", FRACTIONS["float32"], "between 0 and 1, but .* fit were floats .* 0 and 255"),
        ("of_levels", FRACTIONS["F"], r"such as images \* 255, or give uint8"),
        ("of_levels", X * 16.0, "floats of another scale than 0 to 1 or 0 to 255, but"),
        ("of_fractions", LEVELS["float32"], "between 0 and 255, but .* fit were floats .* 0 and 1"),
        ("of_fractions", LEVELS["F"], "such as images / 255, or give uint8"),
        ("of_fractions", (X - 40.0) / 50, "floats partly negative, but"),
        ("of_bytes", (X - 40.0) / 50, r"floats partly negative, but .* of 8 bits \(0 to 255\)"),
        ("of_bytes", X * 16.0, "floats of another scale than .*, but .* of 8 bits"),
    ],
)
def test_floats_of_another_range_than_those_of_the_fit_are_refused(
    fitted, images, message, request
):
    with pytest.raises(ValueError, match=message):
        request.getfixturevalue(fitted).predict(images)


def test_a_nearly_black_image_is_read_as_the_images_of_the_fit(of_levels):
    black = (X > 100).astype(np.uint8)
    expected = of_levels.predict_proba(black)
    np.testing.assert_array_equal(of_levels.predict_proba(black.astype(float)), expected)
    alone = of_levels.predict_proba(black[:1].astype(float))
    np.testing.assert_allclose(alone, expected[:1], atol=1e-6)


def test_a_black_and_white_image_of_floats_or_bools_is_black_and_white(of_bytes, of_fractions):
    bright = X > 100
    for model in (of_bytes, of_fractions):
        expected = model.predict_proba(bright.astype(np.uint8) * 255)
        np.testing.assert_array_equal(model.predict_proba(bright), expected)
        np.testing.assert_array_equal(model.predict_proba(pils(bright)), expected)
        np.testing.assert_allclose(model.predict_proba(bright.astype(float)), expected, atol=1e-6)


def test_standardised_images_are_learned_from_as_they_are():
    standardised = (X - 60.0) / 50
    model = student(standardised)
    assert model.score(standardised, Y) == 1
    one_by_one = [model.predict_proba(standardised[[row]])[0] for row in range(9)]
    np.testing.assert_allclose(one_by_one, model.predict_proba(standardised[:9]), atol=1e-5)
    bright = standardised + 2  # without negative numbers
    np.testing.assert_array_equal(model.predict(bright[Y == 1]), Y[Y == 1])
    alone = [model.predict_proba(bright[[row]])[0] for row in range(9)]
    np.testing.assert_allclose(alone, model.predict_proba(bright[:9]), atol=1e-5)
    for images in (X, pils(X), CERTAIN["PNG"]):
        with pytest.raises(ValueError, match=r"seen during fit were floats partly negative.*std"):
            model.predict(images)


def test_images_of_twelve_bits_are_read_alike_when_they_are_dark():
    deep = X * 16.0
    model = student(deep)
    assert model.score(deep, Y) == 1
    dark = [row for row in range(120) if deep[row].max() < 1300]
    one_by_one = [model.predict(deep[[row]])[0] for row in dark[:9]]
    np.testing.assert_array_equal(one_by_one, Y[dark[:9]])
    model.predict(deep[:1] / 16)  # darker still
    with pytest.raises(ValueError, match=r"of 8 bits .* fit were floats of another scale"):
        model.predict(X)


def test_a_student_reads_all_bands():
    bands = RNG.rand(200, 16, 16, 13)
    y = np.arange(200) % 2
    bands[y == 1, 4:10, 4:10, 8] += 1
    first = np.moveaxis(bands, 3, 1)
    model = student(bands[:100], y[:100])
    assert model.module_.standardise.num_features == 13
    assert model.score(bands[100:], y[100:]) > 0.95
    np.testing.assert_allclose(model.predict_proba(first), model.predict_proba(bands), atol=1e-5)
    np.testing.assert_allclose(
        model.predict_proba(list(first)), model.predict_proba(bands), atol=1e-5
    )
    alone = [model.predict_proba(bands[[row]])[0] for row in range(9)]
    np.testing.assert_allclose(alone, model.predict_proba(bands[:9]), atol=1e-5)
    with pytest.raises(ValueError, match=r"Row 0 is an image with 3 bands .* during fit have 13"):
        model.predict(bands[..., :3])


@pytest.mark.parametrize("scale", [0.1, 2, 90, 1000])
def test_floats_of_another_scale_keep_it(scale):
    images = X / 255 * scale
    model = student(images)
    assert model.score(images, Y) == 1
    if scale > 1:
        with pytest.raises(ValueError, match=r"of 8 bits .* fit were floats of another scale"):
            model.predict(X)


@pytest.mark.parametrize("n_bands", [2, 5, 13])
def test_large_images_of_several_bands_are_resized(n_bands):
    images = RNG.rand(8, 96, 96, n_bands)
    images += (np.arange(8) % 2)[:, None, None, None]
    model = AFTClassifier(beta=0, max_epochs=3, random_state=0).fit(images, np.arange(8) % 2)
    assert model.module_.standardise.num_features == n_bands


def test_images_of_different_bands_name_the_rows():
    images = [RGB[0], RGB[1], RGB[2][..., :2], X[3]]
    with pytest.raises(ValueError, match="1 in row 3, 2 in row 2, 3 in row 0"):
        student(images, [0, 1, 0, 1])


MASKS = (X > 100).astype(np.uint8)
FORMS_OF_MASKS = {
    "uint8": MASKS,
    "int64": MASKS.astype(np.int64),
    "float32": MASKS.astype(np.float32),
    "float64 in a list": list(MASKS.astype(float)),
    "bool": MASKS.astype(bool),
    "0 and 255": MASKS * 255,
    "L": pils(MASKS),
    "1": pils(MASKS.astype(bool)),
    "PNG": [encoded(x) for x in MASKS],
    "F": pils(MASKS.astype(np.float32)),
}


@pytest.mark.parametrize("fitted", ["uint8", "float32", "bool", "PNG"])
def test_masks_of_zeros_and_ones_are_the_same_in_every_encoding(fitted):
    model = student(FORMS_OF_MASKS[fitted])
    expected = model.predict_proba(FORMS_OF_MASKS[fitted])
    assert (expected.argmax(axis=1) == Y).all()
    for images in FORMS_OF_MASKS.values():
        np.testing.assert_allclose(model.predict_proba(images), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
@pytest.mark.parametrize("scale", [1, 16, 257])
@pytest.mark.parametrize("fitted", ["array", "PIL"])
def test_arrays_and_pil_images_of_16_bits_are_the_same(dtype, scale, fitted):
    images = X.astype(dtype) * dtype(scale)
    forms = {"array": images, "PIL": pils(images), "TIFF": [encoded(x, "TIFF") for x in images]}
    model = student(forms[fitted])
    expected = model.predict_proba(images)
    assert (expected.argmax(axis=1) == Y).all()
    for form in forms.values():
        np.testing.assert_array_equal(model.predict_proba(form), expected)
    # A dark image alone is read as the images of the fit.
    dark = images // 20
    np.testing.assert_allclose(
        model.predict_proba(dark[:1]), model.predict_proba(dark)[:1], atol=1e-5
    )


def test_the_depth_of_images_is_that_of_all_of_them():
    images = [np.full((4, 4), value, np.int32) for value in (200, 300)]
    for rows in (as_rows(images), as_rows(pils(images))):
        rows = rows.in_float_range()
        np.testing.assert_allclose(
            [rows.image(0)[0, 0], rows.image(1)[0, 0]], [200 / 65535, 300 / 65535]
        )


def test_dtypes_in_a_list_keep_their_meaning():
    levels = [X[0], np.float32(X[1] / 255), X[2] > 100]
    rows = as_rows(levels).in_float_range()
    np.testing.assert_array_equal(rows.image(0), X[0])
    np.testing.assert_array_equal(rows.image(1), np.float32(X[1] / 255))
    np.testing.assert_array_equal(rows.image(2), (X[2] > 100) * 255)
    mixed = [x if row % 2 else np.float32(x / 255) for row, x in enumerate(X)]
    assert student(mixed).score(X, Y) == 1


def test_numbers_a_little_outside_of_the_range_are_inside(of_fractions):
    images = X / X.max()
    expected = of_fractions.predict_proba(images)
    images[0, 0, 0] = 1 + 1e-6
    images[1, 0, 0] = -1e-7
    np.testing.assert_allclose(of_fractions.predict_proba(images)[2:], expected[2:], atol=1e-6)
    overshooting = X / X.max() * 1.0005
    features = extractor(cache=None).fit_transform(overshooting[:6]).features
    expected = extractor(cache=None).fit_transform(np.minimum(overshooting, 1)[:6]).features
    np.testing.assert_array_equal(features, expected)


def test_floats_after_bytes_are_fractions_up_to_1_and_levels_above(of_bytes):
    dark = X * 0.9 / X.max()
    expected = of_bytes.predict_proba((dark * 255).round().astype(np.uint8))
    for given in (dark, dark[:1]):
        np.testing.assert_allclose(of_bytes.predict_proba(given), expected[: len(given)], atol=0.02)
    expected = of_bytes.predict_proba(X)
    np.testing.assert_allclose(of_bytes.predict_proba(X[:1] * 1.0), expected[:1], atol=1e-6)


def test_red_green_blue_and_near_infrared_of_16_bits_are_bands():
    bands = np.concatenate([RGB, X[..., None]], axis=3).astype(np.uint16) * 40
    model = student(bands)
    assert model.module_.standardise.num_features == 4
    assert model.score(bands, Y) == 1


# ---------------------------------------------------------------- teachers


def extractor(model="effnet-lite0", **parameters):
    return FoundationFeatureExtractor(model, **parameters)


@pytest.mark.parametrize(
    "images",
    [LEVELS["float32"], LEVELS["F"], FRACTIONS["float64"], CERTAIN["I"], CERTAIN["LA"]],
    ids=["float32", "F", "fractions", "I", "LA"],
)
def test_a_teacher_sees_the_same_in_every_encoding(images):
    expected = extractor(cache=None).fit_transform(X[:6]).features
    features = extractor(cache=None).fit_transform(images[:6]).features
    np.testing.assert_allclose(features, expected, atol=1e-3)


@pytest.mark.parametrize("hold", [lambda x: x, lambda x: pd.DataFrame({"image": list(x)})])
def test_teacher_and_student_remember_the_range_of_the_fit(hold):
    model = "effnet-lite0"
    model = {"image": model} if isinstance(hold(X), pd.DataFrame) else model
    pipe = make_pipeline(extractor(model), AFTClassifier(ResNet, max_epochs=10, random_state=0))
    levels, fractions = X.astype(np.float32), np.float32(X / 255)
    pipe.fit(hold(levels[:40]), Y[:40])
    np.testing.assert_array_equal(pipe.predict_proba(hold(X)), pipe.predict_proba(hold(levels)))
    np.testing.assert_array_equal(
        pipe.predict_proba(hold(pils(X))), pipe.predict_proba(hold(levels))
    )
    black = hold((X > 100).astype(np.uint8)[:4])
    features = pipe[0].transform(hold((X > 100).astype(float)[:4])).features
    np.testing.assert_allclose(features, pipe[0].transform(black).features, atol=1e-3)
    with pytest.raises(ValueError, match="between 0 and 1, but the images seen during fit"):
        pipe[0].transform(hold(fractions)).features  # noqa: B018


def test_a_module_sees_the_same_in_every_encoding():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 4))
    expected = extractor(module).fit_transform(X).features
    for images in (LEVELS["float32"], FRACTIONS["float64"], LEVELS["F"], CERTAIN["I;16"]):
        features = extractor(module).fit_transform(images).features
        np.testing.assert_allclose(features, expected, atol=1e-4)


def test_a_teacher_of_pictures_refuses_other_bands_and_ranges():
    with pytest.raises(ValueError, match=r"row 0 has 13 bands .*\(8, 8, 13\).*choose three"):
        extractor().fit(RNG.rand(4, 8, 8, 13))
    with pytest.raises(ValueError, match="row 0 has 2 bands"):
        extractor().fit([RNG.rand(8, 8, 2), RNG.rand(9, 9, 2)])
    with pytest.raises(ValueError, match=r"reads pictures: .* floats partly negative"):
        extractor().fit((X - 40.0) / 50)


def test_functions_and_modules_read_all_bands_and_ranges():
    bands = RNG.randn(4, 8, 8, 13)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8 * 8 * 13, 4))
    assert extractor(module).fit_transform(bands).features.shape == (4, 4)
    means = extractor(lambda images: images.mean(axis=(1, 2))).fit_transform(bands).features
    np.testing.assert_allclose(means, bands.mean(axis=(1, 2)), rtol=1e-5)


def test_a_student_of_all_bands_learns_from_a_teacher_of_three():
    bands = RNG.rand(20, 16, 16, 13)
    frame = pd.DataFrame({"all": list(bands), "three": list(bands[..., :3])})
    pipe = make_pipeline(
        extractor({"three": "effnet-lite0"}, inputs="all"),
        AFTClassifier(max_epochs=2, random_state=0),
    )
    pipe.fit(frame, np.arange(20) % 2)
    assert pipe.predict(frame[["all"]]).shape == (20,)


# ---------------------------------------------------------------- files


def test_pictures_are_turned_upright(photographs):
    picture = photographs[0][:40]
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.fromarray(np.rot90(picture).copy())
    for format in ("PNG", "TIFF"):
        content = encoded(lying, format, exif=exif)
        for form in (content, Image.open(io.BytesIO(content))):
            assert image_shape(form, 0) == (40, 64, 3)
            np.testing.assert_array_equal(load_image(form, 0), picture)
            assert image_shape(form, 0) == (40, 64, 3)
    content = encoded(lying, "JPEG", exif=exif, quality=95)
    upright = encoded(picture, "JPEG", quality=95)
    rows = extractor().fit_transform([content, upright])
    first, second = rows.features
    assert first @ second / np.linalg.norm(first) / np.linalg.norm(second) > 0.98


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 7, 8])
def test_every_orientation_is_known(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    seen = RGB[0][:10]
    stored = {
        2: seen[:, ::-1],
        3: seen[::-1, ::-1],
        4: seen[::-1],
        5: seen.swapaxes(0, 1),
        7: seen[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(seen, -1),
    }
    content = encoded(np.ascontiguousarray(stored[orientation]), exif=exif)
    np.testing.assert_array_equal(load_image(content, 0), seen)


def test_broken_exif_data_leave_the_picture_readable():
    image = Image.fromarray(RGB[0])
    warnings.simplefilter("ignore")  # Pillow says that it is broken
    image.info["exif"] = b"Exif\0\0MM\0*\0\0\0\x08\0\xff"
    np.testing.assert_array_equal(load_image(image, 0), RGB[0])


def test_features_of_images_as_they_were_read_before_are_not_found_again():
    content = encoded(X[0])
    assert row_digests(as_rows([content]))[0] != xxhash.xxh3_128_digest(b"file\0" + content)
    seed = xxhash.xxh3_64_intdigest(f"array {BAR.dtype.str} {BAR.shape}".encode())
    assert row_digests(as_rows(BAR[None]))[0] != xxhash.xxh3_128_digest(BAR.data, seed)


TRANSPARENT = {
    "array": BAR,
    "levels": BAR.astype(float),
    "fractions": BAR / 255,
    "RGBA": Image.fromarray(BAR),
    "RGBa": Image.fromarray(BAR).convert("RGBa"),
    "LA": Image.fromarray(BAR).convert("LA"),
    "La": Image.fromarray(BAR).convert("LA").convert("La"),
    "PNG": encoded(BAR),
    "TIFF": encoded(BAR, "TIFF"),
    "GIF": encoded(BAR, "GIF"),
    "P": Image.open(io.BytesIO(encoded(BAR, "GIF"))),
    "grey with tRNS": encoded(np.where(BAR[..., 3], 0, 9).astype(np.uint8), transparency=9),
    "RGB with tRNS": encoded(np.where(BAR[..., 3:], 0, 9).repeat(3, 2).astype(np.uint8),
                             transparency=(9, 9, 9)),
    "16 bits with tRNS": encoded(np.where(BAR[..., 3], 0, 9).astype(np.uint16), transparency=9),
}  # fmt: skip


@pytest.mark.parametrize("form", TRANSPARENT.values(), ids=TRANSPARENT)
def test_transparent_images_are_put_on_white(form):
    image = as_rows([form]).in_float_range().image(0)
    image = image * 255 if image.dtype != np.uint8 else image
    np.testing.assert_array_equal(image, ON_WHITE if image.ndim == 3 else ON_WHITE[..., 0])


def test_teacher_and_student_see_the_same_on_white():
    images = np.stack([BAR, np.rot90(BAR)] * 10)
    on_white = np.stack([ON_WHITE, np.rot90(ON_WHITE)] * 10)
    np.testing.assert_allclose(
        extractor().fit_transform(images[:2]), extractor().fit_transform(on_white[:2]), atol=1e-3
    )
    model = AFTClassifier(ResNet, beta=0, max_epochs=60, random_state=0)
    model.fit(images, np.arange(20) % 2)
    assert model.score(on_white, np.arange(20) % 2) == 1


def test_half_transparent_colours_are_mixed_with_white():
    half = Image.new("RGBA", (2, 2), (200, 0, 100, 51))
    np.testing.assert_array_equal(load_image(half, 0)[0, 0], [244, 204, 224])
    np.testing.assert_array_equal(load_image(np.asarray(half), 0)[0, 0], [244, 204, 224])


def test_lab_is_a_colour_space_too():
    profiles = [ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")]
    transform = ImageCms.buildTransform(*profiles, "RGB", "LAB")
    lab = ImageCms.applyTransform(Image.new("RGB", (4, 4), (200, 90, 30)), transform)
    try:
        colours = load_image(lab, 3)
    except ValueError as error:  # Pillow learned to convert it
        assert "Row 3 " in str(error)  # noqa: PT017
    else:
        np.testing.assert_allclose(colours[0, 0], [200, 90, 30], atol=3)


def test_of_an_animation_the_first_frame_is_read():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    for format in ("GIF", "WEBP", "PNG"):
        buffer = io.BytesIO()
        options = {"lossless": True} if format == "WEBP" else {}
        frames[0].save(buffer, format, save_all=True, append_images=frames[1:], **options)
        assert load_image(buffer.getvalue(), 0)[0, 0].tolist() == [255, 0, 0]


def test_images_of_too_many_pixels_are_rows_that_cannot_be_read(monkeypatch):
    images = [encoded(x) for x in RGB[:6]]
    images[3] = encoded(np.zeros((40, 40, 3), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    message = r"Row 3 \(bytes\) is not a readable image: .*exceeds limit"
    with pytest.raises(ValueError, match=message):
        extractor().fit_transform(images)
    with pytest.raises(ValueError, match=message):
        student(images, Y[:6])
    with pytest.warns(UserWarning, match=message):
        rows = extractor(on_error="mask").fit_transform(images)
    assert np.flatnonzero(rows.missing_mask).tolist() == [3]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with pytest.raises(ValueError, match=message):
            extractor().fit_transform(images)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
def test_a_broken_file_is_a_row_that_cannot_be_read_wherever_it_broke(format, photographs):
    content = encoded(photographs[0], format)
    rng = np.random.RandomState(0)
    for _ in range(150):
        broken = bytearray(content[: rng.randint(1, len(content))])
        for place in rng.randint(0, min(len(broken), 200), 5):
            broken[place] = rng.randint(256)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                load_image(bytes(broken), 7)
        except ValueError as error:
            assert str(error).startswith("Row 7 (bytes) is not a readable image")  # noqa: PT017


@pytest.mark.parametrize("hold", [np.array, list, pils], ids=["array", "list", "F"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_with_numbers_that_are_missing_name_the_row(hold, value):
    images = np.float32(X[:6] / 255)
    images[4, 2, 2] = value
    message = "Row 4 is an image that holds NaN or infinity"
    with pytest.raises(ValueError, match=message):
        student(hold(images), Y[:6])
    with pytest.raises(ValueError, match=message):
        extractor().fit_transform(hold(images))
    with pytest.warns(UserWarning, match=message):
        rows = extractor(on_error="mask").fit_transform(hold(images))
    assert np.flatnonzero(rows.missing_mask).tolist() == [4]


def test_a_path_with_a_null_character_names_the_row():
    with pytest.raises(ValueError, match=r"Row 1 .*is not a readable image"):
        row_digests(as_rows(["tests.png", "a\0b.png"][1:] * 2), first_row=1)


def test_whole_numbers_that_are_no_levels_name_the_row():
    for images, found in [
        (X - np.int64(400), "255, got -399"),
        (X * np.int64(9999), "65535, got .* to 1"),
    ]:
        for held in (list(images), pils(np.int32(images))):
            message = rf"Row 0 cannot be read. .* be 0 to {found}"
            with pytest.raises(ValueError, match=message):
                student(held)


def test_rows_of_unlike_encodings_are_put_one_after_another():
    together = as_rows(X[:3]).in_float_range().concat(as_rows(X[3:6] / 255).in_float_range())
    images = [together.image(row) for row in range(6)]
    for image, expected in zip(images, X, strict=False):
        scale = 1 if image.dtype == np.uint8 else 255
        np.testing.assert_allclose(image * scale, expected, atol=1e-4)


def test_unlabeled_images_of_another_encoding():
    features = extractor(lambda x: np.reshape(x, (len(x), -1))[:, :5] * 1.0).fit(X)
    model = AFTClassifier(ResNet, max_epochs=10, batch_size=16, random_state=0)
    model.fit(
        features.transform(X[:60]), Y[:60], X_unlabeled=features.transform(np.float32(X[60:] / 255))
    )
    assert model.score(X, Y) == 1


def test_rows_that_mean_different_things_are_put_one_after_another():
    masks = as_rows(MASKS[:3]).in_float_range()
    deep = as_rows(X[3:6].astype(np.uint16) * 257).in_float_range()
    together = masks.concat(as_rows(X[3:6]).in_float_range()).concat(deep)
    expected = [*(MASKS[:3] * 255), *X[3:6], *X[3:6]]
    for row, image in enumerate(expected):
        scale = 1 if together.image(row).dtype == np.uint8 else 255
        np.testing.assert_allclose(together.image(row) * scale, image, atol=1e-3)


def test_features_of_the_same_numbers_read_otherwise_are_not_found_again():
    for narrow, wide in [(MASKS, X), (X.astype(np.uint16), X.astype(np.uint16) * 257)]:
        for hold in (np.asarray, list, pils):
            alone = as_rows(hold(narrow)).in_float_range()
            beside = as_rows(hold(np.concatenate([narrow, wide]))).in_float_range()
            assert not set(row_digests(alone)) & set(row_digests(beside))


class Counted(bytes):
    """The bytes of a file that are counted when they are read as a whole."""

    reads = 0

    def __bytes__(self):
        Counted.reads += 1
        return self


@pytest.mark.parametrize(
    ("format", "hold", "of_fit", "of_predict"),
    [
        ("PNG", list, 2, 1),
        ("JPEG", list, 2, 1),
        ("TIFF", list, 3, 2),
        ("PNG", lambda x: pd.DataFrame({"image": x}), 2, 1),
        ("TIFF", lambda x: pd.DataFrame({"image": x}), 3, 2),
    ],
)
def test_files_are_read_no_more_often_than_needed(format, hold, of_fit, of_predict):
    files = [Counted(encoded(x, format)) for x in X[:20]]
    Counted.reads = 0
    model = AFTClassifier(ResNet, beta=0, max_epochs=1, random_state=0).fit(hold(files), Y[:20])
    assert Counted.reads <= of_fit * 20 + 1  # one is looked at for zeros and ones
    Counted.reads = 0
    model.predict(hold(files))
    assert Counted.reads <= of_predict * 20


def test_the_columns_that_only_the_student_reads_keep_their_range():
    frame = pd.DataFrame({"image": list(X / 255), "depth": list(X * 1.0), "text": "a"})
    teacher = extractor(
        {"image": lambda images: np.mean(images, axis=(1, 2))[:, None]}, inputs=["image", "depth"]
    )
    model = AFTClassifier(max_epochs=2, batch_size=16, random_state=0)
    model.fit(teacher.fit_transform(frame), Y)
    dark = frame.assign(depth=list(X / 2.5))
    expected = model.predict_proba(dark[["image", "depth"]])
    np.testing.assert_array_equal(model.predict_proba(teacher.transform(dark)), expected)


def test_without_a_preprocessor_the_dtype_may_not_change():
    images = np.moveaxis(RGB, 3, 1).repeat(2, axis=2).repeat(2, axis=3)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32 * 32 * 3, 2))
    model = AFTClassifier(network, beta=0, preprocessor=None, max_epochs=1).fit(images / 255, Y)
    with pytest.raises(ValueError, match="they are uint8, but those seen during fit were float32"):
        model.predict(images)
