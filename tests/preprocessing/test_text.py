"""What the text student reads of a text."""

import warnings

import numpy as np
import pytest

from sk_aft import AFTClassifier
from sk_aft.preprocessing import NgramTokenizer
from sk_aft.preprocessing._ngrams import ngram_hashes

PAIRS = {
    "emoji": ("great 😀", "great 😠"),
    "symbols": ("+", "-"),
    "punctuation": ("really?", "really!"),
    "order": ("? !", "! ?"),
    "repeated": ("!", "!!!"),
    "joined emoji": ("👨‍👩‍👧", "👨‍👩‍👦"),
    "skin tones": ("👍🏻", "👍🏿"),
    "flags": ("🇩🇪", "🇫🇷"),
    "CJK": ("好的", "坏的"),
    "full width": ("＋", "－"),  # noqa: RUF001
    "combining marks": ("e\u0301", "e\u0300"),
    "vowel signs": ("की", "का"),
    "currency": ("5 €", "5 $"),
    "control characters": ("\x00", "\x01"),
    "whitespace": ("a", " \t\n"),
    "surrogates": ("\ud800", "\ud801"),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_texts_that_differ_are_told_apart(pair):
    y = np.arange(100) % 2
    student = AFTClassifier(beta=0, max_epochs=10, random_state=0).fit(list(pair) * 50, y)
    assert student.score(list(pair) * 50, y) == 1.0


def test_every_character_but_spaces_is_part_of_a_token():
    characters = [chr(code) for code in range(0x3000) if not chr(code).isspace()]
    _, text_of = ngram_hashes(characters, (1, 1), (3, 2))
    np.testing.assert_array_equal(np.unique(text_of), np.arange(len(characters)))


def test_marks_are_part_of_their_words():
    hashes, _ = ngram_hashes(["e\u0301te\u0301", "हिन्दी"], (1, 1), (3, 2))
    assert len(hashes) == 2


def test_long_texts_are_cut_and_counted_once():
    texts = ["a b " * 10, "a", "c " * 30]
    tokenizer = NgramTokenizer(max_length=21).fit(texts)
    with pytest.warns(UserWarning, match="2 of 3 texts have more than max_length=21") as caught:
        cut = tokenizer.transform(texts)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = tokenizer.transform([text[:21] for text in texts])
    np.testing.assert_array_equal(cut.toarray(), same.toarray())


def test_a_student_warns_of_long_texts_once_a_call():
    texts = ["a b " * 10, "c"] * 10
    student = AFTClassifier(beta=0, max_epochs=1, preprocessor__max_length=20)
    with pytest.warns(UserWarning, match="10 of 20 texts have more than max_length=20") as caught:
        student.fit(texts, np.arange(20) % 2)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="1 of 2 texts") as caught:
        student.predict(texts[:2])
    assert len(caught) == 1


def test_missing_texts_are_named():
    with pytest.raises(ValueError, match=r"Row 1 of X is missing \(None\): fill it"):
        NgramTokenizer().fit(["a", None])


def test_a_fit_that_holds_rows_out_warns_of_long_texts_once():
    texts = ["a card that is lost", "a card that I found"] * 20
    student = AFTClassifier(
        beta=0, max_epochs=1, early_stopping=True, random_state=0, preprocessor__max_length=10
    )
    with pytest.warns(UserWarning, match="36 of 36 texts have more than max_length=10") as caught:
        student.fit(texts, np.arange(40) % 2)
    assert len(caught) == 1
