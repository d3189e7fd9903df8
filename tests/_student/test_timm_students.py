"""Students that start from a model of timm or torchvision."""

import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

from sk_aft import AFTClassifier, AFTRegressor  # noqa: E402
from sk_aft.modules import PretrainedImage  # noqa: E402

RANDOM = np.random.RandomState(0)
Y = np.arange(48) % 2
X = RANDOM.randint(60, 190, (48, 32, 32, 3)).astype(np.uint8)
X[Y == 1, 8:24, 8:24] //= 3  # a dark square
PICTURES = np.empty(len(X), dtype=object)
PICTURES[:] = [Image.fromarray(image).resize((40 + row, 50)) for row, image in enumerate(X)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    torch.manual_seed(0)
    path = str(tmp_path_factory.mktemp("model"))
    timm.models.save_for_hf(timm.create_model("test_resnet"), path, safe_serialization=True)
    return path


@pytest.fixture
def spec(directory):
    return f"timm:{directory}"


def student(module, kind=AFTClassifier, **parameters):
    defaults = {"beta": 0, "lr": 2e-3, "max_epochs": 3, "batch_size": 16, "random_state": 0}
    defaults |= {"module__image_size": 32, "module__head_lr_factor": 3}
    return kind(module, **{**defaults, **parameters})


def weights_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "torchvision"])
def test_an_instance_learns_and_stays_as_it_was(name):
    torch.manual_seed(0)
    if name == "torchvision":
        module, parameters = torchvision.models.resnet18(), {}
    else:
        size = {"img_size": 32} if name == "test_vit" else {}
        module, parameters = timm.create_model(name, **size), {"max_epochs": 12}
    before = weights_of(module)
    model = student(module, **parameters).fit(X, Y)
    assert model.score(X, Y) >= 0.95
    assert isinstance(model.module_, PretrainedImage)
    for key, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, before[key])
    assert model.module is module


def test_a_name_learns_pictures_of_many_sizes(spec):
    model = student(spec, max_epochs=12).fit(PICTURES, Y)
    assert model.score(PICTURES, Y) >= 0.95
    assert model.preprocessor_.size_ == (32, 32)
    assert model.preprocessor_.crop_fraction == 0.95


def test_a_regressor_learns(spec):
    model = student(spec, AFTRegressor, max_epochs=20).fit(X, Y.astype(float))
    assert model.score(X, Y.astype(float)) > 0.7


def test_predictions_are_those_of_the_network_on_timms_own_input(spec, directory):
    model = student(spec, max_epochs=1).fit(PICTURES, Y)
    config = timm.data.resolve_data_config(
        {"input_size": (3, 32, 32)}, model=timm.create_model(f"local-dir:{directory}")
    )
    transform = timm.data.create_transform(**config)
    inputs = torch.stack([transform(picture) for picture in PICTURES])
    network = model.module_.eval()
    with torch.no_grad():
        maps = network.network.forward_features(inputs)
        logits = network.head(network.network.forward_head(maps, pre_logits=True))
    expected = logits.softmax(1).numpy()
    np.testing.assert_allclose(model.predict_proba(PICTURES), expected, atol=0.03)


def test_frozen_layers_do_not_change_and_are_not_in_the_optimizer(spec):
    model = student(spec, module__n_frozen_layers=4).fit(X, Y)
    original = PretrainedImage(spec, n_outputs=2, n_frozen_layers=4)
    frozen, trained = model.module_.layers[:4], model.module_.layers[4:]
    for mine, theirs in zip(frozen, original.layers[:4], strict=True):
        for key, tensor in theirs.state_dict().items():  # running statistics, too
            torch.testing.assert_close(mine.state_dict()[key], tensor)
    groups = model.optimizer_.param_groups
    optimized = {id(weights) for group in groups for weights in group["params"]}
    assert not optimized & {id(w) for layer in frozen for w in layer.parameters()}
    assert optimized >= {id(w) for layer in trained for w in layer.parameters()}
    rate_of = {id(w): group["initial_lr"] for group in groups for w in group["params"]}
    assert rate_of[id(model.module_.head.weight)] == pytest.approx(3 * 2e-3)
    assert rate_of[id(next(trained[0].parameters()))] == pytest.approx(2e-3)


def test_layers_near_the_input_learn_slowly(spec):
    model = student(spec, module__layer_decay=0.5, max_epochs=1).fit(X, Y)
    groups = model.optimizer_.param_groups
    rate_of = {id(w): group["initial_lr"] for group in groups for w in group["params"]}
    layers = model.module_.layers
    rates = [rate_of[id(next(layer.parameters()))] for layer in layers]
    np.testing.assert_allclose(rates, 2e-3 * 0.5 ** np.arange(len(layers))[::-1])


def test_a_search_over_the_size_of_the_images(spec):
    search = GridSearchCV(
        student(spec, max_epochs=1), {"module__image_size": [32, 48]}, cv=2, error_score="raise"
    ).fit(X, Y)
    size = search.best_params_["module__image_size"]
    assert search.best_estimator_.module_.prepare.geometry.size == (size, size)
    pickle.loads(pickle.dumps(search)).predict(X)


def test_clones_partial_fit_and_warm_start(spec):
    model = student(spec).fit(X, Y)
    again = clone(model).fit(X, Y)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    for module in (spec, torchvision.models.resnet18()):
        model = student(module)
        for _ in range(2):
            model.partial_fit(X, Y, classes=[0, 1])
        assert model.n_iter_ == 2
        model = student(module, warm_start=True, max_epochs=2).fit(X, Y)
        assert model.fit(X, Y).n_iter_ == 4
        with pytest.raises(ValueError, match="module__image_size differs from what the training"):
            model.set_params(module__image_size=48).fit(X, Y)


@pytest.mark.parametrize("transfer", ["aft", "probe-kd"])
def test_unlabelled_rows_and_transfer(spec, transfer):
    features = RANDOM.normal(size=(len(X), 5)) + Y[:, None]
    y = np.where(np.arange(len(Y)) % 4, Y, -1)
    model = student(spec, beta="auto", transfer=transfer, missing_label=-1, max_epochs=8)
    model.fit(X, y, features=features)
    assert model.score(X, Y) >= 0.9
    assert model.transfer_method_ == transfer


def test_a_fitted_student_needs_neither_the_hub_nor_the_models_files(directory, tmp_path):
    copied = tmp_path / "model"
    shutil.copytree(directory, copied)
    model = student(f"timm:{copied}", max_epochs=1).fit(X, Y)
    (tmp_path / "student.pickle").write_bytes(pickle.dumps(model))
    np.savez(tmp_path / "rows.npz", X=X, y=Y, expected=model.predict_proba(X))
    shutil.rmtree(copied)
    program = """
import pickle, sys, numpy as np
model = pickle.load(open("student.pickle", "rb"))
rows = np.load("rows.npz")
np.testing.assert_allclose(model.predict_proba(rows["X"]), rows["expected"], atol=1e-5)
model.partial_fit(rows["X"], rows["y"])
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


def test_floats_are_the_same_pictures(directory):
    """Bicubic interpolation exceeds the range of floats."""
    module = timm.create_model("test_efficientnet")
    high_contrast = np.where(X > 120, 255, 0).astype(np.uint8)
    for size in (24, 48):  # smaller and larger than the images
        model = student(module, module__image_size=size, max_epochs=1)
        expected = model.fit(high_contrast, Y).predict_proba(high_contrast)
        floats = model.fit(high_contrast / 255, Y).predict_proba(high_contrast / 255)
        np.testing.assert_allclose(floats, expected, atol=0.02)


def test_grey_images_and_other_kinds(spec):
    grey = X.mean(axis=3).astype(np.uint8)
    model = student(spec, max_epochs=12).fit(grey, Y)
    assert model.score(grey, Y) >= 0.95
    with pytest.raises(ValueError, match=r"reads rows of kind 'image', and these are of kind 'te"):
        student(spec).fit(["a text", "another text"] * 4, [0, 1] * 4)
    with pytest.raises(ValueError, match="module='ResNet' reads rows of kind 'image'"):
        student(torchvision.models.resnet18()).fit(["a text", "another text"] * 4, [0, 1] * 4)


def test_standardised_images_are_refused(spec):
    standardised = ((X / 255 - 0.5) / 0.25).astype(np.float32)
    with pytest.raises(ValueError, match="reads pictures: uint8, or floats between 0 and 1"):
        student(spec).fit(standardised, Y)
    planes = standardised.transpose(0, 3, 1, 2)
    with pytest.raises(ValueError, match=r"standardises images itself: .* returned others"):
        student(torchvision.models.resnet18(), preprocessor=None).fit(planes, Y)


def test_an_unknown_name_is_found_before_the_rows_are_read():
    def rows():
        raise AssertionError
        yield

    with pytest.raises(ValueError, match="module='timm:resnet81' is unknown"):
        student("timm:resnet81").fit(rows(), Y)


@pytest.mark.parametrize("size", [0, 64.0])
def test_sizes_that_are_none(spec, size):
    with pytest.raises(ValueError, match=r"The size of images is .*: expected a pos"):
        student(spec, module__image_size=size).fit(X, Y)


def test_parameters_of_the_preprocessor_replace_those_of_the_model(spec):
    model = student(spec, preprocessor__size=48, max_epochs=1).fit(X, Y)
    assert model.preprocessor_.size_ == (48, 48)
    assert model.preprocessor_.crop_fraction == 1  # the network crops them
    with pytest.raises(ValueError, match="Invalid parameter preprocessor__crop: ImageResizer"):
        student(spec, preprocessor__crop=0.5).fit(X, Y)


@pytest.mark.parametrize("n_rows", [1, 3])
def test_few_rows_are_normalised_with_the_running_statistics(spec, n_rows):
    model = student(spec, kind=AFTRegressor, max_epochs=2).fit(X[:n_rows], np.arange(n_rows))
    before = dict(PretrainedImage(spec, 1).network.named_buffers())
    after = dict(model.module_.network.named_buffers())
    means = [name for name in before if name.endswith("running_mean")]
    assert means
    for name in means:
        torch.testing.assert_close(after[name], before[name])
