"""Splitting, comparing and choosing."""

from sk_aft.model_selection._labeled_fold import LabeledFold

__all__ = ["LabeledFold"]
