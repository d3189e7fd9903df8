"""The methods as estimators, each with the same number of trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from benchmarks.accuracy._search import Axis, Search, Setting
from benchmarks.accuracy._setfit import SetFitClassifier, SetFitTeacher
from benchmarks.accuracy._students import student_settings, tfidf
from benchmarks.accuracy._teachers import teacher
from sk_aft import AFTClassifier, AFTRegressor, FoundationFeatureExtractor
from sk_aft.transfer import default_beta

N_TRIALS = 5
BATCH_SIZE = 128


@dataclass(frozen=True)
class Student:
    """The small network, taught in one way.

    Parameters
    ----------
    transfer : str, list or None
        As `AFTClassifier` takes it.
    settings : dict
        Further arguments.
    is_tuned : bool
        Whether there are trials; without, all is left at the estimator's defaults.
    uses_unlabeled : bool
        Whether rows without label take part.
    uses_mixtures : bool
        Whether mixtures of two training images are added, without label.
    initial_beta : float, optional
        The beta that trials start from, instead of the method's `default_beta`.
    grid : tuple of dict
        What to try, in place of the usual trials.
    learned_teacher : callable, optional
        From the seed to a transformer that is trained on the labelled rows, instead of a
        pretrained foundation model.
    """

    transfer: Any
    settings: Setting = field(default_factory=dict)
    is_tuned: bool = True
    uses_unlabeled: bool = False
    uses_mixtures: bool = False
    initial_beta: float | None = None
    grid: tuple[Setting, ...] = ()
    learned_teacher: Callable[[int], Any] | None = None
    is_student = True

    def search(self, student: str, data: str) -> Search:
        """Return where to start, and what to vary."""
        if not self.is_tuned:
            return Search({})
        if self.grid:
            return Search(self.grid[0], grid=self.grid)
        lr = student_settings(student, data)["lr"]
        if self.transfer in (None, "auto"):
            return Search({"lr": lr}, (Axis("lr", lr, 3, N_TRIALS - 1),))
        base = self.initial_beta or default_beta(self.transfer)
        beta = Axis("beta", base, 5, (N_TRIALS - 1) // 2)
        return Search({"lr": lr, "beta": base}, (beta, Axis("lr", lr, 3, (N_TRIALS - 1) // 2)))

    def build(
        self,
        data: str,
        student: str,
        teacher_name: str,
        setting: Setting,
        n_epochs: int,
        seed: int,
        is_regression: bool,
    ) -> Any:
        """Return the estimator, unfitted."""
        arguments = {
            "batch_size": BATCH_SIZE,
            "max_epochs": n_epochs,
            "random_state": seed,
            **student_settings(student, data),
            **self.settings,
            **setting,
        }
        if not self.is_tuned:
            del arguments["lr"]  # as the estimator comes
        if self.transfer is None:
            arguments["beta"] = 0
        else:
            arguments["transfer"] = self.transfer
        if self.uses_unlabeled or self.uses_mixtures:
            arguments["missing_label"] = np.nan if is_regression else -1
        estimator = (AFTRegressor if is_regression else AFTClassifier)(**arguments)
        if self.transfer is None:
            return estimator
        if self.learned_teacher is not None:
            return make_pipeline(self.learned_teacher(seed), estimator)
        return make_pipeline(FoundationFeatureExtractor(teacher(teacher_name)), estimator)


@dataclass(frozen=True)
class Linear:
    """A linear model on features of some kind.

    Parameters
    ----------
    features : callable
        From the name of the teacher to transformers, one after the other.
    strength : float
        Usual C of the logistic regression, or 1 / alpha of the ridge regression.
    head : callable, optional
        From C to another classifier.
    """

    features: Callable[[str], Sequence[Any]]
    strength: float
    head: Callable[[float], Any] | None = None
    grid = ()
    uses_unlabeled = False
    uses_mixtures = False
    is_student = False

    def search(self, student: str, data: str) -> Search:
        """Return where to start, and what to vary."""
        return Search({"C": self.strength}, (Axis("C", self.strength, 10, N_TRIALS - 1),))

    def build(
        self,
        data: str,
        student: str,
        teacher_name: str,
        setting: Setting,
        n_epochs: int,
        seed: int,
        is_regression: bool,
    ) -> Any:
        """Return the estimator, unfitted."""
        strength = setting["C"]
        if is_regression:
            model: Any = Ridge(alpha=1 / strength)
        elif self.head is not None:
            model = self.head(strength)
        else:
            model = LogisticRegression(C=strength, max_iter=1000)
        return make_pipeline(*self.features(teacher_name), model)


@dataclass(frozen=True)
class FineTuned:
    """The foundation model itself, trained further."""

    grid = ()
    uses_unlabeled = False
    uses_mixtures = False
    is_student = False

    def search(self, student: str, data: str) -> Search:
        """Return where to start, and what to vary."""
        return Search({"lr": 2e-5}, (Axis("lr", 2e-5, 3, N_TRIALS - 1),))

    def build(
        self,
        data: str,
        student: str,
        teacher_name: str,
        setting: Setting,
        n_epochs: int,
        seed: int,
        is_regression: bool,
    ) -> Any:
        """Return the estimator, unfitted."""
        return SetFitClassifier(seed=seed, **setting)


def _tfidf(_: str) -> list[Any]:
    return [tfidf()]


def _probe(teacher_name: str) -> list[Any]:
    return [FoundationFeatureExtractor(teacher(teacher_name)), StandardScaler()]


def hog(images: np.ndarray) -> np.ndarray:
    """Return histograms of oriented gradients (Dalal and Triggs 2005)."""
    from skimage.feature import hog as of_image

    return np.stack(
        [
            of_image(
                image,
                pixels_per_cell=(image.shape[0] // 7,) * 2,
                cells_per_block=(2, 2),
                channel_axis=-1 if image.ndim == 3 else None,
            )
            for image in images
        ]
    )


def _hog(_: str) -> list[Any]:
    return [FunctionTransformer(hog), StandardScaler()]


# A learned map of the student's features before the kernel, as measured; not in the paper.
_PROJECTED: Setting = {"transfer__projection": 128}

_BOTH = [("aft", 10), ("probe-kd", 1)]

LEARNING_RATES = (3e-4, 1e-3, 3e-3)
BETAS = (0, 1, 10, 100)
_GRID = tuple({"lr": lr, "beta": beta} for lr in LEARNING_RATES for beta in BETAS)

METHODS: dict[str, Student | Linear | FineTuned] = {
    "student alone": Student(None),
    "default": Student("auto"),
    "aft": Student("aft", settings=_PROJECTED),
    "aft, from 1": Student("aft", settings=_PROJECTED, initial_beta=1.0),
    "aft, grid": Student("aft", settings=_PROJECTED, grid=_GRID),
    "default, not tuned": Student("auto", is_tuned=False),
    "student alone, not tuned": Student(None, is_tuned=False),
    "aft, published": Student("aft"),
    "aft-fixed": Student("aft-fixed"),
    "aft-dense": Student("aft-dense"),
    "aft-rbf": Student("aft-rbf"),
    "aft-product": Student("aft-product"),
    "feature-regression": Student("feature-regression"),
    "kd": Student("kd"),
    "rkd": Student("rkd"),
    "ft": Student("ft"),
    "kkd": Student("kkd"),
    "b-tuning": Student("b-tuning"),
    "probe-kd": Student("probe-kd"),
    "aft and probe-kd": Student(_BOTH, settings={"transfer__aft__projection": 128}),
    "aft + unlabelled": Student("aft", uses_unlabeled=True),
    "probe-kd + unlabelled": Student("probe-kd", uses_unlabeled=True),
    "probe-kd by SetFit + unlabelled, not tuned": Student(
        "probe-kd",
        settings={"beta": 1},
        is_tuned=False,
        uses_unlabeled=True,
        learned_teacher=SetFitTeacher,
    ),
    "aft + mixtures": Student("aft", uses_mixtures=True),
    "probe-kd + mixtures": Student("probe-kd", uses_mixtures=True),
    "aft and probe-kd + mixtures": Student(_BOTH, uses_mixtures=True),
    "TF-IDF + linear": Linear(_tfidf, 10),
    "HOG + SVM": Linear(_hog, 1, lambda C: SVC(C=C)),
    "SetFit": FineTuned(),
    "probe": Linear(_probe, 0.01),
}
WITHOUT_TEACHER = (
    "student alone",
    "student alone, not tuned",
    "TF-IDF + linear",
    "HOG + SVM",
    "SetFit",
    "probe-kd by SetFit + unlabelled, not tuned",
)
