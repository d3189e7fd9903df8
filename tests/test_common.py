"""scikit-learn's own battery of checks, with a reason for each exception."""

import numpy as np
import pytest
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from sk_aft import (
    AFTClassifier,
    AFTRegressor,
    FineTunedFeatureExtractor,
    FoundationFeatureExtractor,
)
from tests._fine_tuning.linear_layers import LinearLayers

# Both are properties of neural networks.
STUDENT_EXCEPTIONS = {
    "check_sample_weight_equivalence_on_dense_data": (
        "batches are drawn at random, so a row of weight 2 is not in the batches of two rows"
    ),
    "check_methods_subset_invariance": (
        "float32: a matrix product of one row rounds otherwise than one of many (1e-7)"
    ),
}


class FirstColumn:
    """A foundation model whose name in the test's is the same in every process."""

    def __call__(self, X):
        return np.asarray(X, dtype=float)[:, :1]

    def __repr__(self):
        return "FirstColumn()"


first_column = FirstColumn()


def features_of(X):
    """Return features of rows that are numbers; None where fit has to say what is wrong."""
    try:
        features = np.tanh(np.asarray(X).astype(np.float64, casting="same_kind"))
    except (TypeError, ValueError):
        return None
    return features if features.ndim == 2 and features.size else None


class AFTClassifierWithFeatures(AFTClassifier):
    def fit(self, X, y=None, *, sample_weight=None):
        return super().fit(X, y, features=features_of(X), sample_weight=sample_weight)


class AFTRegressorWithFeatures(AFTRegressor):
    def fit(self, X, y=None, *, sample_weight=None):
        return super().fit(X, y, features=features_of(X), sample_weight=sample_weight)


# Every pipeline does, whatever its steps are.
PIPELINE_EXCEPTIONS = {
    "check_estimators_overwrite_params": "a Pipeline replaces its steps by fitted ones",
    "check_dont_overwrite_parameters": "a Pipeline replaces its steps by fitted ones",
}


def expected_failures(estimator):
    if isinstance(estimator, FoundationFeatureExtractor):
        return {}
    if isinstance(estimator, Pipeline):
        return {**STUDENT_EXCEPTIONS, **PIPELINE_EXCEPTIONS}
    return STUDENT_EXCEPTIONS


def taught(student):
    return make_pipeline(FoundationFeatureExtractor(np.tanh), student)


# Enough to learn the few rows of the checks, in a tenth of the time that the defaults take.
SMALL_BUDGET = {"max_epochs": 10, "batch_size": 32, "lr": 0.02}


@pytest.mark.filterwarnings("ignore:No foundation features:UserWarning")
@parametrize_with_checks(
    [
        AFTClassifier(**SMALL_BUDGET),
        AFTRegressor(**SMALL_BUDGET),
        AFTClassifier(transfer=None, **SMALL_BUDGET),
        AFTRegressor(transfer=None, **SMALL_BUDGET),
        AFTClassifierWithFeatures(**SMALL_BUDGET),
        AFTRegressorWithFeatures(**SMALL_BUDGET),
        FoundationFeatureExtractor(first_column, cache=None),
        FoundationFeatureExtractor([first_column, np.tanh]),
        FineTunedFeatureExtractor(LinearLayers(), objective="linear", n_steps=2, cache=None),
        taught(AFTClassifier(beta=1, random_state=0, **SMALL_BUDGET)),
        taught(AFTRegressor(beta=1, random_state=0, **SMALL_BUDGET)),
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:No foundation features:UserWarning")
@parametrize_with_checks(
    [AFTClassifier(), AFTRegressor()], expected_failed_checks=expected_failures
)
def test_scikit_learns_checks_with_the_default_budget(estimator, check):
    check(estimator)
