"""What the text student reads of a text."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from sk_aft import AFTClassifier
from sk_aft.preprocessing import SubwordTokenizer

TEXTS = ["I lost my card", "my cards are gone", "what is a pin?", "I, robot: a card"]
PAIRS = {
    "emoji": ("great 😀", "great 😠"),
    "symbols": ("+", "-"),
    "punctuation": ("really?", "really!"),
    "order": ("? !", "! ?"),
    "repeated": ("!", "!!!"),
    "joined emoji": ("👨‍👩‍👧", "👨‍👩‍👦"),
    "joiner": ("क्ष", "क्\u200dष"),
    "skin tones": ("👍🏻", "👍🏿"),
    "flags": ("🇩🇪", "🇫🇷"),
    "CJK": ("好的", "坏的"),
    "full width": ("＋", "－"),  # noqa: RUF001
    "combining marks": ("e\u0301", "e\u0300"),
    "vowel signs": ("की", "का"),
    "accents": ("é", "e"),
    "Arabic": ("نعم", "لا"),
    "currency": ("5 €", "5 $"),
    "control characters": ("\x00", "\x01"),
    "icons of a font": ("\ue000", "\ue001"),
    "unassigned": ("\U000e0080", "\U000e0081"),
    "whitespace": ("a", " \t\n"),
    "surrogates": ("\ud800", "\ud801"),
}


def as_lists(tokens):
    return [of_text.tolist() for of_text in tokens]


def word_pieces(max_length=None):
    """A tokenizer such as BERT's: [CLS] before and [SEP] after the words of a text."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "my", "card", "##s", "pin"]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=12)
    if max_length is not None:
        tokenizer.enable_truncation(max_length)
    return tokenizer


# ---------------------------------------------------------------- what is seen


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_texts_that_differ_are_told_apart(pair):
    one, other = as_lists(SubwordTokenizer().fit([*pair, "a"]).transform(pair))
    assert one != other


@pytest.mark.parametrize("name", ["emoji", "symbols", "order", "repeated", "control characters"])
def test_students_tell_them_apart(name):
    X, y = list(PAIRS[name]) * 20, np.arange(40) % 2
    student = AFTClassifier(beta=0, max_epochs=50, random_state=0).fit(X, y)
    assert student.score(X, y) == 1.0


def test_every_character_but_spaces_is_part_of_a_token():
    characters = [chr(code) for code in range(0x3000) if not chr(code).isspace()]
    tokens = SubwordTokenizer().fit(TEXTS).transform(characters)
    assert min(map(len, tokens)) > 0


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_tokens_spell_the_text_in_lower_case(text):
    tokenizer = SubwordTokenizer().fit(TEXTS)
    spelled = tokenizer.tokenizer_.decode(tokenizer.transform([text])[0], skip_special_tokens=False)
    lower = "".join(character.lower() for character in text)  # of Σ, whatever its place
    assert "".join(spelled.split()) == "".join(lower.split())


def test_case_and_spaces_do_not_count():
    tokens = SubwordTokenizer().fit(TEXTS).transform(["my card is gone", "My  CARD\tis gone "])
    np.testing.assert_array_equal(*tokens)


def test_frequent_words_are_single_tokens_and_rare_ones_are_spelled():
    tokenizer = SubwordTokenizer().fit(TEXTS)
    my_card, card, cards, rare = as_lists(tokenizer.transform(["my card", "card", "cards", "xyz"]))
    assert my_card[1:] == card
    assert len(card) == 1
    assert cards[:1] == card
    assert len(cards) == 2
    assert len(rare) == 4  # the beginning of a word, and three bytes


# ---------------------------------------------------------------- the vocabulary


def test_the_order_of_the_texts_does_not_matter():
    texts = [f"{a} {b}" for a in ("lost", "stolen", "my", "new") for b in ("card", "pin", "cash")]
    orders = [np.random.RandomState(seed).permutation(texts) for seed in range(5)]
    (document,) = {SubwordTokenizer().fit(order).tokenizer_json_ for order in orders}
    assert len(Tokenizer.from_str(document).get_vocab()) > 256


def test_the_vocabulary_is_bounded_and_keeps_what_is_frequent():
    texts = [*TEXTS, "card card card"]
    tokenizer = SubwordTokenizer(vocab_size=260).fit(texts)
    assert tokenizer.n_tokens_ == 260
    assert len(tokenizer.transform(["ard"])[0]) < len(tokenizer.transform(["pin"])[0])
    assert max(map(np.max, tokenizer.transform(texts))) < 260
    assert SubwordTokenizer(vocab_size=256).fit(texts).n_tokens_ == 256
    unbounded = SubwordTokenizer().fit(texts)
    assert 260 < unbounded.n_tokens_ < 300
    merged = SubwordTokenizer().fit(["unique words only"])
    assert merged.n_tokens_ == 256  # no pair of bytes occurs twice


@pytest.mark.parametrize("vocab_size", [0, 255, -1, 1000.5, None, "many"])
def test_vocabularies_that_are_too_small(vocab_size):
    with pytest.raises(ValueError, match=r"'vocab_size' .* must be an int in the range \[256, inf"):
        SubwordTokenizer(vocab_size=vocab_size).fit(TEXTS)


@pytest.mark.parametrize("max_length", [0, -1, 2.5, None])
def test_lengths_that_are_no_lengths(max_length):
    with pytest.raises(ValueError, match=r"'max_length' .* must be an int in the range \[1, inf"):
        SubwordTokenizer(max_length=max_length).fit(TEXTS)


@pytest.mark.parametrize("texts", [["", ""], [""], ["  ", "\n"]])
def test_texts_without_a_word_are_an_error(texts):
    with pytest.raises(ValueError, match=r"training texts have no words .* are they empty"):
        SubwordTokenizer().fit(texts)


def test_an_empty_text_has_no_tokens():
    tokenizer = SubwordTokenizer().fit([*TEXTS, ""])
    assert [len(tokens) for tokens in tokenizer.transform(["", "   ", "card"])] == [0, 0, 1]
    assert tokenizer.tokenizer_json_ == SubwordTokenizer().fit(TEXTS).tokenizer_json_


def test_missing_texts_are_named():
    with pytest.raises(ValueError, match=r"Row 1 of X is missing \(None\): fill it"):
        SubwordTokenizer().fit(["a", None])


@pytest.mark.parametrize("container", [tuple, np.array, pd.Series])
def test_texts_come_in_any_container(container):
    expected = as_lists(SubwordTokenizer().fit_transform(TEXTS))
    tokens = SubwordTokenizer().fit_transform(container(TEXTS))
    assert as_lists(tokens) == expected
    assert {of_text.dtype for of_text in tokens} == {np.dtype(np.int64)}


# ---------------------------------------------------------------- tokenizers that are given


@pytest.mark.parametrize("form", [lambda given: given, lambda given: given.to_str()])
def test_a_tokenizer_that_is_given_is_used_unchanged(form):
    given = word_pieces(max_length=3)
    tokenizer = SubwordTokenizer(form(given)).fit(["other words"])
    assert tokenizer.n_tokens_ == 8
    # Neither its padding nor its truncation is used.
    tokens = as_lists(tokenizer.transform(["my cards", "", "good pin"]))
    assert tokens == [[2, 4, 5, 6, 3], [2, 3], [2, 1, 7, 3]]
    assert len(given.encode("my").ids) == 12
    assert as_lists(clone(tokenizer).fit(TEXTS).transform(["my cards"])) == [[2, 4, 5, 6, 3]]


def test_a_text_that_is_cut_keeps_its_final_token():
    tokenizer = SubwordTokenizer(word_pieces(), max_length=4).fit(TEXTS)
    with pytest.warns(UserWarning, match="1 of 3 texts have more than max_length=4") as caught:
        tokens = tokenizer.transform(["my cards", "my card", "pin"])
    assert len(caught) == 1
    assert as_lists(tokens) == [[2, 4, 5, 3], [2, 4, 5, 3], [2, 7, 3]]


@pytest.mark.parametrize("given", ["bpe", "{}", "", b"x", None, 3, object()])
def test_what_is_no_tokenizer(given):
    message = r"tokenizer=.* is unknown: expected 'byte-level', a tokenizers.Tokenizer or the JSON"
    with pytest.raises(ValueError, match=message):
        SubwordTokenizer(given).fit(TEXTS)


# ---------------------------------------------------------------- long texts


def test_long_texts_are_cut_and_counted_once():
    texts = ["a b " * 10, "a", "c " * 30, "c " * 20]
    tokenizer = SubwordTokenizer(max_length=20).fit(texts)
    with pytest.warns(UserWarning, match="1 of 4 texts have more than max_length=20") as caught:
        cut = tokenizer.transform(texts)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = SubwordTokenizer(max_length=30).fit(texts).transform(texts)
    assert as_lists(cut) == [tokens[:20] for tokens in as_lists(whole)]


def test_a_text_that_ends_before_its_last_word_is_counted():
    tokenizer = SubwordTokenizer(max_length=5).fit(TEXTS)
    with pytest.warns(UserWarning, match="1 of 2 texts have more than max_length=5"):
        tokenizer.transform(["my" + " " * 1000 + "card", "my card"])


def test_a_huge_text_takes_no_longer_than_what_is_read_of_it():
    texts = [*TEXTS, "my card " * 5_000_000]
    tokenizer = SubwordTokenizer(max_length=100).fit(texts)
    with pytest.warns(UserWarning, match="1 of 5 texts"):
        assert len(tokenizer.transform(texts)[-1]) == 100


def test_a_student_warns_of_long_texts_once_a_call():
    texts = ["a b " * 10, "c"] * 10
    student = AFTClassifier(beta=0, max_epochs=1, preprocessor__max_length=15)
    with pytest.warns(UserWarning, match="10 of 20 texts have more than max_length=15") as caught:
        student.fit(texts, np.arange(20) % 2)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="1 of 2 texts") as caught:
        student.predict(texts[:2])
    assert len(caught) == 1


def test_a_fit_that_holds_rows_out_warns_of_long_texts_once():
    texts = ["a card that is lost", "a card that I found"] * 20
    student = AFTClassifier(
        beta=0, max_epochs=1, early_stopping=True, random_state=0, preprocessor__max_length=4
    )
    with pytest.warns(UserWarning, match="36 of 36 texts have more than max_length=4") as caught:
        student.fit(texts, np.arange(40) % 2)
    assert len(caught) == 1


# ---------------------------------------------------------------- scikit-learn's conventions


@pytest.mark.parametrize("parameters", [{"vocab_size": 300, "max_length": 7}, {"tokenizer": None}])
def test_a_fitted_tokenizer_can_be_pickled_and_cloned(parameters):
    if "tokenizer" in parameters:
        parameters = {"tokenizer": word_pieces().to_str()}
    tokenizer = SubwordTokenizer(**parameters).fit(TEXTS)
    expected = as_lists(tokenizer.transform(["my cards"]))
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert as_lists(copy.transform(["my cards"])) == expected
    assert copy.tokenizer_json_ == tokenizer.tokenizer_json_
    assert clone(tokenizer).get_params() == tokenizer.get_params()
    assert not hasattr(clone(tokenizer), "n_tokens_")
    for use in (lambda one: one.transform(TEXTS), lambda one: one.tokenizer_):
        with pytest.raises(NotFittedError):
            use(clone(tokenizer))


def test_a_second_fit_replaces_the_vocabulary():
    tokenizer = SubwordTokenizer().fit(TEXTS)
    before = as_lists(tokenizer.transform(["house"]))
    tokenizer.fit(["a house", "the house"])
    assert len(tokenizer.transform(["house"])[0]) == 1 < len(before[0])
    assert tokenizer.set_params(max_length=2).fit(TEXTS).max_length == 2
    with pytest.warns(UserWarning, match="max_length=2"):
        assert len(tokenizer.transform(["what is a pin"])[0]) == 2
