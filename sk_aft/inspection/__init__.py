"""Displays of what a student learned, and of what it costs."""

from sk_aft.inspection._deferral import DeferralDisplay

__all__ = ["DeferralDisplay"]
