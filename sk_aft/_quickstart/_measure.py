"""The measurements: choose hyper-parameters, refit, score, count parameters and time."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.utils import _safe_indexing
from threadpoolctl import threadpool_limits
from torch import nn
from tqdm.auto import tqdm

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft._quickstart._draw import Draw, draw
from sk_aft._quickstart._pseudo_labels import PseudoLabels
from sk_aft._quickstart._tasks import UNKNOWN, Method, Task
from sk_aft._runtime._device import resolve_device
from sk_aft.backbones._base import LoadedOnDemand
from sk_aft.backbones._network import Network
from sk_aft.model_selection import LabeledFold

VALIDATION_FRACTION = 0.25
_TIMED_ROWS = 50
_TIMED_ROUNDS = 5


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Parameters
    ----------
    method : Method
        What was measured.
    chosen : dict of str to float
        The best hyper-parameters on the validation rows.
    accuracies : tuple of float
        Accuracy on the test rows, one for each seed.
    n_parameters : int
        Number of learned numbers that prediction needs.
    milliseconds : float
        Time from one raw row to its label.
    """

    method: Method
    chosen: dict[str, float]
    accuracies: tuple[float, ...]
    n_parameters: int
    milliseconds: float

    @property
    def accuracy(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.accuracies))

    @property
    def standard_error(self) -> float:
        """Standard error of the mean over the seeds; NaN for a single one."""
        return standard_error(self.accuracies)


def standard_error(values: Any) -> float:
    """Return the standard error of a mean, NaN for a single value."""
    n = len(values)
    return float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")


def compare(task: Task, n_seeds: int) -> list[Result]:
    """Measure every method of a task.

    Each seed is another draw of training rows and another initialisation. Hyper-parameters are
    chosen on a validation part of the first draw; test rows are used only for the scores.

    Parameters
    ----------
    task : Task
        What to compare.
    n_seeds : int
        How many draws.

    Returns
    -------
    results : list of Result
        In the order of the task's methods.
    """
    rows, names = task.load(return_X_y=True)
    X_test, names_test = task.load(subset="test", return_X_y=True)
    classes, labels = np.unique(names, return_inverse=True)
    y_test = np.searchsorted(classes, names_test)
    draws = [draw(labels, task, seed) for seed in range(n_seeds)]
    # All rows at once, before anything else, so that there is one progress bar.
    drawn = np.unique(np.concatenate([one.rows for one in draws]))
    every_row = [*(rows[row] for row in drawn), *X_test]
    FoundationFeatureExtractor(task.model, verbose=1).fit_transform(every_row)

    fitted: dict[str, list[Pipeline]] = {}
    chosen: dict[str, dict[str, float]] = {}
    methods = task.methods(0)
    with tqdm(total=len(methods) * n_seeds, desc="training", unit="model") as progress:
        for seed, one in enumerate(draws):
            for method in task.methods(seed):
                X, y = training_rows(method, rows, one)
                if seed == 0:
                    search = choose(method, X, y)
                    chosen[method.role] = search.best_params_
                    fitted[method.role] = [search.best_estimator_]
                else:
                    pipeline = clone(method.pipeline).set_params(**chosen[method.role])
                    fitted[method.role].append(pipeline.fit(X, y))
                progress.update()

    served = [deployed(fitted[method.role][0]) for method in methods]
    milliseconds = milliseconds_per_row(served, X_test[:_TIMED_ROWS])
    return [
        Result(
            method,
            chosen[method.role],
            tuple(pipeline.score(X_test, y_test) for pipeline in fitted[method.role]),
            count_parameters(model),
            duration,
        )
        for method, model, duration in zip(methods, served, milliseconds, strict=True)
    ]


def training_rows(method: Method, rows: Any, one: Draw) -> tuple[Any, np.ndarray]:
    """Return the rows of a draw that a method is given, and their labels."""
    kept = slice(None) if method.reads_unlabeled else one.labels != UNKNOWN
    return _safe_indexing(rows, one.rows[kept]), one.labels[kept]


def choose(method: Method, X: Any, y: np.ndarray) -> GridSearchCV:
    """Choose from a method's grid on held-out rows, the same for all; refit on all rows."""
    split = StratifiedShuffleSplit(1, test_size=VALIDATION_FRACTION, random_state=0)
    cv = LabeledFold(split, missing_label=UNKNOWN)
    return GridSearchCV(method.pipeline, method.grid, cv=cv).fit(X, y)


def deployed(pipeline: Pipeline) -> Any:
    """Return the part of a pipeline that a server would run.

    A student is complete by itself, and so is a model of pseudo-labels. Anything else needs the
    whole pipeline, including the foundation model, without a store, because new rows are not in
    one.
    """
    if isinstance(pipeline[-1], AFTClassifier):
        return pipeline[-1]
    if isinstance(pipeline[-1], PseudoLabels):
        return pipeline[-1].model_
    steps = [
        copy.copy(step).set_params(cache=None)
        if isinstance(step, FoundationFeatureExtractor)
        else step
        for _, step in pipeline.steps
    ]
    return make_pipeline(*steps)


def count_parameters(model: Any) -> int:
    """Return how many learned numbers a fitted model needs to predict."""
    if isinstance(model, Pipeline):
        return sum(count_parameters(step) for _, step in model.steps)
    if isinstance(model, FeatureUnion):
        return sum(count_parameters(step) for _, step in model.transformer_list)
    if isinstance(model, FoundationFeatureExtractor):
        device = resolve_device(model.device)
        loaded = [b.loaded(device) for b in model.backbones_ if isinstance(b, LoadedOnDemand)]
        return sum(_n_weights(_network(model)) for model in loaded)
    if isinstance(model, AFTClassifier):
        return _n_weights(model.module_)
    learned = ("coef_", "intercept_", "idf_", "mean_", "scale_", "support_vectors_", "dual_coef_")
    return sum(getattr(model, name).size for name in learned if hasattr(model, name))


def _network(loaded: Any) -> nn.Module:
    """Return the network that a backbone has loaded, possibly together with a tokenizer."""
    parts = loaded if isinstance(loaded, tuple) else (loaded,)
    networks = [part.module if isinstance(part, Network) else part for part in parts]
    return next(network for network in networks if isinstance(network, nn.Module))


def _n_weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def milliseconds_per_row(models: Sequence[Any], rows: Any) -> list[float]:
    """Return the time per prediction of each model, one raw row at a time, as on a server.

    This is the median over the rows of the best of several rounds. The models take turns in each
    round, so that other load on the machine affects all of them equally.
    """
    seconds = np.empty((_TIMED_ROUNDS, len(models), len(rows)))
    for model in models:
        model.predict(rows[:1])  # some parts are loaded at the first use
    # One row is too little work for several threads: they would mostly wait for each other.
    with threadpool_limits(1):
        for turn, model, row in np.ndindex(seconds.shape):
            start = time.perf_counter()
            models[model].predict(rows[row : row + 1])
            seconds[turn, model, row] = time.perf_counter() - start
    return (1000 * np.median(seconds.min(axis=0), axis=1)).tolist()
