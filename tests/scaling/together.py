"""What two processes do in the tests of fit_together; each writes what it found to a folder."""

import os
import sys
import warnings
from datetime import timedelta
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from sk_aft import AFTClassifier, FoundationFeatureExtractor, fit_together
from sk_aft.modules import ResNet

N_TRAIN = 1200


def digits():
    """Return pixels and labels to train on, and others to predict."""
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32)
    return X[:N_TRAIN], y[:N_TRAIN], X[N_TRAIN:], y[N_TRAIN:]


class NormalisedNet(nn.Module):
    """A network whose statistics and dropout depend on the rows that a process sees."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_inputs, 256), nn.LazyBatchNorm1d(), nn.ReLU(), nn.Dropout(0.5)
        )
        self.head = nn.Linear(256, n_outputs)

    def forward(self, x):
        features = self.layers(x)
        return self.head(features), features


class RecordsStatistics(Callback):
    """Records the statistics with which the held-out rows of an epoch were scored."""

    def on_epoch_end(self, net, **kwargs):
        net.history.record("statistics", net.module_.layers[1].running_mean.tolist())


class ScoreOfProcess(Callback):
    """Records a score that improves in the first process only."""

    def __init__(self, index):
        self.index = index

    def on_epoch_end(self, net, **kwargs):
        net.history.record("own_score", -len(net.history) if self.index else len(net.history))


class DrawsNumber(Callback):
    """Draws a random number as dropout does."""

    def on_train_begin(self, net, **kwargs):
        self.number = torch.rand(()).item()


class ProcessFails(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise OSError("the disk is full")


class FailsAt(Callback):
    """Raises an error at an event: of batches, at one of them, counted over all epochs."""

    def __init__(self, event, error, *, n_before=0, training=True):
        self.event = event
        self.error = error
        self.n_before = n_before
        self.training = training

    def initialize(self):
        self.n_seen_ = 0
        return self

    def _look(self, event, training=True):
        if event != self.event or training != self.training:
            return
        self.n_seen_ += 1
        if self.n_seen_ > self.n_before:
            raise self.error

    def on_train_begin(self, net, **kwargs):
        self._look("on_train_begin")

    def on_batch_begin(self, net, training, **kwargs):
        self._look("on_batch_begin", training)

    def on_grad_computed(self, net, training, **kwargs):
        self._look("on_grad_computed", training)

    def on_batch_end(self, net, training, **kwargs):
        self._look("on_batch_end", training)

    def on_epoch_begin(self, net, **kwargs):
        self._look("on_epoch_begin")

    def on_train_end(self, net, **kwargs):
        self._look("on_train_end")


class FailingNet(nn.Module):
    """A linear network that fails in one of the processes."""

    fails_to = ""  # what it cannot do in this process

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        if self.fails_to == "build":
            raise MemoryError("no memory to build")
        self.layer = nn.Linear(n_inputs, n_outputs)

    def forward(self, x):
        if self.fails_to == "train" and torch.is_grad_enabled():
            raise MemoryError("no memory to train")
        return self.layer(x)


class ProcessDies(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            os._exit(3)


def outcome(student, X):
    """Return what has to be the same in all processes."""
    transfer = student.transfer_.state_dict() if hasattr(student, "transfer_") else {}
    return {
        "weights": {name: t.numpy() for name, t in student.module_.state_dict().items()},
        "transfer": {name: t.numpy() for name, t in transfer.items()},
        "predictions": student.predict_proba(X),
        "n_iter": student.n_iter_,
        "losses": student.loss_curve_,
        "valid_scores": student.validation_scores_,
        "n_batches": [epoch["train_batch_count"] for epoch in student.history],
        "batch_size": student.history[0, "batches", 0, "train_batch_size"],
    }


def early_stopping(accelerator):
    X, y, X_test, _ = digits()
    y = np.where(np.arange(len(y)) % 4 == 0, (y + 3) % 10, y)  # noise, so that scores get worse
    student = AFTClassifier(
        NormalisedNet,
        beta=0,
        lr=0.01,
        max_epochs=60,
        early_stopping=True,
        n_iter_no_change=3,
        callbacks=[RecordsStatistics()],
    )
    found = outcome(student.fit(X, y), X_test)
    return {**found, "statistics": student.history[:, "statistics"]}


def own_score(accelerator):
    X, y, X_test, _ = digits()
    index = accelerator.process_index
    stops = EarlyStopping(monitor="own_score", lower_is_better=False, patience=2)
    callbacks = [ScoreOfProcess(index), stops]
    return outcome(AFTClassifier(beta=0, max_epochs=30, callbacks=callbacks).fit(X, y), X_test)


def whole_batches(**parameters):
    """Return a student that takes plain steps, each on all rows."""
    preset = {"optimizer": torch.optim.SGD, "lr": 0.1, "lr_schedule": "constant"}
    return AFTClassifier(**{**preset, "max_epochs": 20, "random_state": 0, **parameters})


def plain_steps():
    X, y, X_test, _ = digits()
    weights = np.linspace(0.1, 3, len(y))
    student = whole_batches(beta=0, batch_size=len(y))
    return outcome(student.fit(X, y, sample_weight=weights), X_test)


def plain_steps_with_unlabeled_rows():
    X, y, X_test, _ = digits()
    soft_targets = np.full((len(y), 10), 0.02)
    soft_targets[np.arange(len(y)), (y + 1) % 10] = 0.82
    y = np.where(np.arange(len(y)) < 400, y, -1)
    student = whole_batches(
        transfer="probe-kd", batch_size=len(y), unlabeled_fraction=2 / 3, missing_label=-1
    )
    return outcome(student.fit(X, y, soft_targets=soft_targets), X_test)


def small_batches():
    X, y, X_test, _ = digits()
    student = AFTClassifier(
        module__hidden_sizes=(512, 512), beta=0, batch_size=64, max_epochs=15, random_state=0
    )
    return outcome(student.fit(X, y), X_test)


def lbfgs():
    X, y, X_test, _ = digits()
    student = AFTClassifier(
        partial(nn.Linear, 64, 10),
        beta=0,
        optimizer=torch.optim.LBFGS,
        optimizer__line_search_fn="strong_wolfe",
        lr=1.0,
        lr_schedule="constant",
        max_epochs=2,
        batch_size=len(y),
        random_state=0,
    )
    return outcome(student.fit(X, y), X_test)


def half_precision():
    X, y, X_test, _ = digits()
    student = AFTClassifier(
        beta=0, precision="16-mixed", max_epochs=4, batch_size=256, random_state=0
    )
    return outcome(student.fit(X, y), X_test)


def transfer(folder):
    """Train on labelled and unlabelled rows with a transfer that has parameters of its own."""
    X, y, X_test, y_test = digits()
    y = np.where(np.arange(len(y)) < 300, y, -1)
    results = {}
    for method in ("aft", "pooled-kd"):
        pipeline = make_pipeline(
            FoundationFeatureExtractor(PCA(16, random_state=0).fit(X), cache=folder / "features"),
            AFTClassifier(
                transfer=method,
                missing_label=-1,
                unlabeled_fraction=0.75,
                max_epochs=10,
                random_state=0,
            ),
        ).fit(X, y)
        results[method] = outcome(pipeline[-1], X_test)
        results[method]["accuracy"] = pipeline.score(X_test, y_test)
    return results


def resumed(accelerator):
    X, y, X_test, _ = digits()
    student = AFTClassifier(beta=0, max_epochs=3, warm_start=True, random_state=0)
    student.fit(X, y).fit(X, y)
    incremental = AFTClassifier(beta=0, random_state=0)
    for piece in np.array_split(np.arange(len(y)), 3):
        incremental.partial_fit(X[piece], y[piece], classes=range(10))
    return {"warm": outcome(student, X_test), "incremental": outcome(incremental, X_test)}


def search(accelerator):
    X, y, X_test, _ = digits()
    student = AFTClassifier(beta=0, max_epochs=3, random_state=0)
    found = GridSearchCV(student, {"lr": [1e-5, 1e-2]}, cv=2).fit(X[:400], y[:400])
    return {"lr": found.best_params_["lr"], "best": outcome(found.best_estimator_, X_test)}


def random_numbers(accelerator):
    X, y, *_ = digits()
    draws = DrawsNumber()
    AFTClassifier(beta=0, max_epochs=1, callbacks=[draws], random_state=0).fit(X, y)
    return draws.number


def saved(accelerator):
    X, y, X_test, _ = digits()
    student = AFTClassifier(beta=0, max_epochs=3, random_state=0).fit(X, y)
    if accelerator.is_main_process:
        joblib.dump(student, FOLDER / "student.joblib")
        student.save_pretrained(FOLDER / "student")
    return outcome(student, X_test)


def differences(accelerator):
    """Return the messages that each process gets if processes differ."""
    X, y, _, _ = digits()
    index = accelerator.process_index
    fits = {
        "y": lambda: student.fit(X, y[::-1] if index else y),
        "X": lambda: student.fit(X[::-1] if index else X, y),
        "number of rows": lambda: student.fit(X[index:], y[index:]),
        "lr": lambda: student.set_params(lr=0.01 + index).fit(X, y),
        "random_state": lambda: student.set_params(random_state=index).fit(X, y),
        "batch_size": lambda: student.set_params(batch_size=65).fit(X, y),
        "few rows": lambda: student.fit(X[:3], y[:3]),
        "device": lambda: student.set_params(device="meta").fit(X, y),
        "one that fails": lambda: student.fit(X, np.full(len(y), None) if index else y),
        "a callback that fails": lambda: student.set_params(
            callbacks=[ProcessFails()] if index else None
        ).fit(X, y),
    }
    messages = {}
    for name, fit in fits.items():
        student = AFTClassifier(beta=0, max_epochs=1, random_state=0)
        try:
            fit()
        except (ValueError, RuntimeError, OSError) as error:
            messages[name] = str(error)
    return messages


def failures(accelerator):
    """Return the errors of each process if process 1 fails, then what a training ends with."""
    X, y, X_test, _ = digits()
    X, y = X[:400], y[:400]
    index = accelerator.process_index
    is_one = index == 1
    n_batches = 4
    folder = FOLDER / f"images of {index}"
    folder.mkdir()
    pictures = [Image.fromarray((row.reshape(8, 8) * 15).astype(np.uint8)) for row in X[:64]]
    paths = [str(folder / f"{number}.png") for number in range(len(pictures))]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    if is_one:
        Path(paths[0]).unlink()
    lbfgs = {"optimizer": torch.optim.LBFGS, "lr_schedule": "constant", "lr": 1.0}
    fits = {
        name: (FailsAt(event, OSError(name), **options), parameters)
        for name, event, options, parameters in (
            ("first batch", "on_batch_begin", {}, {}),
            ("a later batch", "on_batch_end", {"n_before": n_batches + 1}, {}),
            ("last batch of an epoch", "on_batch_end", {"n_before": n_batches - 1}, {}),
            ("gradients", "on_grad_computed", {"n_before": 1}, {}),
            ("gradients of LBFGS", "on_grad_computed", {"n_before": 1}, lbfgs),
            ("held-out batch", "on_batch_end", {"training": False}, {"early_stopping": True}),
            ("begin", "on_train_begin", {}, {}),
            ("epoch", "on_epoch_begin", {"n_before": 1}, {}),
            ("end", "on_train_end", {}, {}),
        )
    }
    fits["interruption"] = (FailsAt("on_batch_end", KeyboardInterrupt(), n_before=2), {})
    found = {}

    def note(name, fit):
        try:
            fit()
        except BaseException as error:
            found[name] = f"{type(error).__name__}: {error}"

    def student(**parameters):
        preset = {"beta": 0, "max_epochs": 3, "batch_size": 100, "random_state": 0}
        return AFTClassifier(**{**preset, **parameters})

    for name, (callback, parameters) in fits.items():
        callbacks = [callback] if is_one else None
        note(name, lambda given={**parameters, "callbacks": callbacks}: student(**given).fit(X, y))
    for what in ("build", "train"):
        FailingNet.fails_to = what if is_one else ""
        note(what, lambda: student(module=FailingNet).fit(X, y))
    note("image", lambda: student(module=ResNet).fit(paths, y[:64]))
    note("device", lambda: student(device="nonsense" if is_one else "auto").fit(X, y))
    note("parameter", lambda: student(batch_size=-100 if is_one else 100).fit(X, y))
    scores = GridSearchCV(
        student(callbacks=[("fails", FailsAt("on_batch_end", OSError("row"), n_before=1))]),
        {"callbacks__fails__event": ["on_batch_end" if is_one else "never", "never"]},
        cv=2,
        refit=False,
    )
    scores = scores.fit(X, y).cv_results_["mean_test_score"]
    return {"errors": found, "scores": scores, "end": outcome(student().fit(X, y), X_test)}


def dies(accelerator):
    X, y, _, _ = digits()
    callbacks = [ProcessDies()] if accelerator.process_index else None
    AFTClassifier(beta=0, max_epochs=50, callbacks=callbacks).fit(X, y)


def alone(scenario):
    return lambda accelerator: scenario()


SCENARIOS = {
    "early_stopping": early_stopping,
    "own_score": own_score,
    "plain_steps": alone(plain_steps),
    "plain_steps_with_unlabeled_rows": alone(plain_steps_with_unlabeled_rows),
    "small_batches": alone(small_batches),
    "lbfgs": alone(lbfgs),
    "half_precision": alone(half_precision),
    "transfer": lambda accelerator: transfer(FOLDER),
    "resumed": resumed,
    "search": search,
    "random_numbers": random_numbers,
    "saved": saved,
    "differences": differences,
    "failures": failures,
    "dies": dies,
}

if __name__ == "__main__":
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    warnings.simplefilter("ignore")
    FOLDER, *names = Path(sys.argv[1]), *sys.argv[2:]
    torch.set_num_threads(1)
    timeout = InitProcessGroupKwargs(timeout=timedelta(seconds=60))
    accelerator = Accelerator(cpu=True, kwargs_handlers=[timeout])
    for name in names:
        with fit_together(accelerator):
            result = SCENARIOS[name](accelerator)
        joblib.dump(result, FOLDER / f"{name}-{accelerator.process_index}.joblib")
    accelerator.end_training()
