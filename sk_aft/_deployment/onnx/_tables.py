"""Preprocessors of numbers and categories as operations of ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    RobustScaler,
    StandardScaler,
)

from sk_aft._deployment.onnx._builder import ML, GraphBuilder
from sk_aft.serving._graph_inputs import category_name


def scales_numbers(preprocessor: Any) -> bool:
    """Return whether `scaled_numbers` knows a fitted preprocessor of numbers."""
    return all(map(_is_known, _steps(preprocessor)))


def fills_numbers(preprocessor: Any) -> bool:
    """Return whether numbers may be NaN."""
    return any(type(step) is SimpleImputer for step in _steps(preprocessor))


def scaled_numbers(graph: GraphBuilder, preprocessor: Any, numbers: str) -> str:
    """Append what a preprocessor of numbers does, from float64 (B, n) to float32 (B, n)."""
    for step in _steps(preprocessor):
        numbers = _applied(graph, step, numbers)
    return graph("Cast", numbers, to=TensorProto.FLOAT)


def encodes_categories(preprocessor: Any) -> bool:
    """Return whether `encoded_categories` knows a fitted preprocessor of categories."""
    return (
        type(preprocessor) is OneHotEncoder
        and preprocessor.handle_unknown == "ignore"
        and preprocessor.drop is None
        and not preprocessor.sparse_output
        and preprocessor.min_frequency is None
        and preprocessor.max_categories is None
    )


def encoded_categories(graph: GraphBuilder, encoder: OneHotEncoder, columns: list[str]) -> str:
    """Append what a `OneHotEncoder` does, from strings (B,) by column to float32 (B, n)."""
    encoded = [
        graph(
            "OneHotEncoder",
            column,
            domain=ML,
            cats_strings=[category_name(category) for category in categories],
            zeros=1,  # of unknown categories
        )
        for column, categories in zip(columns, encoder.categories_, strict=True)
    ]
    return graph("Concat", *encoded, axis=1)


def _steps(preprocessor: Any) -> list[Any]:
    if type(preprocessor) is not Pipeline:
        return [preprocessor]
    return [step for _, step in preprocessor.steps if step not in (None, "passthrough")]


def _is_known(step: Any) -> bool:
    if type(step) is SimpleImputer:
        is_plain = isinstance(step.missing_values, float) and not step.add_indicator
        return is_plain and not np.isnan(step.statistics_.astype(float)).any()
    return type(step) in (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler)


def _applied(graph: GraphBuilder, step: Any, numbers: str) -> str:
    if type(step) is SimpleImputer:
        fill = step.statistics_.astype(np.float64)
        return graph("Where", graph("IsNaN", numbers), fill, numbers)
    if type(step) is MinMaxScaler:
        numbers = graph("Add", graph("Mul", numbers, step.scale_), step.min_)
        low, high = np.array(step.feature_range, dtype=np.float64)
        return graph("Clip", numbers, low, high) if step.clip else numbers
    centre = {StandardScaler: "mean_", RobustScaler: "center_"}.get(type(step))
    is_centred = getattr(step, "with_mean", True) and getattr(step, "with_centering", True)
    if centre is not None and is_centred:
        numbers = graph("Sub", numbers, getattr(step, centre))
    return numbers if step.scale_ is None else graph("Div", numbers, step.scale_)
