"""Rows, targets, features and weights, checked before any long work starts."""

from __future__ import annotations

import copy
import warnings
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.utils.validation import _check_sample_weight, _num_samples, validate_data

from sk_aft._features import FoundationFeatures
from sk_aft._labels import is_labeled, known_targets
from sk_aft._rows import Rows, as_rows, select_columns
from sk_aft._stored_rows import StoredRows
from sk_aft.transfer import default_strength

_ROWS_PER_CHECK = 8192


@dataclass(frozen=True)
class TrainingData:
    """Checked rows as `fit` goes on with them.

    Parameters
    ----------
    rows : Rows
        Rows of the student.
    targets : ndarray of shape (n_rows,) or (n_rows, n_outputs)
        Class numbers, or standardised regression targets.
    features : StoredRows, FoundationFeatures or None
        Foundation features of the same rows, if they are used.
    weights : ndarray of shape (n_rows,) or None
        Weights in the task loss.
    is_labeled : ndarray of shape (n_rows,), bool
        Which rows have targets; targets and weights of the others are 0.
    """

    rows: Rows
    targets: np.ndarray
    features: Any
    weights: np.ndarray | None
    is_labeled: np.ndarray

    def subset(self, rows: np.ndarray) -> TrainingData:
        """Return some of the rows."""
        return TrainingData(
            self.rows.take(rows),
            self.targets[rows],
            None if self.features is None else FeatureSubset(self.features, rows),
            None if self.weights is None else self.weights[rows],
            self.is_labeled[rows],
        )

    def has_unlike_targets(self, rows: np.ndarray | None = None) -> bool:
        """Return whether rows with features have unlike targets, without which no probe learns."""
        rows = np.flatnonzero(self.is_labeled) if rows is None else rows
        is_masked = FeatureSubset(self.features, rows).is_masked
        targets = self.targets[rows[~is_masked]]
        return len(targets) > 0 and bool((targets != targets[0]).any())

    def without_features(self) -> TrainingData:
        """Return the labelled rows, without features: others would teach nothing."""
        data = self if self.is_labeled.all() else self.subset(np.flatnonzero(self.is_labeled))
        return replace(data, features=None)


class FeatureSubset:
    """Some rows of foundation features, read when asked for.

    Attributes
    ----------
    shape : tuple of int
        Number of rows and of features.
    is_masked : ndarray of shape (n_rows,), bool
        Which rows have no features.
    has_masked_rows : bool
        Whether some of the rows have no features: they read as NaN.
    is_on_disk : bool
        Whether taking rows means reading a file.
    feature_slices : dict of str to slice
        Which columns are which model's.
    column_slices : dict of str to slice
        Which features come from which column of a DataFrame, see `FoundationFeatures`.
    """

    def __init__(self, features: Any, rows: np.ndarray) -> None:
        self._features = features
        self._rows = rows
        self.shape = (len(rows), features.shape[1])
        self.is_masked = features.is_masked[rows]
        self.has_masked_rows = bool(self.is_masked.any())
        self.is_on_disk: bool = features.is_on_disk
        whole = {"features": slice(0, features.shape[1])}
        self.feature_slices: dict[str, slice] = getattr(features, "feature_slices", whole)
        self.column_slices: dict[Any, slice] = getattr(features, "column_slices", {})

    def take(self, indices: np.ndarray) -> np.ndarray:
        return self._features.take(self._rows[indices])

    def replaced_by(self, targets: Any) -> FeatureSubset:
        """Return what a transfer method gave for the rows, in place of their features."""
        replaced = copy.copy(self)
        is_array = isinstance(targets, np.ndarray)
        replaced._features = StoredRows.of_array(targets) if is_array else targets
        replaced.shape = (len(self._rows), targets.shape[1])
        replaced.is_on_disk = not is_array and self.is_on_disk
        replaced._rows = np.arange(len(self._rows))
        return replaced


class JoinedFeatures:
    """The foundation features of some rows, and then those of others."""

    def __init__(self, first: Any, second: Any) -> None:
        self._parts = first, second
        self.shape = (len(first) + len(second), first.shape[1])
        self.is_masked = np.concatenate([first.is_masked, second.is_masked])
        self.is_on_disk: bool = first.is_on_disk or second.is_on_disk
        whole = {"features": slice(0, first.shape[1])}
        self.feature_slices: dict[str, slice] = getattr(first, "feature_slices", whole)
        self.column_slices: dict[Any, slice] = getattr(first, "column_slices", {})

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, indices: np.ndarray) -> np.ndarray:
        first, second = self._parts
        taken = np.empty((len(indices), self.shape[1]), dtype=np.float32)
        is_first = indices < len(first)
        taken[is_first] = first.take(indices[is_first])
        taken[~is_first] = second.take(indices[~is_first] - len(first))
        return taken


class CheckedInputs:
    """The checks of ``fit`` and ``predict``; a subclass says what targets are."""

    transfer: Any
    beta: Any
    missing_label: Any
    batch_size: int
    preprocessor: Any
    rows_kind_: str
    _columns: list
    beta_: float
    _chosen_transfer: Any
    n_foundation_features_: int

    @abstractmethod
    def _check_targets(self, y: Any, *, reset: bool, classes: Any) -> np.ndarray:
        """Return checked targets as class numbers or a matrix; set ``n_outputs_``."""

    def _encode_targets(
        self, targets: np.ndarray, weights: np.ndarray | None, *, reset: bool
    ) -> np.ndarray:
        """Return targets as the network learns them."""
        return targets

    def _check_training_data(
        self,
        X: Any,
        y: Any,
        features: Any,
        sample_weight: Any,
        X_unlabeled: Any = None,
        *,
        reset: bool,
        classes: Any,
    ) -> TrainingData:
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None."
            )
        if isinstance(X, FoundationFeatures):
            if features is not None:
                raise ValueError(
                    "features was given, but X holds foundation features already: give plain "
                    "rows with features=, or FoundationFeatures without."
                )
            features, X = X, X.inputs
        rows = self._check_rows(X, reset=reset)
        labeled = self._check_labeled(y)
        targets = self._check_targets(known_targets(y, labeled), reset=reset, classes=classes)
        if len(labeled) != len(rows):
            raise ValueError(
                "Found input variables with inconsistent numbers of samples: "
                f"X has {len(rows)} rows and y has {len(labeled)}."
            )
        if features is not None:
            features = _check_features(features, len(rows))
        if reset or not hasattr(self, "transfer_"):
            self._chosen_transfer = "aft" if self.transfer == "auto" else self.transfer
        beta = self._strength(features)
        known = self.n_foundation_features_ if hasattr(self, "transfer_") else None
        if beta > 0 and known is not None and features.shape[1] != known:
            raise ValueError(
                f"features has {features.shape[1]} columns, but training began with {known}."
            )
        if beta > 0 and self.batch_size == 1:
            raise ValueError(
                "batch_size=1 leaves nothing to transfer, which compares the rows of a batch: "
                "take a larger one, or beta=0."
            )
        if sample_weight is not None and not labeled.all():
            sample_weight = _check_sample_weight(sample_weight, rows.values)[labeled]
        weights = self._row_weights(sample_weight, targets)
        encoded = self._encode_targets(targets, weights, reset=reset)
        self.beta_ = beta
        if beta == 0:  # rows without a target teach nothing
            rows = rows if labeled.all() else rows.take(np.flatnonzero(labeled))
            return TrainingData(rows, encoded, None, weights, np.ones(len(rows), dtype=bool))
        if X_unlabeled is not None:
            rows, features = self._with_unlabeled(rows, features, X_unlabeled)
            labeled = np.append(labeled, np.zeros(len(rows) - len(labeled), dtype=bool))
        return TrainingData(
            rows, _spread(encoded, labeled), features, _spread(weights, labeled), labeled
        )

    def _check_labeled(self, y: Any) -> np.ndarray:
        """Return which rows have a target."""
        if self.missing_label is None:
            y = np.empty(_num_samples(y))
        labeled = is_labeled(y, self.missing_label)
        if not labeled.any():
            raise ValueError(
                f"All {len(labeled)} rows of y are missing_label={self.missing_label!r}: at least "
                "some rows need a target."
            )
        return labeled

    def _with_unlabeled(self, rows: Rows, features: Any, X_unlabeled: Any) -> tuple[Rows, Any]:
        """Return rows and features followed by those of rows without targets."""
        if not isinstance(X_unlabeled, FoundationFeatures):
            raise ValueError(
                "X_unlabeled has to hold foundation features, which a FoundationFeatureExtractor "
                "puts beside the rows: call extractor.transform(X_unlabeled), or make a "
                "Pipeline(..., transform_input=['X_unlabeled']). Plain rows with features= can be "
                "given among X, marked by missing_label in y."
            )
        if X_unlabeled.shape[1] != features.shape[1]:
            raise ValueError(
                f"X_unlabeled has {X_unlabeled.shape[1]} foundation features a row, but X has "
                f"{features.shape[1]}."
            )
        further = self._check_rows(X_unlabeled, reset=False)
        if rows.values.shape[1:] != further.values.shape[1:]:
            raise ValueError(
                f"X_unlabeled has rows of shape {further.values.shape[1:]}, but X has rows of "
                f"shape {rows.values.shape[1:]}."
            )
        return rows.followed_by(further), JoinedFeatures(features, X_unlabeled)

    def _strength(self, features: Any) -> float:
        """Return beta as a number: 0 where there is nothing to learn from."""
        if self.transfer is None:
            return 0.0
        if features is None:
            if self.beta == "auto":
                warnings.warn(
                    "No foundation features were given, so this is standard training. Put a "
                    "FoundationFeatureExtractor right before this estimator (not inside a "
                    "ColumnTransformer, with no scaler between, and without set_output, which make "
                    "a plain table of the features) or give features= to fit; set beta=0 to say "
                    "that this is what you want.",
                    stacklevel=6,
                )
                return 0.0
            if self.beta > 0:
                raise ValueError(
                    f"beta={self.beta} needs foundation features, and there are none: put a "
                    "FoundationFeatureExtractor before this estimator in a pipeline, or call "
                    "fit(X, y, features=F) with an array of shape (n_rows, n_features). "
                    "beta=0 trains without."
                )
            return 0.0
        if self.beta == "auto":
            # Training that goes on keeps what it chose.
            has_tried = hasattr(self, "beta_trials_") or hasattr(self, "transfer_trials_")
            return self.beta_ if has_tried else default_strength(self._chosen_transfer)
        return float(self.beta)

    def _check_rows(self, X: Any, *, reset: bool) -> Rows:
        if isinstance(X, FoundationFeatures):
            X = X.inputs
        if not reset and self.rows_kind_ == "frame":
            return as_rows(select_columns(X, self._columns), kind="frame")
        rows = as_rows(X, kind=None if reset else self.rows_kind_, frames=reset)
        if reset:
            self.rows_kind_ = rows.kind
        if rows.kind == "frame":
            validate_data(self, X, skip_check_array=True)
            self._columns = list(X.columns)
        if rows.kind == "numeric":
            table = X if hasattr(X, "columns") else rows.values
            # An own preprocessor may fill what is missing; what it returns is checked.
            finite = self.preprocessor is None or isinstance(self.preprocessor, str)
            return Rows(
                "numeric", validate_data(self, table, reset=reset, ensure_all_finite=finite)
            )
        return rows

    def _row_weights(self, sample_weight: Any, targets: np.ndarray) -> np.ndarray | None:
        if sample_weight is None:
            return None
        weights = _check_sample_weight(sample_weight, targets, ensure_non_negative=True)
        if not weights.any():
            raise ValueError("sample_weight is zero for every row: there is nothing to learn.")
        return weights


def _spread(values: np.ndarray | None, labeled: np.ndarray) -> Any:
    """Return what labelled rows have with zeros for the other rows."""
    if values is None or labeled.all():
        return values
    spread = np.zeros((len(labeled), *values.shape[1:]), dtype=values.dtype)
    spread[labeled] = values
    return spread


def _check_features(features: Any, n_rows: int) -> Any:
    """Return features that have ``take``, ``shape`` and ``is_masked``, of the right length."""
    if isinstance(features, FoundationFeatures):
        _check_length(features, n_rows)  # finite, or masked, since they were computed
        return features
    matrix = np.asarray(features)
    if matrix.ndim != 2 or matrix.shape[1] == 0 or matrix.dtype.kind not in "biuf":
        raise ValueError(
            "features has to be an array of numbers of shape (n_rows, n_features), got shape "
            f"{matrix.shape} of dtype {matrix.dtype}."
        )
    _check_length(matrix, n_rows)
    stored = StoredRows.of_array(matrix)
    for start in range(0, n_rows, _ROWS_PER_CHECK):
        finite = np.isfinite(stored.take(slice(start, start + _ROWS_PER_CHECK)))
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise ValueError(
                f"features holds NaN or infinity in row {start + row}, column {column}: repair or "
                "leave out this row."
            )
    return stored


def _check_length(features: Any, n_rows: int) -> None:
    if len(features) != n_rows:
        raise ValueError(f"features has {len(features)} rows, but X has {n_rows}.")
