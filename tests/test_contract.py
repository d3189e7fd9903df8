"""What users of scikit-learn expect: containers, types, labels, parameters, processes."""

import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_html_repr
from sklearn.utils._param_validation import InvalidParameterError
from skorch.callbacks import Checkpoint, EarlyStopping, EpochScoring

from sk_aft import AFTClassifier, AFTRegressor, FoundationFeatureExtractor

X, Y = load_iris(return_X_y=True)
X = X.astype(np.float32)
TEXTS = ["good", "fine film", "great", "so good", "bad", "awful film", "poor", "so bad"] * 4
SENTIMENTS = [1, 1, 1, 1, 0, 0, 0, 0] * 4


def short(**parameters):
    return AFTClassifier(**{"beta": 0, "max_epochs": 2, "random_state": 0, **parameters})


# ---------------------------------------------------------------- containers of rows


def memory_map(X):
    path = joblib.dump(X, joblib.os.path.join(memory_map.directory, "X.joblib"))[0]
    return joblib.load(path, mmap_mode="r")


@pytest.mark.parametrize(
    "hold",
    [
        lambda X: X.tolist(),
        lambda X: X.astype(np.float64),
        lambda X: X.astype(object),
        np.asfortranarray,
        lambda X: X[::-1][::-1],
        memory_map,
        lambda X: pd.DataFrame(X),
        lambda X: torch.from_numpy(X),
    ],
    ids=["list", "float64", "object", "F order", "view", "memmap", "frame", "tensor"],
)
def test_numbers_in_any_container(hold, tmp_path):
    memory_map.directory = tmp_path
    held = hold(X)
    expected = short().fit(X, Y).predict_proba(X)
    model = short().fit(held, Y)
    np.testing.assert_allclose(model.predict_proba(held), expected, rtol=1e-5)
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-5)


@pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
def test_names_of_columns_are_those_of_fit(library):
    names = ["a", "b", "c", "d"]
    frame = library.DataFrame({name: X[:, i] for i, name in enumerate(names)})
    model = short().fit(frame, Y)
    assert model.feature_names_in_.tolist() == names
    assert model.n_features_in_ == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(frame)
    with pytest.raises(ValueError, match="feature names should match those"):
        model.predict(frame[["b", "a", "c", "d"]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)


@pytest.mark.parametrize(
    "hold",
    [
        list,
        tuple,
        np.array,
        lambda x: np.array(x, dtype=object),
        pd.Series,
        lambda x: pd.Series(x, dtype="string"),
        lambda x: pd.DataFrame({"text": x}),
        pl.Series,
        lambda x: pl.DataFrame({"text": x}),
    ],
    ids=[
        *("list", "tuple", "array", "objects", "Series", "StringDtype", "frame"),
        *("polars Series", "polars frame"),
    ],
)
def test_texts_in_any_container(hold):
    expected = short().fit(TEXTS, SENTIMENTS).predict_proba(TEXTS)
    pipe = make_pipeline(FoundationFeatureExtractor(count_letters), short())
    held = hold(TEXTS)
    pipe.fit(held, SENTIMENTS)
    np.testing.assert_array_equal(pipe.predict_proba(held), expected)
    np.testing.assert_array_equal(pipe[-1].predict_proba(TEXTS), expected)


def count_letters(texts):
    return np.array([[text.count(letter) for letter in "aeiou"] for text in texts])


def saved(photographs, directory):
    paths = [directory / f"{number}.png" for number in range(len(photographs))]
    for path, photograph in zip(paths, photographs, strict=True):
        Image.fromarray(photograph).save(path)
    return paths


@pytest.mark.parametrize(
    "hold",
    [
        lambda x, _: list(x),
        lambda x, _: np.moveaxis(x, 3, 1),
        lambda x, _: [Image.fromarray(image) for image in x],
        saved,
        lambda x, directory: [str(path) for path in saved(x, directory)],
        lambda x, directory: [path.read_bytes() for path in saved(x, directory)],
        lambda x, directory: pd.DataFrame({"image": saved(x, directory)}),
    ],
    ids=["list", "NCHW", "PIL", "paths", "strings", "bytes", "frame of paths"],
)
def test_images_in_any_container(hold, photographs, tmp_path):
    y = [0, 0, 0, 1, 1, 1]
    expected = short().fit(photographs, y).predict_proba(photographs)
    held = hold(photographs, tmp_path)
    model = short().fit(held, y)
    np.testing.assert_allclose(model.predict_proba(held), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [scipy.sparse.csr_matrix, scipy.sparse.csc_array])
def test_sparse_rows_say_what_to_do(make):
    with pytest.raises(TypeError, match=r"Sparse data .* dense data is required.*toarray"):
        short().fit(make(X), Y)
    with pytest.raises(TypeError, match="toarray"):
        short().fit(X, Y).predict(make(X))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("estimator", [AFTClassifier, AFTRegressor])
def test_numbers_have_to_be_finite(estimator, bad):
    broken = X.copy()
    broken[3, 1] = bad
    with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
        estimator(beta=0).fit(broken, Y)
    with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
        estimator(beta=0, max_epochs=1).fit(X, Y).predict(broken)


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["setosa", "versicolor", "virginica"]),
        np.array(["a", "b", "c"], dtype=object),
        np.array([-7, 0, 1000]),
        np.array([1.0, 2.0, 3.0]),
    ],
    ids=["str", "object", "far apart", "float"],
)
@pytest.mark.parametrize("hold", [np.asarray, list, pd.Series, lambda y: y.reshape(-1, 1)])
def test_labels_of_any_type(labels, hold):
    y = hold(labels[Y])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a column of labels is taken, with a warning
        model = short(max_epochs=40, lr=0.01).fit(X, y)
    np.testing.assert_array_equal(model.classes_, labels)
    assert model.predict(X).dtype == model.classes_.dtype
    assert model.score(X, labels[Y]) > 0.9


@pytest.mark.parametrize("labels", [np.array([False, True]), np.array(["no", "yes"])])
def test_two_labels(labels):
    y = labels[(Y == 0).astype(int)]
    model = short(max_epochs=40, lr=0.01).fit(X, y)
    assert model.decision_function(X).shape == (150,)
    np.testing.assert_array_equal(model.predict(X), labels[(model.decision_function(X) > 0) * 1])
    assert model.score(X, y) > 0.95


def test_several_targets():
    targets = np.stack([X[:, 0], 100 * X[:, 1] - 7], axis=1)
    for y in (targets, pd.DataFrame(targets, columns=["a", "b"]), targets.tolist()):
        model = AFTRegressor(beta=0, max_epochs=60, lr=0.01, random_state=0).fit(X, y)
        assert model.predict(X).shape == (150, 2)
        assert model.score(X, targets) > 0.9


# ---------------------------------------------------------------- weights


def test_weights_act_on_the_validation_rows_too():
    noise = np.random.default_rng(0).integers(0, 3, 150)
    y = np.where(np.arange(150) % 2, Y, noise)
    weights = (np.arange(150) % 2).astype(float)  # the noisy rows count for nothing
    model = short(max_epochs=60, lr=0.02, early_stopping=True, n_iter_no_change=60)
    model.set_params(validation_fraction=0.3).fit(X, y, sample_weight=weights)
    assert max(model.validation_scores_) > 0.85
    unweighted = clone(model).fit(X, y).validation_scores_
    assert max(unweighted) < max(model.validation_scores_) - 0.1


def test_class_weight_is_sample_weight():
    by_class = {0: 1.0, 1: 3.0, 2: 0.5}
    one = short(class_weight=by_class).fit(X, Y)
    other = short().fit(X, Y, sample_weight=np.array([1.0, 3.0, 0.5])[Y])
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=1e-6)
    rare = np.r_[np.arange(100), 100:105]
    balanced = short(class_weight="balanced").fit(X[rare], Y[rare])
    assert (
        balanced.predict_proba(X)[100:, 2] > short().fit(X[rare], Y[rare]).predict_proba(X)[100:, 2]
    ).all()


@pytest.mark.parametrize("transfer", ["aft", "probe-kd"])
def test_the_label_of_a_row_of_weight_zero_does_not_matter_but_its_features_do(transfer):
    y = Y.copy()
    weights = np.ones(150)
    weights[::3] = 0
    y[::3] = (Y[::3] + 1) % 3  # what its label is does not matter
    parameters = {"transfer": transfer, "beta": 5, "max_epochs": 3}
    model = short(**parameters).fit(X, Y, features=X, sample_weight=weights)
    relabelled = short(**parameters).fit(X, y, features=X, sample_weight=weights)
    np.testing.assert_array_equal(model.predict_proba(X), relabelled.predict_proba(X))
    features = X.copy()
    features[::3] = features[::3][::-1]  # but its features do
    moved = short(**parameters).fit(X, Y, features=features, sample_weight=weights)
    assert not np.array_equal(moved.predict_proba(X), model.predict_proba(X))


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize("estimator", [AFTClassifier, AFTRegressor])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beta", -1),
        ("beta", "strong"),
        ("lr", 0),
        ("max_epochs", 2.5),
        ("batch_size", 0),
        ("lr_schedule", "linear"),
        ("early_stopping", "yes"),
        ("validation_fraction", 1.0),
        ("warm_start", 1.5),
        ("module", 3),
        ("optimizer", "adam"),
        ("random_state", "seed"),
        ("callbacks", "all"),
    ],
)
def test_wrong_values_are_refused_in_scikit_learns_words(estimator, name, value):
    model = estimator(**{name: value})
    message = f"The '{name}' parameter of {estimator.__name__} must be"
    with pytest.raises(InvalidParameterError, match=message):
        model.fit(X, Y)


@pytest.mark.parametrize("estimator", [AFTClassifier, AFTRegressor])
def test_parameters_go_round(estimator):
    given = {
        "module__hidden_sizes": (8,),
        "optimizer__weight_decay": 0.1,
        "transfer__kernel": "linear",
        "callbacks__print_log": None,
        "beta": 3,
    }
    model = estimator(**given)
    assert {name: model.get_params()[name] for name in given} == given
    assert clone(model).get_params() == model.get_params()
    assert estimator(**model.get_params()).get_params() == model.get_params()
    assert estimator().set_params(**model.get_params()).get_params() == model.get_params()
    assert repr(model).startswith(f"{estimator.__name__}(")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("module__depth", r"MLP takes \['dropout', .*'hidden_sizes'"),
        ("optimizer__momentum", r"RowwiseAdamW takes \['amsgrad', "),
        ("criterion__smoothing", r"CrossEntropyLoss takes \['ignore_index', 'label_smoothing'"),
        ("preprocessor__mean", r"StandardScaler takes \['copy', 'with_mean', 'with_std'\]"),
    ],
)
def test_unknown_parameters_are_told_what_there_is(name, message):
    with pytest.raises(ValueError, match=f"Invalid parameter {name}: {message}"):
        short(**{name: 3}).fit(X, Y)


def test_a_loss_that_is_built_takes_no_parameters():
    loss = torch.nn.CrossEntropyLoss()
    with pytest.raises(ValueError, match=r"criterion is an instance of CrossEntropyLoss"):
        short(criterion=loss, criterion__label_smoothing=0.1).fit(X, Y)


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "n_epochs"),
    [(100, 128, 500), (129, 128, 500), (150, 50, 334), (150, 10, 67)],
)
def test_few_rows_are_passed_over_more_often(n_rows, batch_size, n_epochs):
    order = np.random.default_rng(0).permutation(150)[:n_rows]
    model = AFTClassifier(beta=0, batch_size=batch_size, random_state=0)
    model.fit(X[order], Y[order])
    assert model.n_iter_ == n_epochs
    assert model.optimizer_.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
    assert model.set_params(max_epochs=3).fit(X[order], Y[order]).n_iter_ == 3
    assert model.set_params(max_epochs="auto").partial_fit(X[order], Y[order]).n_iter_ == 4


def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match=r"device='cuda:9' cannot be used here.*'auto'"):
        short(device="cuda:9").fit(X, Y)


def test_a_checkpoint_of_the_best_epoch_is_loaded(tmp_path):
    checkpoint = Checkpoint(dirname=tmp_path, monitor="train_loss_best", load_best=True)
    model = short(beta=1, callbacks=[checkpoint]).fit(X, Y, features=X)
    assert model.device == "auto"
    assert torch.load(tmp_path / "params.pt", weights_only=True).keys() == (
        model.module_.state_dict().keys()
    )
    assert model.predict(X).shape == (150,)


def test_own_callbacks_and_their_parameters():
    scoring = ("train_accuracy", EpochScoring("accuracy", on_train=True, name="train_accuracy"))
    model = short(callbacks=[scoring], callbacks__train_accuracy__lower_is_better=False).fit(X, Y)
    assert len(model.history_[:, "train_accuracy"]) == 2
    assert clone(model).get_params()["callbacks"][0][0] == "train_accuracy"


@pytest.mark.parametrize("name", ["callbacks__foo__bar", "callbacks__foo"])
def test_callbacks_that_do_not_exist_are_named(name):
    message = rf"Invalid parameter {name}: the callbacks are \['epoch_timer', .*'Checkpoint'"
    with pytest.raises(ValueError, match=message):
        short(callbacks=[Checkpoint], **{name: None}).fit(X, Y)


@pytest.mark.parametrize("callback", [EarlyStopping, EarlyStopping(), Checkpoint()])
def test_callbacks_that_monitor_held_out_rows_need_some(callback):
    message = r"monitors 'valid_loss\w*', which exists only with early_stopping=True"
    model = short(callbacks=[callback], callbacks__early_stopping=None)
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y)
    assert not hasattr(model, "module_")
    if callback is EarlyStopping:
        assert model.set_params(early_stopping=True).fit(X, Y).n_iter_ == 2
        model.set_params(early_stopping=False, callbacks=[EarlyStopping("train_loss")]).fit(X, Y)


def test_parameters_of_default_callbacks_may_stay_where_these_are_off():
    model = short(callbacks__lr_scheduler__step_every="batch", callbacks__early_stopping=None)
    model.fit(X, Y).partial_fit(X, Y)
    assert model.set_params(lr_schedule="constant").fit(X, Y).n_iter_ == 2


def test_a_picture_for_notebooks():
    pipe = make_pipeline(FoundationFeatureExtractor("minilm"), AFTClassifier(beta=3))
    for estimator in (pipe, AFTClassifier(beta=3), clone(AFTRegressor(module__hidden_sizes=(4,)))):
        html = estimator_html_repr(estimator)
        assert type(estimator).__name__ in html
        assert estimator._repr_html_() is not None
    fitted = AFTClassifier(beta=0, max_epochs=1).fit(X, Y)
    assert "fitted" in estimator_html_repr(fitted)


# ---------------------------------------------------------------- seeds and processes


@pytest.mark.parametrize("random_state", [3, np.random.RandomState(3), None])
def test_seeds_and_the_states_of_others(random_state):
    np.random.seed(11)  # noqa: NPY002
    torch.manual_seed(11)
    before = (np.random.get_state()[1].copy(), torch.get_rng_state())  # noqa: NPY002
    first = short(random_state=clone_state(random_state)).fit(X, Y).predict_proba(X)
    assert torch.equal(torch.get_rng_state(), before[1])
    if random_state is None:  # draws one number from NumPy's, as scikit-learn does
        np.random.seed(11)  # noqa: NPY002
    else:
        np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    second = short(random_state=clone_state(random_state)).fit(X, Y).predict_proba(X)
    np.testing.assert_array_equal(first, second)


def clone_state(random_state):
    if not isinstance(random_state, np.random.RandomState):
        return random_state
    copied = np.random.RandomState()
    copied.set_state(random_state.get_state())
    return copied


def count_threads(model, X, y):
    return torch.get_num_threads()


def test_two_processes_find_what_one_finds():
    pipe = make_pipeline(
        FoundationFeatureExtractor(np.square), short(lr=0.01, max_epochs=5, module__dropout=0.1)
    )
    grid = {"aftclassifier__beta": [0, 1, 10]}
    alone, together = (
        GridSearchCV(pipe, grid, cv=3, n_jobs=n_jobs).fit(X, Y).cv_results_["mean_test_score"]
        for n_jobs in (1, 2)
    )
    np.testing.assert_array_equal(alone, together)


def test_processes_share_the_cores():
    scores = cross_val_score(short(), X, Y, cv=2, n_jobs=2, scoring=count_threads)
    assert scores.sum() <= max(2, joblib.cpu_count())


def test_preprocessors_return_a_row_for_each_row():
    class Drop(TransformerMixin, BaseEstimator):
        def fit(self, X, y=None):
            return self

        def transform(self, X):
            return X[:-1]

    with pytest.raises(ValueError, match="returned 149 rows for 150: it has to return one"):
        short(preprocessor=Drop()).fit(X, Y)
