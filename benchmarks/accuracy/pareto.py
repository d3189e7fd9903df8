"""The cost of deploying the models of the suite "pareto": time of a prediction, and size.

    python -m benchmarks.accuracy.pareto --data DIR

Fits each model once with its chosen setting (students for one epoch only, because the number of
epochs does not change the cost of a prediction), removes the foundation models' store, and
predicts test rows on one thread, one at a time and 256 at a time; models of a data set take turns.
Do not run anything else meanwhile. Data sets that were already measured are skipped: delete
pareto.json in the results to start again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from sklearn.pipeline import FeatureUnion, Pipeline
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from benchmarks.accuracy._data import Task, draw, load, take
from benchmarks.accuracy._runs import RESULTS
from benchmarks.accuracy._suites import SUITES
from benchmarks.accuracy._teachers import n_weights
from benchmarks.accuracy.report._scores import Scores, scores
from sk_aft import FoundationFeatureExtractor

COSTS = RESULTS / "pareto.json"
BATCHES = (1, 256)
_N_ROWS, _N_ROUNDS = 40, 5


def main() -> None:
    """Measure what has a score and keep it."""
    parser = argparse.ArgumentParser("python -m benchmarks.accuracy.pareto", description=__doc__)
    parser.add_argument("--data", help="directory of the data sets")
    directory = parser.parse_args().data
    found = scores(SUITES["pareto"]())
    costs = json.loads(COSTS.read_text()) if COSTS.exists() else []
    measured = [cost["experiment"] for cost in costs]
    by_task: dict[tuple[str, str], list[Scores]] = {}
    for one in found:
        by_task.setdefault((one.experiment.data, one.experiment.labels), []).append(one)
    for (data, _), of_task in tqdm(by_task.items(), desc="data sets"):
        here = [asdict(one.experiment.as_deployed) for one in of_task]
        if all(experiment in measured for experiment in here):
            continue
        costs = [cost for cost in costs if cost["experiment"] not in here]
        task = load(data, directory)
        models = [_fitted(one, task) for one in of_task]
        of_batches = {batch: milliseconds(models, task.test_rows, batch) for batch in BATCHES}
        for place, (one, model) in enumerate(zip(of_task, models, strict=True)):
            is_student = bool(one.experiment.student)
            of_teacher = 0 if is_student else n_weights(one.experiment.teacher)
            costs.append(
                {
                    "experiment": asdict(one.experiment.as_deployed),
                    "parameters": count_parameters(model) + of_teacher,
                    "milliseconds": {str(batch): of_batches[batch][place] for batch in BATCHES},
                }
            )
        COSTS.write_text(json.dumps(costs, indent=1) + "\n")


def _fitted(one: Scores, task: Task) -> Any:
    """Return what a server would run, fitted on the rows of the first test score."""
    experiment = replace(one.experiment, steps=1)
    labeled = draw(task, experiment.labels, 0)
    model = experiment.fit(task, labeled, one.lines[0]["setting"], 0, "auto")
    if not isinstance(model, Pipeline):
        return model
    if one.experiment.student:
        return model[-1]
    for step in model:
        if isinstance(step, FoundationFeatureExtractor):
            step.set_params(cache=None)  # new rows are in no store
    return model


def count_parameters(model: Any) -> int:
    """Return how many learned numbers a prediction needs, besides those of a foundation model."""
    if isinstance(model, Pipeline):
        return sum(count_parameters(step) for step in model)
    if isinstance(model, FeatureUnion):
        return sum(count_parameters(step) for _, step in model.transformer_list)
    if hasattr(model, "module_"):
        return sum(weights.numel() for weights in model.module_.parameters())
    learned = ("coef_", "intercept_", "idf_", "mean_", "scale_", "support_vectors_", "dual_coef_")
    return sum(getattr(model, name).size for name in learned if hasattr(model, name))


def milliseconds(models: Sequence[Any], rows: Any, batch: int) -> list[float]:
    """Return the time of each model for one row, in batches of a size, or of all rows.

    The median over batches of the best of some rounds.
    """
    batch = min(batch, len(rows))
    batches = [
        take(rows, np.arange(start, start + batch))
        for start in range(0, min(len(rows) - batch + 1, _N_ROWS * batch), batch)
    ]
    if batch > 1:
        batches = batches[:2]
    seconds = np.empty((_N_ROUNDS, len(models), len(batches)))
    for model in models:
        model.predict(batches[0])  # loads what is loaded on first use
    with threadpool_limits(1):
        for turn, model, some in np.ndindex(seconds.shape):
            start = time.perf_counter()
            models[model].predict(batches[some])
            seconds[turn, model, some] = time.perf_counter() - start
    return (1000 * np.median(seconds.min(axis=0), axis=1) / batch).tolist()


if __name__ == "__main__":
    main()
