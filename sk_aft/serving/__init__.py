"""Predicts with a deployed student, without PyTorch and scikit-learn."""
