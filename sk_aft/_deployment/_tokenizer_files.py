"""Names of the tokenizer files of a deployed student."""

from __future__ import annotations

from typing import Any

from sk_aft.preprocessing import ColumnPreprocessor, SubwordTokenizer


def tokenizer_files(preprocessor: Any) -> dict[str, SubwordTokenizer]:
    """Return the tokenizers of a preprocessor by the names of their files.

    Parameters
    ----------
    preprocessor : estimator or None
        A student's fitted preprocessor.

    Returns
    -------
    tokenizers : dict of str to SubwordTokenizer
        "tokenizer.json", and of the further columns of a frame "tokenizer_2.json" and so on, in
        the order of ``ColumnPreprocessor.transformers_``. Empty if there are none, or if a
        tokenizer is not the only step that reads the texts.
    """
    steps = [preprocessor]
    if isinstance(preprocessor, ColumnPreprocessor):
        steps = [step for _, step, _ in preprocessor.transformers_]
    found = [step for step in steps if isinstance(step, SubwordTokenizer)]
    return {_file_name(number): tokenizer for number, tokenizer in enumerate(found, start=1)}


def _file_name(number: int) -> str:
    return "tokenizer.json" if number == 1 else f"tokenizer_{number}.json"
