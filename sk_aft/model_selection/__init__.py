"""Choosing: how to split rows some of which have no label, and which models to learn from."""

from sk_aft.model_selection._labeled_fold import LabeledFold
from sk_aft.model_selection._rank_foundation_models import rank_foundation_models

__all__ = ["LabeledFold", "rank_foundation_models"]
