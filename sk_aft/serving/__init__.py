"""Deployed students: loads a saved folder and predicts, without PyTorch and scikit-learn."""

from sk_aft.serving._load import load
from sk_aft.serving._student import ServedClassifier, ServedRegressor

__all__ = ["ServedClassifier", "ServedRegressor", "load"]
