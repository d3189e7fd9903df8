"""The model card of a student: the README.md of its folder, with the hub's metadata."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing

from sk_aft._deployment._card_facts import TABULAR, CardFacts
from sk_aft._optional import import_optional

_MOST_CLASSES = 20
_CELLS_PER_LINE = 4
_SECONDS, _MOST_CALLS = 0.5, 200
_ROWS_OF = {
    "text": "texts",
    "image": "images",
    "numeric": "rows of numbers",
    "category": "rows of categories",
    "frame": "rows of a DataFrame",
}
_CELLS = {"text": '"a text"', "image": '"picture.png"', "numeric": "0.0", "category": '"a"'}
# The package of its weights says so.
_NAMES_ON_HUB = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}


def model_card(facts: CardFacts) -> str:
    """Return the README.md of a student's folder.

    Parameters
    ----------
    facts : CardFacts
        What it tells.

    Returns
    -------
    card : str
        The hub's metadata in YAML, and Markdown.

    Raises
    ------
    ImportError
        If huggingface_hub is not installed.
    """
    sections = [
        f"# {facts.name.rpartition('/')[2]}",
        _what_it_is(facts),
        f"## How to use it\n\n{_how_to_use_it(facts)}",
        f"## Score\n\n{_score(facts)}",
        f"## Size and speed\n\n{_size_and_speed(facts)}",
        f"## What it learned from\n\n{_what_it_learned_from(facts)}",
        f"## When not to use it\n\n{_when_not_to_use_it(facts)}",
    ]
    return f"---\n{_metadata(facts)}\n---\n\n" + "\n\n".join(sections) + "\n"


def measure(predict: Callable[[Any], Any], rows: Any) -> float:
    """Return how long the prediction of a single row takes; measuring takes about half a second.

    Parameters
    ----------
    predict : callable
        Predicts a batch of rows.
    rows : array-like, list, Series or DataFrame of n_rows rows
        Rows that are predicted one by one; at least one.

    Returns
    -------
    milliseconds : float
        Median of repeated calls, after one that does not count.
    """
    n_rows = min(len(rows), _MOST_CALLS)
    singles = [_safe_indexing(rows, [row]) for row in range(n_rows)]
    predict(singles[0])
    durations: list[float] = []
    end = time.perf_counter() + _SECONDS
    while not durations or (len(durations) < _MOST_CALLS and time.perf_counter() < end):
        start = time.perf_counter()
        predict(singles[len(durations) % n_rows])
        durations.append(time.perf_counter() - start)
    return 1000 * float(np.median(durations))


def _metadata(facts: CardFacts) -> str:
    hub = import_optional("huggingface_hub", extra="hub", purpose="model cards")
    start = facts.started_from or {}
    base_model = _NAMES_ON_HUB.get(start.get("name", ""), start.get("name"))
    parameters: dict[str, Any] = {
        "library_name": "sk-aft",
        "pipeline_tag": facts.task,
        "tags": ["sk-aft", "scikit-learn", *(["onnx"] if facts.graph else [])],
        "base_model": base_model if base_model and "/" in base_model else None,
    }
    if facts.score is not None:
        parameters["metrics"] = [facts.score.metric]
        parameters["model_name"] = facts.name.rpartition("/")[2]
        parameters["eval_results"] = [
            hub.EvalResult(
                task_type=facts.task or "other",
                dataset_type="held-out-rows",
                dataset_name=f"{facts.score.n_rows} test rows",
                metric_type=facts.score.metric,
                metric_value=round(float(facts.score.value), 4),
            )
        ]
    return hub.ModelCardData(**parameters).to_yaml().rstrip()


def _what_it_is(facts: CardFacts) -> str:
    rows = _ROWS_OF[facts.kind]
    if facts.is_classifier:
        predicts = f"A classifier of {rows}. {_classes(facts.classes)}"
    else:
        n_targets = "one number" if facts.n_targets == 1 else f"{facts.n_targets} numbers"
        predicts = f"A regressor of {rows}: it predicts {n_targets} for each."
    return (
        f"{predicts}{_columns(facts)}\n\nIt is a small network ({facts.network}, "
        f"{facts.n_weights:,} weights) trained with sk-aft. It predicts without the foundation "
        "models that it learned from."
    )


def _columns(facts: CardFacts) -> str:
    if not facts.column_names:
        return ""
    names = ", ".join(f"`{_plain(name)}`" for name in facts.column_names)
    return f" Its columns are, in this order: {names}."


def _classes(classes: Sequence[Any] | None) -> str:
    if classes is None or len(classes) == 0:
        return "Its classes are in `config.json`."
    if isinstance(classes[0], (list, tuple, np.ndarray)):
        n_classes = ", ".join(str(len(of_target)) for of_target in classes)
        return f"It has {len(classes)} targets, of {n_classes} classes, listed in `config.json`."
    shown = ", ".join(f"`{_plain(label)}`" for label in classes[:_MOST_CLASSES])
    n_others = len(classes) - _MOST_CLASSES
    others = f" and {n_others} more, listed in `config.json`" if n_others > 0 else ""
    return f"It has {len(classes)} classes: {shown}{others}."


def _plain(label: Any) -> str:
    """Return a label as one line of inline code."""
    return " ".join(str(label).replace("`", "'").split())


def _how_to_use_it(facts: CardFacts) -> str:
    rows = _example(facts)
    own = f", trust=[{facts.network!r}]" if ":" in facts.network else ""
    trusted = " Its network is code of its author, which has to be importable." if own else ""
    frame = "import pandas\n\n" if facts.columns else ""
    table = "rows = pandas.DataFrame(rows)\n" if facts.columns else ""
    proba = "student.predict_proba(rows)\n" if facts.is_classifier else ""
    calls = f"student.predict(rows)\n{proba}"
    whole = (
        "With the whole package (`pip install sk-aft`), it is an estimator of scikit-learn."
        f"{trusted}\n\n```python\n{frame}from sk_aft import {facts.estimator}\n\n"
        f"student = {facts.estimator}.from_pretrained({facts.name!r}{own})\n"
        f"rows = {rows}\n{table}{calls}```"
    )
    if not facts.is_served:
        why = (
            "Its preprocessor is not a part of its ONNX graph, so `sk_aft.serving` cannot use it."
            if facts.graph
            else "The folder holds no ONNX graph, which `sk_aft.serving.load` needs for this "
            "network. `save_pretrained(..., onnx=True)` adds it."
        )
        return f"{whole}\n\n{why}"
    packages = ["numpy", "tokenizers"] if "text" in facts.kinds else ["numpy"]
    packages += [] if facts.is_static_text else ["onnxruntime"]
    packages += ["pillow"] if "image" in facts.kinds else []
    return (
        "To predict, neither PyTorch nor scikit-learn is needed:\n\n"
        f"```\npip install {' '.join(packages)}\npip install --no-deps sk-aft\n```\n\n"
        f"```python\nfrom sk_aft.serving import load\n\n"
        f"student = load({facts.name!r})\nrows = {rows}\n{calls}```\n\n{whole}"
    )


def _example(facts: CardFacts) -> str:
    """Return an expression of rows."""
    if facts.columns:
        cells = [f"{name!r}: {_CELLS[kind]}" for name, kind in facts.columns.items()]
        starts = range(0, len(cells), _CELLS_PER_LINE)
        lines = [", ".join(cells[start : start + _CELLS_PER_LINE]) for start in starts]
        return "[{" + ",\n    ".join(lines) + "}]"
    if facts.kind in TABULAR:
        row = ", ".join([_CELLS[facts.kind]] * (facts.n_columns or 1))
        return f"[[{row}]]"
    return f"[{_CELLS[facts.kind]}]"


def _score(facts: CardFacts) -> str:
    score = facts.score
    if score is None:
        return "It was not measured. `save_pretrained(..., X_test=..., y_test=...)` measures it."
    return (
        f"{score.metric}: **{score.value:.4g}** on {score.n_rows:,} test rows, measured on "
        f"{score.date}. Rows of another source may score lower."
    )


def _size_and_speed(facts: CardFacts) -> str:
    total = sum(facts.sizes.values())
    files = "\n".join(f"| {name} | {_bytes(size)} |" for name, size in facts.sizes.items())
    speed = "The time of a prediction was not measured."
    if facts.ms_per_row is not None:
        machine = f" on {facts.machine}" if facts.machine else ""
        tool = f" with {facts.measured_with}" if facts.measured_with else ""
        speed = f"A prediction of a single row takes {facts.ms_per_row:.2g} ms{tool}{machine}."
    graph = f", and as {facts.graph} in the ONNX graph" if facts.graph else ""
    return (
        f"{facts.n_weights:,} weights, stored as {facts.dtype}{graph}. The files are "
        f"{_bytes(total)} in all. {speed}\n\n| file | size |\n|---|---|\n{files}"
    )


def _bytes(size: int) -> str:
    if size < 1_000:
        return f"{size} bytes"
    return f"{size / 1e3:.1f} kB" if size < 1_000_000 else f"{size / 1e6:.1f} MB"


def _what_it_learned_from(facts: CardFacts) -> str:
    if facts.transfer is None or facts.beta == 0 or not facts.teachers:
        learned = "It learned from its labels only, not from a foundation model."
    else:
        learned = (
            "It learned from its labels and from these foundation models or predictions "
            f"(transfer `{facts.transfer}`, beta {facts.beta:g}):\n\n{_models(facts.teachers)}"
        )
    if facts.started_from is not None:
        started = (
            f"Its weights started from this model:\n\n{_models([facts.started_from])}\n\n"
            "They are derived from it: whoever passes them on keeps to its licence, and passes on "
            "its copyright notice if the licence asks for it."
        )
    else:
        started = "Its weights started from random numbers, or from a network of its author."
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    return f"{learned}\n\n{started}\n\nTrained with {versions}."


def _models(models: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [_plain(model["name"] or "features given as an array"), *map(_cell, _details(model))]
        for model in models
    ]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    head = "| model | type | column | revision | fingerprint | licence |\n|---|---|---|---|---|---|"
    return f"{head}\n{lines}"


def _details(model: Mapping[str, Any]) -> list[Any]:
    column = model["column"]
    column = ", ".join(map(str, column)) if isinstance(column, list) else column
    return [
        model["type"],
        column,
        model["revision"],
        model["fingerprint"],
        model["licence"] or "unknown",
    ]


def _cell(value: Any) -> str:
    return "" if value is None else _plain(value).replace("|", "\\|")


def _when_not_to_use_it(facts: CardFacts) -> str:
    points = ["On rows of another kind than those that it was trained on: " + _others(facts)]
    if facts.is_classifier:
        points += [
            "On rows of none of its classes: it always answers with one of them.",
            "Where a probability has to be exact: probabilities are not calibrated, and are least "
            "reliable on rows unlike those of the training.",
        ]
    else:
        points.append("Outside the range of its training targets, which it does not extrapolate.")
    if facts.is_static_text:
        points.append(
            'Where the order of words decides ("man bites dog"): the network adds up the vectors '
            "of words and of frequent pairs of words."
        )
    if facts.image_size is not None:
        height, width = facts.image_size
        points.append(
            f"Where small details decide: images are resized to {height} x {width} pixels."
        )
    points.append(
        "For decisions about people's health, rights or money without your own evaluation on your "
        "own rows."
    )
    return "\n".join(f"- {point}" for point in points)


def _others(facts: CardFacts) -> str:
    known = {
        "text": "other languages, other subjects, much longer texts",
        "image": "other cameras, subjects or backgrounds",
        "numeric": "other units, other ranges of values",
        "category": "categories that are not in the training rows",
    }
    return "; ".join(known[kind] for kind in sorted(facts.kinds)) + "."
