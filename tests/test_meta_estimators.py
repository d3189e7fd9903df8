"""Features and weights reach the student through the meta-estimators of scikit-learn."""

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_aft import AFTClassifier, AFTRegressor, FoundationFeatureExtractor

X, Y = load_iris(return_X_y=True)
X = X[::2] + np.random.default_rng(0).normal(0, 1e-3, (75, 4))  # no two rows alike
Y = Y[::2]
FEATURES = np.stack([X[:, 0], X[:, 2] ** 2, X[:, 3] * X[:, 2]], axis=1)
WEIGHTS = 1 + X[:, 1]
BETAS = {"beta": [0.5, 1]}


class Watched(AFTClassifier):
    """Checks at every fit that each row comes with its own features and weight."""

    seen = []

    def fit(self, X, y=None, *, features=None, sample_weight=None):
        np.testing.assert_allclose(features[:, 0], X[:, 0])
        np.testing.assert_allclose(sample_weight, 1 + X[:, 1])
        self.seen.append(len(X))
        return super().fit(X, y, features=features, sample_weight=sample_weight)


class Unweighted(AFTClassifier):
    """Checks at every fit that each row comes with its own features."""

    def fit(self, X, y=None, *, features=None):
        np.testing.assert_allclose(features[:, 0], X[:, 0])
        return super().fit(X, y, features=features)


@pytest.fixture
def student():
    Watched.seen.clear()
    return Watched(beta=1, max_epochs=3, lr=0.01, random_state=0)


@pytest.fixture
def routed(student):
    with sklearn.config_context(enable_metadata_routing=True):
        student.set_fit_request(features=True, sample_weight=True)
        student.set_partial_fit_request(features=True, sample_weight=True)  # of learning_curve
        yield student.set_score_request(sample_weight=False)


@pytest.fixture
def scaler():
    """Changes no number, and no row."""
    scaler = StandardScaler(with_mean=False, with_std=False)
    with sklearn.config_context(enable_metadata_routing=True):
        return scaler.set_fit_request(sample_weight=False)


@pytest.fixture
def pipe(student):
    """Features travel beside the rows: no argument, no routing."""
    return make_pipeline(
        FoundationFeatureExtractor(np.square),
        AFTClassifier(beta=1, max_epochs=3, lr=0.01, random_state=0),
    )


def calibrated(model):
    return CalibratedClassifierCV(model, cv=2)


def stacked(model):
    return StackingClassifier([("student", model)], LogisticRegression(), cv=2)


def bagged(model):
    return BaggingClassifier(model, n_estimators=2, random_state=0)


def one_against_rest(model):
    return OneVsRestClassifier(model)


def voted(model):
    return VotingClassifier([("one", model), ("other", clone(model))])


ENSEMBLES = [calibrated, stacked, one_against_rest, voted]
SEARCHES = [
    lambda model, grid: GridSearchCV(model, grid, cv=2, error_score="raise"),
    lambda model, grid: RandomizedSearchCV(
        model, grid, n_iter=2, cv=2, random_state=0, error_score="raise"
    ),
    lambda model, grid: HalvingGridSearchCV(
        model, grid, cv=2, min_resources=30, random_state=0, error_score="raise"
    ),
]
SEARCH_NAMES = ["grid", "randomized", "halving"]


# ---------------------------------------------------------------- as arguments, routing on


def test_a_pipeline_routes(routed, scaler):
    pipe = make_pipeline(scaler, routed)
    pipe.fit(X, Y, features=FEATURES, sample_weight=WEIGHTS)
    assert Watched.seen == [75]
    assert pipe.predict(X).shape == (75,)


@pytest.mark.parametrize("search", SEARCHES, ids=SEARCH_NAMES)
def test_searches_route(routed, search):
    search(routed, BETAS).fit(X, Y, features=FEATURES, sample_weight=WEIGHTS)
    assert len(Watched.seen) >= 5
    assert Watched.seen[-1] == 75


# A StackingClassifier hands what it is given to its final estimator, too, whether that asks or
# not; its students get features as steps after an extractor.
@pytest.mark.parametrize("wrap", [calibrated, one_against_rest, voted])
def test_ensembles_route(routed, wrap):
    wrapped = wrap(routed).fit(X, Y, features=FEATURES, sample_weight=WEIGHTS)
    assert len(Watched.seen) >= 2
    assert wrapped.predict(X).shape == (75,)


def test_bagging_routes(student):
    with sklearn.config_context(enable_metadata_routing=True):
        model = Unweighted(beta=1, max_epochs=2).set_fit_request(features=True)
        assert bagged(model).fit(X, Y, features=FEATURES).predict(X).shape == (75,)


def test_cross_validation_routes(routed):
    params = {"features": FEATURES, "sample_weight": WEIGHTS}
    options = {"cv": 3, "params": params}
    assert len(cross_validate(routed, X, Y, error_score="raise", **options)["test_score"]) == 3
    assert cross_val_predict(routed, X, Y, **options).shape == (75,)
    curve = learning_curve(
        routed, X, Y, train_sizes=[0.5, 1.0], shuffle=True, error_score="raise", **options
    )
    assert curve[1].shape == (2, 3)
    scores, _ = validation_curve(
        routed, X, Y, param_name="beta", param_range=[1, 2], error_score="raise", **options
    )
    assert scores.shape == (2, 3)
    assert len(Watched.seen) == 3 + 3 + 6 + 6


def test_a_search_in_a_pipeline_in_a_validation(scaler):
    with sklearn.config_context(enable_metadata_routing=True):
        student = Unweighted(beta=1, max_epochs=2).set_fit_request(features=True)
        inner = GridSearchCV(student, BETAS, cv=2, error_score="raise")
        scores = cross_val_score(
            make_pipeline(scaler, inner), X, Y, params={"features": FEATURES}, error_score="raise"
        )
    assert np.isfinite(scores).all()


def test_requests_are_those_of_fit():
    with sklearn.config_context(enable_metadata_routing=True):
        requests = AFTClassifier().set_fit_request(features=True).get_metadata_routing()
        others = {"sample_weight": None, "soft_targets": None, "X_unlabeled": None}
        assert requests.fit.requests == {"features": True, **others}
        assert set(requests.partial_fit.requests) >= {"features", "sample_weight"}
        copied = clone(AFTRegressor().set_fit_request(features="psi")).get_metadata_routing()
        assert copied.fit.requests == {"features": "psi", **others}
        with pytest.raises(TypeError, match="nexpected"):
            AFTRegressor().set_fit_request(feature=True)


def test_unrequested_features_are_refused_not_dropped(student):
    with (
        sklearn.config_context(enable_metadata_routing=True),
        pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="features"),
    ):
        GridSearchCV(student, BETAS, cv=2).fit(X, Y, features=FEATURES)


# ---------------------------------------------------------------- as arguments, routing off


@pytest.mark.parametrize("search", SEARCHES[:2], ids=SEARCH_NAMES[:2])
def test_searches_slice_arguments_without_routing(student, search):
    search(student, BETAS).fit(X, Y, features=FEATURES, sample_weight=WEIGHTS)
    assert len(Watched.seen) == 5


def test_cross_validation_slices_arguments_without_routing(student):
    params = {"features": FEATURES, "sample_weight": WEIGHTS}
    cross_validate(student, X, Y, cv=3, params=params, error_score="raise")
    cross_val_predict(student, X, Y, cv=3, params=params)
    assert len(Watched.seen) == 6


# ---------------------------------------------------------------- beside the rows


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("wrap", [*ENSEMBLES, bagged])
def test_ensembles_of_pipelines(pipe, wrap, routing):
    with sklearn.config_context(enable_metadata_routing=routing):
        wrapped = wrap(pipe).fit(X, Y)
        assert wrapped.predict(X).shape == (75,)
        assert wrapped.predict_proba(X).shape == (75, 3) if wrap is not voted else True


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("search", SEARCHES, ids=SEARCH_NAMES)
def test_searches_of_pipelines(pipe, search, routing):
    with sklearn.config_context(enable_metadata_routing=routing):
        found = search(pipe, {"aftclassifier__beta": [0, 1]}).fit(X, Y)
        assert found.best_estimator_[-1].n_iter_ == 3


def test_curves_of_pipelines(pipe):
    learning_curve(pipe, X, Y, cv=2, train_sizes=[30], shuffle=True, error_score="raise")
    scores, _ = validation_curve(
        pipe, X, Y, param_name="aftclassifier__beta", param_range=[0, 1], cv=2, error_score="raise"
    )
    assert scores.shape == (2, 2)


def test_bagging_resamples_rows_with_their_features(student):
    """Bagging draws rows, or gives them weights; the extractor looks up whatever comes."""
    extractor = FoundationFeatureExtractor(np.square)
    bag = BaggingClassifier(
        make_pipeline(extractor, AFTClassifier(beta=1, max_epochs=20, lr=0.01)),
        n_estimators=3,
        max_samples=0.7,
        random_state=0,
    ).fit(X, Y)
    assert bag.score(X, Y) > 0.8


def test_columns_are_prepared_beside_it(pipe):
    prepared = ColumnTransformer([("scale", StandardScaler(), [0, 1])], remainder="passthrough")
    model = make_pipeline(prepared, pipe).fit(X, Y)
    assert model.predict(X).shape == (75,)
    assert model[-1][-1].beta_ == 1


def test_the_extractor_in_a_column_transformer_is_a_table(pipe):
    tables = ColumnTransformer([("features", FoundationFeatureExtractor(np.square), [0, 1])])
    probe = make_pipeline(tables, LogisticRegression()).fit(X, Y)
    assert probe.score(X, Y) > 0.5
    student = make_pipeline(tables, AFTClassifier(max_epochs=2))
    with pytest.warns(UserWarning, match="a ColumnTransformer.*made a plain table"):
        student.fit(X, Y)


@pytest.mark.parametrize("routing", [False, True])
def test_transformed_targets(routing):
    X, y = load_diabetes(return_X_y=True)
    model = AFTRegressor(beta=1, max_epochs=10, lr=0.01, random_state=0)
    with sklearn.config_context(enable_metadata_routing=routing):
        if routing:
            model.set_fit_request(features=True)
        log = TransformedTargetRegressor(model, func=np.log, inverse_func=np.exp)
        log.fit(X, y, features=np.square(X))
    assert log.regressor_.beta_ == 1
    assert log.score(X, y) > 0.3


def test_a_frozen_student_is_not_fitted_again(pipe):
    pipe.fit(X, Y)
    before = pipe.predict_proba(X)
    calibrated = CalibratedClassifierCV(FrozenEstimator(pipe), cv=2).fit(X, Y)
    assert calibrated.predict(X).shape == (75,)
    np.testing.assert_array_equal(pipe.predict_proba(X), before)


def test_permutation_importance(pipe):
    pipe.set_params(aftclassifier__max_epochs=30).fit(X, Y)
    found = permutation_importance(pipe, X, Y, n_repeats=3, random_state=0)
    assert found.importances_mean[[2, 3]].max() > found.importances_mean[[0, 1]].max()


# ---------------------------------------------------------------- what arrives where


def test_the_network_never_sees_features_or_weights():
    import torch

    calls = []

    class Recording(torch.nn.Module):
        def __init__(self, n_inputs, n_outputs):
            super().__init__()
            self.linear = torch.nn.Linear(n_inputs, n_outputs)

        def forward(self, *args, **kwargs):
            calls.append((len(args), tuple(kwargs), args[0].shape[1]))
            return self.linear(*args)

    AFTClassifier(Recording, beta=1, max_epochs=1, early_stopping=True, random_state=0).fit(
        X, Y, features=FEATURES, sample_weight=WEIGHTS
    )
    assert set(calls) == {(1, (), 4)}


def test_held_out_rows_take_their_features_and_weights_along():
    """The rows are split for early stopping as their features are: the student can tell."""
    import torch

    pairs = []

    class Recording(torch.nn.Module):
        def forward(self, student, foundation):
            pairs.append((student.detach(), foundation))
            return 0.0 * student.sum()

    class FirstColumn(torch.nn.Module):
        def __init__(self, n_inputs, n_outputs):
            super().__init__()
            self.linear = torch.nn.Linear(n_inputs, n_outputs)

        def forward(self, inputs):
            return self.linear(inputs), inputs

    AFTClassifier(
        FirstColumn,
        transfer=Recording(),
        beta=1,
        max_epochs=2,
        preprocessor=None,
        early_stopping=True,
        random_state=0,
    ).fit(X, Y, features=FEATURES, sample_weight=WEIGHTS)
    assert sum(len(foundation) for _, foundation in pairs) == 2 * 67  # 8 of 75 are held out
    for student, foundation in pairs:
        torch.testing.assert_close(student[:, 0], foundation[:, 0], rtol=1e-5, atol=1e-5)
