"""Rows without labels contribute to the transfer loss, but not to the task loss."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline

from sk_aft import AFTClassifier, AFTRegressor, FoundationFeatureExtractor
from sk_aft._data._batches import RowBatches
from sk_aft._data._tensors import ArrayTensors
from sk_aft.transfer import KernelAlignment


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    return X[order].astype(np.float32), y[order]


@pytest.fixture(scope="module")
def teacher():
    """A model that knows digits far better than 30 labels tell."""
    X, y = load_digits(return_X_y=True)
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis().fit(X, y)


def small(**parameters):
    return AFTClassifier(**{"max_epochs": 8, "lr": 3e-3, "random_state": 0, **parameters})


def test_unlabeled_rows_help(digits, teacher):
    X, y = digits
    marked = np.where(np.arange(len(y)) < 50, y, -1)
    X_train, marked, X_test, y_test = X[:1200], marked[:1200], X[1200:], y[1200:]
    extractor = FoundationFeatureExtractor(teacher)
    with_all = make_pipeline(extractor, small(missing_label=-1)).fit(X_train, marked)
    labels_only = make_pipeline(extractor, small(max_epochs=300)).fit(X_train[:50], marked[:50])
    assert with_all.score(X_test, y_test) > labels_only.score(X_test, y_test) + 0.02
    np.testing.assert_array_equal(with_all.classes_, np.arange(10))


@pytest.mark.parametrize(
    ("marker", "labels"),
    [
        (-1, lambda y, known: np.where(known, y, -1)),
        (np.nan, lambda y, known: np.where(known, y, np.nan)),
        (
            np.nan,
            lambda y, known: [label if k else None for label, k in zip(y, known, strict=True)],
        ),
        ("?", lambda y, known: np.where(known, y.astype(str), "?")),
    ],
    ids=["-1", "nan", "None", "text"],
)
def test_every_way_to_mark_them_is_the_same_fit(digits, teacher, marker, labels):
    X, y = digits[0][:200], digits[1][:200]
    known = np.arange(200) % 3 == 0
    F = teacher.transform(X)
    expected = small(missing_label=-1).fit(X, np.where(known, y, -1), features=F)
    student = small(missing_label=marker).fit(X, labels(y, known), features=F)
    assert len(student.classes_) == 10
    np.testing.assert_allclose(student.predict_proba(X), expected.predict_proba(X))


def test_X_unlabeled_is_the_same_as_marked_rows(digits, teacher):
    X, y = digits[0][:300], digits[1][:300]
    marked = np.where(np.arange(300) < 60, y, -1)
    extractor = FoundationFeatureExtractor(teacher)
    expected = make_pipeline(extractor, small(missing_label=-1)).fit(X, marked)
    with sklearn.config_context(enable_metadata_routing=True):
        student = small().set_fit_request(X_unlabeled=True)
        pipe = Pipeline(
            [("extractor", extractor), ("student", student)], transform_input=["X_unlabeled"]
        )
        pipe.fit(X[:60], y[:60], X_unlabeled=X[60:])
    np.testing.assert_allclose(pipe.predict_proba(X), expected.predict_proba(X), rtol=1e-5)


def test_beta_0_is_training_on_the_labeled_rows_alone(digits, teacher):
    X, y = digits[0][:200], digits[1][:200]
    known = np.arange(200) % 2 == 0
    F = teacher.transform(X)
    marked = small(beta=0, missing_label=-1).fit(X, np.where(known, y, -1), features=F)
    alone = small(beta=0).fit(X[known], y[known])
    np.testing.assert_array_equal(marked.predict_proba(X), alone.predict_proba(X))


def test_labels_of_unlabeled_rows_weights_and_validation(digits, teacher):
    X, y = digits[0][:200], digits[1][:200]
    known = np.arange(200) % 2 == 0
    marked = np.where(known, y, -1)
    F = teacher.transform(X)
    student = small(missing_label=-1, early_stopping=True).fit(
        X, marked, features=F, sample_weight=np.where(known, 2.0, 7.0)
    )
    assert len(student.validation_scores_) == student.n_iter_
    plain = small(missing_label=-1).fit(X, marked, features=F)
    weighted = small(missing_label=-1).fit(
        X, marked, features=F, sample_weight=np.where(known, 2.0, 7.0)
    )
    np.testing.assert_allclose(weighted.predict_proba(X), plain.predict_proba(X), rtol=1e-5)


def test_regression(digits, teacher):
    X, y = digits[0][:300], digits[1][:300].astype(float)
    known = np.arange(300) < 100
    F = teacher.transform(X)
    student = AFTRegressor(max_epochs=20, missing_label=np.nan, random_state=0)
    student.fit(X, np.where(known, y, np.nan), features=F)
    assert student.score(X[known], y[known]) > 0.5
    two = np.c_[y, -y]
    two[~known] = np.nan
    assert clone(student).fit(X, two, features=F).predict(X).shape == (300, 2)


def test_batches_mix_both_kinds_and_see_every_row():
    values = np.arange(100, dtype=np.float32)[:, None]
    known = np.arange(100) < 13
    import torch

    batches = RowBatches(
        ArrayTensors(values),
        torch.arange(100),
        batch_size=10,
        device=torch.device("cpu"),
        shuffle=np.random.RandomState(0),
        labeled_mask=known,
        unlabeled_fraction=0.3,
    )
    seen = []
    for batch in batches:
        assert len(batch.inputs) == 10
        np.testing.assert_array_equal(batch.inputs[:7, 0], batch.targets)
        assert known[batch.targets].all()
        assert not known[batch.inputs[7:, 0].long()].any()
        seen.extend(batch.inputs[:, 0].int().tolist())
    assert set(seen) == set(range(100))
    assert len(batches) == 29  # 87 unlabelled rows, 3 a batch


@pytest.mark.parametrize("marker", [-1, np.nan])
def test_a_mark_that_became_a_text_is_refused(marker, digits, teacher):
    X = digits[0][:50]
    y = np.append(["yes", "no"] * 20, np.full(10, marker))
    with pytest.raises(ValueError, match="numbers among texts into texts"):
        small(missing_label=marker).fit(X, y, features=teacher.transform(X))


@pytest.mark.parametrize("setting", [{"beta": 0}, {"transfer": None}])
def test_without_transfer_rows_without_labels_are_not_looked_at(digits, teacher, setting):
    X, y = digits[0][:50], digits[1][:50]
    F = teacher.transform(X)
    alone = small(**setting).fit(X, y, features=F)
    beside = small(**setting).fit(X, y, features=F, X_unlabeled=object())
    np.testing.assert_array_equal(alone.predict_proba(X), beside.predict_proba(X))


def test_an_own_preprocessor_may_fill_what_rows_without_labels_lack(digits):
    from sklearn.impute import SimpleImputer

    frame = pd.DataFrame(digits[0][:100], columns=[f"p{i}" for i in range(64)])
    frame["text"] = "a row"
    further = frame.copy()
    further.iloc[3, 30] = np.nan
    extractor = FoundationFeatureExtractor(
        {"text": lambda texts: np.array([[len(text)] for text in texts])},
        inputs=[f"p{i}" for i in range(64)],
    )
    rows = extractor.fit_transform(frame)
    student = small(transfer="aft", beta=1, preprocessor=SimpleImputer())
    student.fit(rows, digits[1][:100], X_unlabeled=extractor.transform(further))
    assert student.predict(further[[f"p{i}" for i in range(64)]]).shape == (100,)


def test_errors(digits, teacher):
    X, y = digits[0][:50], digits[1][:50]
    F = teacher.transform(X)
    with pytest.raises(ValueError, match="All 50 rows of y are missing_label=-1"):
        small(missing_label=-1).fit(X, np.full(50, -1), features=F)
    with pytest.raises(ValueError, match="X_unlabeled has to hold foundation features"):
        small().fit(X, y, features=F, X_unlabeled=X)
    rows = FoundationFeatureExtractor(PCA(3).fit(X)).fit_transform(X)
    other = FoundationFeatureExtractor(PCA(4).fit(X)).fit_transform(X)
    with pytest.raises(ValueError, match="4 foundation features per row, but X has 3"):
        small().fit(rows, y, X_unlabeled=other)
    with pytest.raises(ValueError, match="unlabeled_fraction"):
        small(unlabeled_fraction=1.0).fit(X, y, features=F)


def test_a_method_may_look_at_the_rows_and_replace_their_features(digits, teacher):
    X, y = digits[0][:120], digits[1][:120]

    class Replacing(KernelAlignment):
        def fit(self, rows):
            assert rows.features.take(np.arange(3)).shape == (3, 9)
            assert rows.student_features(np.arange(5)).shape == (5, 128)
            assert rows.n_classes == 10
            assert rows.labeled_mask.sum() == 60
            np.testing.assert_array_equal(rows.targets[:60], y[:60])
            self.seen = rows
            return np.arange(120, dtype=np.float32)[:, None]

        def forward(self, student, foundation):
            assert foundation.shape[1] == 1
            self.rows = foundation
            return 0.0 * student.sum()

    student = small(transfer=Replacing(9), beta=1.0, missing_label=-1)
    student.fit(X, np.where(np.arange(120) < 60, y, -1), features=teacher.transform(X))
    assert set(student.transfer_.rows[:, 0].int().tolist()) <= set(range(120))


class Prepares(KernelAlignment):
    def prepare(self, rows):
        """The former name of fit."""


class Strong(KernelAlignment):
    default_strength = 7.0


@pytest.mark.parametrize(("method", "name"), [(Prepares, "fit"), (Strong, "default_beta")])
@pytest.mark.parametrize("combined", [False, True])
def test_a_method_with_a_former_name_is_refused(digits, teacher, method, name, combined):
    X, y = digits[0][:50], digits[1][:50]
    transfer = [(method(9), 1.0), ("probe-kd", 1.0)] if combined else method(9)
    with pytest.raises(TypeError, match=f"since 0.2 its name is {name}"):
        small(transfer=transfer, beta=1).fit(X, y, features=teacher.transform(X))
