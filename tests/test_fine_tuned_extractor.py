"""A foundation model that learns the task: what it learns from, errors, pickles, containers."""

import copy
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from PIL import Image
from sentence_transformers import SentenceTransformer
from sklearn import config_context
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils import check_random_state

from sk_aft import AFTClassifier, FineTunedFeatureExtractor, FoundationFeatureExtractor
from sk_aft.backbones import resolve_backbone
from sk_aft.exceptions import DivergenceError
from sk_aft.store import FeatureStore

TEXTS = [
    "I lost my card",
    "my card was stolen",
    "where is my card",
    "card lost",
    "what is the exchange rate",
    "the rate changed",
    "euro rate",
    "why the rate of the euro",
] * 2
TEXTS = [f"{text} {'yesterday' if row >= 8 else ''}" for row, text in enumerate(TEXTS)]
LABELS = np.array((["card"] * 4 + ["rate"] * 4) * 2)
# A model with random weights hardly knows the order of words.
WORDS = ["i", "lost", "was", "stolen", "yesterday", "what", "is", "the", "of", "changed"]
ORDERED = [text for word in WORDS for text in (f"card {word} rate", f"rate {word} card")]
FIRST = np.array(["card", "rate"] * len(WORDS))
OTHERS = ["my stolen card", "rate of exchange", "why", ""]


@pytest.fixture
def directory(encoder_directory):
    return f"hf:{encoder_directory('bert')}"


@pytest.fixture
def tuned(directory, cache):
    """Function from parameters to an extractor whose training takes less than a second."""

    def make(model=directory, **parameters):
        defaults = {"objective": "linear", "n_steps": 4, "lr": 1e-3, "cache": cache}
        return FineTunedFeatureExtractor(model, **{**defaults, **parameters})

    return make


@pytest.fixture
def sentences(encoder_directory):
    return SentenceTransformer(encoder_directory("bert"), device="cpu")


def weights_of(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def n_models(cache):
    return len(FeatureStore(cache).stats()["models"])


# ---------------------------------------------------------------- what is learned, and from what


def test_a_copy_is_tuned_and_the_users_model_stays(tuned, sentences):
    before = weights_of(sentences.train())
    frozen = FoundationFeatureExtractor(sentences).fit_transform(TEXTS)
    rows = tuned(sentences).fit_transform(TEXTS, LABELS)
    assert np.abs(np.asarray(rows) - np.asarray(frozen)).max() > 1e-3
    assert sentences.training
    for name, weight in sentences.state_dict().items():
        assert torch.equal(weight, before[name])
    assert all(weight.requires_grad for weight in sentences.parameters())
    again = FoundationFeatureExtractor(sentences, cache=None).fit_transform(TEXTS)
    np.testing.assert_allclose(again, frozen, atol=1e-6)


def test_tuned_features_tell_the_order_of_words(tuned, directory):
    train, new = slice(0, 14), slice(14, None)
    frozen = FoundationFeatureExtractor(directory)
    for extractor, is_learned in ((frozen, False), (tuned(n_steps=40, lr=3e-3), True)):
        pipeline = make_pipeline(extractor, LogisticRegression()).fit(ORDERED[train], FIRST[train])
        assert (pipeline.score(ORDERED[new], FIRST[new]) == 1) == is_learned


def test_only_labelled_rows_matter(tuned, cache):
    expected = tuned().fit(TEXTS, LABELS).transform(OTHERS)
    np.asarray(expected)
    shuffled = np.random.RandomState(0).permutation(len(TEXTS) + 3)
    texts = np.array([*TEXTS, *OTHERS[:3]], dtype=object)[shuffled]
    for missing_label in ("", "none", None):
        y = np.append(LABELS.astype(object), [missing_label] * 3)[shuffled]
        if missing_label is None:
            texts, y = texts[shuffled < len(TEXTS)], y[shuffled < len(TEXTS)]
        extractor = tuned(missing_label=missing_label).fit(texts.tolist(), y)
        np.testing.assert_array_equal(extractor.transform(OTHERS), expected)
        assert n_models(cache) == 1  # found in the store
    tuned().fit(TEXTS, LABELS == "card").transform(OTHERS)
    tuned().fit(TEXTS, np.roll(LABELS, 1))
    assert n_models(cache) == 3


def test_numbers_of_classes_and_their_names_teach_the_same(tuned, cache):
    for y in (LABELS, LABELS == "rate", (LABELS == "rate") * 7, (LABELS == "rate") * 1.0):
        extractor = tuned().fit(TEXTS, y)
        np.testing.assert_array_equal(extractor.classes_, np.unique(y))
        assert extractor.transform(TEXTS).soft_target_classes is extractor.classes_
    assert n_models(cache) == 1


def test_two_fits_give_the_same_bits_and_no_seed_others(tuned):
    # More rows than a batch holds.
    texts = [f"{text} {number}" for number, text in enumerate((TEXTS * 4)[:40])]

    def features(random_state):
        extractor = tuned(cache=None, random_state=random_state)
        return np.asarray(extractor.fit_transform(texts, np.tile(LABELS, 4)[:40]))

    first, second = (features(random_state=0) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    for random_state in (None, np.random.RandomState(0), 1):
        assert np.abs(features(random_state) - first).max() > 1e-6


def test_settings_of_torch_and_random_states_are_left_alone(tuned):
    torch.manual_seed(5)
    numpy_state = check_random_state(None).get_state()[1].copy()  # NumPy's global one
    threads = torch.get_num_threads()
    state = torch.get_rng_state()
    with torch.no_grad():
        rows = tuned().fit_transform(TEXTS, LABELS)
        assert rows.soft_targets is not None
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(check_random_state(None).get_state()[1], numpy_state)
    assert torch.get_num_threads() == threads
    with torch.inference_mode():
        again = tuned(cache=None).fit_transform(TEXTS, LABELS)
    np.testing.assert_array_equal(again, rows)


def test_auto_keeps_a_frozen_model_that_is_as_good(tuned):
    extractor = tuned(objective="auto", n_steps=1, lr=1e-30)  # too small to change a weight
    labels = np.tile(LABELS, 4)  # "auto" compares if there are 50 rows
    rows = extractor.fit_transform(TEXTS * 4, labels)
    scores = extractor.cv_scores_
    assert scores["pairs"] == scores["frozen"]  # the objective for texts of two classes
    assert extractor.objective_ == "frozen"
    frozen = FoundationFeatureExtractor(extractor.model).fit_transform(TEXTS * 4)
    np.testing.assert_array_equal(rows, frozen)
    np.testing.assert_allclose(rows.soft_targets.sum(axis=1), 1, atol=1e-5)
    again = pickle.loads(pickle.dumps(extractor))
    np.testing.assert_array_equal(again.transform(TEXTS * 4).soft_targets, rows.soft_targets)


def test_auto_tunes_a_model_that_becomes_better(tuned):
    extractor = tuned(objective="auto", n_steps=40, lr=3e-3)
    extractor.fit(ORDERED * 3, np.tile(FIRST, 3))
    assert extractor.objective_ == "pairs"
    assert extractor.cv_scores_["pairs"]["accuracy"] > 0.9
    assert extractor.cv_scores_["frozen"]["accuracy"] < 0.7


def test_auto_goes_by_the_classes_alone_if_labels_are_few(tuned):
    texts = [f"{text} {number}" for number, text in enumerate(ORDERED[:12] * 3)][:34]
    few = tuned(objective="auto").fit(texts, np.arange(34) % 16)
    many = tuned(objective="auto").fit(texts, np.arange(34) % 17)
    assert (few.objective_, many.objective_) == ("pairs", "linear")
    assert few.cv_scores_ == many.cv_scores_ == {}  # nothing was compared


def test_three_rows_in_all(tuned):
    rows = tuned().fit_transform(TEXTS[:3], ["a", "a", "b"])
    assert rows.soft_targets.shape == (3, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_model_in_half_precision_learns_in_single(tuned, sentences, dtype):
    expected = np.asarray(tuned(sentences, cache=None).fit_transform(TEXTS, LABELS))
    half = copy.deepcopy(sentences).to(dtype)
    found = np.asarray(tuned(half, cache=None).fit_transform(TEXTS, LABELS))
    frozen = np.asarray(FoundationFeatureExtractor(sentences, cache=None).fit_transform(TEXTS))
    assert np.abs(found - expected).max() < 0.2 * np.abs(expected - frozen).max()
    assert next(half.parameters()).dtype == dtype


# ---------------------------------------------------------------- rows of all kinds, and routing


def test_missing_texts(tuned):
    texts = [None, *TEXTS[1:], None]
    y = np.append(LABELS, "")
    with pytest.raises(ValueError, match="Row 0 of X is missing"):
        tuned(missing_label="").fit(texts, y)
    with pytest.warns(UserWarning, match="have no features"):
        rows = tuned(missing_label="", on_error="mask").fit_transform(texts, y)
    np.testing.assert_array_equal(rows.missing_mask[[0, -1]], True)
    assert np.isnan(rows.soft_targets[[0, -1]]).all()
    assert not np.isnan(rows.soft_targets[1:-1]).any()
    expected = tuned().fit(TEXTS[1:], LABELS[1:]).transform(TEXTS[1:])
    np.testing.assert_array_equal(np.asarray(rows)[1:-1], expected)


@pytest.mark.filterwarnings("ignore:.* rows have no features")
def test_a_class_whose_rows_are_all_missing(tuned):
    texts = [*TEXTS[:4], None, None]
    y = ["a", "a", "b", "b", "c", "c"]
    rows = tuned(on_error="mask").fit_transform(texts, y)
    assert rows.soft_targets.shape == (6, 3)
    with pytest.raises(ValueError, match="that the model can read have only one class, 'a'"):
        tuned(on_error="mask").fit([*TEXTS[:4], None, None], list("aaaabb"))


def test_a_broken_file_is_named_as_the_user_counts(tmp_path):
    rng = np.random.RandomState(0)
    paths = []
    for row in range(9):
        pixels = rng.randint(0, 255, (16, 16, 3)).astype(np.uint8)
        paths.append(str(tmp_path / f"{8 - row}.png"))
        Image.fromarray(pixels).save(paths[-1])
    for name, content in (("1.png", b"no picture"), ("5.png", None)):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content or whole[: len(whole) // 2])
    y = [-1, 0, 1, 0, 1, 0, 1, 0, 1]  # "1.png" is row 7, "5.png" is row 3
    extractor = FineTunedFeatureExtractor(
        "effnet-lite0", objective="linear", n_steps=1, missing_label=-1, cache=None
    )
    with pytest.raises(ValueError, match=r"^Row [37] "):
        extractor.fit(paths, y)
    with pytest.warns(UserWarning, match=r"^2 of 8 rows .* The first is row 3:"):
        extractor.set_params(on_error="mask").fit(paths, y)


def test_a_column_of_a_frame(tuned, directory):
    frame = pd.DataFrame({"text": TEXTS, "age": np.arange(16.0)})
    extractor = tuned({"text": directory})
    rows = extractor.fit_transform(frame, pd.Series(LABELS, index=range(100, 116)))
    expected = tuned().fit_transform(TEXTS, LABELS)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(rows.soft_targets, expected.soft_targets)
    assert rows.inputs is frame
    np.testing.assert_array_equal(rows[3:5].soft_targets, expected.soft_targets[3:5])


def test_frames_of_features(tuned):
    frame = tuned().set_output(transform="pandas").fit(TEXTS, LABELS).transform(TEXTS[:2])
    assert frame.shape == (2, 32)
    np.testing.assert_array_equal(frame, tuned().fit(TEXTS, LABELS).transform(TEXTS[:2]))


def test_a_student_learns_from_soft_targets_and_unlabelled_rows(tuned):
    student = AFTClassifier(
        transfer="probe-kd", max_epochs=2, random_state=0, module__start="random"
    )
    pipeline = make_pipeline(tuned(), student)
    pipeline.fit(TEXTS, LABELS)
    assert set(pipeline.predict(OTHERS)) <= {"card", "rate"}
    y = np.append(LABELS.astype(object), ["?"] * 4)
    marked = make_pipeline(tuned(missing_label="?"), clone(student).set_params(missing_label="?"))
    marked.fit(TEXTS + OTHERS, y)
    assert set(marked.predict(OTHERS)) <= {"card", "rate"}


@pytest.mark.parametrize("where", ["memory", "store"])
def test_teacher_features_are_those_of_the_original(where, tuned, directory, cache):
    extractor = tuned(cache=cache if where == "store" else None)
    rows = extractor.fit_transform(TEXTS, LABELS)
    names = {model["name"]: model["width"] for model in FeatureStore(cache).stats()["models"]}
    # The tuned model has its last layer only, and the original did not run.
    name = extractor.backbones_[0].name
    assert names == ({name: 32} if where == "store" else {})
    assert rows.shape == (16, 32)
    teacher = rows.teacher_features
    assert not teacher.is_computed
    assert teacher.inputs is rows.inputs
    assert not teacher.has_soft_targets
    expected = FoundationFeatureExtractor(directory, cache=None, layers="auto").fit_transform(TEXTS)
    (name,) = rows.feature_slices
    assert list(teacher.feature_slices) == [f"{name}_layer2", name]
    np.testing.assert_allclose(teacher, expected, atol=1e-6)
    assert np.abs(np.asarray(rows) - expected.features[:, 32:]).max() > 1e-3
    assert rows.teacher_features.is_computed
    some = pickle.loads(pickle.dumps(rows[[3, 0]]))
    assert some.teacher_features.is_computed == (where == "memory")
    np.testing.assert_array_equal(some.teacher_features, np.asarray(teacher)[[3, 0]])
    np.testing.assert_array_equal(some, np.asarray(rows)[[3, 0]])


def test_a_frozen_model_has_its_own_teacher_features(tuned, cache):
    texts = [f"{text} {number}" for number in range(4) for text in TEXTS]
    extractor = tuned(objective="auto", n_steps=1, lr=0.1)  # too large
    rows = extractor.fit_transform(texts, np.tile(LABELS, 4))
    assert extractor.objective_ == "frozen"
    assert rows.shape == (64, 32)
    assert rows.teacher_features.is_computed
    np.testing.assert_array_equal(rows.teacher_features.features[:, 32:], rows)
    assert rows.soft_targets.shape == (64, 2)


def test_a_tuned_model_has_no_layers_to_choose(tuned):
    assert "layers" not in tuned().get_params()
    with pytest.raises(TypeError, match="layers"):
        tuned(layers="auto")


def test_unlabelled_rows_of_their_own(tuned):
    student = AFTClassifier(
        transfer="probe-kd", max_epochs=2, random_state=0, module__start="random"
    )
    with config_context(enable_metadata_routing=True):
        student.set_fit_request(X_unlabeled=True)
        pipeline = make_pipeline(tuned(), student, transform_input=["X_unlabeled"])
        pipeline.fit(TEXTS, LABELS, X_unlabeled=OTHERS)
        assert len(pipeline.predict(OTHERS)) == 4
    rows = pipeline[0].transform(OTHERS)
    np.testing.assert_allclose(rows.soft_targets.sum(axis=1), 1, atol=1e-5)


# ---------------------------------------------------------------- errors come first


def refused(extractor, X, y, error, match, cache):
    """Assert that a fitted extractor refuses rows before it trains, and stays as it was."""
    before = dict(vars(extractor))
    n_before = n_models(cache)
    with pytest.raises(error, match=match):
        extractor.fit(X, y)
    assert vars(extractor) == before
    assert n_models(cache) == n_before


Y = (LABELS == "card") * 1
BAD_LABELS = {
    "one class": (np.zeros(16), "The labelled rows have only one class, 0.0"),
    "one row a class": (np.arange(16), "Each of the 16 labelled rows is the only one of its class"),
    "none": (np.full(16, -7), "All 16 rows of y are missing_label=-7"),
    "no y": (None, "requires y to be passed"),
    "continuous": (np.linspace(0, 1, 16), "[Uu]nknown label type|continuous"),
    "two columns": (np.c_[Y, 1 - Y], r"y has shape \(16, 2\): expected one label"),
    "too short": (Y[:-1], "X has 16 rows and y has 15"),
    "NaN": (np.where(np.arange(16) == 3, np.nan, Y), "Row 3 of y holds a missing value"),
    "mixed": ([*Y[:-1].tolist(), "a"], "labels have to be all strings or all numbers"),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_labels_that_cannot_be_learned(name, tuned, cache):
    y, match = BAD_LABELS[name]
    extractor = tuned(missing_label=-7).fit(TEXTS, Y)
    refused(extractor, TEXTS, y, ValueError, match, cache)
    assert extractor.transform(OTHERS).shape == (4, 32)


def test_minus_one_is_probably_a_mark(tuned):
    labels = np.where(np.arange(16) < 4, -1, Y)
    with pytest.warns(UserWarning, match="FineTunedFeatureExtractor learns -1.*missing_label=-1"):
        rows = tuned().fit_transform(TEXTS, labels)
    with pytest.raises(ValueError, match="missing_label=-1 in its TeacherPredictions, or in the"):
        AFTClassifier(missing_label=-1, max_epochs=1).fit(rows, labels)


class Identity:
    def __call__(self, rows):
        return np.ones((len(rows), 2))


def static_model():
    from sentence_transformers.sentence_transformer import modules

    tokenizer = transformers.AutoTokenizer.from_pretrained(static_model.directory)
    weights = np.random.RandomState(0).randn(100, 4).astype(np.float32)
    static = modules.StaticEmbedding(tokenizer.backend_tokenizer, embedding_weights=weights)
    return SentenceTransformer(modules=[static], device="cpu")


BAD_MODELS = {
    "two": (lambda: ["minilm", "effnet-lite0"], "tunes one model, got 2"),
    "none": (list, "model is an empty list"),
    "function": (Identity, "cannot be fine-tuned"),
    "static": (static_model, "cannot be fine-tuned"),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_models_that_cannot_be_tuned(name, tuned, cache, encoder_directory):
    static_model.directory = encoder_directory("bert")
    make, match = BAD_MODELS[name]
    for objective in ("auto", "linear"):
        with pytest.raises(ValueError, match=match):
            tuned(make(), objective=objective).fit(TEXTS, LABELS)
    assert n_models(cache) == 0  # no features were computed


def test_a_function_is_refused_before_it_runs(tuned):
    def model(rows):
        raise AssertionError("ran")

    with pytest.raises(ValueError, match="cannot be fine-tuned"):
        tuned(model).fit(TEXTS, LABELS)


def test_an_object_is_not_copied_before_rows_are_checked(tuned, sentences, monkeypatch):
    def __deepcopy__(self, memo):
        raise AssertionError("copied")

    monkeypatch.setattr(type(sentences), "__deepcopy__", __deepcopy__, raising=False)
    resolve_backbone(sentences).check_tunable()
    with pytest.raises(ValueError, match="only one class"):
        tuned(sentences).fit(TEXTS, np.zeros(16))


def test_a_transformer_of_scikit_learn_cannot_be_tuned(tuned):
    rows = np.random.RandomState(0).rand(16, 4)
    with pytest.raises(ValueError, match="cannot be fine-tuned"):
        tuned(PCA(2).fit(rows)).fit(rows, LABELS)


def test_numbers_are_no_texts(tuned, cache):
    extractor = tuned().fit(TEXTS, LABELS)
    refused(extractor, np.ones((16, 3)), LABELS, (ValueError, TypeError), "text", cache)


@pytest.mark.parametrize(
    "parameters",
    [
        {"objective": "triplets"},
        {"n_steps": 0},
        {"lr": 0},
        {"cv": 1},
        {"n_steps": True},
        {"cv": True},
        {"lr": True},
        {"lr": np.nan},
        {"lr": np.inf},
        {"random_state": -1},
    ],
    ids=str,
)
def test_parameters_are_checked(parameters, tuned):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        tuned(**parameters).fit(TEXTS, LABELS)


@pytest.mark.parametrize("n_steps", [1, 4])
@pytest.mark.parametrize("objective", ["linear", "pairs"])
def test_a_rate_that_is_too_large(objective, n_steps, tuned, cache):
    extractor = tuned(objective=objective, n_steps=n_steps, lr=1e30)
    with pytest.raises(DivergenceError, match=r"use a smaller lr than 1e\+30"):
        extractor.fit(TEXTS, LABELS)
    assert not hasattr(extractor, "classes_")
    assert not list(cache.rglob("*.safetensors"))


# ---------------------------------------------------------------- copies, pickles, other processes

PREDICT = """
import sys, joblib, numpy as np
pipeline = joblib.load(sys.argv[1])
np.save(sys.argv[2], pipeline.predict_proba(["my stolen card", "rate of exchange", "why", ""]))
"""


def test_a_pickle_predicts_without_the_cache(tuned, tmp_path, cache):
    pipeline = make_pipeline(tuned(), LogisticRegression()).fit(TEXTS, LABELS)
    expected = pipeline.predict_proba(OTHERS)
    joblib.dump(pipeline, tmp_path / "pipeline.joblib")
    content = (tmp_path / "pipeline.joblib").read_bytes()
    assert not any(text.encode() in content for text in TEXTS)
    cache.rename(tmp_path / "gone")
    command = [sys.executable, "-c", PREDICT, tmp_path / "pipeline.joblib", tmp_path / "found.npy"]
    subprocess.run(command, check=True, timeout=60)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, rtol=1e-4)


def test_a_pickle_starts_no_training(tuned, cache):
    extractor = tuned().fit(TEXTS, LABELS)
    again = pickle.loads(pickle.dumps(extractor))
    assert n_models(cache) == 1  # no fold's
    rows = again.transform(TEXTS)
    for some in (rows, rows[:3], pickle.loads(pickle.dumps(rows))):
        with pytest.raises(RuntimeError, match="Read the soft_targets of any rows before you"):
            _ = some.soft_targets
    with pytest.raises(RuntimeError, match="before you pickle it, or fit it again"):
        AFTClassifier(transfer="probe-kd", max_epochs=1).fit(rows, LABELS)  # no leak of labels
    expected = extractor.transform(TEXTS).soft_targets
    again = pickle.loads(pickle.dumps(extractor))
    np.testing.assert_array_equal(again.transform(TEXTS).soft_targets, expected)


def test_a_deep_copy_keeps_the_labelled_rows(tuned):
    assert not hasattr(copy.deepcopy(tuned()), "classes_")
    extractor = tuned(cache=None).fit(TEXTS, LABELS)
    other = copy.deepcopy(make_pipeline(extractor))[0]
    found = other.transform(TEXTS).soft_targets
    np.testing.assert_array_equal(found, extractor.transform(TEXTS).soft_targets)
    assert other.cv_scores_ == extractor.cv_scores_


def test_a_copy_keeps_its_weights_when_it_is_unloaded(tuned, cache, tmp_path):
    extractor = tuned().fit(TEXTS, LABELS)
    expected = np.asarray(extractor.transform(OTHERS))
    again = pickle.loads(pickle.dumps(extractor))
    cache.rename(tmp_path / "gone")
    for _ in range(2):
        again.backbones_[0].unload()
        np.testing.assert_array_equal(again.transform(OTHERS[::-1]), expected[::-1])


def test_clone_parameters_and_repr(tuned):
    extractor = tuned().fit(TEXTS, LABELS)
    other = clone(extractor)
    assert other.get_params() == extractor.get_params()
    assert not hasattr(other, "classes_")
    assert "FineTunedFeatureExtractor(" in repr(extractor)
    assert "-tuned'>" in repr(extractor.backbones_[0])
    assert extractor.get_feature_names_out().shape == (32,)


def test_progress_in_a_file(tuned, capsys):
    tuned(verbose=1, device="cpu").fit(TEXTS, LABELS)
    shown = capsys.readouterr().err
    assert "fine-tuning" in shown
    assert "\x1b[" not in shown
    tuned(random_state=1).fit(TEXTS, LABELS)
    assert "fine-tuning" not in capsys.readouterr().err
