"""The tasks: the data of each, and its methods as scikit-learn pipelines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft._quickstart._pseudo_labels import PseudoLabels
from sk_aft.datasets import load_banking77, load_fashion_mnist

BASELINE, RIVAL, STUDENT, TAUGHT, PROBE = "baseline", "rival", "student", "taught", "probe"
UNKNOWN = -1  # marks rows without a label
IMAGE_MODELS = ["effnet-lite0", "effnet-lite2"]


@dataclass(frozen=True)
class Method:
    """One way to solve a task.

    Parameters
    ----------
    role : {"baseline", "rival", "student", "taught", "probe"}
        Its place in the comparison.
    name : str
        Name to show.
    pipeline : Pipeline
        Unfitted, from raw rows to labels.
    grid : dict of str to list
        The values to choose from; all methods of a task have the same number of combinations.
    reads_unlabeled : bool, default=False
        Whether it is also given the rows without labels, whose label is `UNKNOWN`.
    """

    role: str
    name: str
    pipeline: Pipeline
    grid: dict[str, list[float]]
    reads_unlabeled: bool = False


@dataclass(frozen=True)
class Task:
    """Data and the methods to compare on it.

    Parameters
    ----------
    name : str
        Name in the command.
    title : str
        Name in the table and the figure.
    load : callable
        A loader of `sk_aft.datasets`.
    labels_per_class : int
        Labelled training rows drawn of each class.
    n_unlabeled : int
        Further training rows that are drawn without their labels.
    model : str or list of str
        Foundation models, as for `FoundationFeatureExtractor`.
    methods : callable
        From a random state to the list of `Method`.
    """

    name: str
    title: str
    load: Callable[..., Any]
    labels_per_class: int
    n_unlabeled: int
    model: str | list[str]
    methods: Callable[[int], list[Method]]


def text_methods(random_state: int) -> list[Method]:
    """Return the methods for texts."""
    extractor = FoundationFeatureExtractor("minilm")
    student: dict[str, Any] = {"missing_label": UNKNOWN, "random_state": random_state}
    probe = make_pipeline(extractor, LogisticRegression(C=100, max_iter=1000))
    return [
        Method(
            BASELINE,
            "TF-IDF + logistic regression",
            tfidf_classifier(),
            {"logisticregression__C": [1, 10, 100]},
        ),
        Method(
            RIVAL,
            "TF-IDF on the probe's labels",
            make_pipeline(PseudoLabels(probe, tfidf_classifier())),
            {"pseudolabels__model__logisticregression__C": [1, 10, 100]},
            reads_unlabeled=True,
        ),
        Method(
            STUDENT,
            "Student alone",
            make_pipeline(extractor, AFTClassifier(beta=0, **student)),
            {"aftclassifier__lr": [3e-4, 1e-3, 3e-3]},
            reads_unlabeled=True,  # they are part of the tokenizer's texts, but teach nothing
        ),
        Method(
            TAUGHT,
            "Student taught by MiniLM",
            make_pipeline(extractor, AFTClassifier(transfer="probe-kd", **student)),
            {"aftclassifier__lr": [3e-4, 1e-3, 3e-3]},
            reads_unlabeled=True,
        ),
        Method(
            PROBE,
            "MiniLM + logistic regression",
            make_pipeline(extractor, LogisticRegression(max_iter=1000)),
            {"logisticregression__C": [10, 100, 1000]},
        ),
    ]


def tfidf_classifier() -> Pipeline:
    """Return a linear model of words, pairs of words and pieces of words."""
    # Pieces of words are worth several points with few labels.
    tfidf = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"),
        TfidfVectorizer(ngram_range=(3, 4), sublinear_tf=True, analyzer="char_wb"),
    )
    return make_pipeline(tfidf, LogisticRegression(max_iter=1000, tol=1e-3))


def image_methods(random_state: int) -> list[Method]:
    """Return the methods for images."""
    extractor = FoundationFeatureExtractor(IMAGE_MODELS)
    probe = make_pipeline(extractor, StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    rates = {"aftclassifier__lr": [1e-3, 3e-3, 1e-2]}
    # Convolutions of larger images are slow on two cores.
    student: dict[str, Any] = {
        "module__image_size": 32,
        "batch_size": 32,
        "missing_label": UNKNOWN,
        "random_state": random_state,
    }
    return [
        Method(
            BASELINE,
            "Pixels + logistic regression",
            pixel_classifier(),
            {"logisticregression__C": [0.01, 0.1, 1]},
        ),
        Method(
            RIVAL,
            "Pixels on the probe's labels",
            make_pipeline(PseudoLabels(probe, pixel_classifier())),
            {"pseudolabels__model__logisticregression__C": [0.01, 0.1, 1]},
            reads_unlabeled=True,
        ),
        Method(
            STUDENT,
            "Student alone",
            make_pipeline(extractor, AFTClassifier(beta=0, max_epochs=40, **student)),
            rates,
        ),
        Method(
            TAUGHT,
            "Student taught by both",
            make_pipeline(extractor, AFTClassifier(transfer="probe-kd", max_epochs=1, **student)),
            rates,
            reads_unlabeled=True,
        ),
        Method(
            PROBE,
            "Linear probe of both",
            make_pipeline(extractor, StandardScaler(), LogisticRegression(max_iter=1000)),
            {"logisticregression__C": [0.001, 0.01, 0.1]},
        ),
    ]


def pixel_classifier() -> Pipeline:
    """Return a linear model of pixels."""
    return make_pipeline(FunctionTransformer(flatten_pixels), LogisticRegression(max_iter=1000))


def flatten_pixels(images: np.ndarray) -> np.ndarray:
    """Return one row of numbers between 0 and 1 for each image."""
    return np.stack(list(images)).reshape(len(images), -1) / 255


TASKS = {
    "text": Task("text", "Banking77", load_banking77, 10, 3000, "minilm", text_methods),
    "images": Task(
        "images", "Fashion-MNIST", load_fashion_mnist, 10, 2000, IMAGE_MODELS, image_methods
    ),
}
