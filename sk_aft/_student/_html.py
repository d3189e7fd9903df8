"""What the diagram of a fitted student says: what it is, and what it learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sk_aft._student._state import StudentState
from sk_aft.transfer._pooled_distillation import pool_of

_MOST_NAMES = 6
# What skorch keeps on a net, but that tells nothing about a student.
_OF_SKORCH = (
    "callbacks_",
    "cuda_dependent_attributes_",
    "history_",
    "init_context_",
    "initialized_",
    "prefixes_",
)
# A caption is one line in scikit-learn's style.
_STYLE = "<style>label.sk-toggleable__label .caption {white-space: pre-line}</style>"


class RowCounts(NamedTuple):
    """The rows of a training.

    Parameters
    ----------
    n_labeled, n_unlabeled : int
        Number of rows with and without a label.
    is_first : bool
        Whether the student was trained only once.
    """

    n_labeled: int
    n_unlabeled: int
    is_first: bool


def two_lines(student: StudentState, rows: RowCounts | None) -> tuple[str, str]:
    """Say what a fitted student is, and what it learned from.

    Parameters
    ----------
    student : StudentState
        The student.
    rows : RowCounts or None
        What it was trained on; None if that is not known, because the student was loaded.

    Returns
    -------
    lines : tuple of two str
        Plain text; names in it are the user's, so HTML has to escape them.
    """
    n_weights = sum(weights.numel() for weights in student.module.parameters())
    network = f"{type(student.module).__name__}, {_count(n_weights)} weights"
    trained = "" if rows is None else f", {_trained_on(rows)}"
    return f"{network}{trained}.", f"{_start(student)} {_teaching(student)}."


def visual_block(estimator: Any, lines: Sequence[str]) -> Any:
    """Return the estimator's box in scikit-learn's diagrams, with lines below its name.

    Parameters
    ----------
    estimator : estimator
        What the box stands for.
    lines : sequence of str
        The lines, not escaped: scikit-learn does so.

    Returns
    -------
    block : _VisualBlock
        A single box.
    """
    try:
        from sklearn.utils._repr_html.estimator import _VisualBlock
    except ImportError:  # scikit-learn 1.6
        from sklearn.utils._estimator_html_repr import _VisualBlock
    return _VisualBlock(
        "single",
        estimator,
        names=type(estimator).__name__,
        name_details=str(estimator),
        name_caption="\n".join(lines),
    )


def without_internals(attributes: Any) -> Any:
    """Leave skorch's attributes out of scikit-learn's table of fitted attributes.

    Parameters
    ----------
    attributes : AttrsDict
        The table, as scikit-learn 1.9 or later makes it.

    Returns
    -------
    attributes : AttrsDict
        The same object, whose HTML also breaks the lines of captions.
    """
    for name in _OF_SKORCH:
        attributes.pop(name, None)
    table = attributes._html_repr
    attributes._html_repr = lambda: _STYLE + table()
    return attributes


def _count(number: int) -> str:
    return f"{number / 1e6:,.1f} million" if number >= 1_000_000 else f"{number:,}"


def _trained_on(rows: RowCounts) -> str:
    trained = "trained on" if rows.is_first else "last trained on"
    if not rows.n_unlabeled:
        return f"{trained} {rows.n_labeled:,} labelled row{'s' * (rows.n_labeled != 1)}"
    return f"{trained} {rows.n_labeled:,} labelled and {rows.n_unlabeled:,} unlabelled rows"


def _start(student: StudentState) -> str:
    if student.started_from is None:
        return "Learned from"
    return f"Started from {_name(student.started_from)}, and learned from"


def _teaching(student: StudentState) -> str:
    """Return what follows "Learned from"."""
    names = _listed([_name(teacher) for teacher in student.teachers])
    if student.beta == 0 or student.transfer_method is None:
        if names:
            return f"the labels and, before the last training, from {names}"
        return "the labels alone" + ", without foundation features" * student.lacks_features
    method = f"{_method(student.transfer_method)} (beta {student.beta:g})"
    pool = pool_of(student.transfer)
    if pool is None or not pool.teacher_weights:
        return f"the labels and, by {method}, from {names or 'foundation features'}"
    ranked = sorted(pool.teacher_weights.items(), key=lambda item: -item[1])
    if pool._strength == 0:
        useless = _listed([_one_line(name) for name, _ in ranked])
        return f"the labels alone: {method} found no use in {useless}"
    weights = _listed([f"{_one_line(name)} {weight:.2f}" for name, weight in ranked])
    return f"the labels and, by {method}, from {weights}"


def _method(method: Any) -> str:
    if isinstance(method, list):
        return " + ".join(_method(part) for part, _ in method)
    return method if isinstance(method, str) else type(method).__name__


def _name(model: Mapping[str, Any]) -> str:
    """Return the name of a teacher, given its description; see `_deployment._teachers`."""
    name = model["name"] or "features given as an array"
    if model["type"] == "TeacherPredictions":
        name = f"predictions of {name}"
    column = model["column"]
    column = ", ".join(map(str, column)) if isinstance(column, list) else column
    return _one_line(name if column is None else f"{name} of column {column}")


def _one_line(name: Any) -> str:
    return " ".join(str(name).split())


def _listed(names: list[str]) -> str:
    if len(names) > _MOST_NAMES:
        names = [*names[: _MOST_NAMES - 1], f"{len(names) - _MOST_NAMES + 1} more"]
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else "".join(names)
