"""Pooled predictions of several teachers: out of fold, weighted, and compared."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_aft.transfer import (
    Combination,
    KernelAlignment,
    PooledDistillation,
    ProbeDistillation,
    make_transfer,
)
from sk_aft.transfer._pool import (
    pool_numbers,
    pool_probabilities,
    score_of_probabilities,
    weights_of_numbers,
    weights_of_probabilities,
)
from sk_aft.transfer._pooled_distillation import pool_of

INVERSE_PENALTIES = [1e-4, 1e-3, 1e-2, 1e-1, 1, 10]
FOLDS = StratifiedKFold(5, shuffle=True, random_state=0)


def probe_of_classes(features, labels, used, others, weights=None, scales=True):
    """Return predictions of a logistic regression, out of fold where ``used``, and its C."""
    scaler = [StandardScaler()] if scales else []
    X, y = features[used], labels[used]
    params = None if weights is None else {"logisticregression__sample_weight": weights[used]}
    w = np.ones(len(y)) if weights is None else weights[used]

    def surprise(C):
        p = cross_val_predict(
            make_pipeline(*scaler, LogisticRegression(C=C)),
            X, y, cv=FOLDS, method="predict_proba", params=params,
        )  # fmt: skip
        prior = 2 * (np.log10(C) + 1.5) ** 2
        return prior - w @ np.log(p[np.arange(len(y)), y]), C, p

    _, C, out_of_fold = min((surprise(C) for C in INVERSE_PENALTIES), key=lambda found: found[0])
    predictions = np.full((len(labels), len(np.unique(labels))), np.nan)
    predictions[used] = out_of_fold
    model = make_pipeline(*scaler, LogisticRegression(C=C)).fit(X, y, **(params or {}))
    if others.any():
        predictions[others] = model.predict_proba(features[others])
    return predictions


def make_harder(rows):
    """Add noise, so that probes are wrong on some of the rows."""
    noise = np.random.default_rng(0).normal(size=rows.features.shape)
    rows.features.matrix[:] += 2 * noise
    return rows


def test_classes_are_predicted_out_of_fold_and_pooled(make_rows):
    labeled = np.arange(150) < 90
    rows = make_harder(make_rows(150, labeled_mask=labeled, seed=3))
    method = PooledDistillation()
    found = method.fit(rows)
    X, y = rows.features.matrix, rows.targets
    teachers = [
        probe_of_classes(X[:, part], y, labeled, ~labeled) for part in (slice(4), slice(4, 7))
    ]
    weights = weights_of_probabilities([one[:90] for one in teachers], y[:90], np.ones(90))
    expected = pool_probabilities(teachers, weights)
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert found.dtype == np.float32
    assert list(method.teacher_weights) == ["model0", "model1"]
    np.testing.assert_allclose(list(method.teacher_weights.values()), weights, atol=0.03)
    score = score_of_probabilities(expected[:90], y[:90], np.ones(90))
    assert method.teacher_score == pytest.approx(score, abs=0.01)
    assert 0.2 < score < 0.95


def test_numbers_are_predicted_out_of_fold_and_pooled(make_rows):
    labeled = np.arange(90) < 60
    rows = make_rows(90, n_classes=None, labeled_mask=labeled)
    method = PooledDistillation()
    found = method.fit(rows)
    X, y = rows.features.matrix, rows.targets
    probe = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 5, 8)))
    teachers = []
    for part in (X[:, :4], X[:, 4:]):
        folds = KFold(5, shuffle=True, random_state=0)
        own = cross_val_predict(probe, part[:60], y[:60], cv=folds)
        teachers.append(np.vstack([own, probe.fit(part[:60], y[:60]).predict(part[60:])]))
    weights = weights_of_numbers([one[:60] for one in teachers], y[:60], np.ones(60))
    expected = pool_numbers(teachers, weights)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert method.teacher_score == pytest.approx(r2_score(y[:60], expected[:60]), abs=1e-3)
    logits = torch.randn(30, 2)
    loss = method(torch.zeros(30, 3), torch.tensor(found[60:]), logits).item()
    expected = np.square(found[60:] - logits.numpy()).mean() * np.sqrt(method.teacher_score)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_pooled_layers_are_better_than_each_of_them(make_rows):
    rows = make_rows(600, widths=(3, 3, 3), labeled_mask=np.arange(600) < 300, seed=1)
    alone = []
    for name, columns in rows.feature_slices.items():
        method = PooledDistillation()
        method.fit(dataclasses.replace(rows, feature_slices={name: columns}))
        alone.append(method.teacher_score)
    method = PooledDistillation()
    found = method.fit(rows)
    assert method.teacher_score > max(alone)
    assert (found.argmax(axis=1) == rows.targets)[300:].mean() > 0.85


def test_all_teachers_share_the_folds(make_rows):
    """Otherwise a fold's rows would have taught one of the teachers that predict them."""
    rows = make_rows(60, widths=(4, 4))
    rows.features.matrix[:, 4:] = rows.features.matrix[:, :4]
    alone = PooledDistillation()
    expected = alone.fit(dataclasses.replace(rows, feature_slices={"one": slice(4)}))
    both = PooledDistillation()
    found = both.fit(rows)
    first, second = both.teacher_weights.values()
    assert first == pytest.approx(second, rel=1e-3)
    assert first + second == pytest.approx(alone.teacher_weights["one"], rel=0.05)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_useless_features_do_not_repeat_labels(make_rows):
    rows = make_rows(120, widths=(100,))
    rows.features.matrix[:] = np.random.default_rng(0).normal(size=(120, 100))
    method = PooledDistillation()
    found = method.fit(rows)
    assert found[np.arange(120), rows.targets].mean() < 0.4
    assert method.teacher_score < 0.05


def test_sample_weights_count_in_probes_weights_and_score(make_rows):
    times = np.random.default_rng(0).integers(1, 4, 60).astype(float)
    rows = make_harder(make_rows(60, weights=times, seed=3))
    method = PooledDistillation()
    found = method.fit(rows)
    relative, every = times / times.mean(), np.ones(60, dtype=bool)
    X, y = rows.features.matrix, rows.targets
    teachers = [
        probe_of_classes(X[:, part], y, every, ~every, relative) for part in (slice(4), slice(4, 7))
    ]
    weights = weights_of_probabilities(teachers, y, relative)
    np.testing.assert_allclose(found, pool_probabilities(teachers, weights), atol=0.02)
    score = score_of_probabilities(pool_probabilities(teachers, weights), y, relative)
    assert method.teacher_score == pytest.approx(score, abs=0.01)
    ten = PooledDistillation()  # only ratios of weights matter
    ten.fit(dataclasses.replace(rows, weights=10 * times))
    assert ten.teacher_score == pytest.approx(method.teacher_score, abs=1e-6)


def test_the_students_own_rows_are_teachers_if_some_rows_have_no_label(make_rows):
    rng = np.random.default_rng(0)
    labeled = np.arange(200) < 100
    rows = make_rows(200, labeled_mask=labeled)
    rows.features.matrix[:] = rng.normal(size=rows.features.shape)
    own = (np.eye(3)[rows.targets] + 0.2 * rng.normal(size=(200, 3))).astype(np.float32)
    rows = dataclasses.replace(rows, student_columns=lambda: {"student's rows": own})
    method = PooledDistillation()
    found = method.fit(rows)
    assert list(method.teacher_weights) == ["model0", "model1", "student's rows"]
    assert (found.argmax(axis=1) == rows.targets).mean() > 0.95
    weights = method.teacher_weights
    assert weights["student's rows"] > 2 * max(weights["model0"], weights["model1"])
    alone = dataclasses.replace(rows, feature_slices={})
    found = PooledDistillation().fit(alone)
    teacher = probe_of_classes(own, rows.targets, labeled, ~labeled, scales=False)
    weight = weights_of_probabilities([teacher[:100]], rows.targets[:100], np.ones(100))
    np.testing.assert_allclose(found, pool_probabilities([teacher], weight), atol=0.02)

    def never():
        raise AssertionError("the student's rows say nothing new about known labels")

    labeled = dataclasses.replace(
        rows, labeled_mask=np.ones(200, dtype=bool), student_columns=never
    )
    PooledDistillation().fit(labeled)


def test_masked_rows_are_taught_by_the_other_teachers(make_rows):
    known = np.arange(120) % 4 > 0
    labeled = np.arange(120) < 80
    rows = make_rows(120, labeled_mask=labeled, known_mask=known)
    assert np.isnan(PooledDistillation().fit(rows)).all(axis=1).tolist() == (~known).tolist()
    own = np.eye(3, dtype=np.float32)[rows.targets]
    rows = dataclasses.replace(rows, student_columns=lambda: {"student's rows": own})
    found = PooledDistillation().fit(rows)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert (found.argmax(axis=1) == rows.targets).all()


def test_soft_targets_alone_count_if_labels_are_few(make_rows):
    rows = make_rows(24)
    soft_targets = (0.5 * np.eye(3)[rows.targets] + 1 / 6).astype(np.float32)
    rows = dataclasses.replace(rows, soft_targets=soft_targets)
    method = PooledDistillation()
    method.fit(rows)
    few = method.teacher_weights
    assert few["soft targets"] > 0.8
    assert max(weight for name, weight in few.items() if name != "soft targets") < 0.3


def test_given_soft_targets_are_one_of_the_teachers(make_rows):
    rng = np.random.default_rng(0)
    rows = make_rows(90, labeled_mask=np.arange(90) < 60, seed=3)
    rows.features.matrix[:, 4:] = rng.normal(size=(90, 3))
    soft_targets = (0.7 * np.eye(3)[rows.targets] + 0.1).astype(np.float32)
    soft_targets[::10] = np.nan
    rows = dataclasses.replace(rows, soft_targets=soft_targets)
    method = PooledDistillation()
    found = method.fit(rows)
    assert list(method.teacher_weights) == ["model0", "model1", "soft targets"]
    assert method.teacher_weights["soft targets"] > 1.5 * method.teacher_weights["model1"]
    assert np.isfinite(found).all()
    without = dataclasses.replace(rows, features=None, known_mask=np.zeros(90, dtype=bool))
    found = method.fit(without)
    assert list(method.teacher_weights) == ["soft targets"]
    np.testing.assert_array_equal(np.isnan(found[:, 0]), np.arange(90) % 10 == 0)
    assert found[1:10].argmax(axis=1).tolist() == rows.targets[1:10].tolist()


def test_a_teacher_that_predicts_no_row_is_left_out(make_rows):
    rows = make_rows(soft_targets=np.full((60, 3), np.nan, dtype=np.float32))
    method, without = PooledDistillation(), PooledDistillation()
    found = method.fit(rows)
    expected = without.fit(dataclasses.replace(rows, soft_targets=None))
    np.testing.assert_array_equal(found, expected)
    assert method.teacher_weights == without.teacher_weights


def test_a_row_that_is_the_only_one_of_its_class_has_no_target(make_rows):
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2])
    rows = make_rows(14, n_classes=5, labeled_mask=np.arange(14) < 10)
    rows.targets[:10] = labels
    found = PooledDistillation().fit(rows)
    assert np.isnan(found).any(axis=1).tolist() == [*(labels == 2), *[False] * 4]
    known = ~np.isnan(found[:, 0])
    np.testing.assert_allclose(found[known].sum(axis=1), 1, rtol=1e-5)
    assert found[10:, 2].min() > 1e-4 > found[10:, 3:].max()  # 3 and 4 never occur


def test_without_folds_the_weights_are_equal(make_rows):
    rows = make_rows(30, n_classes=6, labeled_mask=np.arange(30) < 6)
    own = np.eye(6, dtype=np.float32)[rows.targets]
    rows = dataclasses.replace(rows, student_columns=lambda: {"student's rows": own})
    method = PooledDistillation()
    found = method.fit(rows)
    assert list(method.teacher_weights.values()) == [pytest.approx(1 / 3)] * 3
    assert np.isnan(method.teacher_score)
    assert np.isnan(found[:6]).all()
    assert np.isfinite(found[6:]).all()
    assert (found.argmax(axis=1) == rows.targets)[6:].mean() > 0.8
    everything = make_rows(6, n_classes=6)
    assert np.isnan(method.fit(everything)).all()
    nothing_to_learn = method(torch.zeros(6, 3), torch.full((6, 6), 1 / 6), torch.randn(6, 6))
    assert nothing_to_learn.item() == 0


@pytest.mark.parametrize("n_rows", [2, 3])
def test_few_numbers_are_provided_for(make_rows, n_rows):
    rows = make_rows(n_rows + 4, n_classes=None, labeled_mask=np.arange(n_rows + 4) < n_rows)
    found = PooledDistillation().fit(rows)
    assert np.isfinite(found[n_rows:]).all()


@pytest.mark.parametrize("n_classes", [3, None])
def test_a_single_target_teaches_nothing(make_rows, n_classes):
    rows = make_rows(10, n_classes=n_classes)
    rows.targets[:] = rows.targets[0]
    assert np.isnan(PooledDistillation().fit(rows)).all()


def test_the_strength_is_the_root_of_the_score_unless_the_student_teaches(make_rows):
    rng = np.random.default_rng(0)
    q, logits = rng.dirichlet(np.ones(3), size=60), rng.normal(size=(60, 3))
    divergence = (q * (np.log(q) - log_softmax(logits, axis=1))).sum(axis=1).mean()
    inputs = torch.zeros(60, 3), torch.tensor(q), torch.tensor(logits)
    method = PooledDistillation()
    assert method(*inputs).item() == pytest.approx(divergence)
    method.fit(make_harder(make_rows()))
    assert 0.2 < method.teacher_score < 0.95
    strength = np.sqrt(method.teacher_score)
    assert method(*inputs).item() == pytest.approx(strength * divergence)
    partly = make_harder(make_rows(labeled_mask=np.arange(60) < 50))
    method.fit(partly)
    strength = np.sqrt(method.teacher_score)
    assert method(*inputs).item() == pytest.approx(strength * divergence)
    own = rng.normal(size=(60, 3)).astype(np.float32)
    method.fit(dataclasses.replace(partly, student_columns=lambda: {"student's rows": own}))
    assert method(*inputs).item() == pytest.approx(divergence)


def test_copies_of_a_row_are_in_one_fold(make_rows):
    """A probe that has seen a copy of a row would repeat its label."""
    rng = np.random.default_rng(0)
    noise, labels = rng.normal(size=(40, 100)).astype(np.float32), rng.integers(0, 2, 40)
    rows = make_rows(120, n_classes=2, widths=(100,))
    rows.features.matrix[:] = np.tile(noise, (3, 1))
    rows.targets[:] = np.tile(labels, 3)
    method = PooledDistillation()
    found = method.fit(rows)
    assert method.teacher_score < 0.2
    assert found[np.arange(120), rows.targets].mean() < 0.6


def test_copies_of_numbers_are_in_one_fold(make_rows):
    rng = np.random.default_rng(0)
    rows = make_rows(120, n_classes=None, widths=(100,))
    rows.features.matrix[:] = np.tile(rng.normal(size=(40, 100)), (3, 1))
    rows.targets[:] = np.tile(rng.normal(size=(40, 2)), (3, 1))
    method = PooledDistillation()
    method.fit(rows)
    assert method.teacher_score < 0.2


def test_rows_are_read_a_few_thousand_at_a_time(make_rows):
    rows = make_rows(9000, labeled_mask=np.arange(9000) < 30)
    PooledDistillation().fit(rows)
    assert max(map(len, rows.features.reads)) == 4096


def test_more_than_a_thousand_classes(make_rows):
    rng = np.random.default_rng(0)
    labels = np.arange(2002) % 1001
    centres = rng.normal(size=(1001, 7))
    rows = make_rows(2002, n_classes=1001, labeled_mask=np.arange(2002) < 1998)
    rows.targets[:] = labels
    rows.features.matrix[:] = centres[labels] + 0.1 * rng.normal(size=(2002, 7))
    method = PooledDistillation()
    found = method.fit(rows)
    assert (found.argmax(axis=1) == labels).mean() > 0.8
    assert method.teacher_score > 0.6


def test_summary_says_who_teaches(make_rows):
    method = PooledDistillation()
    method.fit(make_rows())
    one, other = method.teacher_weights.values()
    assert method.summary() == (
        f"Taught by model0 {one:.2f}, model1 {other:.2f} (share of the labels' entropy "
        f"explained out of fold: {method.teacher_score:.2f})"
    )
    method.fit(make_rows(n_classes=None))
    assert method.summary().endswith(f"(R2 out of fold: {method.teacher_score:.2f})")


def test_has_no_parameters_and_a_name():
    method = make_transfer("pooled-kd", 8)
    assert isinstance(method, PooledDistillation)
    assert not list(method.parameters())
    with pytest.raises(ValueError, match="PooledDistillation takes \\[\\]"):
        make_transfer("pooled-kd", 8, temperature=2)


def test_is_found_in_a_list():
    pool = PooledDistillation()
    assert pool_of(pool) is pool
    assert pool_of(Combination([(KernelAlignment(8), 1.0), (pool, 2.0)])) is pool
    assert pool_of(ProbeDistillation()) is pool_of(None) is None
