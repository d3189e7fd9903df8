"""Optuna searches parameters of a student; the foundation model reads each text once."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier, FoundationFeatureExtractor

optuna = pytest.importorskip("optuna")


def search(pipe, X, y, n_trials=5):
    def log_loss(trial):
        parameters = {
            "transfer": trial.suggest_categorical("transfer", ["pooled-kd", "probe-kd", "aft"]),
            "beta": trial.suggest_float("beta", 0.1, 10, log=True),
            "lr": trial.suggest_float("lr", 1e-3, 3e-2, log=True),
        }
        model = with_parameters(pipe, parameters)
        return -cross_val_score(model, X, y, cv=3, scoring="neg_log_loss").mean()

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(log_loss, n_trials=n_trials)
    return study


def with_parameters(pipe, parameters):
    named = {f"aftclassifier__{name}": value for name, value in parameters.items()}
    return clone(pipe).set_params(**named)


def test_the_best_trial_is_reproduced_by_its_parameters(pipe, questions, test_questions):
    study = search(pipe, *questions)
    values = [trial.value for trial in study.trials]
    assert study.best_value == min(values) < np.median(values)
    best = with_parameters(pipe, study.best_params)
    scores = cross_val_score(best, *questions, cv=3, scoring="neg_log_loss")
    assert study.best_value == pytest.approx(-scores.mean())
    assert best.fit(*questions).score(*test_questions) > 0.9


def test_a_search_runs_the_foundation_model_once_for_each_text(questions, model, texts_read):
    student = AFTClassifier(max_epochs=2, module__start="random", random_state=0)
    search(make_pipeline(FoundationFeatureExtractor(model), student), *questions, n_trials=3)
    assert sorted(texts_read()) == sorted(set(questions[0]["text"]))
