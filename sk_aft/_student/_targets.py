"""Targets: encoding for the network, decoding of its outputs, and scores."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, Union

import numpy as np
import scipy.sparse
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import LabelEncoder, StandardScaler
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_array, column_or_1d
from torch import Tensor, nn

from sk_aft._data._soft_targets import aligned, check_predictions, check_probabilities
from sk_aft._features import FoundationFeatures

_LOSSES_OF_NUMBERS = (
    nn.MSELoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
    nn.GaussianNLLLoss,
    nn.PoissonNLLLoss,
)
_FEWEST_ROWS_TO_TELL = 4
_FEWEST_ROWS_TO_WARN = 16


@dataclass(frozen=True, eq=False)
class ClassTargets:
    """Labels of any type as class numbers.

    Parameters
    ----------
    encoder : LabelEncoder
        Fitted to the labels.
    """

    encoder: LabelEncoder
    needs_classes: ClassVar[bool] = True

    @staticmethod
    def check_shape(y: Any) -> None:
        """Raise ValueError if rows have several labels, in whatever container."""
        several = _several_a_row(y)
        if several is not None:
            raise ValueError(
                f"y has several labels per row ({several}), and AFTClassifier predicts one: train "
                "a student for each column of a dense array with "
                "sklearn.multioutput.MultiOutputClassifier(AFTClassifier(...))."
            )

    @staticmethod
    def check(y: Any) -> np.ndarray:
        """Return labels as an array, (n_rows,)."""
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        return labels

    @classmethod
    def fit(cls, labels: np.ndarray, *, sample_weight: Any, classes: Any) -> ClassTargets:
        """Learn the classes: those named in ``classes``, or else those of the labels."""
        encoder = LabelEncoder().fit(labels if classes is None else classes)
        if len(encoder.classes_) < 2:
            raise ValueError(
                f"y holds one class only ({encoder.classes_.tolist()[0]!r}): "
                "a classifier needs at least two."
            )
        return cls(encoder)

    @property
    def classes(self) -> np.ndarray:
        """Labels, sorted; (n_classes,)."""
        return self.encoder.classes_

    @property
    def n_outputs(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def encode(self, labels: np.ndarray, *, classes: Any) -> np.ndarray:
        """Return class numbers, (n_rows,) int64; raise for unknown labels."""
        if classes is not None and not np.array_equal(np.unique(classes), self.classes):
            raise ValueError(
                f"classes={classes!r} is not the same as in the first call: {self.classes!r}."
            )
        unknown = np.setdiff1d(labels, self.classes)
        if len(unknown):
            raise ValueError(
                f"y holds {unknown.tolist()[0]!r}, which is not among the classes of this network: "
                f"{self.classes!r}. Name all of them in the first call of partial_fit, or start "
                "again with fit and warm_start=False."
            )
        return self.encoder.transform(labels).astype(np.int64)

    def encode_soft(self, soft_targets: Any, n_rows: int) -> np.ndarray:
        """Return checked class probabilities given by a user, (n_rows, n_classes) float32."""
        return check_probabilities(soft_targets, n_rows, self.classes)

    def encode_soft_of(self, rows: FoundationFeatures) -> np.ndarray:
        """Return the class probabilities that rows hold, (n_rows, n_classes) float32."""
        labels, soft_targets = rows.soft_target_classes, rows.soft_targets
        if labels is None or soft_targets is None:
            raise ValueError(
                "The soft targets of X are numbers, and AFTClassifier learns class probabilities: "
                "use an extractor that was fitted to labels, or give soft_targets."
            )
        return aligned(soft_targets, labels, self.classes)

    def decode(self, outputs: Tensor) -> np.ndarray:
        """Return the most likely label of each row."""
        return self.original(outputs.argmax(dim=1).numpy())

    def check_criterion(self, criterion: nn.Module) -> None:
        """Raise if the loss compares outputs with numbers, not with class numbers."""
        if type(criterion) in _LOSSES_OF_NUMBERS:
            raise ValueError(
                f"criterion is {type(criterion).__name__}, which compares outputs with numbers. A "
                "classifier's outputs are logits, (n_rows, n_classes), and its targets class "
                "numbers, (n_rows,): take CrossEntropyLoss, or AFTRegressor for numbers."
            )

    def check_outputs(self, outputs: Tensor, criterion: nn.Module, *, is_users: bool) -> bool:
        """Raise if outputs are not what the loss and `predict_proba` take, or warn if they may be.

        Returns whether there were enough rows to tell: few outputs may sum to 1 by chance.
        """
        has_several = len(outputs) >= _FEWEST_ROWS_TO_TELL and bool((outputs != outputs[0]).any())
        if is_users and has_several:
            sums = outputs.float().sum(dim=1)
            if bool((outputs >= 0).all()) and bool(((sums - 1).abs() < 1e-2).all()):
                raise ValueError(
                    "The module returns probabilities: every row of its outputs sums to 1. Leave "
                    "out its last softmax and return logits; the loss and predict_proba apply one."
                )
            lie_between = bool(((outputs > 0) & (outputs < 1)).all())
            if lie_between and len(outputs) >= _FEWEST_ROWS_TO_WARN:
                warnings.warn(
                    "All outputs of the module lie between 0 and 1, as those of a sigmoid do. "
                    "Return logits: the loss and predict_proba apply a softmax.",
                    stacklevel=2,
                )
        if isinstance(criterion, nn.NLLLoss) and not _are_log_probabilities(outputs):
            raise ValueError(
                "criterion is NLLLoss, which wants log-probabilities, and the module returns "
                "logits: take CrossEntropyLoss, the default."
            )
        return has_several or not is_users

    def original(self, targets: np.ndarray) -> np.ndarray:
        """Return the labels of class numbers."""
        return self.classes[targets]

    def weights(
        self, targets: np.ndarray, sample_weight: Any, class_weight: Any
    ) -> np.ndarray | None:
        """Return the product of a row's sample weight and its class weight."""
        weights = row_weights(sample_weight, targets)
        if class_weight is None:
            return weights
        # A piece of the rows may lack some of the classes.
        labels = self.encoder.inverse_transform(targets)
        known = self.classes if isinstance(class_weight, dict) else np.unique(labels)
        of_class = compute_class_weight(class_weight, classes=known, y=labels)
        by_class = of_class[np.searchsorted(known, labels)]
        return by_class if weights is None else weights * by_class

    def hold_out(self, targets: np.ndarray, validation_fraction: float, seed: Any) -> np.ndarray:
        """Return the rows to hold out, stratified by class if each has enough rows."""
        rows = np.arange(len(targets))
        n_held_out = _n_held_out(validation_fraction, len(targets), fewest=1)
        _, first, counts = np.unique(targets, return_index=True, return_counts=True)
        n_smaller_side = min(n_held_out, len(targets) - n_held_out)
        if counts.min() >= 2 and n_smaller_side >= len(counts):
            return _drawn(rows, n_held_out, seed, strata=targets)
        if len(rows) > len(counts):
            # A class with no training row cannot be learned, so the first row of each stays.
            rows = np.delete(rows, first)
        return _drawn(rows, min(n_held_out, len(rows)), seed)

    def score(self, outputs: Tensor, targets: Tensor, weights: Tensor | None) -> float:
        """Return the accuracy."""
        correct = (outputs.argmax(dim=1) == targets).float().cpu().numpy()
        return float(np.average(correct, weights=_as_array(weights)))


@dataclass(frozen=True, eq=False)
class NumericTargets:
    """Numbers to predict, standardised.

    Parameters
    ----------
    scaler : StandardScaler
        Fitted to the targets.
    ndim : int
        Number of dimensions of y, 1 or 2.
    """

    scaler: StandardScaler
    ndim: int
    needs_classes: ClassVar[bool] = False
    n_classes: ClassVar[None] = None

    @staticmethod
    def check_shape(y: Any) -> None:
        """Raise ValueError if y is no dense array of numbers."""
        if scipy.sparse.issparse(y) or _as_dense(y) is None:
            raise ValueError(f"y has to be a dense array of numbers, got {_several_a_row(y)}.")

    @staticmethod
    def check(y: Any) -> np.ndarray:
        """Return numbers as an array, (n_rows,) or (n_rows, n_outputs)."""
        return check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")

    @classmethod
    def fit(cls, numbers: np.ndarray, *, sample_weight: Any, classes: Any) -> NumericTargets:
        """Learn mean and scale of the targets."""
        matrix = numbers.reshape(len(numbers), -1)
        weights = row_weights(sample_weight, matrix)
        # Targets stay arrays, whatever sklearn.set_config(transform_output) says.
        scaler = StandardScaler().set_output(transform="default")
        return cls(scaler.fit(matrix, sample_weight=weights), numbers.ndim)

    @property
    def n_outputs(self) -> int:
        """Number of targets."""
        return len(self.scaler.mean_)

    def encode(self, numbers: np.ndarray, *, classes: Any) -> np.ndarray:
        """Return standardised targets, (n_rows, n_outputs) float32."""
        n_outputs = numbers.shape[1] if numbers.ndim == 2 else 1
        if n_outputs != self.n_outputs:
            raise ValueError(
                f"y has {n_outputs} targets, but training began with {self.n_outputs}."
            )
        return self.scaler.transform(numbers.reshape(len(numbers), -1)).astype(np.float32)

    def encode_soft(self, soft_targets: Any, n_rows: int) -> np.ndarray:
        """Return standardised predictions given by a user, (n_rows, n_outputs) float32."""
        predictions = check_predictions(soft_targets, n_rows, self.n_outputs)
        return self.scaler.transform(predictions).astype(np.float32)

    def encode_soft_of(self, rows: FoundationFeatures) -> np.ndarray:
        """Return the standardised predictions that rows hold, (n_rows, n_outputs) float32."""
        if rows.soft_target_classes is not None:
            raise ValueError(
                "The soft targets of X are class probabilities, and AFTRegressor predicts numbers: "
                "use FoundationFeatureExtractor instead of FineTunedFeatureExtractor, a regressor "
                "in TeacherPredictions, or give soft_targets in the unit of y."
            )
        return self.encode_soft(rows.soft_targets, len(rows))

    def decode(self, outputs: Tensor) -> np.ndarray:
        """Return predictions in the shape and unit of the targets."""
        return self.original(outputs.double().numpy())

    def check_criterion(self, criterion: nn.Module) -> None:
        """Do nothing: a regressor is not restricted to certain losses."""

    def check_outputs(self, outputs: Tensor, criterion: nn.Module, *, is_users: bool) -> bool:
        """Warn if outputs cannot be negative, since standardised targets can."""
        is_rectified = bool((outputs >= 0).all()) and bool((outputs == 0).any())
        sums = outputs.float().sum(dim=1)
        is_softmax = outputs.shape[1] > 1 and bool(((sums - 1).abs() < 1e-2).all())
        if is_users and len(outputs) >= _FEWEST_ROWS_TO_WARN and (is_rectified or is_softmax):
            warnings.warn(
                "The module's outputs are not negative, as after a ReLU or a softmax. Targets are "
                "standardised, so half of them are: leave out the last activation.",
                stacklevel=2,
            )
        return len(outputs) >= _FEWEST_ROWS_TO_WARN

    def original(self, targets: np.ndarray) -> np.ndarray:
        """Return standardised targets in the shape and unit of y."""
        numbers = self.scaler.inverse_transform(targets.astype(np.float64))
        return numbers[:, 0] if self.ndim == 1 else numbers

    def weights(
        self, targets: np.ndarray, sample_weight: Any, class_weight: Any
    ) -> np.ndarray | None:
        """Return the sample weights."""
        return row_weights(sample_weight, targets)

    def hold_out(self, targets: np.ndarray, validation_fraction: float, seed: Any) -> np.ndarray:
        """Return the rows to hold out: at least two, because R² needs them."""
        n_held_out = _n_held_out(validation_fraction, len(targets), fewest=2)
        return _drawn(np.arange(len(targets)), n_held_out, seed)

    def score(self, outputs: Tensor, targets: Tensor, weights: Tensor | None) -> float:
        """Return R² of the standardised targets."""
        sample_weight = _as_array(weights)
        return float(
            r2_score(targets.cpu().numpy(), outputs.cpu().numpy(), sample_weight=sample_weight)
        )


def _n_held_out(validation_fraction: float, n_rows: int, *, fewest: int) -> int:
    if n_rows <= fewest:
        raise ValueError(
            f"early_stopping=True needs at least {fewest + 1} labelled rows, since it holds out "
            f"{fewest} or more, and y has {n_rows}: label more rows, or set early_stopping=False."
        )
    return min(max(math.ceil(validation_fraction * n_rows), fewest), n_rows - 1)


def _drawn(rows: np.ndarray, n_drawn: int, seed: Any, *, strata: Any = None) -> np.ndarray:
    """Return some of the rows, in their order."""
    if n_drawn == len(rows):
        return rows
    _, drawn = train_test_split(rows, test_size=n_drawn, stratify=strata, random_state=seed)
    return np.sort(drawn)


def _are_log_probabilities(outputs: Tensor) -> bool:
    return bool((outputs.float().logsumexp(dim=1).abs() < 1e-2).all())


Targets: TypeAlias = Union[ClassTargets, NumericTargets]  # noqa: UP007 - evaluated by 3.10


def _several_a_row(y: Any) -> str | None:
    """Return how y holds several targets a row, None if it holds one."""
    if scipy.sparse.issparse(y):
        return f"a sparse {type(y).__name__} of shape {y.shape}, which .toarray() makes dense"
    values = _as_dense(y)
    if values is None or (values.dtype == object and _is_collection(next(values.flat, None))):
        return "lists, of which sklearn.preprocessing.MultiLabelBinarizer makes an array"
    return f"shape {values.shape}" if values.ndim == 2 and values.shape[1] > 1 else None


def _as_dense(y: Any) -> np.ndarray | None:
    """Return array-like targets as an array, None if their rows have different lengths."""
    try:
        return np.asarray(y)
    except ValueError:
        return None


def _is_collection(target: Any) -> bool:
    return isinstance(target, Collection) and not isinstance(target, (str, bytes))


def row_weights(sample_weight: Any, rows: np.ndarray) -> np.ndarray | None:
    """Return checked weights; raise if there are negative ones, or if all are 0."""
    if sample_weight is None:
        return None
    weights = _check_sample_weight(sample_weight, rows, ensure_non_negative=True)
    if not weights.any():
        raise ValueError("sample_weight is zero for every row: there is nothing to learn.")
    return weights


def _as_array(weights: Tensor | None) -> np.ndarray | None:
    return None if weights is None else weights.cpu().numpy()
