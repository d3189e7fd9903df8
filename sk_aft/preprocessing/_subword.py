"""Texts -> sequences of subword tokens."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.decoders import ByteLevel as BytesToText

from sk_aft._data._rows import as_rows
from sk_aft._data._texts import TextEncoder, as_sequences, readable


class SubwordTokenizer(
    TransformerMixin,
    BaseEstimator,
    auto_wrap_output_keys=None,  # type: ignore[call-arg]
):
    """Split texts into subword tokens with a tokenizer of the ``tokenizers`` library.

    By default, it learns a byte-pair encoding of the training texts, in which frequent words are
    single tokens. It reads every script, punctuation and emoji, because it is built on bytes.
    Case is ignored. Fitted, it is one JSON document, which the library also reads in Rust and
    JavaScript.

    Parameters
    ----------
    tokenizer : "byte-level", str or tokenizers.Tokenizer, default="byte-level"
        - "byte-level": learn a byte-pair encoding.
        - the JSON document of a `tokenizers.Tokenizer`, or the object itself, which skops cannot
          write: use it unchanged.
    vocab_size : int, default=8192
        Largest size of the vocabulary that is learned, at least 256. Small sets of texts have
        fewer tokens, because a token has to occur twice.
    max_length : int, default=4096
        Number of tokens read of a text, which bounds memory and time. The rest is dropped, and
        `transform` warns of such texts.

    Attributes
    ----------
    tokenizer_json_ : str
        The JSON document of the tokenizer.
    n_tokens_ : int
        Size of the vocabulary.
    tokenizer_ : tokenizers.Tokenizer
        The tokenizer.

    References
    ----------
    Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", ACL 2016.

    Examples
    --------
    >>> from sk_aft.preprocessing import SubwordTokenizer
    >>> tokenizer = SubwordTokenizer().fit(["my card", "my card?"])
    >>> [len(tokens) for tokens in tokenizer.transform(["my card", "", "card?"])]
    [2, 0, 3]
    """

    _accepts_rows = True  # texts need not be recognised again
    _loaded: Any = None
    _parameter_constraints: dict = {
        "tokenizer": "no_validation",
        "vocab_size": [Interval(Integral, 256, None, closed="left")],
        "max_length": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self, tokenizer: Any = "byte-level", vocab_size: int = 8192, max_length: int = 4096
    ) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.max_length = max_length

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> SubwordTokenizer:
        """Learn the vocabulary, unless a tokenizer was given.

        Parameters
        ----------
        X : sequence of str
            Texts.
        y : ignored
            Present for the convention of scikit-learn.

        Returns
        -------
        self : SubwordTokenizer
            The fitted tokenizer.

        Raises
        ------
        ValueError
            If all texts are empty, ``tokenizer`` is not the JSON document of a tokenizer, or
            another parameter is out of range.
        """
        texts = as_rows(X, kind="text").values
        if not any(text.strip() for text in texts):
            raise ValueError(
                "The training texts have no words to build a vocabulary from: are they empty?"
            )
        if isinstance(self.tokenizer, Tokenizer):
            fitted = self.tokenizer
        elif self.tokenizer == "byte-level":
            fitted = byte_level_tokenizer(
                (readable(text, self.max_length) for text in texts), self.vocab_size
            )
        else:
            fitted = _from_json(self.tokenizer)
        is_document = isinstance(self.tokenizer, str) and self.tokenizer != "byte-level"
        # The same object as the parameter, so that pickles hold it once.
        self.tokenizer_json_ = self.tokenizer if is_document else fitted.to_str()
        self.n_tokens_ = fitted.get_vocab_size(with_added_tokens=True)
        self._loaded = None
        return self

    @property
    def tokenizer_(self) -> Tokenizer:
        """The tokenizer."""
        return self._encoder.tokenizer

    @property
    def _encoder(self) -> TextEncoder:
        if self._loaded is None:
            check_is_fitted(self, "tokenizer_json_")
            self._loaded = TextEncoder(self.tokenizer_json_, self.max_length)
        return self._loaded

    def transform(self, X: Any) -> np.ndarray:
        """Return the tokens of each text.

        Parameters
        ----------
        X : sequence of n_texts str
            Texts.

        Returns
        -------
        tokens : ndarray of shape (n_texts,), dtype object
            1-D int64 arrays of different lengths; that of an empty text may be empty.
        """
        return as_sequences(self._encoder(as_rows(X, kind="text").values))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_loaded"}


def byte_level_tokenizer(texts: Any, vocab_size: int) -> Tokenizer:
    """Learn a byte-pair encoding of lower-cased texts.

    Runs of letters and digits are words, and so are runs of other characters except spaces. Every
    word begins with a space (written Ġ), so that a word is the same token wherever it stands.

    Parameters
    ----------
    texts : iterable of str
        Texts.
    vocab_size : int
        Largest size of the vocabulary; 256 tokens are the single bytes.

    Returns
    -------
    tokenizer : tokenizers.Tokenizer
        The tokenizer.
    """
    tokenizer = Tokenizer(models.BPE())
    # "clean_text" would remove what Unicode calls control characters: among them, the joiners of
    # emoji and of Indic scripts, and the icons of fonts.
    tokenizer.normalizer = normalizers.BertNormalizer(clean_text=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
        ]
    )
    tokenizer.decoder = BytesToText()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _from_json(document: Any) -> Tokenizer:
    try:
        return Tokenizer.from_str(document)
    except Exception as error:  # tokenizers raises Exception itself
        raise ValueError(
            f"tokenizer={str(document)[:40]!r} is unknown: expected 'byte-level', a "
            "tokenizers.Tokenizer or the JSON document of one."
        ) from error
