"""Random rows of the kind that a student reads: no training row is kept to compare with."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import OneToOneFeatureMixin
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from sk_aft._data._rows import Rows
from sk_aft._student._inputs import last_step
from sk_aft._student._state import StudentState
from sk_aft.preprocessing import ColumnPreprocessor, ImageResizer, SubwordTokenizer

_N_ROWS = 32
_MOST_TOKENS = 24
_WORDS = [
    "where",
    "when",
    "how",
    "why",
    "my",
    "a",
    "the",
    "card",
    "rate",
    "of",
    "is",
    "not",
    "good",
    "bad",
    "money",
    "home",
]


def example_rows(student: StudentState) -> Rows:
    """Return 32 random rows.

    Parameters
    ----------
    student : StudentState
        A fitted student.

    Returns
    -------
    rows : Rows
        Texts of random tokens, images of random pixels, numbers about as large as those of the
        training rows as far as the preprocessor knows them, and random categories.

    Raises
    ------
    ValueError
        If the preprocessor cannot read them.
    """
    random = np.random.default_rng(0)
    preprocessor, schema = student.inputs.preprocessor, student.schema
    if isinstance(preprocessor, ColumnPreprocessor):
        rows = _frame(preprocessor, random)
    else:
        rows = _rows(schema.kind, preprocessor, random, n_columns=schema.n_features_in)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            student.inputs.transform(rows)
    except ValueError as error:
        raise ValueError(
            "The preprocessor cannot read the random rows by which the export is checked: pass "
            f"X_test=, 32 of whose rows check it instead. ({error})"
        ) from error
    return rows


def _frame(preprocessor: ColumnPreprocessor, random: np.random.Generator) -> Rows:
    columns: dict[Any, Rows] = {}
    for _, step, names in preprocessor.transformers_:
        kind = preprocessor.kinds_[names[0]]
        part = _rows(kind, step, random, n_columns=len(names))
        if kind not in ("numeric", "category"):
            columns[names[0]] = part
            continue
        for place, name in enumerate(names):
            columns[name] = Rows(kind, part.values[:, [place]])
        columns[names] = part
    # The columns are recognised, so the frame itself is only asked for its length.
    return Rows("frame", np.arange(_N_ROWS), _columns=columns)


def _rows(kind: str, step: Any, random: np.random.Generator, *, n_columns: int | None) -> Rows:
    values = {
        "text": _texts,
        "image": _images,
        "numeric": _numbers,
        "category": _categories,
    }[kind](step, random, n_columns or 1)
    return Rows(kind, values)


def _texts(step: Any, random: np.random.Generator, n_columns: int) -> np.ndarray:
    step = last_step(step)
    texts: np.ndarray = np.empty(_N_ROWS, dtype=object)
    for row in range(_N_ROWS):
        n_tokens = random.integers(1, _MOST_TOKENS)
        if isinstance(step, SubwordTokenizer):
            text = step.tokenizer_.decode(random.integers(step.n_tokens_, size=n_tokens).tolist())
        else:
            text = " ".join(random.choice(_WORDS, size=n_tokens))
        texts[row] = text
    return texts


def _images(step: Any, random: np.random.Generator, n_columns: int) -> np.ndarray:
    if not isinstance(step, ImageResizer):
        return random.integers(256, size=(_N_ROWS, 32, 32, 3), dtype=np.uint8)
    shape = (_N_ROWS, *step.size_, step.n_channels_)
    is_8_bit = step.float_range_ is None and step.whole_range_ != "16 bits"
    if is_8_bit:
        return random.integers(256, size=shape, dtype=np.uint8)
    return random.random(shape, dtype=np.float32)


def _numbers(step: Any, random: np.random.Generator, n_columns: int) -> np.ndarray:
    """Return what the scalers that read the columns would make numbers of about 1 of."""
    scalers = []
    for scaler in [one for _, one in step.steps] if isinstance(step, Pipeline) else [step]:
        if isinstance(scaler, SimpleImputer) or scaler in (None, "passthrough"):
            continue
        keeps_columns = isinstance(scaler, OneToOneFeatureMixin)
        if not keeps_columns or getattr(scaler, "n_features_in_", None) != n_columns:
            break
        scalers.append(scaler)
    if not scalers:
        return random.normal(size=(_N_ROWS, n_columns))
    numbers = random.uniform(-1, 1, size=(_N_ROWS, n_columns))
    for scaler in reversed(scalers):
        if hasattr(scaler, "inverse_transform"):
            numbers = scaler.inverse_transform(numbers)
    return numbers


def _categories(step: Any, random: np.random.Generator, n_columns: int) -> np.ndarray:
    known = step.categories_ if isinstance(step, OneHotEncoder) else [["a"]] * n_columns
    return np.stack(
        [random.choice(np.array(list(names), dtype=object), size=_N_ROWS) for names in known],
        axis=1,
    )
