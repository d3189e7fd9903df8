"""Splitting, comparing and choosing."""

from sk_aft.model_selection._compare_transfer import compare_transfer
from sk_aft.model_selection._comparison._result import TransferComparison
from sk_aft.model_selection._labeled_fold import LabeledFold
from sk_aft.model_selection._rank_foundation_models import rank_foundation_models

__all__ = ["LabeledFold", "TransferComparison", "compare_transfer", "rank_foundation_models"]
