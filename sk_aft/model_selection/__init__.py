"""What to choose: the foundation models to learn from."""

from sk_aft.model_selection._rank_foundation_models import rank_foundation_models

__all__ = ["rank_foundation_models"]
