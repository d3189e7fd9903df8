"""Two columns of texts that a model of transformers reads together."""

import json
import pickle
import shutil

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tokenizers import processors

from sk_aft import AFTClassifier, FineTunedFeatureExtractor, FoundationFeatureExtractor
from sk_aft._data._rows import Rows, as_rows
from sk_aft.backbones import HuggingFaceBackbone
from sk_aft.store import FeatureStore, row_digests
from tests.conftest import CONFIGS, word_pieces

PREMISES = ["I lost my card", "the rate changed", "why", "my card was stolen yesterday"]
HYPOTHESES = ["my card was stolen", "why", "the rate changed", "what is the rate"]
COLUMNS = ("premise", "hypothesis")
FRAME = pd.DataFrame({"premise": PREMISES, "hypothesis": HYPOTHESES, "amount": [1, 2, 3, 4]})


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.AutoModel.from_config(CONFIGS["bert"]()).save_pretrained(path)
    tokenizer = word_pieces(adds_special_tokens=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def expected(directory):
    """Means of each layer's hidden states, by plain code of transformers."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModel.from_pretrained(directory).eval()
    layers = []
    for pair in zip(PREMISES, HYPOTHESES, strict=True):
        tokens = tokenizer(*pair, return_tensors="pt")
        assert tokens["token_type_ids"].any()
        with torch.inference_mode():
            states = model(**tokens, output_hidden_states=True).hidden_states
        layers.append([state[0].mean(dim=0).numpy() for state in states])
    return np.array(layers)  # (n_rows, n_layers + 1, d)


def extractor_of(directory, **parameters):
    return FoundationFeatureExtractor({COLUMNS: f"hf:{directory}"}, **parameters)


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame])
@pytest.mark.parametrize("cache", ["auto", None])
def test_a_pair_is_read_in_one_pass(library, cache, directory, expected):
    frame = library({"premise": PREMISES, "hypothesis": HYPOTHESES})
    rows = extractor_of(directory, cache=cache).fit_transform(frame)
    np.testing.assert_allclose(rows.features, expected[:, -1], atol=1e-5)
    assert rows.column_slices == {COLUMNS: slice(0, 32)}


def test_categories_are_texts(directory, expected):
    frame = FRAME.astype({"premise": "category"})
    rows = extractor_of(directory).fit_transform(frame)
    np.testing.assert_allclose(rows.features, expected[:, -1], atol=1e-5)


def test_pairs_have_layers(directory, expected):
    rows = extractor_of(directory, layers=[0, 2, -1]).fit_transform(FRAME)
    layers = expected[:, [0, 2, 3]].reshape(4, -1)
    np.testing.assert_allclose(rows.features, layers, atol=1e-5)


def test_order_and_columns_matter(directory, expected):
    turned = FoundationFeatureExtractor({COLUMNS[::-1]: f"hf:{directory}"}).fit_transform(FRAME)
    single = FoundationFeatureExtractor({"premise": f"hf:{directory}"}).fit_transform(FRAME)
    assert np.abs(turned.features - expected[:, -1]).max() > 1e-3
    assert np.abs(single.features - expected[:, -1]).max() > 1e-3


def test_pairs_are_stored_and_found_without_loading(directory, cache):
    first = extractor_of(directory, cache=cache).fit_transform(FRAME).features
    assert FeatureStore(cache).stats()["rows"] == 4
    backbone = HuggingFaceBackbone(directory)
    again = FoundationFeatureExtractor({COLUMNS: backbone}, cache=cache)
    np.testing.assert_array_equal(again.fit_transform(FRAME[::-1]).features[::-1], first)
    assert backbone._loaded is None
    keys = again.store_keys(FRAME)[backbone.name]
    assert not len(FeatureStore(cache).missing(keys))


def test_extractors_rows_and_students_of_pairs_are_pickled(directory, expected):
    extractor = extractor_of(directory)
    rows = extractor.fit_transform(FRAME)
    copied = pickle.loads(pickle.dumps(extractor)).transform(FRAME)
    np.testing.assert_array_equal(copied.features, rows.features)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(rows)).features, rows.features)
    np.testing.assert_array_equal(rows.take([3, 1]), rows.features[[3, 1]])


def test_pairs_are_a_probes_and_a_students_teacher(directory):
    labels = [0, 1, 0, 1] * 3
    frame = pd.concat([FRAME] * 3, ignore_index=True)
    probe = make_pipeline(extractor_of(directory), LogisticRegression()).fit(frame, labels)
    assert set(probe.predict(frame)) <= {0, 1}
    student = AFTClassifier(max_epochs=1, random_state=0)
    student.fit(extractor_of(directory, inputs="premise").fit_transform(frame), labels)
    assert set(student.predict(frame["premise"])) <= {0, 1}


def test_a_model_of_pairs_is_fine_tuned(directory, expected):
    frame = pd.concat([FRAME] * 3, ignore_index=True)
    extractor = FineTunedFeatureExtractor({COLUMNS: f"hf:{directory}"}, random_state=0)
    rows = extractor.fit_transform(frame, [0, 1, 0, 1] * 3)
    assert np.abs(rows.features[:4] - expected[:, -1]).max() > 1e-4
    np.testing.assert_allclose(extractor.transform(FRAME).features, rows.features[:4], atol=1e-5)


def test_a_loaded_model_reads_pairs(directory, expected):
    model = transformers.AutoModel.from_pretrained(directory)
    rows = FoundationFeatureExtractor({COLUMNS: model}).fit_transform(FRAME)
    np.testing.assert_allclose(rows.features, expected[:, -1], atol=1e-5)


def test_long_pairs_are_counted(directory):
    extractor = FoundationFeatureExtractor({COLUMNS: HuggingFaceBackbone(directory, max_length=9)})
    with pytest.warns(UserWarning, match="2 of 4 pairs of texts are longer than 9 tokens"):
        extractor.fit_transform(FRAME)


@pytest.mark.parametrize("missing", COLUMNS)
def test_a_pair_with_a_missing_text_is_missing(missing, directory, expected):
    frame = FRAME.copy()
    frame.loc[2, missing] = None
    with pytest.raises(ValueError, match=r"column \('premise', 'hypothesis'\): Row 2 .*is missing"):
        extractor_of(directory).fit(frame)
    masked = extractor_of(directory, on_error="mask")
    with pytest.warns(UserWarning, match="1 of 4 rows have no features"):
        rows = masked.fit_transform(frame)
    assert rows.missing_mask.tolist() == [False, False, True, False]
    np.testing.assert_allclose(rows.features[[0, 1, 3]], expected[[0, 1, 3], -1], atol=1e-5)


def test_models_of_single_texts_refuse_pairs():
    with pytest.raises(ValueError, match=r"'minilm' reads single texts.*'premise': \.\.\., 'hypo"):
        FoundationFeatureExtractor({COLUMNS: "minilm"}).fit(FRAME)


def test_a_directory_of_sentence_transformers_reads_pairs_as_one_of_transformers(
    directory, expected, tmp_path
):
    path = shutil.copytree(directory, tmp_path / "sentences")
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    (path / "modules.json").write_text(json.dumps([module]))
    with pytest.raises(ValueError, match=f"reads single texts.* write 'hf:{path}'"):
        FoundationFeatureExtractor({COLUMNS: str(path)}).fit(FRAME)
    found = extractor_of(path).fit_transform(FRAME).features
    np.testing.assert_allclose(found, expected[:, -1], atol=1e-5)


def test_a_function_beside_a_model_of_pairs_reads_no_pairs(directory):
    def n_rows(rows):
        return np.full((len(rows), 1), len(rows))

    for models in ([f"hf:{directory}", n_rows], [n_rows, f"hf:{directory}"]):
        with pytest.raises(ValueError, match="Model 'n_rows' reads single texts or images, but"):
            FoundationFeatureExtractor({COLUMNS: models}).fit(FRAME)
    frame = as_rows(FRAME.assign(more=[5, 6, 7, 8]), kind="frame")
    assert frame.column(("amount", "more")).kind == "numeric"
    assert frame.column(COLUMNS, kind="pair").kind == "pair"
    with pytest.raises(ValueError, match="are not all numbers"):
        frame.column(COLUMNS)
    with pytest.raises(ValueError, match="are not all numbers"):
        pickle.loads(pickle.dumps(frame)).column(COLUMNS)


@pytest.mark.parametrize("columns", [("premise", "amount"), ("photo", "premise")])
def test_columns_of_texts_or_images_each_need_a_model(columns):
    frame = FRAME.assign(photo=[np.zeros((8, 8, 3), np.uint8)] * 4)
    with pytest.raises(ValueError, match=r"reads single texts or images.* a model of its own"):
        FoundationFeatureExtractor({columns: np.abs}).fit(frame)
    with pytest.raises(ValueError, match=r"'effnet-lite0' reads single images.* of its own"):
        FoundationFeatureExtractor({columns: "effnet-lite0"}).fit(frame)


def test_three_columns_are_refused(directory):
    columns = (*COLUMNS, "amount")
    with pytest.raises(ValueError, match=r"reads a text or a pair of texts, but .* the 3 columns"):
        FoundationFeatureExtractor({columns: f"hf:{directory}"}).fit(FRAME)


def test_numbers_are_no_part_of_a_pair(directory):
    with pytest.raises(ValueError, match="column 'amount': Expected text rows, got numeric"):
        FoundationFeatureExtractor({("premise", "amount"): f"hf:{directory}"}).fit(FRAME)


def test_a_tokenizer_that_does_not_separate_texts_refuses_pairs(encoder_directory):
    with pytest.raises(ValueError, match="its tokenizer puts nothing between the two"):
        FoundationFeatureExtractor({COLUMNS: f"hf:{encoder_directory('gpt2')}"}).fit(FRAME)


def test_a_tuple_of_one_column_is_a_text(directory):
    one = FoundationFeatureExtractor({("premise",): f"hf:{directory}"}).fit_transform(FRAME)
    plain = FoundationFeatureExtractor({"premise": f"hf:{directory}"}).fit_transform(FRAME)
    np.testing.assert_array_equal(one.features, plain.features)


def test_a_frame_of_two_texts_alone_is_no_pair(directory):
    with pytest.raises(ValueError, match="pass the one column that holds the texts"):
        FoundationFeatureExtractor(f"hf:{directory}").fit(FRAME[list(COLUMNS)])


PAIRS = st.tuples(st.text("ab\0 ", max_size=4), st.text("ab\0 ", max_size=4))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(PAIRS, PAIRS)
def test_pairs_have_equal_keys_if_and_only_if_they_are_equal(one, other):
    first, second = row_digests(Rows("pair", np.array([one, other], dtype=object)))
    assert (first == second) == (one == other)
    joined = [one[0] + one[1], one[0], one[1]]
    assert first not in row_digests(as_rows(joined, kind="text"))


def test_a_pair_that_lacks_a_text_has_the_key_of_a_missing_row():
    pairs = Rows("pair", np.array([["a", None], [None, "a"], ["a", "b"]], dtype=object))
    assert row_digests(pairs)[:2] == [bytes(16)] * 2
    assert pairs.missing_mask.tolist() == [True, True, False]
    with pytest.raises(ValueError, match="Row 0 of X is missing"):
        pairs.check_complete()


def test_pairs_are_taken_and_joined():
    frame = as_rows(FRAME, kind="frame")
    pairs = frame.column(COLUMNS, kind="pair")
    assert pairs.values.tolist() == [list(p) for p in zip(PREMISES, HYPOTHESES, strict=True)]
    assert pairs.take(np.array([2])).position(0) == 2
    assert len(pairs.concat(pairs[:1])) == 5
    assert pairs.read_as("pair") is pairs
    with pytest.raises(ValueError, match="Expected numeric rows, got pair rows"):
        pairs.read_as("numeric")
