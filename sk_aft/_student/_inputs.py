"""From rows to inputs of the network: the fitted preprocessor, and batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import Pipeline

from sk_aft._data._batches import RowBatches
from sk_aft._data._counted_notes import CountedNotes
from sk_aft._data._feature_rows import RowSubset
from sk_aft._data._rows import Rows, filled_by, rows_for
from sk_aft._data._tensors import (
    InputsOnDemand,
    InputTensors,
    SequenceTensors,
    are_between_0_and_1,
    to_tensors,
)
from sk_aft._data._texts import warn_caller
from sk_aft._student._schema import RowSchema
from sk_aft._student._training_data import TrainingData
from sk_aft.preprocessing import (
    ColumnPreprocessor,
    SubwordTokenizer,
    make_preprocessor,
)
from sk_aft.preprocessing._auto import transform_checked

_ROWS_TRIED = 256
_NEED_A_PREPROCESSOR = {
    "text": "texts",
    "category": "categories",
    "frame": "columns of several kinds",
}


@dataclass(frozen=True, eq=False)
class StudentInputs:
    """The fitted preprocessor of a student, for training and prediction.

    Parameters
    ----------
    preprocessor : estimator or None
        Fitted to the training rows.
    schema : RowSchema
        Kind and columns of the rows.
    is_automatic : bool
        Whether the preprocessor was chosen by ``preprocessor="auto"``.
    keeps_integers : bool
        Whether integers stay integers, because the user's own network may look up tokens.
    dtype : str, dict or None
        Dtype of dense numbers in training, which prediction has to match.
    sizes : dict
        Sizes of the inputs, by the names of the network's arguments.
    are_pictures : bool
        Whether they are grey or RGB images between 0 and 1.
    """

    preprocessor: Any
    schema: RowSchema
    is_automatic: bool
    keeps_integers: bool
    dtype: Any = None
    sizes: dict[str, Any] = field(default_factory=dict)
    are_pictures: bool = False

    @classmethod
    def fit(
        cls,
        rows: Rows,
        schema: RowSchema,
        *,
        preprocessor: Any,
        default: Callable[..., Any] | None = None,
        parameters: dict[str, Any],
        keeps_integers: bool,
    ) -> StudentInputs:
        """Fit the preprocessor; see `make_preprocessor` for ``default``."""
        unfitted = make_preprocessor(preprocessor, schema.kind, default, **parameters)
        inputs = cls(unfitted, schema, isinstance(preprocessor, str), keeps_integers)
        if unfitted is not None:
            with filled_by(rows):
                unfitted.fit(inputs._given(rows))
        return inputs

    def with_sizes(self, tensors: InputTensors) -> StudentInputs:
        """Return these inputs with the sizes and the dtype of the training rows."""
        sizes = with_vocabulary(tensors.sizes, self.preprocessor)
        are_pictures = (
            self.schema.kind == "image"
            and sizes.get("n_channels") in (1, 3)
            and are_between_0_and_1(tensors)
        )
        return replace(self, dtype=tensors.dtype, sizes=sizes, are_pictures=are_pictures)

    @property
    def allows_nan(self) -> bool:
        """Whether rows may hold NaN, because the user's own preprocessor may fill it in."""
        return not (self.is_automatic or self.preprocessor is None)

    def warn_of_other_images(self) -> None:
        """Warn if the automatic network of grey or RGB images is not a pretrained one."""
        is_image = self.schema.kind == "image" and self.sizes.get("n_channels") in (1, 3)
        if is_image and not self.are_pictures:
            warnings.warn(
                "These images are numbers of another scale than 0 to 1 or 0 to 255, so "
                "module='auto' is a ResNet that starts from random weights. For a pretrained "
                "network, scale them to 0 to 1. module=ResNet avoids this warning.",
                stacklevel=5,
            )

    def transform(self, rows: Rows) -> InputTensors:
        """Return rows as the numbers that the network reads; of a file, a piece at a time."""
        if rows.is_lazy:
            return self._transform_in_pieces(rows)
        values: Any = rows.values
        if self.preprocessor is not None:
            if self.schema.kind == "numeric" and self.is_automatic:
                values = transform_checked(self.preprocessor, values)
            else:
                with filled_by(rows):
                    values = self.preprocessor.transform(self._given(rows))
        elif self.schema.kind in _NEED_A_PREPROCESSOR:
            what = _NEED_A_PREPROCESSOR[self.schema.kind]
            raise ValueError(
                f"preprocessor=None, but {what} need one that turns them into numbers."
            )
        elif (
            self.dtype
            and np.ndim(values) == 4
            and (values.dtype == np.uint8) != (self.dtype == "uint8")
        ):
            raise ValueError(
                f"preprocessor=None leaves images unchanged: they are {values.dtype}, but those "
                f"seen during fit were {self.dtype}. uint8 images are divided by 255, others are "
                "not: use the same dtype as in fit."
            )
        tensors = to_tensors(values, integers=self.keeps_integers, dtype=self.dtype)
        if len(tensors) != len(rows):
            raise ValueError(
                f"The preprocessor returned {len(tensors)} rows for {len(rows)}: it has to return "
                "one row for each."
            )
        return tensors

    def _transform_in_pieces(self, rows: Rows) -> InputTensors:
        """Return tokens, which are small, of all rows; other inputs are made for each batch."""
        of_first, of_all = CountedNotes(), CountedNotes()
        with of_first.collecting():
            first = self.transform(rows.take(slice(0, _ROWS_TRIED)).loaded())
        if not isinstance(first, SequenceTensors):
            _warn_of(of_first)

            def transform(indices: np.ndarray) -> InputTensors:
                return self.transform(rows.take(indices).loaded())

            return InputsOnDemand(transform, rows, first)
        pieces = []
        for piece in rows.pieces():
            with of_all.collecting():
                pieces.append(self.transform(piece))
        _warn_of(of_all)
        return SequenceTensors.joined([p for p in pieces if isinstance(p, SequenceTensors)])

    def _given(self, rows: Rows) -> Any:
        """Return the input of the preprocessor; a frame if the rows were one."""
        if self.schema.kind == "frame" or self.is_automatic:
            return rows_for(self.preprocessor, rows)
        return named_values(rows, self.schema)


def _warn_of(notes: CountedNotes) -> None:
    for message in notes.messages():
        warn_caller(message)


def last_step(preprocessor: Any) -> Any:
    """Return what makes the network's inputs: the last step of a pipeline."""
    return preprocessor[-1] if isinstance(preprocessor, Pipeline) else preprocessor


def subword_tokenizer(preprocessor: Any) -> SubwordTokenizer | None:
    """Return the tokenizer that a preprocessor is, or ends with; None if there is none."""
    last = last_step(preprocessor)
    return last if isinstance(last, SubwordTokenizer) else None


def column_steps(preprocessor: Any) -> dict[str, tuple[Any, Any]]:
    """Return the preprocessor of each part, and the column that it reads."""
    if not isinstance(preprocessor, ColumnPreprocessor):
        return {}
    return {name: (step, columns[0]) for name, step, columns in preprocessor.transformers_}


def with_vocabulary(sizes: dict[str, Any], preprocessor: Any) -> dict[str, Any]:
    """Return sizes with that of the vocabulary, some of whose tokens the rows may lack."""
    if tokenizer := subword_tokenizer(preprocessor):
        return {**sizes, "n_tokens": tokenizer.n_tokens_}
    if steps := column_steps(preprocessor):
        named = sizes["parts"].items()
        return {**sizes, "parts": {n: with_vocabulary(part, steps[n][0]) for n, part in named}}
    return sizes


def named_values(rows: Rows, schema: RowSchema) -> Any:
    """Return plain rows: a DataFrame if they were one and pandas is installed."""
    names = schema.feature_names_in
    if schema.kind != "numeric" or names is None or find_spec("pandas") is None:
        return rows.values
    import pandas

    return pandas.DataFrame(rows.values, columns=names)


def make_batches(
    data: TrainingData,
    tensors: InputTensors,
    indices: np.ndarray,
    *,
    batch_size: int,
    device: torch.device,
    unlabeled_fraction: float = 0.5,
    shuffle: np.random.RandomState | None = None,
    part: int = 0,
    n_parts: int = 1,
) -> RowBatches:
    """Return batches of some rows, with their targets and weights."""
    features = soft_targets = None
    if shuffle is not None and data.features is not None:
        features = RowSubset(data.features, indices)
    if shuffle is not None and data.soft_targets is not None:
        soft_targets = data.soft_targets[indices]
    weights = None if data.weights is None else torch.from_numpy(data.weights[indices]).float()
    return RowBatches(
        tensors,
        torch.from_numpy(data.targets[indices]),
        features=features,
        weights=weights,
        batch_size=batch_size,
        device=device,
        soft_targets=soft_targets,
        shuffle=shuffle,
        labeled_mask=data.labeled_mask[indices],
        unlabeled_fraction=unlabeled_fraction,
        part=part,
        n_parts=n_parts,
    )
