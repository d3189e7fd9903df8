"""The rivals of transfer: what else learns from the same rows, as scikit-learn pipelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline, make_union
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, SVR

from sk_aft._data._rows import Rows
from sk_aft._extractor import FoundationFeatureExtractor
from sk_aft._predictors._soft_targets import is_predictor
from sk_aft.model_selection._comparison._candidate import RIVAL, TEACHER, Candidate
from sk_aft.model_selection._comparison._hog_features import HogFeatures
from sk_aft.model_selection._comparison._inner_search import InnerSearch
from sk_aft.model_selection._comparison._pseudo_labels import PseudoLabels
from sk_aft.model_selection._comparison._row_readers import TableReader, TextReader
from sk_aft.model_selection._comparison._static_embeddings import StaticEmbeddings

_TABLES = ("numeric", "category")
# Histogram boosting bins 255 values of a column.
_MOST_CATEGORIES = 250
_MANY_ROWS = 2000
# With fewer, a tenth of an inner fold may lack the class.
_ROWS_OF_CLASS_TO_STOP_EARLY = 40
_TEXT_STRENGTHS = (1, 10, 100)
_TABLE_STRENGTHS = (0.1, 1, 10)
# Of standardised features: the penalty of an image model's is smaller, because it has more.
_PROBE_STRENGTHS, _IMAGE_PROBE_STRENGTHS = (0.01, 0.1, 1), (0.001, 0.01, 0.1)


def rivals(
    rows: Rows,
    task: str,
    model: Any,
    *,
    missing_label: Any = None,
    has_unlabeled: bool = False,
    n_labeled: int,
    n_smallest_class: int,
    random_state: Any = None,
) -> list[Candidate]:
    """Return the rivals that fit the rows.

    Each is a pipeline from raw rows to targets, which chooses its main hyper-parameter among three
    values by an inner cross-validation of the rows that it is fitted to.

    Parameters
    ----------
    rows : Rows
        Recognised rows; only their kinds count.
    task : {"classification", "regression"}
        What the targets are.
    model : object
        As for `FoundationFeatureExtractor`; None if there is no foundation model.
    missing_label : object, default=None
        Marks rows without a target.
    has_unlabeled : bool, default=False
        Whether there are such rows.
    n_labeled : int
        Number of rows with a target.
    n_smallest_class : int
        Number of labelled rows of the rarest class.
    random_state : int, RandomState instance or None, default=None
        For the splits and for what learns at random.

    Returns
    -------
    rivals : list of Candidate
        Those that need the foundation model to predict have the role "teacher". Only the probe
        reads image columns of a DataFrame. There is one target.
    """
    models = _Models(task == "classification", n_labeled, n_smallest_class, random_state)
    model = with_features(model)
    columns = _columns_of(rows)
    found: list[Candidate] = []
    if list(columns) == ["text"] and len(columns["text"]) == 1:
        found += _of_texts(models, TextReader(*columns["text"]), model)
        if has_unlabeled and model is not None:
            reader = TextReader(*columns["text"])
            found.append(_pseudo_labels(models, reader, model, missing_label))
    elif rows.kind == "image" and _has_scikit_image():
        pipeline = make_pipeline(HogFeatures(), models.svm())
        found.append(Candidate("hog-svm", "HOG + SVM", pipeline, RIVAL))
    elif rows.kind in (*_TABLES, "frame"):
        found += _of_tables(models, columns, is_frame=rows.kind == "frame")
    if model is not None:
        title = f"Foundation features + {models.linear_name}"
        found.append(Candidate("probe", title, models.probe(model, rows.kind), TEACHER))
    return found


def left_out(
    rows: Rows, task: str, model: Any = None, *, has_unlabeled: bool = False
) -> dict[str, str]:
    """Return why rivals that could fit the rows are not among `rivals`.

    Parameters
    ----------
    rows, task, model, has_unlabeled
        As for `rivals`.

    Returns
    -------
    reasons : dict of str to str
        By the name of the rival.
    """
    reasons = {}
    columns = _columns_of(rows)
    if rows.kind == "image" and not _has_scikit_image():
        reasons["hog-svm"] = "scikit-image is not installed: pip install scikit-image"
    if rows.kind == "frame" and not columns:
        reasons["linear"] = "no column holds texts, numbers or categories"
    are_texts = list(columns) == ["text"] and len(columns["text"]) == 1
    if with_features(model) is None:
        for name in ["probe", *(["static-embeddings", "pseudo-labels"] if are_texts else [])]:
            reasons[name] = "no foundation model with features was given"
    elif are_texts and not has_unlabeled:
        reasons["pseudo-labels"] = "there are no rows without a label"
    return reasons


class _Models:
    """The last steps of the pipelines.

    Parameters
    ----------
    is_classification : bool
        Whether targets are classes.
    n_labeled, n_smallest_class, random_state
        As for `rivals`.
    """

    def __init__(
        self, is_classification: bool, n_labeled: int, n_smallest_class: int, random_state: Any
    ) -> None:
        self.is_classification = is_classification
        self.n_labeled = n_labeled
        self.n_smallest_class = n_smallest_class
        self.random_state = random_state

    @property
    def linear_name(self) -> str:
        return "logistic regression" if self.is_classification else "ridge regression"

    def search(self, estimator: Any, **grid: Sequence[Any]) -> InnerSearch:
        return InnerSearch(estimator, grid, self.random_state)

    def linear(self, strengths: Sequence[float]) -> InnerSearch:
        """Return a linear model for inverse strengths of the penalty."""
        if self.is_classification:
            return self.search(LogisticRegression(tol=1e-3, max_iter=1000), C=strengths)
        return self.search(Ridge(), alpha=[1 / strength for strength in strengths])

    def probe(self, model: Any, kind: str) -> Pipeline:
        strengths = _IMAGE_PROBE_STRENGTHS if kind == "image" else _PROBE_STRENGTHS
        extractor = FoundationFeatureExtractor(model)
        return make_pipeline(extractor, StandardScaler(), self.linear(strengths))

    def boosting(self, n_numeric: int, n_category: int) -> InnerSearch:
        kind = (
            HistGradientBoostingClassifier
            if self.is_classification
            else HistGradientBoostingRegressor
        )
        estimator = kind(
            categorical_features=[False] * n_numeric + [True] * n_category,
            # Its default, 20, leaves few rows without any split.
            min_samples_leaf=int(np.clip(self.n_labeled // 20, 2, 20)),
            early_stopping=False,
            random_state=self.random_state,
        )
        return self.search(estimator, max_leaf_nodes=[3, 8, 31])

    def mlp(self) -> InnerSearch:
        is_large = self.n_labeled >= _MANY_ROWS
        n_of_class = self.n_smallest_class if self.is_classification else self.n_labeled
        settings: dict[str, Any] = {
            "early_stopping": is_large and n_of_class >= _ROWS_OF_CLASS_TO_STOP_EARLY,
            # 200 epochs of few rows are few steps.
            "learning_rate_init": 1e-3 if is_large else 1e-2,
            "random_state": self.random_state,
        }
        strengths = [1e-4, 1e-2, 1]
        if self.is_classification:
            return self.search(MLPClassifier(**settings), alpha=strengths)
        return self.search(_of_scaled_target(MLPRegressor(**settings)), regressor__alpha=strengths)

    def svm(self) -> InnerSearch:
        if self.is_classification:
            return self.search(SVC(), C=[1, 10, 100])
        return self.search(_of_scaled_target(SVR()), regressor__C=[0.1, 1, 10])


def _of_scaled_target(regressor: Any) -> TransformedTargetRegressor:
    return TransformedTargetRegressor(regressor, transformer=StandardScaler())


def _columns_of(rows: Rows) -> dict[str, list]:
    """Return the columns of texts, numbers and categories by kind; of other rows their places."""
    if rows.kind in _TABLES:
        return {rows.kind: list(range(rows.values.shape[1]))}
    if rows.kind != "frame":
        return {"text": [None]} if rows.kind == "text" else {}
    columns: dict[str, list] = {}
    for name in rows.values.columns:
        kind = rows.column(name, missing=True).kind
        if kind != "image":
            columns.setdefault(kind, []).append(name)
    return columns


def _of_texts(models: _Models, reader: TextReader, model: Any) -> list[Candidate]:
    linear = models.linear_name
    pipeline = make_pipeline(reader, _tfidf(), models.linear(_TEXT_STRENGTHS))
    found = [Candidate("tf-idf", f"TF-IDF + {linear}", pipeline, RIVAL)]
    if model is not None:
        steps = (reader, StaticEmbeddings(model), StandardScaler())
        pipeline = make_pipeline(*steps, models.linear(_PROBE_STRENGTHS))
        found.append(
            Candidate("static-embeddings", f"Static embeddings + {linear}", pipeline, RIVAL)
        )
    return found


def _pseudo_labels(
    models: _Models, reader: TextReader, model: Any, missing_label: Any
) -> Candidate:
    tfidf = make_pipeline(reader, _tfidf(), models.linear(_TEXT_STRENGTHS))
    taught = PseudoLabels(models.probe(model, "text"), tfidf, missing_label)
    title = f"TF-IDF + {models.linear_name} on the probe's labels"
    return Candidate("pseudo-labels", title, make_pipeline(taught), RIVAL, reads_unlabeled=True)


def _of_tables(models: _Models, columns: Mapping[str, list], *, is_frame: bool) -> list[Candidate]:
    readers = {
        kind: TableReader(kind, columns[kind] if is_frame else None)
        for kind in _TABLES
        if kind in columns
    }
    texts = columns.get("text", [])

    # Not a ColumnTransformer: the readers know nullable columns, categories and polars.
    def scaled() -> FeatureUnion:
        parts = [make_pipeline(reader, *_scaled(kind)) for kind, reader in readers.items()]
        return make_union(*parts, *(make_pipeline(TextReader(name), _tfidf()) for name in texts))

    found = []
    if readers:
        codes = [make_pipeline(reader, *_coded(kind)) for kind, reader in readers.items()]
        boosting = models.boosting(*(len(columns.get(kind, ())) for kind in _TABLES))
        pipeline = make_pipeline(make_union(*codes), boosting)
        found.append(Candidate("boosting", "Gradient boosting", pipeline, RIVAL))
    if readers or texts:
        linear = models.linear(_TEXT_STRENGTHS if texts else _TABLE_STRENGTHS)
        title = models.linear_name.capitalize()
        found.append(Candidate("linear", title, make_pipeline(scaled(), linear), RIVAL))
    if readers and not texts:
        pipeline = make_pipeline(scaled(), models.mlp())
        found.append(Candidate("mlp", "Multi-layer perceptron", pipeline, RIVAL))
    return found


def _scaled(kind: str) -> list[Any]:
    """Return the steps that make columns ready for linear models and perceptrons."""
    if kind == "category":
        return [OneHotEncoder(handle_unknown="ignore", dtype=np.float32)]
    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    return [imputer, StandardScaler()]


def _coded(kind: str) -> list[Any]:
    """Return the steps that make columns ready for boosting, which reads missing values."""
    if kind == "numeric":
        return []
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
        encoded_missing_value=np.nan,
        max_categories=_MOST_CATEGORIES,
    )
    return [encoder]


def _tfidf() -> FeatureUnion:
    """Return weights of words, pairs of words and pieces of words."""
    # Pieces of words are worth several points with few labels. float32 halves the time of a fit.
    words: dict[str, Any] = {"ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"}
    pieces: dict[str, Any] = {"ngram_range": (3, 4), "analyzer": "char_wb"}
    shared: dict[str, Any] = {"sublinear_tf": True, "dtype": np.float32}
    return make_union(TfidfVectorizer(**words, **shared), TfidfVectorizer(**pieces, **shared))


def _has_scikit_image() -> bool:
    return find_spec("skimage") is not None


def with_features(model: Any) -> Any:
    """Return foundation models without those that only predict; None if nothing is left."""
    if isinstance(model, Mapping):
        parts = {column: with_features(part) for column, part in model.items()}
        return {column: part for column, part in parts.items() if part is not None} or None
    if isinstance(model, (list, tuple)):
        return [part for part in model if not is_predictor(part)] or None
    return None if model is None or is_predictor(model) else model
