"""FineTunedFeatureExtractor: a foundation model that learns the task before it teaches."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import type_of_target

from sk_aft._data._labels import (
    check_labels_are_alike,
    check_no_target_missing,
    known_targets,
    labeled_mask,
    warn_of_mark,
)
from sk_aft._extraction._door import Seen
from sk_aft._extraction._feature_blocks import FeatureBlocks
from sk_aft._extraction._reader import Reader
from sk_aft._extractor import FoundationFeatureExtractor
from sk_aft._features import FoundationFeatures
from sk_aft._fine_tuning._backbone import LabeledRows
from sk_aft._fine_tuning._objectives import OBJECTIVES
from sk_aft._fine_tuning._soft_targets import TunedSoftTargets
from sk_aft._fine_tuning._teacher import Teacher, TeacherSettings
from sk_aft._runtime._seeds import draw_seed


class FineTunedFeatureExtractor(FoundationFeatureExtractor):
    """Fine-tune a foundation model on the labelled rows, and add its features to the raw rows.

    ``fit`` trains a copy of a text or image model on the rows that have a label. Its features
    replace those of the frozen model, and its class probabilities are soft targets for a student.
    In cross-validation it learns from the training rows of each split alone. Use it where a probe
    of the frozen model is inaccurate and labels are few; see `FoundationFeatureExtractor` for
    everything else.

    Parameters
    ----------
    model : str, Backbone, SentenceTransformer, transformers model, or mapping of a column to these
        One text model with a transformer ("minilm", "st:NAME", "hf:NAME", a directory, an object)
        or image model ("effnet-lite0" to "effnet-lite2"). The original is not changed.
    objective : {"auto", "linear", "pairs"}, default="auto"
        What the model is trained for.

        - "linear": a linear layer on its features predicts the class.
        - "pairs", of texts only: those of a class get similar features, others different ones, as
          in SetFit.
        - "auto": "pairs" for texts of at most 16 classes, because a batch holds two rows of each;
          else "linear". If there are at least 50 labelled rows, and a probe of the frozen model
          predicts held-out ones as well, the model stays frozen.
    n_steps : int or "auto", default="auto"
        Batches of 32 rows; SetFit's batches of 16 pairs hold as many texts. "auto" is four passes
        over the labelled rows, at least 100 steps and at most 1,000.
    lr : float or "auto", default="auto"
        Learning rate of the model's layers. "auto" is 1e-4 for "linear" and 3e-5 for "pairs".
    missing_label : int, float, str or None, default=None
        Marks unknown labels in y, as in `AFTClassifier`.
    cv : int or "auto", default="auto"
        Number of folds of the labelled rows, each of which is one more training. They give
        soft targets, and scores, of rows whose labels were not seen. "auto" is 3.
    cache : "auto", path-like, FeatureStore or None, default="auto"
        Where features and the tuned weights are kept. A search over a student's parameters
        fine-tunes once for each split. An interrupted training resumes.
    batch_size : int or "auto", default="auto"
        Number of rows per batch when features are computed, as in `FoundationFeatureExtractor`.
    device : str, torch.device or list of these, default="auto"
        Where the model is trained, on one device, and runs. "auto" uses a GPU if there is one. A
        list is used as in `FoundationFeatureExtractor`.
    verbose : int, default=0
        1 shows progress bars with the time left.
    on_error : {"raise", "mask"}, default="raise"
        What happens if the model cannot read a row, as in `FoundationFeatureExtractor`.
    inputs : str, list of str or None, default=None
        Columns that the student gets, as in `FoundationFeatureExtractor`.
    random_state : int, RandomState instance or None, default=0
        Order of the rows in training. It is an int so that a search finds the tuned model in the
        store; otherwise another model is trained each time, and not kept.

    Attributes
    ----------
    objective_ : {"linear", "pairs", "frozen"}
        What the model was trained for; "frozen" if it is the original.
    cv_scores_ : dict of str to dict
        For the objective and "frozen", the "accuracy" and "log_loss" of a probe on labelled
        rows that neither it nor the model has seen. It is empty after ``fit`` unless "auto"
        compared them; computing soft targets adds the objective, or "frozen" if no class has
        three labelled rows.
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    backbones_, feature_slices_, column_slices_, n_features_out_, n_features_in_, feature_names_in_
        As in `FoundationFeatureExtractor`.

    See Also
    --------
    FoundationFeatureExtractor : Keeps the model as it is.
    sk_aft.model_selection.LabeledFold : Cross-validation with rows that have no label.

    Notes
    -----
    `FoundationFeatures.soft_targets` of rows without a label are the probabilities of a logistic
    regression on the tuned features. For a labelled row they are out of fold: the model and the
    regression were trained on other rows. If no class has three labelled rows, the frozen model
    predicts them, not the tuned one. They are NaN where no other row has the class. The penalty
    of the regression is the one that is best out of fold, with a preference for C = 0.03 if labels
    are few.

    Soft targets are computed when they are first read. A pickle of rows holds what they are
    computed from, the labelled rows among it, so that worker processes can compute them. A pickle
    of the extractor does not: read the soft targets of some rows before, or those of the
    unpickled extractor raise an error.

    `FoundationFeatures.teacher_features` are those of the original model, computed when they are
    first read: with all layers that `FoundationFeatureExtractor` stores.

    Only labelled rows are learned from, so features of a labelled row have seen its label. Do not
    cross-validate a later step on what this transformer returns: cross-validate the pipeline.

    Embeddings of tokens, and the first half of an image model, keep their weights. Image models are
    trained from the last block on; the others join until half of the steps are done. Dropout is
    off, and batch normalisation uses the statistics of the frozen model.

    References
    ----------
    Tunstall et al., "Efficient Few-Shot Learning Without Prompts", arXiv 2209.11055 (SetFit).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sk_aft import FineTunedFeatureExtractor
    >>> rng = np.random.RandomState(0)
    >>> images = rng.randint(0, 100, (12, 16, 16)).astype(np.uint8)
    >>> labels = np.arange(12) % 2
    >>> images[labels == 1, 4:12, 4:12] += 100  # a bright square
    >>> tuned = FineTunedFeatureExtractor("effnet-lite0", objective="linear", n_steps=3)
    >>> pipe = make_pipeline(tuned, LogisticRegression()).fit(images, labels)
    >>> pipe.predict(images[:4])
    array([0, 1, 0, 1])
    """

    _parameter_constraints: dict = {
        **{
            name: constraint
            for name, constraint in FoundationFeatureExtractor._parameter_constraints.items()
            if name not in ("layers", "precision")
        },
        "objective": [StrOptions({"auto", *OBJECTIVES})],
        "n_steps": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "lr": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "missing_label": "no_validation",
        "cv": [Interval(Integral, 2, None, closed="left"), StrOptions({"auto"})],
        "random_state": ["random_state"],
    }

    _soft_targets: TunedSoftTargets

    def __init__(
        self,
        model: Any,
        *,
        objective: str = "auto",
        n_steps: int | str = "auto",
        lr: float | str = "auto",
        missing_label: Any = None,
        cv: int | str = "auto",
        cache: Any = "auto",
        batch_size: int | str = "auto",
        device: Any = "auto",
        verbose: int = 0,
        on_error: str = "raise",
        inputs: Any = None,
        random_state: Any = 0,
    ) -> None:
        super().__init__(
            model,
            cache=cache,
            batch_size=batch_size,
            device=device,
            verbose=verbose,
            on_error=on_error,
            inputs=inputs,
        )
        self.objective = objective
        self.n_steps = n_steps
        self.lr = lr
        self.missing_label = missing_label
        self.cv = cv
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> FineTunedFeatureExtractor:
        """Fine-tune the model on the rows that have a label.

        Parameters
        ----------
        X : list, array, Series or DataFrame of n_rows rows
            Texts or images, as for `FoundationFeatureExtractor`.
        y : array-like of shape (n_rows,)
            Labels; ``missing_label`` marks rows without one.

        Returns
        -------
        self : FineTunedFeatureExtractor
            The fitted transformer.

        Raises
        ------
        ValueError
            Before any training: if there are fewer than two classes, if no class has two labelled
            rows, if y is not made of classes, or if the model cannot be fine-tuned.
        sk_aft.exceptions.DivergenceError
            If the loss becomes infinite or NaN.
        """
        with self._restored_on_error():
            seen = self._fit(X, y)
            # The training happens when features are needed.
            labeled = np.flatnonzero(labeled_mask(y, self.missing_label))
            self._source().compute(seen.read.take(labeled))
        return self

    def fit_transform(self, X: Any, y: Any = None) -> FoundationFeatures:
        """Fine-tune the model, and return the rows with its features, which are computed now.

        Parameters
        ----------
        X : list, array, Series or DataFrame of n_rows rows
            As for `fit`.
        y : array-like of shape (n_rows,)
            As for `fit`.

        Returns
        -------
        rows : FoundationFeatures of shape (n_rows, n_features_out)
            As `transform` returns them.
        """
        return super().fit_transform(X, y)

    @_fit_context(prefer_skip_nested_validation=False)
    def precompute(self, X: Any, y: Any = None) -> FineTunedFeatureExtractor:
        """Fine-tune the model on these rows, and fill the store with features and soft targets.

        A later ``fit`` to the same rows then trains nothing. The splits of a search are other
        rows, and each is fine-tuned when the search comes to it.

        Parameters
        ----------
        X : list, array, Series or DataFrame of n_rows rows
            As for `fit`.
        y : array-like of shape (n_rows,)
            As for `fit`.

        Returns
        -------
        self : FineTunedFeatureExtractor
            The fitted transformer, with the models unloaded.
        """
        if self.cache is None:
            raise ValueError("cache=None keeps no features, so there is nothing to precompute.")
        with self._restored_on_error():
            rows = self._beside_features(self._fit(X, y))
            try:
                rows._computed()
                rows.teacher_features._computed()
                _ = rows.soft_targets
            finally:
                self._unload()
        return self

    def _fit(self, X: Any, y: Any = None, groups: Any = None) -> Seen:
        """Check rows and labels, and choose the objective."""
        for name in ("n_steps", "lr"):
            if isinstance(getattr(self, name), bool):  # a number to the check of parameters
                raise ValueError(f"{name} has to be 'auto' or a number, got {getattr(self, name)}.")
        labels, labeled = self._check_labels(y)
        seen = super()._fit(X, y)
        if len(labeled) != len(seen.rows):
            raise ValueError(
                "Found input variables with inconsistent numbers of samples: "
                f"X has {len(seen.rows)} rows and y has {len(labeled)}."
            )
        (reader,) = self._readers
        random_state = self.random_state
        seed = int(random_state) if isinstance(random_state, Integral) else draw_seed(random_state)
        settings = TeacherSettings(
            self.objective,
            self.n_steps,
            self.lr,
            self.cv,
            seed,
            isinstance(random_state, Integral),
            self.verbose,
        )
        rows = self._labeled_rows(reader, seen, labels, labeled)
        teacher = Teacher(reader, rows, settings, self._source([reader])._replace(verbose=0))
        self.objective_ = teacher.objective
        self.cv_scores_ = teacher.scores
        self._readers = [teacher.reader]
        self.backbones_ = [teacher.reader.backbone]
        if self._teacher is None:
            self._teacher = FeatureBlocks([reader], self.feature_slices_, self.column_slices_)
        self._soft_targets = teacher.soft_targets(self.classes_)
        return seen

    def _check_models(self, readers: Sequence[Reader]) -> None:
        if self._teachers:
            raise ValueError(
                "FineTunedFeatureExtractor tunes a foundation model, and a predictor is none: give "
                "it to a FoundationFeatureExtractor."
            )
        if len(readers) > 1:
            raise ValueError(
                f"FineTunedFeatureExtractor tunes one model, got {len(readers)}: use one extractor "
                "for each, and give a student the mean of their soft targets with "
                "fit(X, y, soft_targets=...)."
            )
        backbone = readers[0].backbone
        backbone.check_tunable()
        if self.objective == "pairs" and backbone.kind != "text":
            raise ValueError(
                f"objective='pairs' is for texts, and {backbone.name!r} reads rows of kind "
                f"{backbone.kind!r}: use 'linear' or 'auto'."
            )

    def _check_labels(self, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the class number of each labelled row, and which rows have a label."""
        if y is None:
            raise ValueError(
                "FineTunedFeatureExtractor requires y to be passed, but the target y is None."
            )
        labeled = labeled_mask(y, self.missing_label)
        if not labeled.any():
            raise ValueError(
                f"All {len(labeled)} rows of y are missing_label={self.missing_label!r}: a model "
                "is fine-tuned on rows with a label."
            )
        check_no_target_missing(y, labeled, self.missing_label)
        check_labels_are_alike(y, labeled)
        known = known_targets(y, labeled)
        if known.ndim == 2 and known.shape[1] == 1:
            known = known[:, 0]
        if known.ndim != 1:
            raise ValueError(f"y has shape {known.shape}: expected one label for each row.")
        if type_of_target(known).startswith("continuous"):
            raise ValueError(
                "y holds numbers that are not classes (Unknown label type: continuous), and "
                "FineTunedFeatureExtractor learns classes: use FoundationFeatureExtractor before a "
                "regressor."
            )
        self.classes_, numbers = np.unique(known, return_inverse=True)
        if labeled.all():
            warn_of_mark(self.classes_, type(self).__name__)
        _check_can_learn(numbers, self.classes_, "labelled rows")
        return numbers.astype(np.int64), labeled

    def _labeled_rows(
        self, reader: Reader, seen: Seen, labels: np.ndarray, labeled: np.ndarray
    ) -> LabeledRows:
        """Return the labelled rows that the model can read."""
        indices = np.flatnonzero(labeled)
        if self.on_error == "mask":
            (frozen,) = self._source([reader]).compute(seen.read.take(indices))
            known = ~frozen.missing_mask
            indices, labels = indices[known], labels[known]
            _check_can_learn(labels, self.classes_, "labelled rows that the model can read")
        rows = reader.rows(seen.read.take(indices))
        return LabeledRows.of(rows, labels, len(self.classes_))

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if "_soft_targets" in state:
            # A pickle may go elsewhere, so it does not hold the labelled rows.
            state["_soft_targets"] = state["_soft_targets"].without_recipe()
        return state

    def __deepcopy__(self, memo: dict[int, Any]) -> FineTunedFeatureExtractor:
        other = memo[id(self)] = type(self).__new__(type(self))
        state = self.__getstate__()
        if "_soft_targets" in state:
            state["_soft_targets"] = self._soft_targets
        other.__setstate__(copy.deepcopy(state, memo))
        return other

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def _check_can_learn(labels: np.ndarray, classes: np.ndarray, rows: str) -> None:
    """Raise ValueError unless there are two classes, one of them with two rows."""
    present = np.unique(labels)
    if len(present) < 2:
        raise ValueError(
            f"The {rows} have only one class, {classes.tolist()[present[0]]!r}: a model is "
            "fine-tuned to tell at least two classes apart."
        )
    if len(present) == len(labels):
        raise ValueError(
            f"Each of the {len(labels)} {rows} is the only one of its class: a model is "
            "fine-tuned on at least two rows of a class. Label more rows, or use "
            "FoundationFeatureExtractor."
        )
