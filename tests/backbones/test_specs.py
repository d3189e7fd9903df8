import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.cross_decomposition import PLSRegression
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetRegressor

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.backbones import (
    CallableBackbone,
    EfficientNetLiteBackbone,
    HuggingFaceBackbone,
    SentenceTransformerBackbone,
    SklearnBackbone,
    TorchBackbone,
    resolve_backbone,
)
from sk_aft.modules import MLP

X = np.random.default_rng(0).normal(size=(20, 3))


class Doubler:
    def __call__(self, rows):
        return 2 * rows


@pytest.mark.parametrize(
    ("model", "kind", "name"),
    [
        ("minilm", SentenceTransformerBackbone, "minilm"),
        ("effnet-lite0", EfficientNetLiteBackbone, "effnet-lite0"),
        ("effnet-lite1", EfficientNetLiteBackbone, "effnet-lite1"),
        ("effnet-lite2", EfficientNetLiteBackbone, "effnet-lite2"),
        ("st:somebody/some-model", SentenceTransformerBackbone, "some-model"),
        (torch.nn.Linear(3, 2), TorchBackbone, "linear"),
        (PCA(2).fit(X), SklearnBackbone, "pca"),
        (make_pipeline(StandardScaler(), PCA(2)).fit(X), SklearnBackbone, "pipeline"),
        (np.abs, CallableBackbone, "absolute"),
        (lambda rows: rows, CallableBackbone, "function"),
        (Doubler(), CallableBackbone, "Doubler"),
        (Doubler().__call__, CallableBackbone, "__call__"),
    ],
)
def test_what_may_be_a_model(model, kind, name):
    backbone = resolve_backbone(model)
    assert type(backbone) is kind
    assert backbone.name == name
    assert resolve_backbone(backbone) is backbone
    assert clone(backbone) is backbone
    assert name in repr(backbone)


@pytest.mark.parametrize("spec", ["", "minilm2", "MiniLM", "vit:timm", "st:", "hf:", ":x", "st"])
def test_an_unknown_spec_lists_the_known_ones(spec):
    with pytest.raises(ValueError, match="Unknown foundation model") as caught:
        resolve_backbone(spec)
    for known in ("'minilm'", "'effnet-lite0'", "'effnet-lite2'", "'st:NAME'", "'hf:NAME'"):
        assert known in str(caught.value)
    assert repr(spec) in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        ("minilmm", "Did you mean 'minilm'?"),
        ("MiniLM", "Did you mean 'minilm'?"),
        ("effnet_lite0", "Did you mean 'effnet-lite0'"),
        ("effnet-lite3", "'effnet-lite2'"),
        ("mine.onnx", "Did you mean 'onnx:mine.onnx'?"),
        ("models/mine.onnx", "Did you mean 'onnx:models/mine.onnx'?"),
        ("openclip:ViT-B-32/openai", "Did you mean 'open_clip:ViT-B-32/openai'?"),
        ("HF:bert-base-uncased", "Did you mean 'hf:bert-base-uncased'?"),
        ("torchvision:resnet18", "torchvision.models.resnet18(weights='DEFAULT')"),
        ("BAAI/bge-small-en", "write 'st:BAAI/bge-small-en' (sentence-transformers) or 'hf:BAAI"),
        ("resnet18", "Unknown foundation model 'resnet18'. Known: 'minilm'"),
        ("", "Unknown foundation model ''. Known: 'minilm'"),
    ],
)
def test_a_misspelled_spec_says_what_it_may_stand_for(spec, meant):
    with pytest.raises(ValueError, match="Unknown foundation model") as caught:
        resolve_backbone(spec)
    assert meant in str(caught.value)


@pytest.mark.parametrize("model", [None, 3, ["minilm"], {"a": 1}, X])
def test_what_is_no_model_says_what_may_be_one(model):
    with pytest.raises(TypeError, match=r"Cannot use an object of type .*'minilm'.*a function"):
        resolve_backbone(model)


@pytest.mark.parametrize("model", [PCA, torch.nn.Linear, TorchBackbone, dict])
def test_a_class_is_not_an_instance(model):
    with pytest.raises(TypeError, match=f"model is the class {model.__name__}: give an instance"):
        resolve_backbone(model)


# ---------------------------------------------------------------- predictors


NUMBERS, CLASSES = load_iris(return_X_y=True)


@pytest.mark.parametrize("fitted", [True, False])
@pytest.mark.parametrize(
    ("predictor", "expression"),
    [
        (LinearRegression(), "model.predict(rows).reshape(-1, 1)"),
        (GaussianNB(), "model.predict_proba(rows)"),
        (make_pipeline(StandardScaler(), GaussianNB()), "model.predict_proba(rows)"),
        (GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9]}), "model.predict_proba(rows)"),
        (RidgeClassifier(), "model.decision_function(rows).reshape(len(rows), -1)"),
        (AFTClassifier(beta=0, max_epochs=1), "model.predict_proba(rows)"),
        (
            NeuralNetRegressor(MLP, module__n_inputs=4, module__n_outputs=1),
            "model.predict(rows).reshape(-1, 1)",
        ),
    ],
)
def test_a_predictor_is_no_model_but_a_function_of_it_is(predictor, expression, fitted):
    with pytest.raises(TypeError) as caught:
        resolve_backbone(predictor)
    assert f"`lambda rows: {expression}`" in str(caught.value)
    assert type(predictor).__name__ in str(caught.value)
    if fitted and not isinstance(predictor, NeuralNetRegressor):
        model = clone(predictor).fit(NUMBERS, CLASSES)
        function = eval(f"lambda rows: {expression}", {"model": model, "len": len})
        rows = FoundationFeatureExtractor(function).fit_transform(NUMBERS)
        np.testing.assert_allclose(rows, function(NUMBERS), rtol=1e-6, atol=1e-30)


def test_a_method_that_returns_a_matrix_is_a_model_and_one_that_returns_a_vector_says_how():
    classifier = GaussianNB().fit(NUMBERS, CLASSES)
    rows = FoundationFeatureExtractor(classifier.predict_proba).fit_transform(NUMBERS)
    np.testing.assert_allclose(rows, classifier.predict_proba(NUMBERS), rtol=1e-6, atol=1e-30)
    vector = r"predict returned an array of shape \(1,\) for 1 rows.*reshape\(-1, 1\)"
    for where in ("auto", None):
        with pytest.raises(ValueError, match=vector):
            FoundationFeatureExtractor(classifier.predict, cache=where).fit(NUMBERS)
    named = GaussianNB().fit(NUMBERS, np.array(["a", "b", "c"])[CLASSES])
    with pytest.raises(ValueError, match="predict did not return a matrix of numbers"):
        FoundationFeatureExtractor(named.predict).fit(NUMBERS)


@pytest.mark.parametrize(
    "transformer",
    [KMeans(3, random_state=0, n_init=1), PLSRegression(2), LinearDiscriminantAnalysis()],
)
def test_a_transformer_that_predicts_as_well_is_a_transformer(transformer):
    with pytest.raises(NotFittedError, match="fit it first, on rows that no score is computed on"):
        resolve_backbone(transformer)
    transformer.fit(NUMBERS, CLASSES)
    rows = FoundationFeatureExtractor(transformer).fit_transform(NUMBERS)
    np.testing.assert_allclose(rows, transformer.transform(NUMBERS), rtol=1e-3, atol=1e-5)


def test_a_class_of_predictors_is_not_an_instance():
    with pytest.raises(TypeError, match="class GaussianNB: give an instance of it, fitted"):
        resolve_backbone(GaussianNB)


@pytest.mark.parametrize(
    ("encoder", "kind"),
    [("bert", HuggingFaceBackbone), ("bert-inside", SentenceTransformerBackbone)],
)
def test_a_directory_is_a_text_model(encoder, kind, encoder_directory):
    directory = encoder_directory(encoder)
    backbone = resolve_backbone(directory)
    assert type(backbone) is kind
    assert backbone.name_or_path == directory
    if kind is HuggingFaceBackbone:
        texts = ["my card", "the rate"]
        features = FoundationFeatureExtractor(directory, cache=None).fit_transform(texts).features
        named = FoundationFeatureExtractor(f"hf:{directory}", cache=None).fit_transform(texts)
        np.testing.assert_array_equal(features, named.features)
