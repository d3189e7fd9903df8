"""Small fitted students of every kind, with rows that they were not trained on."""

from functools import cache

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, QuantileTransformer, StandardScaler
from torch import nn

from sk_aft import AFTClassifier, AFTRegressor
from sk_aft.modules import MLP, ResNet

TEXTS = ["my card is lost", "where is my card", "exchange rates today", "the rate of exchange"] * 10
LABELS = np.array(["card", "card", "rate", "rate"] * 10)
OTHER_TEXTS = ["", "card", "what is the exchange rate?", "my my card card unknownword", "?"]

IRIS, SPECIES = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[SPECIES]
PIXELS, DIGITS = load_digits(return_X_y=True)
IMAGES = (PIXELS.reshape(-1, 8, 8) * 15).astype(np.uint8)


class TwoLayers(nn.Module):
    def __init__(self, n_inputs, n_outputs, width=8):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n_inputs, width), nn.ReLU())
        self.head = nn.Linear(width, n_outputs)

    def forward(self, inputs):
        features = self.body(inputs)
        return self.head(features), features


def frame(texts=TEXTS):
    n = len(texts)
    return pd.DataFrame(
        {
            "text": texts,
            "image": list(IMAGES[:n]),
            "age": np.arange(n, dtype=float),
            "height": np.linspace(1.5, 2, n),
            "town": pd.Categorical([["Bern", "Basel", None][i % 3] for i in range(n)]),
        }
    )


def small(estimator=AFTClassifier, **parameters):
    return estimator(**{"beta": 0, "random_state": 0, "max_epochs": 2, **parameters})


@cache
def student(name):
    """Return a fitted student and rows to predict."""
    return _STUDENTS[name]()


def _numbers(module="auto", y=NAMES, estimator=AFTClassifier, rows=IRIS, **parameters):
    return small(estimator, module=module, **parameters).fit(rows[::2], y[::2]), rows[1::2]


def _texts(y=LABELS, estimator=AFTClassifier, **parameters):
    start = {} if "module" in parameters or "preprocessor" in parameters else {"start": "random"}
    parameters |= {f"module__{name}": value for name, value in start.items()}
    return small(estimator, **parameters).fit(TEXTS, y), OTHER_TEXTS


def _images(images=IMAGES, **parameters):
    return small(**parameters).fit(images[:60], DIGITS[:60]), images[60:80]


_LITE = {"module__n_blocks": 2, "module__image_size": 32, "max_epochs": 1}
_HOLES = np.where(np.arange(600).reshape(150, 4) % 7 == 3, np.nan, IRIS)
_STUDENTS = {
    "numbers": _numbers,
    "hidden layers": lambda: _numbers(MLP, module__hidden_sizes=[8, 4], module__dropout=0.1),
    "no hidden layer": lambda: _numbers(MLP, module__hidden_sizes=()),
    "numbers of a frame": lambda: _numbers(rows=pd.DataFrame(IRIS, columns=list("abcd"))),
    "int labels": lambda: _numbers(y=SPECIES),
    "bool labels": lambda: _numbers(y=SPECIES == 1),
    "object labels": lambda: _numbers(y=NAMES.astype(object)),
    "own network": lambda: _numbers(TwoLayers, module__width=np.int64(6)),
    "no preprocessor": lambda: _numbers(preprocessor=None),
    "imputer": lambda: _numbers(
        rows=_HOLES, preprocessor=make_pipeline(SimpleImputer(), StandardScaler())
    ),
    "quantiles and components": lambda: _numbers(
        preprocessor=make_pipeline(QuantileTransformer(n_quantiles=20), PCA(3, random_state=0))
    ),
    "regressor": lambda: _numbers(y=1e5 * IRIS[:, 2], estimator=AFTRegressor),
    "regressor of two": lambda: _numbers(y=IRIS[:, :2] * [1, 1e4], estimator=AFTRegressor),
    "texts": _texts,
    "texts, hidden layer": lambda: _texts(module__hidden_size=8, module__width=16),
    "texts, regressor": lambda: _texts(np.arange(40) * 1e3, AFTRegressor),
    "sparse rows": lambda: _texts(preprocessor=TfidfVectorizer(ngram_range=(1, 2))),
    "transformer": lambda: _texts(module="minilm", module__n_layers=1, max_epochs=1),
    "images": lambda: _images(**_LITE),
    "images, mirrored": lambda: _images(
        np.repeat(IMAGES[..., None], 3, axis=3), module__flip=True, **_LITE
    ),
    "resnet": lambda: _images(module=ResNet, module__widths=[4, 8], module__blocks_per_stage=2),
    "float images": lambda: _images(IMAGES / np.float32(255), **_LITE),
    "standardised images": lambda: _images((IMAGES - 100) / np.float32(50)),
    "columns": lambda: (
        small(module__start="random", max_epochs=1).fit(frame(), LABELS),
        frame(OTHER_TEXTS),
    ),
    "text and numbers": lambda: (
        small(AFTRegressor, module__start="random").fit(
            frame()[["text", "age"]], np.arange(40) * 1e3
        ),
        frame(OTHER_TEXTS)[["text", "age"]],
    ),
    "categories": lambda: (
        small(preprocessor=OneHotEncoder(handle_unknown="ignore", sparse_output=False)).fit(
            frame()["town"].fillna("Bern"), LABELS
        ),
        frame()["town"].fillna("Basel"),
    ),
}
NAMES_OF_STUDENTS = tuple(_STUDENTS)


def outputs(model, rows):
    """Return probabilities, or predictions in units of their spread."""
    if hasattr(model, "predict_proba"):
        return model.predict_proba(rows)
    predictions = np.asarray(model.predict(rows))
    return predictions / np.maximum(1, np.abs(predictions).max(axis=0))


def weights(model):
    return torch.cat([values.detach().flatten() for values in model.module_.parameters()])
