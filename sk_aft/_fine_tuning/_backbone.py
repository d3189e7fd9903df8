"""A foundation model that is fine-tuned when its features are first needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xxhash
from safetensors.torch import load_file, save_file
from torch import Tensor

from sk_aft._data._rows import Rows
from sk_aft._extraction._source import FeatureSource
from sk_aft._fine_tuning._training import (
    TuningSettings,
    fine_tune,
    fit_to,
    set_weights,
    trained_weights,
)
from sk_aft.backbones._base import Backbone
from sk_aft.backbones._tunable import TunableModel
from sk_aft.exceptions import DivergenceError
from sk_aft.store import model_digest, row_digests
from sk_aft.store._model_files import ModelFiles

# Changes when the same settings give another model.
_VERSION = 2


@dataclass(frozen=True, eq=False)
class LabeledRows:
    """Rows with labels, in an order that depends on their content alone.

    Parameters
    ----------
    rows : Rows
        Rows as the model reads them.
    labels : ndarray of shape (n_rows,), int64
        Class numbers.
    n_classes : int
        Number of classes.
    digests : ndarray of shape (n_rows,), bytes
        Digest of each row's content.
    """

    rows: Rows
    labels: np.ndarray
    n_classes: int
    digests: np.ndarray

    @classmethod
    def of(cls, rows: Rows, labels: np.ndarray, n_classes: int) -> LabeledRows:
        """Return the rows sorted by content, so that the same rows teach the same."""
        digests = np.array([digest.hex() for digest in row_digests(rows)])
        order = np.lexsort((labels, digests))
        return cls(rows.take(order), labels[order], n_classes, digests[order])

    def subset(self, indices: np.ndarray) -> LabeledRows:
        """Return some of the rows."""
        indices = np.sort(indices)
        return replace(
            self,
            rows=self.rows.take(indices),
            labels=self.labels[indices],
            digests=self.digests[indices],
        )

    @cached_property
    def digest(self) -> str:
        """A digest of all rows and labels."""
        digest = xxhash.xxh3_128("".join(self.digests).encode())
        digest.update(np.append(self.labels, self.n_classes).astype("<i8").tobytes())
        return digest.hexdigest()


class FineTunedBackbone(Backbone):
    """A foundation model that learns a task when the features of a row are first needed.

    If all features that are asked for are in the store, it is neither loaded nor trained. Its
    weights are kept beside its features, without those that did not change.

    Parameters
    ----------
    base : Backbone
        The model before it is fine-tuned.
    labeled : LabeledRows
        What it learns from.
    settings : TuningSettings
        How it learns.
    source : FeatureSource
        Names the store where weights and unfinished trainings are kept, if there is one.
    fold : str, default=""
        Which fold this is, for names and messages; empty of the model of all rows.
    verbose : int, default=0
        1 shows a progress bar.
    """

    def __init__(
        self,
        base: Backbone,
        labeled: LabeledRows,
        settings: TuningSettings,
        source: FeatureSource,
        *,
        fold: str = "",
        verbose: int = 0,
    ) -> None:
        self.base = base
        self.settings = settings
        self.name = f"{base.name}-tuned{fold}"
        self.kind = base.kind
        self.batch_size = base.batch_size
        self._labeled: LabeledRows | None = labeled
        self._rows_digest = labeled.digest
        self._store = source.store(self)
        self._verbose = verbose
        self._weights: dict[str, Tensor] | None = None
        self._running: tuple[torch.device, Backbone] | None = None

    def fingerprint(self) -> dict[str, Any]:
        """Return the model's fingerprint, the digest of rows and labels, and the settings."""
        return {
            "type": "fine-tuned",
            "version": _VERSION,
            "model": dict(self.base.fingerprint()),
            "rows": self._rows_digest,
            **self.settings._asdict(),
        }

    @property
    def is_persistent(self) -> bool:
        """Whether the fingerprint identifies the model in other processes and later runs."""
        return self.base.is_persistent and self.settings.is_reproducible

    @property
    def original(self) -> Backbone:
        """The model before it was fine-tuned."""
        return self.base

    def check_rows(self, rows: Rows, names: Any) -> None:
        """Raise if the model cannot read such rows."""
        self.base.check_rows(rows, names)

    @property
    def n_features_out(self) -> int | None:
        """Width of the features, None if it is unknown."""
        return self.base.n_features_out

    @torch.inference_mode(False)
    def prepare(self, device: torch.device) -> None:
        """Load the fine-tuned model; fine-tune it if nobody has done so."""
        if self._running is not None and self._running[0] == device:
            return
        running = self.base.tunable_copy()
        running.prepare(device)
        model = running.tunable(device)
        values = self._weights
        if values is None:
            with self._files() as files:
                values = _read(files)
                # Another version of transformers may have other names for them.
                if values is None or (self._labeled is not None and not fit_to(model, values)):
                    values = self._train(model, device, files)
        if not fit_to(model, values):
            raise RuntimeError(
                f"The tuned weights of model {self.name!r} do not fit the network that is loaded "
                "now. Use the versions of transformers and sentence-transformers with which it "
                "was tuned, or fit again."
            )
        set_weights(trained_weights(model), values)
        self._weights = values
        self._running = device, running

    def embed(self, rows: Rows, *, batch_size: int, device: torch.device) -> np.ndarray:
        """Return the features of some rows."""
        self.prepare(device)
        assert self._running is not None
        return self._running[1].embed(rows, batch_size=batch_size, device=device)

    def note(self, rows: Rows) -> str | None:
        """Return what a user should know of rows that the model has run."""
        return None if self._running is None else self._running[1].note(rows)

    def unload(self) -> None:
        """Free the model's memory; its weights are kept if no store has them."""
        self._running = None
        # A copy from a pickle keeps them in any case, because it cannot train again.
        if self._labeled is not None and self._is_stored():
            self._weights = None

    def forget(self) -> None:
        """Free the model's memory and remove its weights; its features stay in the store."""
        self._running = self._weights = None
        if self._store is not None and not self._store.read_only:
            with self._files() as files:
                assert files is not None
                files.weights.unlink(missing_ok=True)

    def _is_stored(self) -> bool:
        if self._store is None or not self._store.path.exists():
            return False
        model = model_digest(self.fingerprint(), self._store.dtype)
        return self._store.files(model).weights.exists()

    @contextmanager
    def _files(self) -> Iterator[ModelFiles | None]:
        """Yield where the weights are kept, None if nowhere; no other process trains meanwhile."""
        if self._store is None:
            yield None
            return
        model = self._store.register_model(self.fingerprint(), name=self.name)
        files = self._store.files(model)
        with files.lock:
            yield files

    def _train(
        self, model: TunableModel, device: torch.device, files: ModelFiles | None
    ) -> dict[str, Tensor]:
        if self._labeled is None:
            raise RuntimeError(
                f"The weights of model {self.name!r} are neither in this pickle nor in "
                f"{self._store}."
            )
        try:
            fine_tune(
                model,
                self._labeled.rows,
                self._labeled.labels,
                self._labeled.n_classes,
                self.settings,
                name=self.name,
                device=device,
                verbose=self._verbose,
                checkpoint=None if files is None else files.checkpoint,
            )
        except DivergenceError:
            if files is not None:
                files.checkpoint.unlink(missing_ok=True)
            raise
        weights = {
            name: weight.detach().cpu().clone().contiguous()
            for name, weight in trained_weights(model).items()
        }
        if files is not None:
            # The user may have removed the model from the store meanwhile.
            files.weights.parent.mkdir(parents=True, exist_ok=True)
            written = files.weights.with_suffix(".tmp")
            save_file(weights, written)
            written.replace(files.weights)
            files.checkpoint.unlink(missing_ok=True)
        return weights

    def __getstate__(self) -> dict[str, Any]:
        state = {**vars(self), "_running": None}
        if state["_weights"] is None and self._store is not None and self._store.path.exists():
            with self._files() as files:
                state["_weights"] = _read(files)
        if state["_weights"] is not None:
            state["_labeled"] = None  # the training rows are not needed any more
        return state


def _read(files: ModelFiles | None) -> dict[str, Tensor] | None:
    """Return the weights in the store; None if there are none, or the file is damaged."""
    if files is None or not files.weights.exists():
        return None
    try:
        return load_file(files.weights)
    except Exception:  # safetensors raises several types
        if not files.read_only:
            files.weights.unlink(missing_ok=True)
        return None
