"""Students that start from a foundation model: ``module="minilm"`` and directories."""

import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import skops.io
import torch
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV

from sk_aft import AFTClassifier, AFTRegressor
from sk_aft.datasets import load_banking77
from sk_aft.modules import TransformerText
from sk_aft.preprocessing._subword import SubwordTokenizer

ABOUT_CARDS = ["I lost my card", "my card was stolen", "a new card", "card lost yesterday"]
ABOUT_RATES = ["what is the exchange rate", "the rate of the euro", "euro rate", "rate changed"]
X = np.array((ABOUT_CARDS + ABOUT_RATES) * 8, dtype=object)
Y = np.tile(np.repeat(["card", "rate"], 4), 8)
FEATURES = np.random.default_rng(0).normal(size=(len(X), 5)) + (Y == "card")[:, None]


def student(directory, kind=AFTClassifier, **parameters):
    defaults = {"beta": 0, "lr": 3e-3, "max_epochs": 8, "batch_size": 16, "random_state": 0}
    return kind(directory, **{**defaults, **parameters})


@pytest.fixture
def bert(encoder_directory):
    return encoder_directory("bert")


@pytest.mark.parametrize("encoder", ["bert", "distilbert", "gpt2", "t5", "bert-inside"])
def test_a_student_learns(encoder, encoder_directory):
    model = student(encoder_directory(encoder), module__n_layers=1, max_epochs=20).fit(X, Y)
    assert model.score(X, Y) == 1.0
    assert isinstance(model.module_, TransformerText)
    assert isinstance(model.preprocessor_, SubwordTokenizer)
    assert len(model.module_.layers) == 2


def test_a_regressor_learns(bert):
    targets = (Y == "card").astype(float)
    model = student(bert, AFTRegressor, max_epochs=20).fit(X, targets)
    assert model.score(X, targets) > 0.9


def test_predictions_do_not_depend_on_the_other_rows(bert):
    model = student(bert).fit(X, Y)
    rows = np.array(["card", "my card was stolen yesterday " * 3, "why", "the rate"], dtype=object)
    together = model.predict_proba(rows)
    alone = np.vstack([model.predict_proba(rows[row : row + 1]) for row in range(len(rows))])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_clones_and_equal_seeds_give_the_same_student(bert):
    model = student(bert).fit(X, Y)
    again = clone(model).fit(X, Y)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_a_search_over_the_number_of_layers(bert):
    search = GridSearchCV(student(bert), {"module__n_layers": np.array([1, 3])}, cv=2)
    search.set_params(error_score="raise").fit(X, Y)
    n_layers = search.best_params_["module__n_layers"]
    assert len(search.best_estimator_.module_.layers) == 1 + n_layers
    assert search.best_score_ > 0.9
    pickle.loads(pickle.dumps(search)).predict(X)


def test_partial_fit_and_warm_start(bert):
    model = student(bert)
    for _ in range(8):
        model.partial_fit(X, Y, classes=["card", "rate"])
    assert model.score(X, Y) == 1.0
    model = student(bert, warm_start=True, max_epochs=4).fit(X, Y)
    assert model.fit(X, Y).n_iter_ == 8
    with pytest.raises(ValueError, match=r"module__n_layers differs from what the training began"):
        model.set_params(module__n_layers=1).fit(X, Y)


@pytest.mark.parametrize("transfer", ["aft", "probe-kd"])
def test_unlabelled_rows_and_transfer(bert, transfer):
    y = np.where(np.arange(len(Y)) % 5, Y, "?")
    model = student(bert, beta="auto", transfer=transfer, missing_label="?")
    model.fit(X, y, features=FEATURES)
    assert model.score(X, Y) > 0.9
    assert model.transfer_method_ == transfer


@pytest.mark.parametrize("parameters", [{"precision": "bf16-mixed"}, {"early_stopping": True}])
def test_precision_and_early_stopping(bert, parameters):
    model = student(bert, **parameters).fit(X, Y)
    assert model.score(X, Y) > 0.9
    assert {weight.dtype for weight in model.module_.parameters()} == {torch.float32}


def test_compiled_training_is_the_same(bert):
    plain = student(bert, max_epochs=2).fit(X, Y)
    compiled = student(bert, max_epochs=2, compile=True, compile__backend="eager").fit(X, Y)
    np.testing.assert_allclose(compiled.loss_curve_, plain.loss_curve_, rtol=1e-4)
    assert type(compiled.module_) is TransformerText
    pickle.loads(pickle.dumps(compiled)).predict(X)


def test_a_fitted_student_needs_neither_the_hub_nor_the_encoders_files(bert, tmp_path):
    directory = tmp_path / "encoder"
    shutil.copytree(bert, directory)
    model = student(str(directory)).fit(X, Y)
    (tmp_path / "student.pickle").write_bytes(pickle.dumps(model))
    np.save(tmp_path / "expected.npy", model.predict_proba(X[:8]))
    shutil.rmtree(directory)
    program = f"""
import pickle, numpy as np, os
os.chdir({str(tmp_path)!r})
model = pickle.load(open("student.pickle", "rb"))
rows = {X[:8].tolist()!r}
np.testing.assert_array_equal(model.predict_proba(rows), np.load("expected.npy"))
model.partial_fit(rows, ["card", "rate"] * 4)
assert not os.listdir(os.environ["HF_HOME"])
"""
    (tmp_path / "home").mkdir()
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, **offline})


def test_skops_needs_no_types_of_transformers(bert):
    model = student(bert).fit(X, Y)
    written = skops.io.dumps(model)
    types = skops.io.get_untrusted_types(data=written)
    assert [name for name in types if name.startswith("transformers")] == []
    again = skops.io.loads(written, trusted=types)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_the_users_preprocessor_is_used(bert):
    class FirstTokens(SubwordTokenizer):
        def transform(self, X):
            ids = np.empty(len(X), dtype=object)
            ids[:] = [row[:3] for row in super().transform(X)]
            return ids

    document = student(bert).fit(X, Y).preprocessor_.tokenizer_json_
    model = student(bert, preprocessor=FirstTokens(document)).fit(X, Y)
    assert type(model.preprocessor_) is FirstTokens
    whole, cut = np.array(["the rate of my card"]), np.array(["the rate"])
    assert len(model.preprocessor_.transform(whole)[0]) == 3
    assert model.predict_proba(whole).shape == model.predict_proba(cut).shape
    short = student(bert, preprocessor__max_length=3).fit
    with pytest.warns(UserWarning, match="have more than max_length=3 tokens"):
        assert short(X, Y).preprocessor_.max_length == 3


@pytest.mark.parametrize("rows", [np.ones((4, 3)), np.zeros((4, 8, 8, 3), dtype=np.uint8)])
def test_rows_of_another_kind(rows, bert):
    kind = "numeric" if rows.ndim == 2 else "image"
    with pytest.raises(ValueError, match=rf"reads rows of kind 'text', .* of kind '{kind}'"):
        student(bert).fit(rows, [0, 1, 0, 1])


def test_a_preprocessor_that_returns_no_tokens(bert):
    with pytest.raises(ValueError, match="reads sequences of tokens, and the preprocessor"):
        student(bert, preprocessor=TfidfVectorizer()).fit(X, Y)


def test_a_tokenizer_of_another_model(bert):
    with pytest.raises(ValueError, match=r"has another vocabulary than .*use preprocessor='auto'"):
        student(bert, preprocessor=SubwordTokenizer()).fit(X, Y)


def test_a_parameter_of_another_network_is_named(bert):
    with pytest.raises(ValueError, match="a parameter of StaticText, of module='auto' on texts"):
        student(bert, module__start="random").fit(X, Y)
    with pytest.raises(ValueError, match="a parameter of TransformerText, of module='minilm'"):
        student("auto", module__n_layers=2).fit(X, Y)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"module": "minlm"}, r"module='minlm' is unknown: expected 'auto'; for texts"),
        ({"module__n_layers": 9}, r"n_layers=9, but the encoder has 3 layers"),
        (
            {"module__layers": 2},
            r"parameter module__layers: TransformerText takes \[.*'n_l",
        ),
        (
            {"preprocessor__vocab_size": 9},
            r"parameter preprocessor__vocab_size: .*max_length",
        ),
        ({"preprocessor__max_length": 99}, r"max_length=99, but .* reads at most 40"),
    ],
)
def test_parameters_that_cannot_be(parameters, message, bert):
    with pytest.raises(ValueError, match=message):
        student(bert).set_params(**parameters).fit(X, Y)


def test_an_unknown_name_is_found_before_the_rows_are_read():
    def rows():
        raise AssertionError
        yield

    with pytest.raises(ValueError, match="module='minlm' is unknown"):
        student("minlm").fit(rows(), Y)


def test_a_few_labels_are_enough_for_minilm():
    texts, labels = load_banking77(labels_per_class=10, return_X_y=True)
    known = np.isin(labels, np.unique(labels)[:4])
    texts, labels = np.asarray(texts, dtype=object)[known], labels[known]
    learned = np.arange(len(labels)) % 5 > 0
    model = student("minilm", lr=3e-4, max_epochs=6, module__n_layers=2)
    model.fit(texts[learned], labels[learned])
    assert model.score(texts[~learned], labels[~learned]) >= 0.75
