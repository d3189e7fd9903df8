"""N-grams of words and characters as 64-bit hashes, all texts at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from unicodedata import category

import numpy as np

# Odd multipliers that spread hashes over 64 bits: from the golden ratio, and from splitmix64.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SPLITMIX = np.uint64(0xBF58476D1CE4E5B9)
_SPACE = 32
_BETWEEN, _IN_WORD, _SYMBOL = range(3)

Found = tuple[np.ndarray, np.ndarray]


def ngram_hashes(
    texts: Sequence[str], word_ngrams: tuple[int, int], character_ngrams: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the n-grams of lower-cased texts as 64-bit hashes.

    A word is a run of letters, digits, marks (such as accents) and underscores. Any other
    character except a space is a word by itself. N-grams of characters are taken within a run,
    including the space before and after it.

    Parameters
    ----------
    texts : sequence of n_texts str
        Texts.
    word_ngrams, character_ngrams : tuple of int
        Shortest and longest run of words, and of characters.

    Returns
    -------
    hashes : ndarray of shape (n_ngrams,), uint64
        One for each occurrence, in the order of the texts. Hashes of words are even, those of
        characters odd.
    text_of : ndarray of shape (n_ngrams,), int64
        Index of the text in which each occurs.

    Notes
    -----
    Among a million distinct n-grams, two share a hash with a probability of 1e-7.
    """
    # A space before, between and after the texts, so that no word spans two texts.
    lowered = [text.lower() for text in texts]
    joined = " " + " ".join(lowered) + " "
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    lengths = np.fromiter(map(len, lowered), dtype=np.int64, count=len(texts))
    text_at: np.ndarray = np.zeros(len(codes), dtype=np.int64)  # of a space, the text before it
    text_at[1:] = np.repeat(np.arange(len(texts)), lengths + 1)
    classes = _classes(codes)
    is_word = classes == _IN_WORD
    codes = codes.astype(np.uint64)
    found = [
        *_runs_of_words(codes, classes, text_at, word_ngrams),
        *_runs_of_characters(np.where(is_word, codes, _SPACE), is_word, text_at, character_ngrams),
    ]
    if not found:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    hashes = np.concatenate([hashes for hashes, _ in found])
    text_of = np.concatenate([text_of for _, text_of in found])
    order = np.argsort(text_of, kind="stable")
    return hashes[order], text_of[order]


def _runs_of_words(
    codes: np.ndarray, classes: np.ndarray, text_at: np.ndarray, lengths: tuple[int, int]
) -> Iterator[Found]:
    is_word = classes == _IN_WORD
    begins = is_word[1:] & ~is_word[:-1] | (classes[1:] == _SYMBOL)
    starts: np.ndarray = np.flatnonzero(begins) + 1
    if not len(starts):
        return
    # A word's hash is a polynomial in its letters; spaces contribute 0.
    place = _places(starts, len(codes))
    powers = _powers(int(place.max()) + 1)
    letters = np.where(classes == _BETWEEN, np.uint64(0), codes * powers[place])
    words = np.add.reduceat(letters, starts)
    text_of = text_at[starts]
    run: np.ndarray
    for n in range(lengths[0], lengths[1] + 1):
        n_runs = len(words) - n + 1
        if n_runs <= 0:
            return
        run = np.zeros(n_runs, dtype=np.uint64)
        for offset in range(n):
            run = run * _SPLITMIX + words[offset : offset + n_runs]
        within = text_of[:n_runs] == text_of[n - 1 :]
        yield _mixed(run[within], n, of_characters=False), text_of[:n_runs][within]


def _runs_of_characters(
    codes: np.ndarray, is_word: np.ndarray, text_at: np.ndarray, lengths: tuple[int, int]
) -> Iterator[Found]:
    run: np.ndarray
    for n in range(lengths[0], lengths[1] + 1):
        n_runs = len(codes) - n + 1
        if n_runs <= 0:
            return
        inside = is_word[:n_runs] | is_word[n - 1 :] if n < 3 else is_word[1 : 1 + n_runs].copy()
        for offset in range(2, n - 1):
            inside &= is_word[offset : offset + n_runs]
        starts = np.flatnonzero(inside)
        run = np.zeros(len(starts), dtype=np.uint64)
        for offset in range(n):
            run = run * _GOLDEN + codes[starts + offset]
        # The first character may be the space before the text.
        yield _mixed(run, n, of_characters=True), text_at[starts + min(1, n - 1)]


def _places(starts: np.ndarray, n_codes: int) -> np.ndarray:
    """Return how far each character is from the start of its word."""
    begins = np.r_[0, starts]
    return np.arange(n_codes) - np.repeat(begins, np.diff(begins, append=n_codes))


def _mixed(hashes: np.ndarray, length: int, of_characters: bool) -> np.ndarray:
    """Spread hashes over 64 bits, differently for each kind of n-gram."""
    kind = 1000 * of_characters + length
    hashes = hashes + np.uint64(kind * int(_GOLDEN) % 2**64)
    hashes = (hashes ^ (hashes >> np.uint64(30))) * _SPLITMIX
    hashes = hashes ^ (hashes >> np.uint64(27))
    return (hashes & ~np.uint64(1)) | np.uint64(of_characters)


def _powers(n: int) -> np.ndarray:
    return np.cumprod(np.r_[np.uint64(1), np.full(n - 1, _GOLDEN)], dtype=np.uint64)


def _classes(codes: np.ndarray) -> np.ndarray:
    """Return for each character whether it is between words, in a word, or a word by itself."""
    classes = _ascii_classes()[np.minimum(codes, 127)]
    foreign = codes > 127
    if foreign.any():
        characters, where = np.unique(codes[foreign], return_inverse=True)
        of_each = [_class(chr(character)) for character in characters.tolist()]
        classes[foreign] = np.array(of_each, dtype=np.uint8)[where]
    return classes


def _class(character: str) -> int:
    if character.isalnum() or character == "_" or category(character).startswith("M"):
        return _IN_WORD
    return _BETWEEN if character.isspace() else _SYMBOL


@lru_cache(maxsize=1)
def _ascii_classes() -> np.ndarray:
    return np.array([_class(chr(code)) for code in range(128)], dtype=np.uint8)
