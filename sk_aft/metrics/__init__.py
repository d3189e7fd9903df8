"""Measures of features: what they say about targets, and about each other."""

from sk_aft.metrics._cka import cka
from sk_aft.metrics._logme import logme_score

__all__ = ["cka", "logme_score"]
