"""Measures of how well features predict targets, and how similar two sets of features are."""

from sk_aft.metrics._cka import cka
from sk_aft.metrics._logme import logme_score

__all__ = ["cka", "logme_score"]
