"""Texts -> subword tokens, in training as where a student is deployed."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from sk_aft._data._counted_notes import give_note

if TYPE_CHECKING:
    from tokenizers import Encoding

# What the warning of texts that are too long begins with, as a pattern.
TRUNCATION = r"\d+ of \d+ texts have more than max_length"
# Texts longer than this many characters per token read are cut before they are tokenized.
_MOST_CHARACTERS_PER_TOKEN = 16


class TextEncoder:
    """Encodes texts with a tokenizer; may be called from several threads.

    Parameters
    ----------
    document : str
        JSON document of a `tokenizers.Tokenizer`.
    max_length : int
        Number of tokens read of a text.

    Attributes
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer.
    n_ids : int
        One more than the largest token.

    Raises
    ------
    ValueError
        If the document is no tokenizer, or one that fails.
    """

    def __init__(self, document: str, max_length: int) -> None:
        if not isinstance(max_length, (int, np.integer)) or max_length < 1:
            raise ValueError(f"max_length={max_length!r} is not a number of tokens, 1 or more")
        try:
            from tokenizers import Tokenizer  # a deployed student of images has no need of it
        except ImportError as error:
            raise ImportError(
                f"tokenizers is needed to read texts ({error}): pip install tokenizers"
            ) from error

        self.max_length = max_length
        with _explained():
            self.tokenizer = Tokenizer.from_str(document)
            self.tokenizer.no_padding()
            self.tokenizer.enable_truncation(max_length)  # keeps the token that ends a text
            found = [*self.tokenizer.encode("").ids, *self.tokenizer.encode("a").ids]
        self.n_ids = 1 + max([*self.tokenizer.get_vocab().values(), *found], default=-1)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text; warn if some are too long.

        Parameters
        ----------
        texts : sequence of n_texts str
            Texts.

        Returns
        -------
        tokens : list of n_texts lists of int
            Of different lengths; that of an empty text may be empty.
        """
        if len(texts) == 1:  # starting the threads of a batch takes longer than one text
            encodings = [self.tokenizer.encode(readable(texts[0], self.max_length))]
        else:
            encodings = self.tokenizer.encode_batch_fast(
                [readable(text, self.max_length) for text in texts]
            )
        n_long = sum(map(self._is_longer, texts, encodings))
        note = (
            f"{n_long} of {len(texts)} texts have more than max_length={self.max_length} tokens: "
            "the rest of each is dropped."
        )
        give_note(f"texts of {id(self)}", len(texts), note if n_long else None, warn_caller)
        return [encoding.ids for encoding in encodings]

    def _is_longer(self, text: str, encoding: Encoding) -> bool:
        if len(text) > _MOST_CHARACTERS_PER_TOKEN * self.max_length:
            return True
        return len(encoding) == self.max_length and len(encoding.overflowing) > 0


def warn_caller(message: str) -> None:
    """Warn at the line outside of this package that called it."""
    # skorch and scikit-learn call estimators and preprocessors on behalf of others.
    names = ("sk_aft", "skorch", "sklearn")
    modules = [sys.modules[name] for name in names if name in sys.modules]
    inside = tuple(f"{path}{os.sep}" for module in modules for path in module.__path__)
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_code.co_filename.startswith(inside):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except BaseException as error:  # tokenizers raises Exception itself, and panics of Rust
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"its tokenizer cannot be opened ({error})") from error


def readable(text: str, max_length: int) -> str:
    """Return the part of a text that is read, in which halves of surrogate pairs are escaped."""
    text = text[: _MOST_CHARACTERS_PER_TOKEN * max_length]
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def as_sequences(tokens: Sequence[Sequence[int]]) -> np.ndarray:
    """Return tokens as an array of dtype object that holds 1-D int64 arrays, (n_texts,)."""
    sequences: np.ndarray = np.empty(len(tokens), dtype=object)
    for row, ids in enumerate(tokens):
        sequences[row] = np.array(ids, dtype=np.int64)
    return sequences
