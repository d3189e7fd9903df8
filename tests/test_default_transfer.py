"""What a student learns by default from the features of its rows, from end to end."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn

from sk_aft import (
    AFTClassifier,
    AFTRegressor,
    FineTunedFeatureExtractor,
    FoundationFeatureExtractor,
)
from sk_aft.datasets import load_banking77
from sk_aft.model_selection import LabeledFold
from sk_aft.modules import ResNet
from sk_aft.transfer import TransferMethod

DIGITS, LABELS = load_digits(return_X_y=True)
DIGITS = DIGITS.astype(np.float32)
TEACHER = LinearDiscriminantAnalysis().fit(DIGITS, LABELS)  # knows digits better than few labels
X, Y, F = DIGITS[:200], LABELS[:200], TEACHER.transform(DIGITS[:200])
KNOWN = np.arange(200) < 60
MARKED = np.where(KNOWN, Y, -1)
NUMBERS, AMOUNTS = load_diabetes(return_X_y=True)
NUMBERS, AMOUNTS = NUMBERS[:200].astype(np.float32), AMOUNTS[:200]
NUMERIC_FEATURES = PCA(5).fit_transform(NUMBERS) * 30


def quick(kind=AFTClassifier, **parameters):
    return kind(**{"max_epochs": 2, "random_state": 0, **parameters})


def partly(**parameters):
    return quick(missing_label=-1, **parameters)


# ---------------------------------------------------------------- rows and labels


def test_all_rows_are_labelled():
    model = quick().fit(X, Y, features=F)
    assert (model.transfer_method_, model.beta_) == ("pooled-kd", 1)
    assert list(model.teacher_weights_) == ["features"]
    assert 0.5 < model.teacher_score_ <= 1
    assert "train_transfer_loss" in model.history_[0]


def test_no_features():
    with pytest.warns(UserWarning, match="No foundation features reached AFTClassifier"):
        model = partly().fit(X, MARKED)
    with pytest.raises(AttributeError, match="exist only after a fit with transfer='pooled-kd'"):
        _ = model.teacher_weights_
    plain = partly(beta=0).fit(X, MARKED)
    np.testing.assert_array_equal(model.predict_proba(X), plain.predict_proba(X))


def test_rows_without_labels_teach():
    settings = {"max_epochs": 60, "lr": 3e-3}
    rest = DIGITS[1000:], LABELS[1000:]
    few = np.where(np.arange(200) < 40, Y, -1)
    taught = partly(**settings).fit(X, few, features=F)
    alone = partly(**settings, beta=0).fit(X, few)
    assert list(taught.teacher_weights_) == ["features", "student's rows"]
    assert taught.score(*rest) > alone.score(*rest) + 0.05


@pytest.mark.parametrize("n_rows", [1, 2])
def test_a_class_with_one_or_two_labelled_rows(n_rows):
    marked = MARKED.copy()
    marked[np.flatnonzero(MARKED == 3)[n_rows:]] = -1
    model = partly(max_epochs=20, lr=3e-3).fit(X, marked, features=F)
    assert np.isfinite(model.predict_proba(X)).all()
    assert model.score(X, Y) > 0.8


def test_two_rows_a_class():
    two = np.sort(np.concatenate([np.flatnonzero(label == Y)[:2] for label in range(10)]))
    labeled = quick(max_epochs=20).fit(X[two], Y[two], features=F[two])
    assert 0 < labeled.teacher_score_ <= 1
    marked = np.full(200, -1)
    marked[two] = Y[two]
    model = partly(max_epochs=40, lr=3e-3).fit(X, marked, features=F)
    assert model.score(X, Y) > 0.85


def test_one_row_a_class():
    first = np.unique(Y, return_index=True)[1]
    marked = np.full(200, -1)
    marked[first] = Y[first]
    model = partly(max_epochs=40, lr=3e-3).fit(X, marked, features=F)
    assert list(model.teacher_weights_.values()) == [0.5, 0.5]
    assert np.isnan(model.teacher_score_)
    assert model.score(X, Y) > 0.7
    alone = quick().fit(X[first], Y[first], features=F[first])
    assert alone.history_[-1]["train_transfer_loss"] == 0


def test_rows_and_classes_of_weight_0_have_no_label():
    weights = np.where(KNOWN, 2.0, 0.0)
    model = quick().fit(X, Y, features=F, sample_weight=weights)
    unlabeled = partly().fit(X, MARKED, features=F)
    assert model.teacher_weights_ == pytest.approx(unlabeled.teacher_weights_, rel=1e-3)
    assert model.teacher_score_ == pytest.approx(unlabeled.teacher_score_, rel=1e-3)
    without = quick(max_epochs=20).fit(X, Y, features=F, sample_weight=1.0 * (Y != 3))
    assert "student's rows" in without.teacher_weights_
    assert 3 not in without.predict(X)
    assert without.score(X[Y != 3], Y[Y != 3]) > 0.9


def test_class_weights_are_the_sample_weights_that_they_stand_for():
    marked = np.where((MARKED < 3) | (np.arange(200) % 2 > 0), MARKED, -1)
    counts = np.bincount(marked[marked >= 0], minlength=10)
    weights = (counts.sum() / np.maximum(counts, 1))[marked]
    balanced = partly(class_weight="balanced").fit(X, marked, features=F)
    weighted = partly().fit(X, marked, features=F, sample_weight=weights)
    assert balanced.teacher_weights_ == pytest.approx(weighted.teacher_weights_, rel=1e-4)
    assert balanced.teacher_score_ == pytest.approx(weighted.teacher_score_, rel=1e-4)
    np.testing.assert_allclose(balanced.predict_proba(X), weighted.predict_proba(X), atol=1e-5)
    plain = partly().fit(X, marked, features=F)
    assert balanced.teacher_weights_ != pytest.approx(plain.teacher_weights_, rel=1e-4)


def test_masked_rows_are_taught_by_the_students_rows():
    def fragile(rows):
        if (np.asarray(rows)[:, 20] == 0).any():
            raise ValueError("this row is not for me")
        return TEACHER.transform(rows)

    extractor = FoundationFeatureExtractor(fragile, cache=None, on_error="mask")
    with pytest.warns(UserWarning, match="rows have no features"):
        rows = extractor.fit_transform(X)
    assert 5 < rows.missing_mask.sum() < 150
    model = partly(max_epochs=20, lr=3e-3).fit(rows, MARKED)
    assert set(model.teacher_weights_) == {"fragile", "student's rows"}
    assert model.score(X, Y) > 0.85


def test_useless_features_cost_little():
    rng = np.random.default_rng(0)
    gains = []
    for seed in range(3):
        rows = rng.normal(size=(820, 8)).astype(np.float32)
        labels = (rows[:, 0] + rows[:, 1] + 0.5 * rng.normal(size=820) > 0).astype(int)
        useless = rng.normal(size=(320, 32))
        marked = np.where(np.arange(320) < 20, labels[:320], -1)
        settings = {"missing_label": -1, "random_state": seed, "max_epochs": 40}
        taught = AFTClassifier(**settings).fit(rows[:320], marked, features=useless)
        alone = AFTClassifier(**settings, beta=0).fit(rows[:320], marked)
        assert taught.teacher_weights_["features"] < taught.teacher_weights_["student's rows"]
        gains.append(taught.score(rows[320:], labels[320:]) - alone.score(rows[320:], labels[320:]))
    assert np.mean(gains) > -0.02


# ---------------------------------------------------------------- strength


def test_beta_0_is_plain_training():
    zero = partly(beta=0).fit(X, MARKED, features=F)
    for plain in (
        partly(transfer=None).fit(X, MARKED, features=F),
        quick(beta=0).fit(X[KNOWN], Y[KNOWN]),
    ):
        np.testing.assert_array_equal(zero.predict_proba(X), plain.predict_proba(X))
    numbers = quick(AFTRegressor, beta=0).fit(NUMBERS, AMOUNTS, features=NUMERIC_FEATURES)
    plain = quick(AFTRegressor, transfer=None).fit(NUMBERS, AMOUNTS)
    np.testing.assert_array_equal(numbers.predict(NUMBERS), plain.predict(NUMBERS))


def test_beta_0_computes_no_features():
    seen = []

    def counting(rows):
        seen.extend(rows)
        return TEACHER.transform(rows)

    rows = FoundationFeatureExtractor(counting, cache=None).fit(X).transform(X)
    n_seen = len(seen)
    partly(beta=0).fit(rows, MARKED)
    assert len(seen) == n_seen
    partly().fit(rows, MARKED)
    assert len(seen) >= n_seen + 200 - 16


def test_beta_multiplies_the_transfer_alone():
    frozen = {"lr": 1e-12, "lr_schedule": "constant", "max_epochs": 1, "batch_size": 1000}
    one, three = (partly(**frozen, beta=beta).fit(X, MARKED, features=F) for beta in (1, 3))
    first, second = one.history_[-1], three.history_[-1]
    assert first["train_task_loss"] == pytest.approx(second["train_task_loss"])
    assert first["train_transfer_loss"] == pytest.approx(second["train_transfer_loss"])
    total = second["train_task_loss"] + 3 * second["train_transfer_loss"]
    assert second["train_loss"] == pytest.approx(total)
    assert one.teacher_weights_ == three.teacher_weights_


def test_beta_is_searched():
    search = GridSearchCV(quick(), {"beta": [0, 1]}, cv=2, error_score="raise")
    search.fit(X, Y, features=F)
    assert search.best_estimator_.beta_ in (0, 1)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


# ---------------------------------------------------------------- regression


def test_a_regressor():
    marked = np.where(KNOWN, AMOUNTS, np.nan)
    model = AFTRegressor(missing_label=np.nan, random_state=0, max_epochs=60)
    model.fit(NUMBERS, marked, features=NUMERIC_FEATURES)
    assert set(model.teacher_weights_) == {"features", "student's rows"}
    assert 0.1 < model.teacher_score_ < 0.8
    ridge = Ridge(alpha=0.1).fit(NUMBERS[KNOWN], AMOUNTS[KNOWN])
    others = NUMBERS[~KNOWN], AMOUNTS[~KNOWN]
    assert model.score(*others) > ridge.score(*others) - 0.1


def test_several_outputs():
    targets = np.c_[AMOUNTS, -10 * AMOUNTS, NUMBERS[:, 2]]
    targets[~KNOWN] = np.nan
    model = quick(AFTRegressor, missing_label=np.nan)
    model.fit(NUMBERS, targets, features=NUMERIC_FEATURES)
    assert model.predict(NUMBERS).shape == (200, 3)
    assert 0 < model.teacher_score_ <= 1


def test_an_outlier_among_the_targets():
    targets = AMOUNTS.copy()
    targets[7] = 1e6
    settings = {"random_state": 0, "max_epochs": 20}
    taught = AFTRegressor(**settings).fit(NUMBERS, targets, features=NUMERIC_FEATURES)
    alone = AFTRegressor(**settings, beta=0).fit(NUMBERS, targets)
    errors = [np.median(np.abs(m.predict(NUMBERS) - AMOUNTS)) for m in (taught, alone)]
    assert errors[0] <= 1.1 * errors[1]
    assert 0 <= taught.teacher_score_ < 0.1


def test_outliers_of_the_features():
    features = F.copy()
    features[3] = 1e30
    model = quick(max_epochs=20).fit(X, Y, features=features)
    assert model.score(X, Y) > 0.9


# ---------------------------------------------------------------- scikit-learn


@pytest.fixture(scope="module")
def texts():
    rows, labels = load_banking77(labels_per_class=6, return_X_y=True)
    some = np.isin(labels, np.unique(labels)[:4])
    return np.asarray(rows, dtype=object)[some].tolist(), np.asarray(labels)[some]


@pytest.fixture(scope="module")
def minilm():
    return FoundationFeatureExtractor("minilm")


def half_labelled(texts):
    rows, labels = texts
    numbers = np.unique(labels, return_inverse=True)[1]
    return rows, np.where(np.arange(len(rows)) % 2 > 0, numbers, -1)


def test_every_layer_teaches_beside_the_students_rows_and_start(texts, minilm):
    rows, marked = half_labelled(texts)
    features = minilm.fit_transform(rows)
    model = partly().fit(features, marked)
    layers = list(features.teacher_features.feature_slices)
    assert len(layers) > 1
    assert list(model.teacher_weights_) == [*layers, "student's rows", "student's start"]
    random = partly(module__start="random").fit(features, marked)
    assert list(random.teacher_weights_) == [*layers, "student's rows"]
    by_name = partly(transfer="pooled-kd").fit(features, marked)
    assert by_name.teacher_weights_ == model.teacher_weights_


def test_the_start_is_no_teacher_of_a_student_that_was_trained(texts, minilm):
    """Its features know the labels by then."""
    rows, marked = half_labelled(texts)
    features = minilm.fit_transform(rows)
    model = partly(warm_start=True).fit(features, marked)
    assert "student's start" in model.teacher_weights_
    model.fit(features, marked)
    assert "student's start" not in model.teacher_weights_
    assert "student's rows" in model.teacher_weights_


def test_layers_of_the_extractor_are_searched(texts, minilm):
    pipe = make_pipeline(clone(minilm), quick(max_epochs=1))
    grid = {"foundationfeatureextractor__layers": ["last", "auto"]}
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(*texts)
    scores = search.cv_results_["mean_test_score"]
    assert scores[0] == scores[1]  # all layers teach, whatever the extractor returns


def test_cross_validation_with_labeled_fold():
    pipe = make_pipeline(FoundationFeatureExtractor(TEACHER), partly(max_epochs=20, lr=3e-3))
    scores = cross_val_score(
        pipe, X, MARKED, cv=LabeledFold(3, missing_label=-1), error_score="raise"
    )
    assert scores.mean() > 0.75


@pytest.mark.parametrize(
    "config", [{"enable_metadata_routing": True}, {"transform_output": "pandas"}]
)
def test_any_configuration_of_scikit_learn(config, texts, minilm):
    rows, marked = half_labelled(texts)
    features = minilm.fit_transform(rows)
    expected = partly().fit(features, marked)
    numbers = quick(AFTRegressor).fit(NUMBERS, AMOUNTS, features=NUMERIC_FEATURES)
    with sklearn.config_context(**config):
        model = partly().fit(features, marked)
        again = quick(AFTRegressor).fit(NUMBERS, AMOUNTS, features=NUMERIC_FEATURES)
    assert model.teacher_weights_ == expected.teacher_weights_
    assert again.teacher_weights_ == numbers.teacher_weights_


def test_X_unlabeled_in_a_pipeline():
    expected = make_pipeline(FoundationFeatureExtractor(TEACHER), partly()).fit(X, MARKED)
    with sklearn.config_context(enable_metadata_routing=True):
        student = quick().set_fit_request(X_unlabeled=True)
        steps = [("extractor", FoundationFeatureExtractor(TEACHER)), ("student", student)]
        pipe = Pipeline(steps, transform_input=["X_unlabeled"])
        pipe.fit(X[KNOWN], Y[KNOWN], X_unlabeled=X[~KNOWN])
    weights = expected[-1].teacher_weights_
    assert "student's rows" in weights
    assert pipe[-1].teacher_weights_ == pytest.approx(weights)
    np.testing.assert_allclose(pipe.predict_proba(X), expected.predict_proba(X), rtol=1e-4)


def test_dates_that_only_the_preprocessor_reads():
    frame = pd.DataFrame(X[:, 2:8], columns=[f"p{i}" for i in range(6)])
    frame["day"] = pd.date_range("2024-01-01", periods=200)
    days = FunctionTransformer(lambda days: days.astype("int64") / 1e18)
    preprocessor = make_column_transformer((days, ["day"]), remainder="passthrough")
    model = partly(preprocessor=preprocessor).fit(frame, MARKED, features=F)
    assert set(model.teacher_weights_) == {"features", "student's rows"}


# ---------------------------------------------------------------- training


def test_early_stopping_keeps_held_out_rows_from_the_teachers():
    noise = np.random.default_rng(0).integers(0, 10, 200)  # labels that only memory can know
    model = quick(early_stopping=True, validation_fraction=0.5)
    model.fit(X, noise, features=np.eye(200))
    assert model.teacher_score_ < 0.05
    assert max(model.validation_scores_) < 0.3
    marked = partly(early_stopping=True).fit(X, MARKED, features=F)
    assert set(marked.teacher_weights_) == {"features", "student's rows"}


def test_training_that_resumes():
    model = partly(warm_start=True).fit(X, MARKED, features=F)
    first = model.teacher_score_
    model.fit(X, MARKED, features=F)
    assert model.n_iter_ == 4
    assert model.teacher_score_ == pytest.approx(first, abs=0.1)  # other folds
    model.partial_fit(X[:50], Y[:50], features=F[:50])
    assert model.transfer_method_ == "pooled-kd"
    assert list(model.teacher_weights_) == ["features"]
    model.partial_fit(X[:2], Y[:2], features=F[:2])
    model.partial_fit(X[Y == 1], Y[Y == 1], features=F[Y == 1])
    assert model.score(X, Y) > 0.5


def test_partial_fit_from_the_start_learns_from_features():
    model = quick().partial_fit(X, Y, features=F, classes=np.arange(10))
    assert model.transfer_method_ == "aft"


def test_mixup_of_images():
    images = DIGITS[:80].reshape(-1, 8, 8)
    model = partly(module=ResNet, mixup=0.4).fit(images, MARKED[:80], features=F[:80])
    assert set(model.teacher_weights_) == {"features"}  # pixels are none
    assert np.isfinite(model.loss_curve_).all()


def test_fine_tuned_soft_targets_are_one_of_the_teachers(encoder_directory, tmp_path):
    rows = [
        f"{text} {number}"
        for text in ("lost card", "euro rate", "my card", "the rate")
        for number in range(6)
    ]
    labels = np.repeat(["card", "rate", "card", "rate"], 6)
    extractor = FineTunedFeatureExtractor(
        f"hf:{encoder_directory('bert')}", objective="linear", n_steps=2, cache=str(tmp_path)
    )
    features = extractor.fit_transform(rows, labels)
    model = quick(module__start="random").fit(features, labels)
    layers = list(features.teacher_features.feature_slices)
    assert list(model.teacher_weights_) == [*layers, "soft targets"]
    expected = quick(module__start="random", transfer="probe-kd").fit(features, labels)
    assert expected.transfer_method_ == "probe-kd"


def test_given_soft_targets_replace_the_pool():
    P = TEACHER.predict_proba(X)
    model = quick().fit(X, Y, features=F, soft_targets=P)
    assert model.transfer_method_ == "probe-kd"
    pooled = quick(transfer="pooled-kd").fit(X, Y, features=F, soft_targets=P)
    assert list(pooled.teacher_weights_) == ["features", "soft targets"]


def test_a_part_of_a_list():
    model = partly(transfer=[("aft", 10), ("pooled-kd", 1)]).fit(X, MARKED, features=F)
    alone = partly(transfer="pooled-kd").fit(X, MARKED, features=F)
    assert model.teacher_weights_ == pytest.approx(alone.teacher_weights_, rel=1e-4)
    assert model.teacher_score_ == pytest.approx(alone.teacher_score_, rel=1e-4)
    frozen = {"lr": 1e-12, "lr_schedule": "constant", "max_epochs": 1, "batch_size": 1000}
    aft, pool, both = (
        quick(transfer=transfer, **frozen).fit(X, Y, features=F).history_[-1]["train_transfer_loss"]
        for transfer in ("aft", "pooled-kd", [("aft", 3), ("pooled-kd", 2)])
    )
    assert both == pytest.approx(3 * aft + 2 * pool, rel=1e-3)


def test_verbose_says_in_one_line_who_teaches(capsys):
    quiet = quick().fit(X, Y, features=F)
    assert capsys.readouterr().out == ""
    quick(verbose=1).fit(X, Y, features=F)
    lines = [line for line in capsys.readouterr().out.splitlines() if "Taught" in line]
    weight, score = quiet.teacher_weights_["features"], quiet.teacher_score_
    share = "share of the labels' entropy explained out of fold"
    assert lines == [f"Taught by features {weight:.2f} ({share}: {score:.2f})"]
    quick(verbose=1, beta=0).fit(X, Y)
    assert "Taught" not in capsys.readouterr().out


def test_copies_and_folders_predict_the_same(tmp_path):
    model = partly().fit(X, MARKED, features=F)
    again = pickle.loads(pickle.dumps(model))
    assert again.teacher_weights_ == model.teacher_weights_
    assert again.teacher_score_ == model.teacher_score_
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    model.save_pretrained(tmp_path)
    read = AFTClassifier.from_pretrained(tmp_path)
    np.testing.assert_allclose(read.predict_proba(X), model.predict_proba(X), rtol=1e-5)
    with pytest.raises(AttributeError, match="teacher_weights_"):
        _ = read.teacher_weights_
    assert not hasattr(partly(), "teacher_weights_")


def test_the_result_is_reproducible():
    iris, labels = load_iris(return_X_y=True)
    marked = np.where(np.arange(150) % 3 > 0, labels, -1)
    one, other = (partly().fit(iris, marked, features=PCA(2).fit_transform(iris)) for _ in range(2))
    assert one.teacher_weights_ == other.teacher_weights_
    np.testing.assert_array_equal(one.predict_proba(iris), other.predict_proba(iris))


# ---------------------------------------------------------------- teachers that do no harm


def test_useless_teachers_of_images_that_start_from_random_numbers():
    """The student has no linear model of its own, so the weight of the term is the score's root."""
    images, labels = DIGITS.reshape(-1, 8, 8).astype(np.uint8), LABELS
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    few = np.where(np.arange(600) < 60, labels[:600], -1)
    noise = np.random.default_rng(0).normal(size=(600, 64))
    settings = {"max_epochs": 30, "lr": 3e-3}
    taught = partly(module=network, **settings).fit(images[:600], few, features=noise)
    alone = partly(module=network, **settings, beta=0).fit(images[:600], few)
    assert list(taught.teacher_weights_) == ["features"]
    assert taught.teacher_score_ < 0.1
    assert taught.score(images[600:], labels[600:]) > alone.score(images[600:], labels[600:]) - 0.05


def test_a_network_that_the_user_has_trained_is_no_teacher(texts, minilm):
    """Its features may know the labels."""
    rows, marked = half_labelled(texts)
    features = minilm.fit_transform(rows)
    settings = {"module": "minilm", "module__n_layers": 1, "max_epochs": 1}
    first = partly(**settings).fit(features, marked)
    assert "student's start" in first.teacher_weights_
    again = partly(module=first.module_, preprocessor=first.preprocessor_)
    assert "student's start" not in again.fit(features, marked).teacher_weights_


def test_copies_of_texts_do_not_repeat_labels(texts, minilm):
    rows, _ = texts
    copies = list(rows[:20]) * 3
    noise = np.random.default_rng(0).integers(0, 2, 20)
    model = quick().fit(minilm.fit_transform(copies), np.tile(noise, 3))
    assert model.teacher_score_ < 0.3


def test_a_method_of_ones_own_may_return_any_object_with_take():
    class Rows:
        shape = (200, 10)

        def take(self, indices):
            return np.full((len(indices), 10), 0.1, dtype=np.float32)

    class Uniform(TransferMethod):
        uses_logits = True

        def fit(self, rows):
            return Rows()

        def forward(self, student, foundation, logits):
            return (logits - foundation).square().mean()

    model = quick(transfer=Uniform()).fit(X, Y, features=F)
    assert model.history_[-1, "train_transfer_loss"] > 0


def test_kernel_alignment_as_a_fallback_reads_the_features_of_x(texts, minilm):
    rows, labels = texts
    features = minilm.fit_transform(rows)
    model = quick().partial_fit(features, labels, classes=np.unique(labels))
    assert model.transfer_method_ == "aft"
    assert len(model.feature_weights_) == features.shape[1]
