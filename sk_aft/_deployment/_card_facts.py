"""What a model card tells, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TABULAR = {"numeric", "category"}


@dataclass(frozen=True)
class Score:
    """A score on test rows.

    Parameters
    ----------
    metric : str
        Such as "accuracy" or "r2".
    value : float
        The score.
    n_rows : int
        Number of test rows.
    date : str
        When it was measured, "YYYY-MM-DD".
    """

    metric: str
    value: float
    n_rows: int
    date: str


@dataclass(frozen=True)
class CardFacts:
    """What the model card of a student tells.

    Parameters
    ----------
    name : str
        "owner/name" on the hub, or the directory; the code of the card loads it.
    estimator : str
        "AFTClassifier" or "AFTRegressor".
    kind : {"text", "image", "numeric", "category", "frame"}
        Kind of the rows.
    network : str
        Class of the network, such as "StaticText".
    n_weights : int
        Number of weights.
    sizes : mapping of str to int
        Bytes of each file of the folder.
    dtype : str
        How weights are stored: "float32", "float16" or "int8".
    versions : mapping of str to str
        Versions of Python and of the packages that it was trained with.
    classes : sequence, optional
        Labels of a classifier; for several targets, a sequence of them for each.
    n_targets : int, default=1
        Number of targets of a regressor.
    columns : mapping of str to str, default={}
        Names of a frame's columns, and the kind of each.
    n_columns : int, optional
        Number of columns of numbers.
    image_size : tuple of (height, width), optional
        Size to which images are resized.
    teachers : sequence of dict, default=()
        What it learned from; see `sk_aft._deployment._teachers`.
    started_from : dict, optional
        What it started from, in the same form.
    transfer : str, optional
        The transfer method; None without transfer.
    beta : float, default=0.0
        Its strength.
    score : Score, optional
        A score on test rows; None if it was not measured.
    ms_per_row : float, optional
        Milliseconds of a prediction of a single row.
    machine : str, optional
        Where that was measured.
    measured_with : str, optional
        What predicted the test rows: "sk_aft.serving" or "PyTorch".
    column_names : sequence of str, optional
        Names of the columns of a table.
    graph : str, optional
        Number format of the ONNX graph; None if there is none.
    is_served : bool, default=False
        Whether `sk_aft.serving` can predict with the folder.
    """

    name: str
    estimator: str
    kind: str
    network: str
    n_weights: int
    sizes: Mapping[str, int]
    dtype: str
    versions: Mapping[str, str]
    classes: Sequence[Any] | None = None
    n_targets: int = 1
    columns: Mapping[str, str] = field(default_factory=dict)
    n_columns: int | None = None
    image_size: tuple[int, int] | None = None
    teachers: Sequence[Mapping[str, Any]] = ()
    started_from: Mapping[str, Any] | None = None
    transfer: str | None = None
    beta: float = 0.0
    score: Score | None = None
    ms_per_row: float | None = None
    machine: str | None = None
    measured_with: str | None = None
    column_names: Sequence[str] | None = None
    graph: str | None = None
    is_served: bool = False

    @property
    def is_classifier(self) -> bool:
        """Whether it predicts classes."""
        return self.estimator == "AFTClassifier"

    @property
    def kinds(self) -> set[str]:
        """Kinds of the rows, or of a frame's columns."""
        return set(self.columns.values()) or {self.kind}

    @property
    def is_static_text(self) -> bool:
        """Whether it is served with NumPy alone."""
        return self.network == "StaticText" and self.kind == "text"

    @property
    def task(self) -> str | None:
        """The hub's name of the task; None for mixed columns."""
        verb = "classification" if self.is_classifier else "regression"
        if self.kinds <= TABULAR:
            return f"tabular-{verb}"
        is_known = self.is_classifier and self.kind in ("text", "image")
        return f"{self.kind}-{verb}" if is_known else None
