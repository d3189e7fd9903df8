"""Where the embeddings of a text student start."""

import gc
import pickle
import types

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier, AFTRegressor, FoundationFeatureExtractor
from sk_aft.backbones import Backbone
from sk_aft.datasets import load_banking77
from sk_aft.modules._static_start import texts_of
from sk_aft.store import FeatureStore

WORDS = ["card", "cash", "rate", "fee", "limit", "phone", "pin", "top"]
TEXTS = [f"{a} {b} {c}" for a in WORDS for b in WORDS[:4] for c in ("please", "now")]
LABELS = np.array([text.split()[0] in WORDS[:4] for text in TEXTS], dtype=int)


class Trigrams(Backbone):
    """A small real model of texts, which notes the texts that it runs on."""

    kind = "text"

    def __init__(self, name="trigrams", width=32):
        self.name = name
        self.width = width
        self.texts = []

    def fingerprint(self):
        return {"name": self.name, "width": self.width}

    def embed(self, rows, *, batch_size, device):
        self.texts += list(rows.values)
        hashing = HashingVectorizer(analyzer="char_wb", ngram_range=(1, 3), n_features=self.width)
        return hashing.transform(rows.values).toarray().astype(np.float32)


class Brightness(Backbone):
    """A small model of images."""

    kind = "image"
    name = "brightness"

    def fingerprint(self):
        return {"name": self.name}

    def embed(self, rows, *, batch_size, device):
        return np.array([[np.mean(image), np.std(image)] for image in rows.values], np.float32)


@pytest.fixture
def model():
    return Trigrams()


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path)


def student(**parameters):
    return AFTClassifier(**{"max_epochs": 2, "lr": 1e-12, "random_state": 0, **parameters})


def pipe(model, store, **parameters):
    return make_pipeline(FoundationFeatureExtractor(model, cache=store), student(**parameters))


def weight_of(fitted, branch=None):
    network = fitted.module_ if branch is None else fitted.module_.branches[branch]
    return network.bag.weight.detach().numpy()


def readable(fitted, tokenizer=None):
    """Return the tokens that stand for texts, and the texts."""
    tokenizer = (tokenizer or fitted.preprocessor_).tokenizer_
    texts = {
        token: texts_of(tokenizer, [[token]])[0] for token in range(tokenizer.get_vocab_size())
    }
    return {token: text for token, text in texts.items() if text}


def starts_from(fitted, model, branch=None, tokenizer=None):
    """Return whether token vectors are as similar as the model's features of them."""
    texts = readable(fitted, tokenizer)
    features = type(model)(width=model.width).embed(
        types.SimpleNamespace(values=list(texts.values())), batch_size=64, device=None
    )
    features = features - features.mean(0)
    found = cosine_similarity(weight_of(fitted, branch)[list(texts)])
    return np.allclose(found, cosine_similarity(features), atol=1e-2)


# ---------------------------------------------------------------- which model


def test_a_student_starts_from_the_model_before_it(model, store):
    fitted = pipe(model, store).fit(TEXTS, LABELS)[-1]
    assert starts_from(fitted, model)
    tokens = set(readable(fitted).values())
    # Each distinct text ran once: the rows, then the tokens and the frequent pairs.
    assert len(model.texts) == len(set(model.texts))
    assert model.texts[: len(TEXTS)] == TEXTS
    assert tokens <= set(model.texts)
    pairs = set(model.texts[len(TEXTS) :]) - tokens
    assert {"top cash", "fee please", "rate now"} <= pairs


@pytest.mark.parametrize("start", ["auto", "random"])
def test_without_a_model_it_starts_from_random_numbers(start, capsys):
    features = np.random.RandomState(0).randn(len(TEXTS), 5).astype(np.float32)
    for given in ({"beta": 0}, {"beta": 1, "features": features}):
        parameters = {"beta": given.pop("beta"), "module__start": start}
        fitted = student(**parameters).fit(TEXTS, LABELS, **given)
        assert np.std(weight_of(fitted)) == pytest.approx(0.02, rel=0.05)
        assert capsys.readouterr().out == ""
        student(verbose=1, **parameters).fit(TEXTS, LABELS, **given)
        message = "starts from random embeddings: no text model came before it"
        assert capsys.readouterr().out.count(message) == (start == "auto")


def test_a_random_start_is_possible_beside_a_model(model, store, capsys):
    fitted = pipe(model, store, module__start="random", verbose=1).fit(TEXTS, LABELS)[-1]
    assert not starts_from(fitted, model)
    assert model.texts == TEXTS
    assert "starts from random" not in capsys.readouterr().out


def test_a_named_model_needs_no_extractor(model):
    fitted = student(beta=0, module__start=model).fit(TEXTS, LABELS)
    assert starts_from(fitted, model)
    assert not set(TEXTS) & set(model.texts)  # tokens only


def test_another_model_than_the_teacher(model, store):
    other = Trigrams("other", width=48)
    fitted = pipe(model, store, module__start=other).fit(TEXTS, LABELS)[-1]
    assert starts_from(fitted, other)
    assert not starts_from(fitted, model)
    assert model.texts == TEXTS
    assert not set(TEXTS) & set(other.texts)


def test_regressors_start_so_too(model, store):
    lengths = np.array([len(text) for text in TEXTS], dtype=float)
    extractor = FoundationFeatureExtractor(model, cache=store)
    regressor = AFTRegressor(max_epochs=1, lr=1e-12, random_state=0)
    assert starts_from(make_pipeline(extractor, regressor).fit(TEXTS, lengths)[-1], model)


def test_beta_0_starts_from_the_model_too(model, store):
    assert starts_from(pipe(model, store, beta=0).fit(TEXTS, LABELS)[-1], model)


class Unreadable:
    """Rows that must not be read."""

    def __len__(self):
        raise AssertionError("read")

    __getitem__ = __array__ = __iter__ = __len__


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (Brightness(), "module__start=<Brightness 'brightness'> reads rows of kind 'image'"),
        ("effnet-lite0", "module__start='effnet-lite0' reads rows of kind 'image'.*'minilm'"),
        ("minillm", "module__start='minillm' is unknown: expected 'auto', 'random'.*'minilm'"),
        (3, "module__start=3 is unknown: expected 'auto', 'random'.*'minilm'"),
    ],
)
def test_what_is_no_model_of_texts_is_an_error_before_any_work(start, message):
    with pytest.raises(ValueError, match=message):
        student(beta=0, module__start=start).fit(Unreadable(), LABELS)


def test_an_image_model_alone_gives_a_random_start(store):
    frame = pd.DataFrame({"text": TEXTS, "image": list(images())})
    extractor = FoundationFeatureExtractor({"image": Brightness()}, cache=store)
    fitted = make_pipeline(extractor, student()).fit(frame, LABELS)[-1]
    names = fitted.module_.names
    assert np.std(weight_of(fitted, names.index("text"))) == pytest.approx(0.02, rel=0.05)


def images():
    return np.random.RandomState(0).randint(0, 256, (len(TEXTS), 8, 8)).astype(np.uint8)


def test_each_column_starts_from_the_model_that_reads_it(store):
    frame = pd.DataFrame({"one": TEXTS, "other": TEXTS[::-1], "number": np.arange(len(TEXTS))})
    models = {"one": Trigrams("of one", 24), "other": Trigrams("of other", 40)}
    extractor = FoundationFeatureExtractor(models, cache=store)
    fitted = make_pipeline(extractor, student()).fit(frame, LABELS)[-1]
    steps = {name: step for name, step, _ in fitted.preprocessor_.transformers_}
    branches = fitted.module_.names
    for name, model in models.items():
        for column in models:
            is_same = starts_from(fitted, model, branches.index(column), steps[column])
            assert is_same == (column == name)


def test_a_column_that_no_model_reads_starts_from_that_of_another(store):
    frame = pd.DataFrame({"first": TEXTS[::-1], "read": TEXTS})
    model = Trigrams()
    extractor = FoundationFeatureExtractor({"read": model}, cache=store)
    fitted = make_pipeline(extractor, student()).fit(frame, LABELS)[-1]
    steps = {name: step for name, step, _ in fitted.preprocessor_.transformers_}
    for branch, column in enumerate(fitted.module_.names):
        assert starts_from(fitted, model, branch, steps[column])


def test_other_networks_are_left_as_they_are(model, store):
    class Own(torch.nn.Module):
        def __init__(self, n_tokens, n_outputs):
            super().__init__()
            self.embedding = torch.nn.Embedding(n_tokens, 8)
            self.head = torch.nn.Linear(8, n_outputs)

        def forward(self, tokens, lengths):
            features = self.embedding(tokens).mean(1)
            return self.head(features), features

    pipe(model, store, module=Own).fit(TEXTS, LABELS)
    assert model.texts == TEXTS


# ---------------------------------------------------------------- embeddings are kept


def test_the_second_fit_runs_no_text(model, store):
    first = pipe(model, store).fit(TEXTS, LABELS)
    n_run = len(model.texts)
    again = clone(first).fit(TEXTS, LABELS)
    elsewhere = Trigrams()
    pipe(elsewhere, FeatureStore(store.path)).fit(TEXTS, LABELS)
    assert len(model.texts) == n_run
    assert elsewhere.texts == []
    np.testing.assert_array_equal(weight_of(again[-1]), weight_of(first[-1]))


def test_a_search_runs_each_text_once(model, store):
    grid = {"aftclassifier__lr": [1e-3, 1e-2, 1e-1]}
    search = GridSearchCV(pipe(model, store, lr=1e-3), grid, cv=3)
    search.fit(TEXTS, LABELS)
    assert len(model.texts) == len(set(model.texts))
    n_run = len(model.texts)
    clone(search).fit(TEXTS, LABELS)
    assert len(model.texts) == n_run


def test_texts_without_labels_run_no_token_twice(model, store):
    y = np.where(np.arange(len(TEXTS)) % 2, LABELS, -1)
    pipe(model, store, missing_label=-1).fit(TEXTS, y)
    n_run = len(model.texts)
    pipe(model, store, missing_label=-1, beta=0).fit(TEXTS, y)
    assert len(model.texts) == n_run


# ---------------------------------------------------------------- what is kept of the model


def reachable(root):
    """Return all objects that an object holds, directly or not."""
    found, todo = {}, [root]
    while todo:
        one = todo.pop()
        if id(one) in found or isinstance(one, (type, types.ModuleType, types.FunctionType)):
            continue
        found[id(one)] = one
        todo += gc.get_referents(one)
    return list(found.values())


def test_the_fitted_student_holds_no_foundation_model(model, store):
    fitted = pipe(model, store).fit(TEXTS, LABELS)[-1]
    assert not [one for one in reachable(fitted._fitted) if isinstance(one, Backbone)]
    assert not [one for one in reachable(fitted) if isinstance(one, (Backbone, FeatureStore))]
    size = len(pickle.dumps(fitted))
    assert size < 1.1 * sum(4 * weight.numel() for weight in fitted.module_.parameters())
    # A model that is named is a parameter; its pickle holds the description only.
    named = student(beta=0, module__start=model).fit(TEXTS, LABELS)
    assert not [one for one in reachable(named._fitted) if isinstance(one, Backbone)]


# ---------------------------------------------------------------- resumed training, random state


def test_training_that_resumes_keeps_the_vocabulary_and_the_embeddings(model, store):
    extractor = FoundationFeatureExtractor(model, cache=store).fit(TEXTS)
    rows = extractor.transform(TEXTS)
    fitted = student(warm_start=True).fit(rows, LABELS)
    before, document = weight_of(fitted).copy(), fitted.preprocessor_.tokenizer_json_
    pairs = fitted.module_.bag.pairs.clone()
    n_run = len(model.texts)
    others = extractor.transform(["other words, other words"] * len(TEXTS))
    fitted.fit(others, LABELS)
    fitted.partial_fit(others, LABELS)
    assert fitted.preprocessor_.tokenizer_json_ == document
    assert torch.equal(fitted.module_.bag.pairs, pairs)
    np.testing.assert_allclose(weight_of(fitted), before, atol=1e-6)
    assert len(model.texts) == n_run + 1  # the new row


def test_partial_fit_starts_from_the_model(model, store):
    extractor = FoundationFeatureExtractor(model, cache=store).fit(TEXTS)
    pieces = student()
    for start in range(0, len(TEXTS), 16):
        piece = extractor.transform(TEXTS[start : start + 16])
        pieces.partial_fit(piece, LABELS[start : start + 16], classes=[0, 1])
    assert starts_from(pieces, model)


@pytest.mark.parametrize("start", ["auto", "random"])
def test_the_random_state_decides(model, store, start):
    fits = [
        pipe(model, store, lr=0.01, random_state=seed, module__start=start).fit(TEXTS, LABELS)[-1]
        for seed in (0, 0, 1)
    ]
    one, same, other = (fit.predict_proba(TEXTS) for fit in fits)
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_global_random_states_are_untouched(model, store):
    before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002 - the global state
    pipe(model, store).fit(TEXTS, LABELS)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


# ---------------------------------------------------------------- the vocabulary


def test_texts_that_are_not_trained_on_belong_to_the_vocabulary():
    further = ["a strange word, a strange word"] * 10
    texts, y = [*TEXTS, *further], np.array([*LABELS, *[-1] * 10])
    fitted = student(beta=0, missing_label=-1).fit(texts, y)
    plain = student(beta=0).fit(TEXTS, LABELS)
    n_tokens = [len(one.preprocessor_.transform(["strange"])[0]) for one in (fitted, plain)]
    assert n_tokens[0] == 1 < n_tokens[1]
    # Its tokens weigh less than unseen ones, and its pairs are known, as of texts trained on.
    bag = fitted.module_.bag
    (strange,) = fitted.preprocessor_.transform(["strange"])[0]
    (word,) = fitted.preprocessor_.transform(["word"])[0]
    assert bag.log_weights[strange] < -0.5
    assert strange * bag.n_tokens + word in bag.pairs.tolist()
    assert fitted.history_[-1]["train_batch_count"] == plain.history_[-1]["train_batch_count"]


@pytest.mark.slow  # MiniLM reads thousands of tokens and pairs
def test_a_start_helps_if_labels_are_few():
    """Three labels for each of 20 intents; the other texts make the vocabulary."""
    X, y = (np.array(part) for part in load_banking77(return_X_y=True))
    random = np.random.RandomState(0)
    classes = random.permutation(np.unique(y))[:20]
    X, y = X[np.isin(y, classes)], np.searchsorted(np.sort(classes), y[np.isin(y, classes)])
    train = np.concatenate([random.permutation(np.flatnonzero(y == k))[:3] for k in range(20)])
    test = np.setdiff1d(np.arange(len(X)), train)
    few = np.full(len(y), -1)
    few[train] = y[train]
    parameters = {"beta": 0, "missing_label": -1, "max_epochs": 60, "random_state": 0}
    minilm, alone = (
        AFTClassifier(**parameters, module__start=start).fit(X, few).score(X[test], y[test])
        for start in ("minilm", "random")
    )
    assert minilm > alone + 0.04  # 0.67 and 0.60
