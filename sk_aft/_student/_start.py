"""Where a text student's embeddings start: from a foundation model, or from random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from sk_aft._data._rows import as_rows
from sk_aft._data._tensors import InputTensors, PartTensors, SequenceTensors
from sk_aft._extraction._reader import Reader
from sk_aft._extraction._source import FeatureSource
from sk_aft._student._inputs import column_steps, subword_tokenizer
from sk_aft.backbones import Backbone, resolve_backbone
from sk_aft.modules._mixed_net import MixedNet
from sk_aft.modules._static_start import set_embeddings, set_vocabulary
from sk_aft.modules._static_text import StaticText
from sk_aft.preprocessing import SubwordTokenizer

AUTO, RANDOM = "auto", "random"


class TextPart(NamedTuple):
    """A network of static embeddings, and the texts that it reads.

    Parameters
    ----------
    network : StaticText
        The network.
    tokenizer : SubwordTokenizer or None
        The tokenizer of its texts; None if the user's own preprocessor made the tokens.
    sequences : list of ndarray
        The tokens of the rows that the preprocessor was fitted to.
    column : object
        The column of the texts; None if rows are texts.
    """

    network: StaticText
    tokenizer: SubwordTokenizer | None
    sequences: list[np.ndarray]
    column: Any


def resolve_start(start: Any) -> Any:
    """Return "auto", "random" or a backbone that reads texts, for ``module__start``.

    Parameters
    ----------
    start : "auto", "random", str or model
        As for `StaticText`.

    Returns
    -------
    start : "auto", "random" or Backbone
        A backbone is not loaded yet.

    Raises
    ------
    ValueError
        If a name is unknown, or the model does not read texts.
    """
    if isinstance(start, str) and start in (AUTO, RANDOM):
        return start
    try:
        backbone = resolve_backbone(start)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"module__start={start!r} is unknown: expected 'auto', 'random' or a model of texts, "
            f"such as 'minilm'. {error}"
        ) from error
    if backbone.kind not in ("text", None):
        raise ValueError(
            f"module__start={start!r} reads rows of kind {backbone.kind!r}: give a model of texts, "
            "such as 'minilm', or 'random'."
        )
    return backbone


def start_from_foundation_model(
    module: nn.Module,
    *,
    preprocessor: Any,
    vocabulary: Callable[[], Sequence[InputTensors]],
    source: FeatureSource | None,
    verbose: int,
) -> list[Backbone]:
    """Give networks of static embeddings their vocabulary, and the vectors that they start from.

    Other networks, and those whose embeddings were set before, are left as they are.

    Parameters
    ----------
    module : nn.Module
        The network, changed in place.
    preprocessor : estimator or None
        Fitted to the rows.
    vocabulary : callable
        Returns the rows that it was fitted to, in pieces.
    source : FeatureSource or None
        What made the foundation features of the rows, whose store keeps the vectors.
    verbose : int
        Whether to print a line if the start is random although it may be another.

    Returns
    -------
    models : list of Backbone
        The models that the vectors are from.

    Raises
    ------
    ValueError
        If a network names a foundation model, but its tokens stand for unknown texts.
    """
    if not any(isinstance(layer, StaticText) and layer.start for layer in module.modules()):
        return []
    models = []
    is_random = False
    for part in _text_parts(module, preprocessor, vocabulary()):
        start, bag = resolve_start(part.network.start), part.network.bag
        tokenizer = None if part.tokenizer is None else part.tokenizer.tokenizer_
        set_vocabulary(bag, part.sequences, tokenizer)
        backbone = _backbone_of(start, source, part.column)
        if backbone is not None and tokenizer is not None:
            set_embeddings(bag, tokenizer, partial(_embed, backbone, source, verbose))
            models.append(backbone)
        elif start not in (AUTO, RANDOM):
            raise ValueError(
                f"module__start={part.network.start!r} needs the texts of the tokens, and the "
                "preprocessor does not know them: use a SubwordTokenizer, or 'random'."
            )
        else:
            is_random |= start == AUTO
        part.network.start = None
    if verbose and is_random:
        print(
            "The student starts from random embeddings: no text model came before it in the "
            "pipeline. module__start='minilm' names one."
        )
    return models


def _text_parts(
    module: nn.Module, preprocessor: Any, vocabulary: Sequence[Any]
) -> Iterator[TextPart]:
    kinds = {type(tensors) for tensors in vocabulary}
    if isinstance(module, StaticText) and module.start is not None and kinds == {SequenceTensors}:
        sequences = [tokens for tensors in vocabulary for tokens in tensors.sequences]
        yield TextPart(module, subword_tokenizer(preprocessor), sequences, None)
    if isinstance(module, MixedNet) and kinds == {PartTensors}:
        known = column_steps(preprocessor)
        for name, branch in zip(module.names, module.branches, strict=True):
            step, column = known.get(name, (None, None))
            for part in _text_parts(branch, step, [rows.parts[name] for rows in vocabulary]):
                yield part._replace(column=column)


def _backbone_of(start: Any, source: FeatureSource | None, column: Any) -> Backbone | None:
    """Return the model to start from: for a column, the one that reads it rather than another."""
    if start == RANDOM:
        return None
    if start != AUTO:
        return start
    readers = [] if source is None else [r for r in source.readers if r.backbone.kind == "text"]
    readers.sort(key=lambda reader: reader.column != column)
    # Vectors of single tokens are those of the original: a tuned model was trained on whole texts.
    return readers[0].backbone.original if readers else None


def _embed(
    backbone: Backbone, source: FeatureSource | None, verbose: int, texts: list[str]
) -> np.ndarray:
    """Return the features of texts; those in the store are not computed again."""
    if source is None:
        source = FeatureSource([], "auto", "auto", "auto", verbose)
    reading = source._replace(readers=[Reader(backbone, kind="text")], on_error="raise")
    (stored,) = reading.compute(as_rows(np.array(texts, dtype=object), kind="text"))
    return stored.take(np.arange(len(texts)))
