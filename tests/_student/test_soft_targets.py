"""Students learn from soft targets: given to fit, or held by FoundationFeatures."""

import pickle
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy.special import log_softmax, xlogy
from sklearn.datasets import load_diabetes, load_digits
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from torch import nn

from sk_aft import AFTClassifier, AFTRegressor, FoundationFeatureExtractor, FoundationFeatures
from sk_aft.transfer import TransferMethod

DIGITS, LABELS = load_digits(n_class=5, return_X_y=True)
DIGITS = DIGITS.astype(np.float32)
X, Y = DIGITS[:120], LABELS[:120]
P = LinearDiscriminantAnalysis(shrinkage="auto", solver="lsqr").fit(DIGITS, LABELS)
P = P.predict_proba(DIGITS)[:120].astype(np.float32)
NUMBERS, AMOUNTS = load_diabetes(return_X_y=True)
NUMBERS, AMOUNTS = NUMBERS[:120].astype(np.float32), AMOUNTS[:120]
SOME = np.arange(120) % 3 > 0


class Probabilities:
    """What a fine-tuned extractor knows of rows of digits; counts how often it is asked."""

    def __init__(self, classes, values=P):
        self.classes = classes
        self.of_row = {row.tobytes(): value for row, value in zip(X, values, strict=True)}
        self.n_calls = 0

    def compute(self, rows, parts):
        self.n_calls += 1
        assert len(parts) == 1
        return np.float32([self.of_row[np.float32(row).tobytes()] for row in rows.values])


def held(source, rows=X):
    """Return FoundationFeatures with soft targets."""
    plain = FoundationFeatureExtractor(PCA(4).fit(X)).fit_transform(rows)
    return FoundationFeatures(
        plain.inputs,
        plain._rows,
        plain._source,
        plain.feature_slices,
        soft_target_source=source,
    )


def quick(kind=AFTClassifier, **parameters):
    return kind(**{"max_epochs": 2, "random_state": 0, **parameters})


def still(kind=AFTClassifier, **parameters):
    """Return a student that sees all rows at once and does not change, so its loss is known."""
    frozen = {"max_epochs": 1, "batch_size": 1000, "lr": 1e-12, "lr_schedule": "constant"}
    return kind(**{**frozen, "random_state": 0, **parameters})


def divergence(model, rows, probabilities):
    log_predictions = log_softmax(model.forward(rows).double().numpy(), axis=1)
    entropy = xlogy(probabilities, probabilities).sum(axis=1)
    return (entropy - (probabilities * log_predictions).sum(axis=1)).mean()


def transfer_loss(model):
    return model.history_[-1]["train_transfer_loss"]


def absent_where(mask, values=P):
    values = values.copy()
    values[mask] = np.nan
    return values


# ---------------------------------------------------------------- what is learned


def test_texts_and_soft_targets_are_enough():
    texts = ["good film", "so good", "bad film", "so bad", "fine", "poor"] * 10
    p = np.array([0.9, 0.9, 0.1, 0.1, 0.8, 0.2] * 10)
    marked = ["good", "?", "bad", "?", "?", "?"] * 10
    model = AFTClassifier(missing_label="?", max_epochs=40, random_state=0, lr=0.05)
    model.fit(texts, marked, soft_targets=np.c_[p, 1 - p][:, ::-1])
    assert (model.transfer_method_, model.beta_) == ("probe-kd", 1)
    assert model.predict(["fine", "poor"]).tolist() == ["good", "bad"]  # never labelled
    assert model.predict_proba(["fine"])[0, 1] == pytest.approx(0.8, abs=0.1)


def test_rows_without_labels_are_taught():
    marked = np.where(np.arange(120) < 10, Y, -1)
    X_test, y_test = DIGITS[120:], LABELS[120:]
    parameters = {"missing_label": -1, "lr": 0.01, "max_epochs": 40, "random_state": 0}
    taught = AFTClassifier(**parameters).fit(X, marked, soft_targets=P)
    alone = AFTClassifier(**parameters, beta=0).fit(X, marked)
    assert taught.score(X_test, y_test) > alone.score(X_test, y_test) + 0.05
    assert taught.score(X_test, y_test) > 0.87


@pytest.mark.parametrize("transfer", ["auto", "probe-kd"])
def test_the_loss_is_the_divergence_over_the_rows_that_have_some(transfer):
    model = still(transfer=transfer).fit(X, Y, soft_targets=absent_where(~SOME))
    assert transfer_loss(model) == pytest.approx(divergence(model, X[SOME], P[SOME]), rel=1e-4)


def test_all_rows_of_weight_0_and_unlabelled_ones_are_among_them():
    marked = np.where(np.arange(120) % 2, Y, -1)
    model = still(missing_label=-1, unlabeled_fraction=0.5, batch_size=120)
    model.fit(X, marked, soft_targets=P, sample_weight=(np.arange(120) % 4).astype(float))
    assert transfer_loss(model) == pytest.approx(divergence(model, X, P), rel=1e-4)


def test_labels_of_any_order_and_a_frame_named_after_them():
    names = np.array(["e", "d", "c", "b", "a"])  # sorted, the columns are those of P reversed
    by_position = quick().fit(X, names[Y], soft_targets=P[:, ::-1])
    frame = pd.DataFrame(P, columns=names)
    by_name = quick().fit(X, names[Y], soft_targets=frame)
    np.testing.assert_array_equal(by_name.predict_proba(X), by_position.predict_proba(X))


def test_a_class_whose_rows_have_no_weight_needs_no_probe():
    model = quick().fit(X, Y, soft_targets=P, features=X, sample_weight=(Y == 2).astype(float))
    assert model.transfer_method_ == "probe-kd"
    assert quick().fit(X, Y, features=X, sample_weight=(Y == 2) * 1.0).transfer_method_ == "aft"


def test_regression_in_the_unit_of_the_targets():
    predictions = Ridge().fit(NUMBERS, AMOUNTS).predict(NUMBERS)
    given = np.where(SOME, predictions, np.nan)
    model = still(AFTRegressor).fit(NUMBERS, AMOUNTS, soft_targets=given)
    errors = (model.predict(NUMBERS) - predictions)[SOME] / AMOUNTS.std()
    assert transfer_loss(model) == pytest.approx(np.square(errors).mean(), rel=1e-4)
    column = still(AFTRegressor).fit(NUMBERS, AMOUNTS, soft_targets=given[:, None])
    assert transfer_loss(column) == transfer_loss(model)
    two = quick(AFTRegressor).fit(
        NUMBERS, np.c_[AMOUNTS, -AMOUNTS], soft_targets=np.c_[predictions, -predictions]
    )
    assert two.predict(NUMBERS).shape == (120, 2)


def test_a_regressor_learns_rows_without_numbers():
    known = np.arange(120) < 8
    predictions = Ridge(alpha=0.1).fit(NUMBERS, AMOUNTS).predict(NUMBERS)
    model = AFTRegressor(missing_label=np.nan, max_epochs=60, lr=0.01, random_state=0)
    model.fit(NUMBERS, np.where(known, AMOUNTS, np.nan), soft_targets=predictions)
    assert np.corrcoef(model.predict(NUMBERS), predictions)[0, 1] > 0.9


@pytest.mark.parametrize(
    "parameters",
    [
        {"beta": 0},
        {"transfer": None},
        {"transfer": "aft", "beta": 0},
        {"transfer": [("aft", 0), ("probe-kd", 0)]},
    ],
)
@pytest.mark.filterwarnings("error")
def test_without_a_transfer_they_change_nothing(parameters):
    marked = np.where(np.arange(120) % 2, Y, -1)
    model = quick(missing_label=-1, **parameters).fit(X, marked, soft_targets=P)
    plain = quick(missing_label=-1, **parameters).fit(X, marked)
    np.testing.assert_array_equal(model.predict_proba(X), plain.predict_proba(X))
    with pytest.raises(ValueError, match="soft_targets has 3 rows"):
        quick(**parameters).fit(X, Y, soft_targets=P[:3])


# ---------------------------------------------------------------- beside features


def test_probe_kd_takes_them_instead_of_features():
    both = quick().fit(X, Y, features=X, soft_targets=P)
    alone = quick().fit(X, Y, soft_targets=P)
    np.testing.assert_array_equal(both.predict_proba(X), alone.predict_proba(X))


@pytest.mark.parametrize("transfer", ["aft", "rkd", [("kd", 1), ("probe-kd", 0)]])
def test_methods_of_features_ignore_them_with_a_warning(transfer):
    with pytest.warns(UserWarning, match="does not learn from soft_targets.*'pooled-kd'") as warned:
        both = quick(transfer=transfer).fit(X, Y, features=X, soft_targets=absent_where(SOME))
    assert [warning.filename for warning in warned] == [__file__]
    plain = quick(transfer=transfer).fit(X, Y, features=X)
    np.testing.assert_allclose(both.predict_proba(X), plain.predict_proba(X), rtol=1e-4)


class Distance(nn.Module):
    def forward(self, student, foundation):
        return (student.mean() - foundation.mean()).square()


@pytest.mark.parametrize(
    "transfer", ["aft", "kd", "rkd", "b-tuning", [("kd", 1), ("probe-kd", 1)], Distance()]
)
def test_methods_that_need_features_say_so(transfer):
    model = quick(transfer=transfer)
    with pytest.raises(ValueError, match="needs foundation features, and only soft_targets"):
        model.fit(X, Y, soft_targets=P)
    assert not model.__sklearn_is_fitted__()


@pytest.mark.parametrize("transfer", ["kd", "rkd"])
def test_each_part_of_a_list_takes_the_rows_that_it_has(transfer):
    model = still(transfer=[(transfer, 3), ("probe-kd", 2)])
    model.fit(X, Y, features=X, soft_targets=absent_where(SOME))
    alone = still(transfer=transfer).fit(X, Y, features=X)
    expected = 3 * transfer_loss(alone) + 2 * divergence(model, X[~SOME], P[~SOME])
    np.testing.assert_array_equal(alone.predict(X), model.predict(X))
    assert transfer_loss(model) == pytest.approx(expected, rel=1e-4)


def test_rows_without_features_are_taught_by_their_soft_targets():
    def broken(rows):
        if (np.asarray(rows)[:, 2] == 0).any():
            raise ValueError("this row is not for me")
        return np.asarray(rows)[:, :4]

    extractor = FoundationFeatureExtractor(broken, cache=None, on_error="mask")
    with pytest.warns(UserWarning, match="rows have no features"):
        rows = extractor.fit_transform(X)
    missing = rows.missing_mask
    assert 5 < missing.sum() < 115
    model = still().fit(rows, Y, soft_targets=P)
    assert transfer_loss(model) == pytest.approx(divergence(model, X, P), rel=1e-4)
    both = still(transfer=[("kd", 1), ("probe-kd", 1)]).fit(rows, Y, soft_targets=P)
    alone = still(transfer="kd").fit(rows, Y)
    expected = transfer_loss(alone) + divergence(both, X, P)
    assert transfer_loss(both) == pytest.approx(expected, rel=1e-4)


def test_a_part_with_beta_0_needs_no_features():
    expected = quick().fit(X, Y, soft_targets=P).predict_proba(X)
    model = quick(transfer=[("aft", 0.0), ("probe-kd", 1.0)]).fit(X, Y, soft_targets=P)
    np.testing.assert_array_equal(model.predict_proba(X), expected)
    searched = quick(transfer=[("aft", 10), ("probe-kd", 1)], transfer__aft__beta=0)
    searched.fit(X, Y, soft_targets=P)
    np.testing.assert_array_equal(searched.predict_proba(X), expected)


class Recorded(TransferMethod):
    takes_soft_targets = True
    uses_logits = True
    rows: ClassVar[list] = []

    def fit(self, rows):
        self.rows.append(rows)
        return rows.soft_targets

    def forward(self, student, foundation, logits):
        return (logits.softmax(dim=1) - foundation).square().mean()


def test_own_methods_get_those_of_the_training_rows():
    Recorded.rows.clear()
    model = quick(transfer=Recorded(), early_stopping=True, validation_fraction=0.25)
    model.fit(X, Y, soft_targets=absent_where(~SOME))
    (rows,) = Recorded.rows
    assert rows.features is None
    assert not rows.known_mask.any()
    assert rows.soft_targets.shape == (90, 5)
    assert rows.soft_targets.dtype == np.float32
    # They are those of the same rows as the labels: the teacher has seen these.
    there = ~np.isnan(rows.soft_targets[:, 0])
    assert (rows.soft_targets[there].argmax(axis=1) == rows.targets[there]).mean() > 0.95
    assert len(model.validation_scores_) == 2
    quick(transfer=Recorded()).fit(X, Y, features=X, soft_targets=P)
    assert Recorded.rows[-1].features.shape == X.shape
    np.testing.assert_allclose(np.sort(Recorded.rows[-1].soft_targets, axis=0), np.sort(P, axis=0))


def test_an_own_method_that_returns_nothing_is_explained():
    class Forgetful(Recorded):
        def fit(self, rows):
            return None

    with pytest.raises(ValueError, match="fit returned None"):
        quick(transfer=Forgetful()).fit(X, Y, soft_targets=P)


def test_mixup_mixes_them():
    model = AFTClassifier(mixup=0.4, lr=0.01, missing_label=-1, random_state=0, max_epochs=60)
    marked = np.where(np.arange(120) < 10, Y, -1)
    model.fit(X, marked, soft_targets=absent_where(np.arange(120) == 50))
    assert model.score(DIGITS[120:], LABELS[120:]) > 0.87


# ---------------------------------------------------------------- scikit-learn


def test_searches_and_pipelines_slice_them():
    pipe = make_pipeline(FoundationFeatureExtractor(PCA(4).fit(X)), quick())
    folds = KFold(3)
    given = {"aftclassifier__soft_targets": P}
    search = GridSearchCV(pipe, {"aftclassifier__lr": [0.01]}, cv=folds, error_score="raise")
    search.fit(X, Y, **given)
    results = cross_validate(
        pipe.set_params(aftclassifier__lr=0.01),
        X,
        Y,
        cv=folds,
        params=given,
        return_estimator=True,
        error_score="raise",
    )
    assert search.best_score_ == pytest.approx(results["test_score"].mean())
    for estimator, (train, _) in zip(results["estimator"], folds.split(X), strict=True):
        expected = quick(lr=0.01).fit(X[train], Y[train], soft_targets=P[train])
        np.testing.assert_allclose(estimator.predict_proba(X), expected.predict_proba(X), rtol=1e-4)


def test_metadata_is_routed():
    expected = quick().fit(X, Y, soft_targets=P)
    with sklearn.config_context(enable_metadata_routing=True):
        student = quick().set_fit_request(soft_targets=True)
        pipe = Pipeline([("extract", FoundationFeatureExtractor(PCA(4).fit(X))), ("fit", student)])
        pipe.fit(X, Y, soft_targets=P)
        cross_validate(pipe, X, Y, params={"soft_targets": P}, cv=2, error_score="raise")
    np.testing.assert_allclose(pipe.predict_proba(X), expected.predict_proba(X), rtol=1e-4)


def test_training_that_resumes_takes_the_new_ones():
    model = still(warm_start=True).fit(X, Y, soft_targets=P)
    uniform = np.full((120, 5), 0.2)
    model.fit(X, Y, soft_targets=absent_where(~SOME, uniform))
    expected = divergence(model, X[SOME], uniform[SOME])
    assert transfer_loss(model) == pytest.approx(expected, rel=1e-4)
    again = pickle.loads(pickle.dumps(model)).fit(X, Y, soft_targets=P)
    assert transfer_loss(again) == pytest.approx(divergence(again, X, P), rel=1e-4)
    model.fit(X, Y, features=X)  # now a probe makes them
    assert model.transfer_method_ == "probe-kd"


# ---------------------------------------------------------------- held by FoundationFeatures


def test_rows_bring_their_own():
    source = Probabilities(np.arange(5))
    rows = held(source)
    model = quick(transfer="probe-kd").fit(rows, Y)
    assert source.n_calls == 1
    expected = quick().fit(X, Y, soft_targets=P)
    np.testing.assert_allclose(model.predict_proba(X), expected.predict_proba(X), rtol=1e-4)
    model.predict(held(source))
    assert source.n_calls == 1


@pytest.mark.parametrize(
    "parameters",
    [
        {"beta": 0},
        {"transfer": None},
        {"transfer": "aft"},
        {"transfer": Distance()},
        {"transfer": [("kd", 1), ("probe-kd", 0)]},
        {"transfer": [("kd", 1), ("probe-kd", 1)], "transfer__probe_kd__beta": 0},
    ],
    ids=["beta", "None", "aft", "own", "list", "beta of a part"],
)
def test_they_are_not_computed_in_vain(parameters):
    source = Probabilities(np.arange(5))
    quick(**parameters).fit(held(source, X[:60]), Y[:60], X_unlabeled=held(source, X[60:]))
    quick().fit(held(source), Y, soft_targets=P)
    assert source.n_calls == 0


def test_an_own_method_that_takes_them_gets_those_of_the_rows():
    Recorded.rows.clear()
    source = Probabilities(np.arange(5))
    quick(transfer=Recorded()).fit(held(source), Y)
    assert source.n_calls == 1
    np.testing.assert_allclose(np.sort(Recorded.rows[0].soft_targets, axis=0), np.sort(P, axis=0))


def test_a_regressor_that_does_not_use_them_does_not_check_them():
    rows, amounts = held(Probabilities(np.arange(5))), Y.astype(float)
    model = quick(AFTRegressor, transfer="aft").fit(rows, amounts)
    plain = quick(AFTRegressor, transfer="aft").fit(held(None), amounts)
    np.testing.assert_array_equal(model.predict(X), plain.predict(X))


def test_those_given_replace_those_of_the_rows():
    wrong = held(Probabilities(np.arange(5), values=P[::-1]))
    model = still().fit(wrong, Y, soft_targets=P)
    assert transfer_loss(model) == pytest.approx(divergence(model, X, P), rel=1e-4)


def test_they_are_aligned_by_label():
    y = np.where(np.arange(120) == 7, "f", np.array(["a", "b", "c", "d", "e"])[Y])
    classes = np.array(["e", "d", "c", "b", "a"])
    rows = held(Probabilities(classes, values=P[:, ::-1]))
    model = still(transfer="probe-kd").fit(rows, y)
    expected = np.c_[P, np.zeros(120)]
    assert model.classes_.tolist() == ["a", "b", "c", "d", "e", "f"]
    assert transfer_loss(model) == pytest.approx(divergence(model, X, expected), rel=1e-4)


def test_classes_that_the_student_does_not_know_are_dropped():
    values = np.where((np.arange(120) % 10 == 0)[:, None], np.float32([0, 0, 0, 0, 1]), P)
    some = Y < 4
    rows = held(Probabilities(np.arange(5), values=values))[some]
    model = still(transfer="probe-kd").fit(rows, Y[some])
    assert model.classes_.tolist() == [0, 1, 2, 3]
    left = some & (np.arange(120) % 10 > 0)
    expected = P[left, :4] / P[left, :4].sum(axis=1, keepdims=True)
    assert transfer_loss(model) == pytest.approx(divergence(model, X[left], expected), rel=1e-4)
    with pytest.raises(ValueError, match="none of which is among the classes of y: \\['a', 'b'"):
        quick().fit(held(Probabilities(np.arange(5))), np.array(list("abcde"))[Y])


def test_numbers_are_for_regressors_and_probabilities_for_classifiers():
    predictions = Probabilities(None, values=3.0 * Y[:, None] + 1)
    model = still(AFTRegressor, transfer="probe-kd").fit(held(predictions), Y.astype(float))
    errors = (model.predict(X) - 3.0 * Y - 1) / Y.std()
    assert transfer_loss(model) == pytest.approx(np.square(errors).mean(), rel=1e-4)
    with pytest.raises(ValueError, match="soft targets of X are numbers"):
        quick().fit(held(predictions), Y)
    with pytest.raises(ValueError, match="a regressor in TeacherPredictions"):
        quick(AFTRegressor).fit(held(Probabilities(np.arange(5))), Y.astype(float))


def with_none(n_rows=120):
    """Return rows that should have soft targets; those of the first rows are all absent."""
    return held(Probabilities(np.arange(5), values=absent_where(np.arange(120) < n_rows)))[:n_rows]


@pytest.mark.parametrize("n_rows", [120, 90], ids=["all", "slice"])
def test_rows_whose_soft_targets_are_all_absent_are_taught_by_their_features(n_rows):
    y = Y[:n_rows]
    with pytest.warns(UserWarning, match=r"None of the rows .* transfer='pooled-kd'") as warned:
        model = quick().fit(with_none(n_rows), y)
    assert [warning.filename for warning in warned] == [__file__]
    plain = quick().fit(held(None, X[:n_rows]), y)
    assert model.teacher_weights_ == plain.teacher_weights_
    assert list(model.teacher_weights_) == ["pca"]
    np.testing.assert_allclose(model.predict_proba(X), plain.predict_proba(X), rtol=1e-4)


@pytest.mark.parametrize("transfer", ["probe-kd", [("kd", 1), ("probe-kd", 1)], Recorded()])
def test_a_method_that_takes_them_says_that_all_are_absent(transfer):
    model = quick(transfer=transfer)
    with pytest.raises(ValueError, match=r"None of the rows .* has soft targets.*label more rows"):
        model.fit(with_none(), Y)
    assert not model.__sklearn_is_fitted__()


def test_a_regressor_without_any_predictions_is_taught_by_its_features():
    rows = held(Probabilities(None, values=np.full((120, 1), np.nan)))
    with pytest.warns(UserWarning, match="None of the rows that reached AFTRegressor"):
        model = quick(AFTRegressor).fit(rows, Y.astype(float))
    assert list(model.teacher_weights_) == ["pca"]


def test_soft_targets_of_unlabelled_rows_are_enough():
    rows = held(Probabilities(np.arange(5), values=absent_where(np.arange(120) < 60)))
    model = still(batch_size=120, transfer="probe-kd")
    model.fit(rows[:60], Y[:60], X_unlabeled=rows[60:])
    assert transfer_loss(model) == pytest.approx(divergence(model, X[60:], P[60:]), rel=1e-4)


def test_a_piece_whose_soft_targets_are_absent_is_learned_without():
    rows = held(Probabilities(np.arange(5), values=absent_where(np.arange(120) % 80 < 40)))
    model = quick()
    for piece in np.array_split(np.arange(120), 3):
        model.partial_fit(rows[piece], Y[piece], classes=np.arange(5))
    assert model.transfer_method_ == "probe-kd"
    losses = [epoch.get("train_transfer_loss", 0) for epoch in model.history_]
    assert [loss > 0 for loss in losses] == [False, True, False]


def test_pieces_bring_their_own():
    rows = held(Probabilities(np.arange(5)))
    model = quick()
    order = np.argsort(Y, kind="stable")  # the first piece holds one class
    for piece in np.array_split(order, 6):
        model.partial_fit(rows[piece], Y[piece], classes=np.arange(5))
    assert model.transfer_method_ == "probe-kd"
    assert all(loss > 0 for loss in model.history_[:, "train_transfer_loss"])


def test_X_unlabeled_is_the_same_as_marked_rows():
    source = Probabilities(np.arange(5))
    marked = np.where(np.arange(120) < 60, Y, -1)
    expected = quick(missing_label=-1).fit(held(source), marked)
    model = quick().fit(held(source, X[:60]), Y[:60], X_unlabeled=held(source, X[60:]))
    np.testing.assert_allclose(model.predict_proba(X), expected.predict_proba(X), rtol=1e-5)


def test_X_unlabeled_without_soft_targets_is_absent():
    source, plain = Probabilities(np.arange(5)), held(None, X[60:])
    expected = divergence(still().fit(X[:60], Y[:60], soft_targets=P[:60]), X[:60], P[:60])
    settings = {"batch_size": 120, "unlabeled_fraction": 0.5, "transfer": "probe-kd"}
    own = still(**settings).fit(held(source, X[:60]), Y[:60], X_unlabeled=plain)
    assert transfer_loss(own) == pytest.approx(divergence(own, X[:60], P[:60]), rel=1e-4)
    given = still(**settings).fit(
        held(None, X[:60]), Y[:60], soft_targets=P[:60], X_unlabeled=held(source, X[60:])
    )
    assert transfer_loss(given) == pytest.approx(expected, rel=1e-1)
    assert transfer_loss(given) == pytest.approx(divergence(given, X[:60], P[:60]), rel=1e-4)


def test_X_unlabeled_beside_plain_rows_is_explained():
    with pytest.raises(ValueError, match="X_unlabeled has foundation features, but X has none"):
        quick().fit(X[:60], Y[:60], soft_targets=P[:60], X_unlabeled=held(None, X[60:]))


def test_the_device_and_precision_do_not_matter():
    model = quick(precision="bf16-mixed").fit(X, Y, soft_targets=absent_where(~SOME))
    assert np.isfinite(model.predict_proba(X)).all()
    assert torch.isfinite(model.forward(X)).all()
