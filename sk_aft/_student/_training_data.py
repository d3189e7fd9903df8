"""Rows, targets, features and weights, checked before any long work starts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import _check_sample_weight, _num_samples

from sk_aft._data._feature_rows import ConcatenatedRows, FeatureRows, RowSubset, StoredRows
from sk_aft._data._labels import (
    check_labels_are_alike,
    check_no_target_missing,
    known_targets,
    labeled_mask,
    warn_of_mark,
)
from sk_aft._data._rows import Rows
from sk_aft._data._soft_targets import absent_mask, check_index
from sk_aft._features import FoundationFeatures
from sk_aft._student._schema import RowSchema, check_rows
from sk_aft._student._targets import ClassTargets, Targets
from sk_aft.store import read_features
from sk_aft.store._feature_files import are_exported

_ROWS_PER_CHECK = 8192


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Checked rows, with everything that training needs to know about them.

    Parameters
    ----------
    rows : Rows
        Rows of the student.
    schema : RowSchema
        Their kind and columns.
    encoder : Targets
        Encodes the targets.
    targets : ndarray of shape (n_rows,) or (n_rows, n_outputs)
        Class numbers or standardised regression targets; 0 for rows without a target.
    labeled_mask : ndarray of shape (n_rows,), bool
        Which rows have targets.
    weights : ndarray of shape (n_rows,) or None
        Weights in the task loss; 0 for rows without a target.
    features : FeatureRows or None
        Foundation features of the same rows.
    feature_slices, column_slices : mapping of str to slice
        Which features belong to which model, and to which column of a DataFrame.
    soft_targets : ndarray of shape (n_rows, n_outputs), float32, or None
        Class probabilities or standardised predictions; NaN in rows without them.
    has_given_targets : bool, default=False
        Whether the user gave the soft targets, which then replace all others.
    left_out : Rows or None
        Texts and frames without a target, which are not trained on. The preprocessor learns
        from them, too, because it may learn a vocabulary.
    """

    rows: Rows
    schema: RowSchema
    encoder: Targets
    targets: np.ndarray
    labeled_mask: np.ndarray
    weights: np.ndarray | None = None
    features: FeatureRows | None = None
    feature_slices: Mapping[str, slice] = field(default_factory=dict)
    column_slices: Mapping[Any, slice] = field(default_factory=dict)
    soft_targets: np.ndarray | None = None
    has_given_targets: bool = False
    left_out: Rows | None = None

    def subset(self, indices: np.ndarray) -> TrainingData:
        """Return some of the rows."""
        return replace(
            self,
            rows=self.rows.take(indices),
            targets=self.targets[indices],
            labeled_mask=self.labeled_mask[indices],
            weights=None if self.weights is None else self.weights[indices],
            features=None if self.features is None else RowSubset(self.features, indices),
            soft_targets=None if self.soft_targets is None else self.soft_targets[indices],
        )

    def without_transfer(self) -> TrainingData:
        """Return the labelled rows without features and soft targets; leave out the others."""
        data = replace(self, features=None, soft_targets=None)
        if self.labeled_mask.all():
            return data
        data = data.subset(np.flatnonzero(self.labeled_mask))
        if self.rows.kind not in ("text", "frame"):
            return data
        return replace(data, left_out=self.rows.take(np.flatnonzero(~self.labeled_mask)))

    def can_distill(self, indices: np.ndarray | None = None) -> bool:
        """Return whether rows have soft targets, or a probe of all or some rows can make them."""
        has_soft_targets = self.soft_targets is not None and not self.lacks_soft_targets
        return has_soft_targets or self.has_distinct_targets(indices)

    @property
    def lacks_soft_targets(self) -> bool:
        """Whether there should be soft targets, and all are absent."""
        return self.soft_targets is not None and bool(absent_mask(self.soft_targets).all())

    def has_distinct_targets(self, indices: np.ndarray | None = None) -> bool:
        """Return whether rows with features, or some of them, have at least two distinct targets.

        A probe needs them.
        """
        if self.features is None:
            return False
        counts = self.labeled_mask if self.weights is None else self.weights > 0
        indices = np.flatnonzero(counts) if indices is None else indices[counts[indices]]
        missing = self.features.missing_mask[indices]
        targets = self.targets[indices[~missing]]
        return len(targets) > 0 and bool((targets != targets[0]).any())


class Split(NamedTuple):
    """The training rows and the held-out rows."""

    train: np.ndarray
    held_out: np.ndarray | None


def check_training_data(
    X: Any,
    y: Any,
    features: Any,
    sample_weight: Any,
    *,
    targets: type[Targets],
    classes: Any,
    known: tuple[RowSchema, Targets] | None,
    missing_label: Any,
    class_weight: Any,
    allow_nan: bool,
    all_layers: bool,
    owner: str,
) -> TrainingData:
    """Check the arguments of ``fit``; changes nothing.

    Parameters
    ----------
    X, y, features, sample_weight : as for ``fit``
        Arguments given by the user.
    targets : type
        `ClassTargets` or `NumericTargets`.
    classes : array-like or None
        All labels that may occur.
    known : (RowSchema, Targets) or None
        What rows and targets have to match, if training resumes.
    missing_label : object
        Marks rows without a target.
    class_weight : dict, "balanced" or None
        Weights of the classes.
    allow_nan : bool
        Whether numbers may be NaN, because the user's own preprocessor handles them.
    all_layers : bool
        Whether the features are those of all layers that X can give, as the default transfer uses
        them.
    owner : str
        Class of the estimator, for messages.

    Returns
    -------
    data : TrainingData
        The rows.

    Raises
    ------
    ValueError
        If an argument cannot be used; the message says where and how to fix it.
    """
    if y is None:
        raise ValueError(f"{owner} requires y to be passed, but the target y is None.")
    if isinstance(X, FoundationFeatures):
        if features is not None:
            raise ValueError(
                "features was given, but X already holds foundation features: give plain "
                "rows with features=, or FoundationFeatures without it."
            )
        features = _features_of(X, all_layers)
    schema, encoder = known or (None, None)
    rows, schema = check_rows(X, schema, owner=owner, allow_nan=allow_nan)
    targets.check_shape(y)
    labeled = check_labeled(y, missing_label)
    if targets.needs_classes:
        check_labels_are_alike(y, labeled)
    if classes is not None:
        are_labels = labeled_mask(classes, missing_label)
        if not are_labels.all():
            raise ValueError(
                f"classes holds missing_label={missing_label!r}, which marks rows without a "
                "label: leave it out."
            )
        classes = known_targets(classes, are_labels)
    y = targets.check(known_targets(y, labeled))
    n_rows = len(rows)
    if encoder is None:
        # The scale of numeric targets depends on the weights; bad lengths are reported below.
        aligned = None if len(labeled) != n_rows else _of_labeled(sample_weight, rows, labeled)
        encoder = targets.fit(y, sample_weight=aligned, classes=classes)
        if labeled.all() and isinstance(encoder, ClassTargets):
            warn_of_mark(encoder.classes, owner)
    encoded = encoder.encode(y, classes=classes)
    if len(labeled) != n_rows:
        raise ValueError(
            "Found input variables with inconsistent numbers of samples: "
            f"X has {n_rows} rows and y has {len(labeled)}."
        )
    if features is not None:
        features = _check_features(features, n_rows)
    weights = encoder.weights(encoded, _of_labeled(sample_weight, rows, labeled), class_weight)
    slices = {} if features is None else {"features": slice(0, features.shape[1])}
    return TrainingData(
        rows,
        schema,
        encoder,
        _scatter(encoded, labeled),
        labeled,
        weights=None if weights is None else _scatter(weights, labeled),
        features=features,
        feature_slices=getattr(features, "feature_slices", slices),
        column_slices=getattr(features, "column_slices", {}),
    )


def add_soft_targets(
    data: TrainingData,
    soft_targets: Any,
    X: Any,
    y: Any,
    *,
    takes_held: bool,
    missing_label: Any,
) -> TrainingData:
    """Return the rows with soft targets: those given, or else those that ``X`` holds."""
    if soft_targets is None and not takes_held:
        return replace(data, soft_targets=None)
    if soft_targets is None:
        _check_classes_held(X, missing_label)
        return replace(data, soft_targets=_held_soft_targets(data.encoder, X))
    encoded = data.encoder.encode_soft(soft_targets, len(data.rows))
    check_index(soft_targets, getattr(X, "inputs", X), y)
    return replace(data, soft_targets=encoded, has_given_targets=True)


def add_unlabeled(
    data: TrainingData,
    X_unlabeled: Any,
    *,
    holds_soft_targets: bool,
    allow_nan: bool,
    all_layers: bool,
    owner: str,
) -> TrainingData:
    """Return the rows followed by those of ``X_unlabeled``, checked.

    These have their own soft targets if ``holds_soft_targets``, and otherwise none.
    """
    if not isinstance(X_unlabeled, FoundationFeatures):
        raise ValueError(
            "X_unlabeled has to hold foundation features, which a FoundationFeatureExtractor "
            "adds to the rows: call extractor.transform(X_unlabeled), or make a "
            "Pipeline(..., transform_input=['X_unlabeled']). Plain rows with features= can be "
            "part of X, marked by missing_label in y."
        )
    features = _features_of(X_unlabeled, all_layers)
    if data.features is None and features is not None:
        raise ValueError(
            "X_unlabeled has foundation features, but X has none. Add its rows to X, marked by "
            "missing_label in y, with their soft targets."
        )
    _check_same_features(data, X_unlabeled if features is None else features)
    further, _ = check_rows(X_unlabeled, data.schema, owner=owner, allow_nan=allow_nan)
    shapes = [rows.values.shape[1:] for rows in (data.rows, further)]
    # Images may have several sizes and containers; the preprocessor makes them uniform.
    if data.rows.kind != "image" and shapes[0] != shapes[1]:
        raise ValueError(
            f"X_unlabeled has rows of shape {further.values.shape[1:]}, but X has rows of "
            f"shape {data.rows.values.shape[1:]}."
        )
    labeled: np.ndarray = np.append(data.labeled_mask, np.zeros(len(further), dtype=bool))
    known = data.labeled_mask
    soft_targets = data.soft_targets
    if soft_targets is not None:
        own = _held_soft_targets(data.encoder, X_unlabeled) if holds_soft_targets else None
        absent = np.full((len(further), soft_targets.shape[1]), np.nan, dtype=np.float32)
        soft_targets = np.concatenate([soft_targets, absent if own is None else own])
    return replace(
        data,
        rows=data.rows.concat(further),
        targets=_scatter(data.targets[known], labeled),
        labeled_mask=labeled,
        weights=None if data.weights is None else _scatter(data.weights[known], labeled),
        features=None if features is None else ConcatenatedRows([data.features, features], axis=0),
        soft_targets=soft_targets,
    )


def check_has_features(X: Any, transfer: Any) -> None:
    """Raise ValueError if a transfer that needs features gets the predictions of teachers alone."""
    if isinstance(X, FoundationFeatures) and not X.shape[1]:
        raise ValueError(
            f"transfer={transfer!r} learns from features, and the teachers of X only predict: use "
            "transfer='auto', 'pooled-kd' or 'probe-kd', or give the extractor a foundation model, "
            "too."
        )


def _check_same_features(data: TrainingData, features: FoundationFeatures) -> None:
    """Raise ValueError unless further rows have the features of the training rows."""
    width = 0 if data.features is None else data.features.shape[1]
    if features.shape[1] != width:
        raise ValueError(
            f"X_unlabeled has {features.shape[1]} foundation features per row, but X has {width}."
        )
    names = list(data.feature_slices)
    if isinstance(data.features, FoundationFeatures) and names != list(features.feature_slices):
        raise ValueError(
            f"X_unlabeled has features of {list(features.feature_slices)}, but X has those of "
            f"{names}: use one extractor for both."
        )


def check_labeled(y: Any, missing_label: Any) -> np.ndarray:
    """Return which rows have a target; raise if none has one, or if a missing one is unmarked."""
    if isinstance(y, str):
        raise ValueError(
            f"y is a single string, {y!r}: give the targets themselves, such as X[{y!r}] of a "
            "data set or a DataFrame."
        )
    _num_samples(y)
    labeled = labeled_mask(y, missing_label)
    if not labeled.any():
        raise ValueError(
            f"All {len(labeled)} rows of y are missing_label={missing_label!r}: at least "
            "some rows need a target."
        )
    check_no_target_missing(y, labeled, missing_label)
    return labeled


def split_rows(data: TrainingData, validation_fraction: float | None, seed: int | None) -> Split:
    """Hold out some of the labelled rows."""
    train, held_out = np.arange(len(data.rows)), None
    if validation_fraction is not None:
        labeled = np.flatnonzero(data.labeled_mask)
        targets = data.targets[labeled]
        held_out = labeled[data.encoder.hold_out(targets, validation_fraction, seed)]
        train = np.setdiff1d(train, held_out)
        if data.weights is not None and not data.weights[held_out].any():
            raise ValueError(
                "All rows held out for early stopping have sample_weight 0, so there is no "
                "validation score: raise validation_fraction, or set early_stopping=False."
            )
    if data.weights is not None and not data.weights[train].any():
        raise ValueError("All training rows have weight 0 (sample_weight times class_weight).")
    return Split(train, held_out)


def _check_classes_held(X: Any, missing_label: Any) -> None:
    """Raise ValueError if the extractor has learned the mark of unlabelled rows as a class."""
    classes = getattr(X, "soft_target_classes", None)
    if classes is None or labeled_mask(classes, missing_label).all():
        return
    raise ValueError(
        f"missing_label={missing_label!r} marks rows without a label, but the extractor learned it "
        f"as a class: set missing_label={missing_label!r} in its TeacherPredictions, or in the "
        "FineTunedFeatureExtractor, too."
    )


def _features_of(X: FoundationFeatures, all_layers: bool) -> FoundationFeatures | None:
    """Return the features that teach; None if the teachers of X only predict."""
    if not X.shape[1]:
        return None
    return X.teacher_features if all_layers else X


def _held_soft_targets(encoder: Targets, X: Any) -> np.ndarray | None:
    """Return the encoded soft targets of rows that hold them, else None."""
    if not isinstance(X, FoundationFeatures) or X.soft_targets is None:
        return None
    if absent_mask(X.soft_targets).all():
        return np.full((len(X), encoder.n_outputs), np.nan, dtype=np.float32)
    return encoder.encode_soft_of(X)


def _of_labeled(sample_weight: Any, rows: Rows, labeled: np.ndarray) -> Any:
    """Return the weights of labelled rows; those of other rows are ignored."""
    if sample_weight is None or labeled.all():
        return sample_weight
    return _check_sample_weight(sample_weight, rows.values)[labeled]


def _scatter(values: np.ndarray, labeled: np.ndarray) -> np.ndarray:
    """Return the values of labelled rows, with zeros for the other rows."""
    if labeled.all():
        return values
    scattered = np.zeros((len(labeled), *values.shape[1:]), dtype=values.dtype)
    scattered[labeled] = values
    return scattered


def _check_features(features: Any, n_rows: int) -> FeatureRows:
    """Return features whose rows can be taken, of the right length."""
    if isinstance(features, FoundationFeatures):
        _check_length(features, n_rows)  # the extractor has checked that they are finite or missing
        return features
    if isinstance(features, (str, os.PathLike)):
        if are_exported(features):
            raise ValueError(
                f"{str(features)!r} was exported by a store, whose rows are in an order of their "
                "own: bring it into a store with FeatureStore.import_features, where the rows of X "
                "are found by their content."
            )
        matrix = read_features(features)
        if len(matrix) != n_rows:
            raise ValueError(
                f"{str(features)!r} has the features of {len(matrix)} rows, but X has {n_rows}. If "
                "a search or a split took some rows of X, it could not slice a path: give it "
                "features=sk_aft.store.read_features(path)."
            )
    else:
        matrix = np.asarray(features)
    if matrix.ndim != 2 or matrix.shape[1] == 0 or matrix.dtype.kind not in "biuf":
        raise ValueError(
            "features has to be an array of numbers of shape (n_rows, n_features), got shape "
            f"{matrix.shape} of dtype {matrix.dtype}."
        )
    _check_length(matrix, n_rows)
    stored = StoredRows.of_array(matrix)
    missing = stored.missing_mask
    for start in range(0, n_rows, _ROWS_PER_CHECK):
        some = slice(start, start + _ROWS_PER_CHECK)
        rows: np.ndarray = matrix[some].astype(np.float32, copy=False)
        finite = np.isfinite(rows)
        finite[missing[some] & np.isnan(rows).all(axis=1)] = True
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise ValueError(
                f"features holds NaN or infinity in row {start + row}, column {column}: fix or "
                "leave out this row. A row that is all NaN counts as one without features."
            )
    if missing.all():
        raise ValueError(f"All {n_rows} rows of features are NaN, so there are no features.")
    if missing.any():
        warnings.warn(
            f"{missing.sum()} of {n_rows} rows of features are NaN: they count as rows without "
            "features and take no part in the transfer term.",
            stacklevel=2,
        )
    return stored


def _check_length(features: Any, n_rows: int) -> None:
    if len(features) != n_rows:
        raise ValueError(f"features has {len(features)} rows, but X has {n_rows}.")
