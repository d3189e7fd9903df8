"""Students that are given a file of features."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV

from sk_aft import AFTClassifier, AFTRegressor
from sk_aft.store import FeatureStore, read_features

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

X, Y = load_iris(return_X_y=True)
X = X.astype(np.float32)
FEATURES = np.hstack([X[:, 2:], X[:, :1] ** 2]).astype(np.float32)


def write(path, rows=FEATURES):
    lists = [None if np.isnan(row).all() else row for row in rows]
    table = pa.table({"features": pa.array(lists, pa.list_(pa.float32()))})
    pq.write_table(table, path, row_group_size=40)
    return path


def student(estimator=AFTClassifier, **parameters):
    return estimator(transfer="aft", max_epochs=3, random_state=0, **parameters)


@pytest.mark.parametrize("estimator", [AFTClassifier, AFTRegressor])
@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_path_teaches_what_its_array_does(tmp_path, estimator, kind):
    path = write(tmp_path / "rows.parquet")
    expected = student(estimator).fit(X, Y, features=FEATURES)
    taught = student(estimator).fit(X, Y, features=kind(path))
    np.testing.assert_array_equal(taught.predict(X), expected.predict(X))
    assert taught.history[-1]["train_loss"] == expected.history[-1]["train_loss"]
    assert (
        taught.history[-1]["train_loss"] != (student(estimator).fit(X, Y).history[-1]["train_loss"])
    )


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_a_path_is_taken_in_partial_fit(tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"
    if suffix == "npy":
        np.save(path, FEATURES)
    else:
        write(path)
    expected, taught = student(), student()
    for _ in range(2):
        expected.partial_fit(X, Y, classes=[0, 1, 2], features=FEATURES)
        taught.partial_fit(X, Y, classes=[0, 1, 2], features=path)
    np.testing.assert_array_equal(taught.predict_proba(X), expected.predict_proba(X))


def test_null_rows_have_no_features(tmp_path):
    features = FEATURES.copy()
    features[::5] = np.nan
    path = write(tmp_path / "rows.parquet", features)
    with pytest.warns(UserWarning, match="30 of 150 rows of features are NaN: they count as rows"):
        taught = student().fit(X, Y, features=path)
    assert np.isfinite(taught.predict_proba(X)).all()
    with pytest.warns(UserWarning, match="30 of 150"):
        same = student().fit(X, Y, features=features)
    np.testing.assert_array_equal(taught.predict_proba(X), same.predict_proba(X))


def test_numbers_that_are_partly_nan_are_refused():
    features = FEATURES.copy()
    features[7, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity in row 7, column 0"):
        student().fit(X, Y, features=features)
    features[7, 1:] = np.nan
    features[9, 2] = np.inf
    with pytest.raises(ValueError, match="NaN or infinity in row 9, column 2"):
        student().fit(X, Y, features=features)
    with pytest.raises(ValueError, match="All 150 rows of features are NaN"):
        student().fit(X, Y, features=np.full((150, 2), np.nan))


def test_a_path_of_another_length_is_refused(tmp_path):
    path = write(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"has the features of 150 rows, but X has 149"):
        student().fit(X[1:], Y[1:], features=path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npy"):
        student().fit(X, Y, features=tmp_path / "nowhere.npy")


def test_a_search_is_told_how_to_slice_a_file(tmp_path):
    path = write(tmp_path / "rows.parquet")
    search = GridSearchCV(student(), {"beta": [0.0, 1.0]}, cv=2, error_score="raise")
    with pytest.raises(ValueError, match=r"features=sk_aft\.store\.read_features\(path\)"):
        search.fit(X, Y, features=str(path))


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_search_slices_a_file_that_is_memory_mapped(tmp_path, n_jobs):
    path = tmp_path / "rows.npy"
    np.save(path, FEATURES)
    search = GridSearchCV(
        student(), {"beta": [0.0, 1.0]}, cv=2, error_score="raise", n_jobs=n_jobs
    ).fit(X, Y, features=read_features(path))
    expected = GridSearchCV(student(), {"beta": [0.0, 1.0]}, cv=2).fit(X, Y, features=FEATURES)
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )


def test_a_student_reads_a_mapped_file_while_it_trains(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, FEATURES)
    mapped = student().fit(X, Y, features=path)
    expected = student().fit(X, Y, features=FEATURES)
    np.testing.assert_array_equal(mapped.predict_proba(X), expected.predict_proba(X))


@pytest.mark.parametrize("suffix", ["parquet", "safetensors"])
def test_features_that_a_store_exported_are_refused(tmp_path, suffix):
    """Their rows are in the order of the store."""
    store = FeatureStore(tmp_path / "store")
    model = store.register_model({"weights": "none"}, name="none")
    store.put_many([model + bytes([row]) * 16 for row in range(4)], np.eye(4))
    path = tmp_path / f"features.{suffix}"
    store.export_features(path, model=model)
    with pytest.raises(ValueError, match=r"was exported by a store.*import_features"):
        AFTClassifier().fit(np.eye(4), [0, 1, 0, 1], features=path)
