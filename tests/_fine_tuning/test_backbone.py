"""Tuned weights and features in the store: made once, found again, made again if damaged."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier, FineTunedFeatureExtractor
from sk_aft.store import FeatureStore

WORDS = ["my", "was", "is", "of", "the", "what"]
TEXTS = [f"{what} {word}" for what in ("card", "rate") for word in WORDS]
LABELS = np.array([0] * 6 + [1] * 6)
OTHERS = ["my stolen card", "rate of exchange"]


@pytest.fixture
def tuned(encoder_directory, cache):
    def make(**parameters):
        defaults = {"objective": "linear", "n_steps": 3, "lr": 1e-3, "cache": cache}
        model = f"hf:{encoder_directory('bert')}"
        return FineTunedFeatureExtractor(model, **{**defaults, **parameters})

    return make


def features(extractor, rows=OTHERS):
    return np.asarray(extractor.transform(rows))


def weights(cache):
    return list(cache.rglob("*.safetensors"))


def trainings(capsys):
    """Return how many trainings showed a progress bar since the last call."""
    lines = capsys.readouterr().err.replace("\r", "\n").split("\n")
    return sum("fine-tuning:   0%" in line for line in lines)


@pytest.mark.parametrize("soft", [False, True])
def test_a_search_trains_once_for_each_split(soft, tuned, cache, capsys):
    folds = StratifiedKFold(2)
    student = AFTClassifier(
        transfer="probe-kd" if soft else None, max_epochs=1, module__start="random", random_state=0
    )
    pipeline = make_pipeline(tuned(verbose=1, cv=2), student)
    grid = {"aftclassifier__lr": [1e-3, 1e-2, 1e-1]}
    search = GridSearchCV(pipeline, grid, cv=folds).fit(TEXTS, LABELS)
    # Two splits and all rows; the soft targets of each are from two models.
    assert trainings(capsys) == (3 + 3 * 2 if soft else 3)
    again = GridSearchCV(pipeline, grid, cv=folds).fit(TEXTS, LABELS)
    assert trainings(capsys) == 0
    np.testing.assert_array_equal(again.predict(TEXTS), search.predict(TEXTS))
    assert len(weights(cache)) == 3


def test_workers_share_a_training(tuned, cache):
    pipeline = make_pipeline(tuned(), LogisticRegression())
    grid = {"logisticregression__C": [0.1, 1, 10]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2).fit(TEXTS, LABELS)
    assert len(weights(cache)) == 3
    written = {path: path.stat().st_mtime_ns for path in weights(cache)}
    one = GridSearchCV(pipeline, grid, cv=2).fit(TEXTS, LABELS)
    assert {path: path.stat().st_mtime_ns for path in weights(cache)} == written
    np.testing.assert_array_equal(
        one.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"]
    )


def test_without_a_store(tuned, cache):
    expected = tuned().fit(TEXTS, LABELS)
    kept = tuned(cache=None).fit(TEXTS, LABELS)
    np.testing.assert_array_equal(features(kept), features(expected))
    np.testing.assert_array_equal(
        kept.transform(TEXTS).soft_targets, expected.transform(TEXTS).soft_targets
    )
    kept.backbones_[0].unload()
    np.testing.assert_array_equal(features(kept), features(expected))


def test_the_store_counts_and_removes_weights(tuned, cache):
    extractor = tuned().fit(TEXTS, LABELS)
    expected = features(extractor)
    (path,) = weights(cache)
    store = FeatureStore(cache)
    (model,) = store.stats()["models"]
    assert model["name"] == "bert0-tuned"
    assert model["bytes"] > path.stat().st_size
    assert store.stats()["bytes"] == model["bytes"]
    assert store.reduce_size(path.stat().st_size) == 14
    assert store.stats()["bytes"] == 0
    assert not weights(cache)
    np.testing.assert_array_equal(features(tuned().fit(TEXTS, LABELS)), expected)
    assert store.remove(model="bert0-tuned") == 14
    assert not weights(cache)
    np.testing.assert_array_equal(features(tuned().fit(TEXTS, LABELS)), expected)


def test_an_unfinished_training_counts_and_is_removed(tuned, cache):
    tuned().fit(TEXTS, LABELS)
    (path,) = weights(cache)
    store = FeatureStore(cache)
    for file in path.parent.iterdir():
        if file.name != "model.json":
            file.unlink()
    path.with_name("checkpoint.pt").write_bytes(bytes(5000))
    (model,) = store.stats()["models"]
    assert model["rows"] == 0
    assert store.stats()["bytes"] == model["bytes"] == 5000
    assert store.reduce_size(5000) == 0
    assert store.stats()["bytes"] == 5000
    assert store.reduce_size(4999) == 0
    assert store.stats()["bytes"] == 0


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_damaged_weights_are_made_again(content, tuned, cache):
    expected = features(tuned().fit(TEXTS, LABELS))
    (path,) = weights(cache)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100] if content is None else content)
    extractor = tuned().fit(TEXTS, LABELS)  # all features are in the store
    new = features(extractor, ["why"])
    assert path.read_bytes() == whole
    np.testing.assert_array_equal(features(tuned(cache=None).fit(TEXTS, LABELS), ["why"]), new)
    np.testing.assert_array_equal(features(extractor), expected)


def test_a_pickle_of_what_was_found_in_the_store(tuned, cache, tmp_path):
    expected = features(tuned().fit(TEXTS, LABELS))
    found = tuned().fit(TEXTS, LABELS)  # neither loaded nor trained
    content = pickle.dumps(found)
    assert not any(text.encode() in content for text in TEXTS)
    shutil.rmtree(cache)
    again = pickle.loads(content)
    np.testing.assert_array_equal(features(again), expected)


def test_precompute(tuned, cache, capsys):
    with pytest.raises(ValueError, match="nothing to precompute"):
        tuned(cache=None).precompute(TEXTS, LABELS)
    extractor = tuned(verbose=1).precompute(TEXTS, LABELS)
    assert trainings(capsys) == 4  # three folds for the soft targets
    rows = tuned(verbose=1).fit(TEXTS, LABELS).transform(TEXTS)
    assert not np.isnan(rows.soft_targets).any()
    assert trainings(capsys) == 0
    np.testing.assert_array_equal(extractor.transform(TEXTS).soft_targets, rows.soft_targets)


def test_the_folds_weights_are_not_kept(tuned, cache):
    rows = tuned().fit_transform(TEXTS, LABELS)
    assert rows.soft_targets is not None
    assert len(weights(cache)) == 1
    assert len(FeatureStore(cache).stats()["models"]) == 4


def test_a_store_that_is_removed_meanwhile(tuned, cache):
    extractor = tuned().fit(TEXTS, LABELS)
    expected = features(extractor)
    shutil.rmtree(cache)
    np.testing.assert_array_equal(features(extractor), expected)
    extractor.backbones_[0].unload()
    shutil.rmtree(cache)
    np.testing.assert_array_equal(features(extractor), expected)


def test_weights_are_kept_if_the_store_has_lost_them(tuned, cache, capsys):
    extractor = tuned(verbose=1).fit(TEXTS, LABELS)
    expected = features(extractor)
    shutil.rmtree(cache)
    extractor.backbones_[0].unload()
    capsys.readouterr()
    np.testing.assert_array_equal(features(extractor), expected)
    assert trainings(capsys) == 0


@pytest.mark.parametrize("change", ["name", "shape"])
def test_weights_of_another_version_are_made_again(change, tuned, cache):
    """Of transformers, say, which names its weights in another way."""
    expected = features(tuned().fit(TEXTS, LABELS))
    (path,) = weights(cache)
    whole = load_file(path)
    name, weight = whole.popitem()
    save_file({**whole, name + "_" * (change == "name"): weight[..., :1].clone()}, path)
    extractor = tuned().fit(TEXTS, LABELS)
    content = pickle.dumps(extractor)
    new = features(extractor, ["why"])
    np.testing.assert_array_equal(features(tuned(cache=None).fit(TEXTS, LABELS), ["why"]), new)
    np.testing.assert_array_equal(features(extractor), expected)
    assert load_file(path).keys() == {*whole, name}
    with pytest.raises(RuntimeError, match="Use the versions of transformers"):
        features(pickle.loads(content), ["euro"])


def test_the_checkpoint_goes_after_the_weights_are_kept(tuned, cache, monkeypatch):
    """A process that dies in between would otherwise have lost both."""
    extractor = tuned(n_steps=100)
    original, seen = Path.unlink, []

    def unlink(path, **keywords):
        if path.name == "checkpoint.pt":
            seen.append(path.with_name("weights.safetensors").exists())
        original(path, **keywords)

    monkeypatch.setattr(Path, "unlink", unlink)
    extractor.fit(TEXTS, LABELS)
    assert seen == [True]
